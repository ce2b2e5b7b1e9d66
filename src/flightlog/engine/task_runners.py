"""Task runners: where submitted tasks run. One for each flow run."""

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any, Self

from flightlog.engine.bridge import POOLED, Waits
from flightlog.engine.context import get_run_context
from flightlog.engine.futures import BaseFuture, enter_pool
from flightlog.events.log import Log
from flightlog.events.store import Unit
from flightlog.names import did_you_mean

_Begun = tuple[Context, Coroutine[Any, Any, None], Unit]
_IDLE_SECONDS = 1.0
_TOGETHER = 16
"""How many calls begin with one commit at the most."""


class TaskRunner(ABC):
    """Runs the futures that a flow run submits.

    Attributes:
        sequential: whether `submit` returns only when the future is settled.
        runs_coroutines: whether async tasks run in the flow's own event loop; else they are submitted as others are.
        lends: whether a thread that waits for a future may do its work itself, where nobody has begun it.
        starts_slowly: whether starting it takes so long that an event loop must not wait for it.
    """

    sequential = False
    runs_coroutines = True
    lends = True
    starts_slowly = False

    def __init__(self) -> None:
        self._started = False

    @property
    def name(self) -> str:
        """The runner's name, which is its class's, lower-cased, without ``taskrunner``."""
        return type(self).__name__.lower().removesuffix("taskrunner")

    @property
    def concurrency_type(self) -> str:
        """``SEQUENTIAL``, ``CONCURRENT`` or ``PARALLEL``."""
        return "SEQUENTIAL" if self.sequential else "CONCURRENT"

    @property
    def logger(self) -> logging.Logger:
        """The runner's logger, which is called ``flightlog.task_runner.`` and the runner's name."""
        return logging.getLogger(f"flightlog.task_runner.{self.name}")

    def duplicate(self) -> Self:
        """Return a runner like this one that has not been started: every flow run has its own."""
        return type(self)()

    @contextmanager
    def start(self) -> Iterator[Self]:
        """Make the runner ready for the time of a flow run.

        Raises:
            RuntimeError: it has been started already.
        """
        if self._started:
            raise RuntimeError("The task runner is already started!")
        self._started = True
        try:
            self._begin()
            yield self
        finally:
            self._started = False
            self._stop()

    def submit(self, future: BaseFuture[Any]) -> None:
        """Have a future's work done.

        Raises:
            RuntimeError: the runner has not been started.
        """
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        self._submit(future)

    def orders(self, source: BaseFuture[Any]) -> bool:
        """Tell whether the runner itself lets nothing begin that rests on a future before that has ended."""
        return False

    @abstractmethod
    def _submit(self, future: BaseFuture[Any]) -> None: ...

    def _begin(self) -> None:  # noqa: B027 - the same
        """Get what the runner needs before anything is submitted."""

    def _stop(self) -> None:  # noqa: B027 - most runners hold nothing
        """Give back what the runner holds."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ConcurrentTaskRunner(TaskRunner):
    """Runs submitted tasks at the same time: sync functions in threads, async ones in the event loop.

    Args:
        max_workers: how many threads at the most; the setting FLIGHTLOG_TASK_RUNNER_MAX_WORKERS by default.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__()
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"A task runner has at least one worker, not {max_workers}.")
        self.max_workers = max_workers
        self._pool: Pool | None = None

    def duplicate(self) -> Self:
        """Return a runner like this one that has not been started."""
        return type(self)(self.max_workers)

    def _submit(self, future: BaseFuture[Any]) -> None:
        if self._pool is None:
            engine = get_run_context().flow_context.engine
            self._pool = Pool(engine.log, self.max_workers or engine.settings.task_runner_max_workers)
        self._pool.submit(future)

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool = None


