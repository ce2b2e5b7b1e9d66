"""What runs beside flows in their process: observers of events, and the services that plug-ins bring.

Each plug-in gets threads of its own, so that none waits for another one, and flows wait for none. When the process lets
go of the log, what is committed by then is handed over, within a time that is the same whatever plug-ins do.
"""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from flightlog.errors import LogError
from flightlog.events.store import Committed
from flightlog.plugins.hooks import DURABLE, OBSERVERS, SERVICES
from flightlog.plugins.host import Host
from flightlog.plugins.isolation import Isolated
from flightlog.plugins.observers import Feed, Follower, Tail
from flightlog.plugins.offers import Service, Surroundings
from flightlog.plugins.plugin import Plugin
from flightlog.plugins.record import Record

EXIT_SECONDS: Final = 5.0
"""How long the end of a process waits for all that runs beside its flows."""
_BEGIN_SECONDS: Final = 2.0
"""How long the first flow run waits at the most for services that come with Flightlog to begin."""


class Ending(threading.Event):
    """Is set when all is to end.

    Attributes:
        until: when it has to have ended, on the monotonic clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.until = float("inf")

    def begin(self) -> None:
        """Have all end, within `EXIT_SECONDS`."""
        self.until = time.monotonic() + EXIT_SECONDS
        self.set()

    def left(self) -> float:
        """Return how many seconds are left."""
        return max(0.0, self.until - time.monotonic())


class _Worker(Protocol):
    """Does something for a plug-in until it is told to end, and then what is left."""

    plugin: Plugin

    def run(self, ending: Ending) -> None: ...


class Companions:
    """What runs beside the flows of a process.

    Args:
        host: the plug-ins.
        surroundings: what services work with; the log that observers are told of.
    """

    def __init__(self, host: Host, surroundings: Surroundings) -> None:
        self.host = host
        self._surroundings = surroundings
        self._record = Record(surroundings)
        self._start_fresh()
        _ALL.add(self)

    def _start_fresh(self) -> None:
        self._lock = threading.Lock()
        self._started = False
        self._ending = Ending()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin, unless that is done: called with each outermost flow run. Nothing of a plug-in is called here."""
        if not self._started:
            with self._lock:
                if not self._started:
                    self._begin()
                    self._started = True

    def _begin(self) -> None:
        for problem in self.host.problems:
            self._record.put(problem)
        self.host.on_problem = self._record.put
        attendants = self._attendants()
        if workers := [*self._tails(), *self._followers(), *attendants]:
            for worker in workers:
                self._run(worker)
            for attendant in attendants:
                if attendant.plugin.manifest.is_own:  # rules that a file has just got are to see the first run
                    attendant.begun.wait(_BEGIN_SECONDS)
            # After the log's own, so it is called before that: what is handed over is still to be read.
            atexit.register(self.stop)

    def _tails(self) -> list[_Worker]:
        log = self._surroundings.log
        fed = [(plugin, Feed()) for plugin in self.host.usable(*OBSERVERS)]
        log.store.tap = _tee([feed for _, feed in fed])
        return [Tail(self.host, plugin, log, feed) for plugin, feed in fed]

    def _followers(self) -> list[_Worker]:
        """Return what hands over the whole log; it has to know where that ends before there is a run."""
        log, followers = self._surroundings.log, self.host.usable(DURABLE)
        after = log.head().position if followers else 0
        return [Follower(self.host, plugin, log, after) for plugin in followers]

    def _attendants(self) -> "list[Attendant]":
        return [Attendant(self.host, plugin, self._surroundings) for plugin in self.host.usable(SERVICES)]

    def _run(self, worker: _Worker) -> None:
        name = f"flightlog-{type(worker).__name__.lower()}-{worker.plugin.name}"
        thread = threading.Thread(target=self._work, args=(worker, self._ending), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self, worker: _Worker, ending: Ending) -> None:
        try:
            worker.run(ending)
        except Exception as error:  # noqa: BLE001 - nobody could catch it: the thread has nothing above it
            self.host.complain(worker.plugin, "", f"{type(error).__name__}: {error}")

    def stop(self) -> None:
        """Let everything end, after what is committed by now was handed over; within `EXIT_SECONDS`."""
        atexit.unregister(self.stop)
        with self._lock:
            if not self._started:
                return
            with suppress(LogError):
                self._surroundings.log.flush()
            self._surroundings.log.store.tap = None
            ending, threads = self._ending, self._threads
            ending.begin()
            for thread in threads:
                thread.join(ending.left())
            self.host.on_problem = None
            self._ending, self._threads, self._started = Ending(), [], False

    def _after_fork(self) -> None:
        """In a forked child: it has none of our threads, and its next outermost flow run begins anew."""
        atexit.unregister(self.stop)
        self._surroundings.log.store.tap = None
        self.host.on_problem = None
        self._start_fresh()


def _tee(feeds: Sequence[Feed]) -> Callable[[Committed], object] | None:
    """Return what gives each feed what is committed; None if there are none."""
    if len(feeds) <= 1:
        return feeds[0].put if feeds else None

    def tap(committed: Committed) -> None:
        for feed in feeds:
            feed.put(committed)

    return tap


class Attendant:
    """Has the services of a plug-in begin and end.

    Args:
        host: calls the plug-in.
        plugin: the plug-in.
        surroundings: what its services work with.

    Attributes:
        begun: set once its services have begun.
    """

    def __init__(self, host: Host, plugin: Plugin, surroundings: Surroundings) -> None:
        self.plugin = plugin
        self.begun = threading.Event()
        self._host = host
        self._surroundings = surroundings

    def run(self, ending: Ending) -> None:
        """Begin the services, wait until all is to end, and end them."""
        makers = (self._host.asked(self.plugin, SERVICES) or {}).values()
        begun = [self._host.do(self.plugin, SERVICES, self._begun, {"make": make}).value for make in makers]
        self.begun.set()
        ending.wait()
        for service in begun:
            if service is not None:
                self._end(service, ending.left())

    def _end(self, service: Service, left: float) -> None:
        """End a service. Not in the plug-in's own thread: what the service still does may need that."""
        thread = Isolated(f"{self.plugin.name}-end")
        self._host.do(self.plugin, SERVICES, service.stop, {"seconds": left}, left, thread)
        thread.close()

    def _begun(self, make: Callable[[], Service]) -> Service:
        service = make()
        service.start(self._surroundings)
        return service


_ALL: "weakref.WeakSet[Companions]" = weakref.WeakSet()


def _after_fork() -> None:
    for companions in list(_ALL):
        companions._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
