"""What runs beside flows in their process: observers of events, and the services that plug-ins bring.

Each plug-in gets threads of its own, so that none waits for another one, and flows wait for none. When the process lets
go of the log, what is committed by then is handed over, within a time that is the same whatever plug-ins do.
"""

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from flightlog.errors import LogError
from flightlog.events.log import Log
from flightlog.events.model import Append, Event, NewEvent
from flightlog.events.store import Committed
from flightlog.events.subscriptions import Subscription
from flightlog.events.types import PLUGIN_FAILED, PLUGIN_SKIPPED, PLUGIN_SWITCHED_OFF, plugin_stream
from flightlog.plugins.event_types import learn_event_types
from flightlog.plugins.hooks import OBSERVERS
from flightlog.plugins.host import Host, Plugin, Problem
from flightlog.plugins.offers import Service, Surroundings
from flightlog.plugins.states import States

EXIT_SECONDS: Final = 5.0
"""How long the end of a process waits for all that runs beside its flows."""
DURABLE: Final = "on_log_events"
_BATCH: Final = 500
_LOOK_SECONDS: Final = 0.1
"""Between two looks at the log: to look more often would cost flows more, for the sake of smaller batches."""
_QUIET_MICROSECONDS: Final = 60_000_000
_LONGEST_FEED: Final = 100_000
_TYPES: Final = {"skipped": PLUGIN_SKIPPED, "failed": PLUGIN_FAILED, "switched_off": PLUGIN_SWITCHED_OFF}
_ABOUT_PLUGINS: Final = frozenset(_TYPES.values())


class _Thread(Protocol):
    """A thread that hands events over until it is told to stop, and then what is left."""

    def run(self, stop: threading.Event) -> None: ...