class Pool:
    """Threads that run futures, as many as have something to do, up to a number.

    A thread that looks for work begins several calls at a time, as long as there is a free place for each, and
    commits all their starts at once; then each is run by the first thread that is free. While there is work one
    thread looks for it; when it goes to run something it wakes the next one. So short calls are run by a few threads
    with few commits, and calls that block get a thread each, without one lock that all of them wait for.

    A thread that has had nothing to do for a second ends, so that a flow run that nobody ends (a coroutine left
    alone) does not keep the process alive.
    """

    def __init__(self, log: Log, size: int, waits: Waits = POOLED) -> None:
        self._log = log
        self._size = size
        self._waits = waits
        self._lock = threading.Lock()  # for all that follows
        self._waiting: deque[BaseFuture[Any]] = deque()
        self._started: deque[_Begun] = deque()
        self._idle: list[threading.Lock] = []
        self._threads = 0
        self._running = 0
        self._looking = 0
        self._stopped = False

    def submit(self, future: BaseFuture[Any]) -> None:
        """Run a future in one of the threads."""
        with self._lock:
            self._waiting.append(future)
            self._call_one()

    def stop(self) -> None:
        """Let each thread end once it is through with what it does."""
        with self._lock:
            self._stopped = True
            self._looking += len(self._idle)
            for latch in self._idle:
                latch.release()
            self._idle.clear()

    def _call_one(self) -> None:
        """Have one thread look for work, if there is any that it may take and nobody looks; the lock is held."""
        if self._looking or not (self._started or (self._waiting and self._free())):
            return
        if self._idle:
            self._looking += 1
            self._idle.pop().release()
        elif self._threads < self._size:
            self._looking += 1
            self._threads += 1
            threading.Thread(target=self._work, name=f"flightlog-task_{self._threads}").start()

    def _free(self) -> int:
        """Return how many calls may begin."""
        return self._size - self._running - len(self._started)

    def _work(self) -> None:
        enter_pool()
        while True:
            with self._lock:
                found: _Begun | None = None
                batch: list[BaseFuture[Any]] = []
                if self._started:
                    found = self._started.popleft()
                    self._running += 1
                    self._looking -= 1
                    self._call_one()
                elif self._waiting and (count := min(self._free(), _TOGETHER)) > 0:
                    batch = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
                    self._running += len(batch)
                else:
                    self._looking -= 1
                    if self._stopped:
                        self._threads -= 1
                        return
                    latch = threading.Lock()
                    latch.acquire()
                    self._idle.append(latch)
            if found is not None:
                self._finish(*found)
                del found
                with self._lock:
                    self._running -= 1
                    self._looking += 1
            elif batch:
                begun = self._begin(batch)
                with self._lock:
                    self._running -= len(batch)
                    self._started.extend(begun)
                del begun
            elif not latch.acquire(timeout=_IDLE_SECONDS) and self._leave(latch):
                return
            del batch

    def _leave(self, latch: threading.Lock) -> bool:
        """End a thread whose time is over, unless it was called just then."""
        with self._lock:
            if latch in self._idle:
                self._idle.remove(latch)
                self._threads -= 1
                return True
        return False

    def _begin(self, batch: list[BaseFuture[Any]]) -> list[_Begun]:
        """Take calls to where their bodies start, and commit that they do, all at once."""
        begun: list[_Begun] = []
        for future in batch:
            taken = future.take(self._waits)
            if taken is None:
                continue  # somebody who waits for it has begun it
            context, work = taken
            with suppress(StopIteration):  # it ended without a body: what it rests on failed, or it is on record
                begun.append((context, work, context.run(work.send, None)))
        if begun:
            self._commit(begun[-1][2])
        return begun

    def _commit(self, unit: Unit) -> None:
        """Commit a unit, and with it all that are in line before it; what is wrong with it, its own call is told."""
        try:
            self._log.commit(unit)
        except BaseException as error:  # noqa: BLE001 - whatever it is, a call that never hears of it would wait for ever
            if not unit.done:
                unit.error = error

    def _finish(self, context: Context, work: Coroutine[Any, Any, None], unit: Unit) -> None:
        """Run a call whose start is committed to its end; further attempts of it commit for themselves."""
        while True:
            if not unit.done and unit.error is None:
                self._commit(unit)
            try:
                unit = context.run(work.send, None)
            except StopIteration:
                return


ThreadPoolTaskRunner = ConcurrentTaskRunner


class SequentialTaskRunner(TaskRunner):
    """Runs each submitted task to its end before `submit` returns."""

    sequential = True

    def _submit(self, future: BaseFuture[Any]) -> None:
        future.run()


def checked_runner(runner: Any) -> TaskRunner:
    """Return a task runner from an instance, a class, a name that a plug-in gives one, or None for the default.

    Raises:
        TypeError: it is none of these.
        ValueError: no plug-in has a task runner of that name.
    """
    if runner is None:
        return ConcurrentTaskRunner()
    if isinstance(runner, str):
        runner = _named(runner)
    if isinstance(runner, type) and issubclass(runner, TaskRunner):
        return runner()
    if isinstance(runner, TaskRunner):
        return runner
    raise TypeError(f"A task runner is a TaskRunner, not {type(runner).__name__}.")


def _named(name: str) -> Any:
    """Return what a plug-in, or Flightlog itself, calls by a name."""
    from flightlog.plugins.host import current_host

    own: dict[str, Any] = {"threads": ConcurrentTaskRunner, "sequential": SequentialTaskRunner}
    host = current_host()
    make = own.get(name) or host.find("register_task_runners", name)
    if make is None:
        known = [*own, *host.names("register_task_runners")]
        hint = f"{did_you_mean(name, known)} A collection may bring it: pip install flightlog-{name}."
        raise ValueError(f"There is no task runner {name!r}.{host.why_not('register_task_runners', name) or hint}")
    return make()