class Companions:
    """What runs beside the flows of a process.

    Args:
        host: the plug-ins.
        surroundings: what services work with; the log that observers are told of.
    """

    def __init__(self, host: Host, surroundings: Surroundings) -> None:
        self.host = host
        self._surroundings = surroundings
        self._lock = threading.Lock()
        self._started_in: int | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._services: list[Service] = []
        self._record = Record(surroundings)

    def start(self) -> None:
        """Begin, unless that is done: called with each outermost flow run."""
        if self._started_in == os.getpid():
            return
        with self._lock:
            if self._started_in != os.getpid():  # a forked child has none of our threads
                self._begin()
                self._started_in = os.getpid()

    def _begin(self) -> None:
        log, host = self._surroundings.log, self.host
        self._stop, self._threads, self._services = threading.Event(), [], []
        for problem in host.problems:
            self._record.put(problem)
        host.on_problem = self._record.put
        learn_event_types(host)
        observers, followers = host.usable(*OBSERVERS), host.usable(DURABLE)
        tails = [Tail(host, plugin, log) for plugin in observers]
        for tail in tails:
            self._run(tail.plugin, tail)
        log.store.tap = _tee([tail.feed for tail in tails]) if tails else None
        after = log.head().position if followers else 0
        for plugin in followers:
            self._run(plugin, Follower(host, plugin, log, after))
        for _, offers in host.all("register_services"):
            for make in offers.values():
                self._serve(make)
        if self._threads or self._services:
            # After the log's own, so it is called before that: what is handed over is still to be read.
            atexit.register(self.stop)

    def _run(self, plugin: Plugin, worker: _Thread) -> None:
        name = f"flightlog-observer-{plugin.name}"
        thread = threading.Thread(target=worker.run, args=(self._stop,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve(self, make: Callable[[], Service]) -> None:
        service = make()
        service.start(self._surroundings)
        self._services.append(service)

    def stop(self) -> None:
        """Let everything end, after what is committed by now was handed over; within `EXIT_SECONDS`."""
        atexit.unregister(self.stop)
        with self._lock:
            if self._started_in != os.getpid():
                return
            self._started_in = None
            until = time.monotonic() + EXIT_SECONDS
            with suppress(LogError):
                self._surroundings.log.flush()
            self._stop.set()
            self._surroundings.log.store.tap = None
            for thread in self._threads:
                thread.join(max(0.0, until - time.monotonic()))
            for service in self._services:
                service.stop(max(0.0, until - time.monotonic()))
            self.host.on_problem = None


def _tee(feeds: "Sequence[deque[list[Committed]]]") -> Callable[[list[Committed]], object]:
    """Return what gives each feed what is committed."""
    if len(feeds) == 1:
        return feeds[0].append

    def tap(committed: list[Committed]) -> None:
        for feed in feeds:
            feed.append(committed)

    return tap


class Tail:
    """Hands a plug-in the events that this process commits.

    They come from memory: to read them back from the log would cost a flow of quick tasks a tenth of its speed.

    Args:
        host: calls the plug-in.
        plugin: the plug-in.
        log: the log.

    Attributes:
        feed: what was committed and is to be handed over; the oldest is left out if the plug-in is too slow for it.
    """

    def __init__(self, host: Host, plugin: Plugin, log: Log) -> None:
        self.plugin = plugin
        self.feed: deque[list[Committed]] = deque(maxlen=_LONGEST_FEED)
        self._host = host
        self._log = log
        self._states = States(log)
        self._hooks = set(plugin.manifest.hooks) & set(OBSERVERS)

    def run(self, stop: threading.Event) -> None:
        """Hand over until `stop` is set, and then what is committed by then."""
        last = False
        while self.plugin.is_usable and not last:
            last = stop.wait(_LOOK_SECONDS)
            while self.feed and self.plugin.is_usable:
                self._hand_over()
        self.feed.clear()

    def _hand_over(self) -> None:
        """Hand over one batch."""
        if len(self.feed) == _LONGEST_FEED:
            self._host.complain(self.plugin, "on_events", "it is too slow: events were left out")
        events: list[Event] = []
        fetch = self._log.blob
        while self.feed and len(events) < _BATCH:
            for position, recorded_at, record, type_ in self.feed.popleft():
                events.append(Event(position, recorded_at, record, fetch, type_))
        events = [event for event in events if not is_about(self.plugin, event)]
        if events and "on_events" in self._hooks:
            self._host.call(self.plugin, "on_events", {"events": events})
        if self._hooks - {"on_events"}:
            self._tell_states(events)

    def _tell_states(self, events: Sequence[Event]) -> None:
        for change in self._states.changes(events):
            hook = f"on_{change.kind}_state"
            if hook in self._hooks and self.plugin.is_usable:
                self._host.call(self.plugin, hook, {"change": change})


def is_about(plugin: Plugin, event: Event) -> bool:
    """Tell whether an event is about a plug-in: it is not told of its own failures, or it would fail for ever."""
    return event.type in _ABOUT_PLUGINS and event.stream == plugin_stream(plugin.name)


class Follower:
    """Hands a plug-in every event from a durable cursor, which all processes share.

    Args:
        host: calls the plug-in.
        plugin: the plug-in.
        log: the log.
        start: the position after which a plug-in begins that was never seen.
    """

    def __init__(self, host: Host, plugin: Plugin, log: Log, start: int | None) -> None:
        self._host = host
        self._plugin = plugin
        self._subscription = Subscription(log, f"plugin:{plugin.name}", self._hand_over, start=start)

    def run(self, stop: threading.Event) -> None:
        """Hand over until `stop` is set, and then what is committed by then."""
        while self._plugin.is_usable and not stop.is_set():
            with suppress(NotTaken):
                self._subscription.run(stop)
                break
            stop.wait(min(30.0, 0.5 * 2**self._plugin.in_a_row))
        with suppress(NotTaken, LogError):
            self.drain()

    def drain(self) -> int:
        """Hand over what there is; return how many events that was.

        Raises:
            NotTaken: the plug-in failed.
        """
        count = 0
        try:
            while self._plugin.is_usable and (done := self._subscription.step()):
                count += done
        finally:
            self._subscription.close()
        return count

    def _hand_over(self, events: list[Event]) -> None:
        fresh = [event for event in events if not is_about(self._plugin, event)]
        if fresh and (problem := self._host.call(self._plugin, DURABLE, {"events": fresh}).problem) is not None:
            raise NotTaken(problem)


class NotTaken(Exception):
    """A plug-in failed on events that it must not miss: they come again."""


class Record:
    """Puts on record what goes wrong with plug-ins; of many failures in a short time, one.

    Args:
        surroundings: the log, time and identity.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._s = surroundings
        self._last: dict[tuple[str, str, str], int] = {}

    def put(self, problem: Problem) -> None:
        """Put a problem in line for the log, unless its like was there lately."""
        now = self._s.clock.now()
        place = (problem.plugin.name, problem.hook, problem.kind)
        if now - self._last.get(place, -_QUIET_MICROSECONDS) < _QUIET_MICROSECONDS:
            return
        self._last[place] = now
        with suppress(LogError):
            if problem.kind != "skipped" or not self._is_known(problem):
                event = NewEvent(self._s.ids.new(), _TYPES[problem.kind], self._payload(problem), now)
                self._s.log.enqueue([Append(plugin_stream(problem.plugin.name), [event])])

    def _is_known(self, problem: Problem) -> bool:
        """Tell whether the log says already that a plug-in is skipped for this reason."""
        last = deque(self._s.log.read(plugin_stream(problem.plugin.name)), maxlen=1)
        return bool(last) and last[0].type == PLUGIN_SKIPPED and last[0].data == self._payload(problem)

    def _payload(self, problem: Problem) -> dict[str, object]:
        plugin = problem.plugin
        told: dict[str, object] = {"plugin": plugin.name, "problem": self._s.mask(problem.text)[:1000]}
        if plugin.manifest.version:
            told["version"] = plugin.manifest.version
        if problem.hook:
            told |= {"hook": problem.hook, "took": round(problem.took * 1e6), "failures": plugin.failures[problem.hook]}
        return told
