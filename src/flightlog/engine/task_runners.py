"""Task runners: where submitted tasks run. One for each flow run."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any, Self

from flightlog.engine.futures import BaseFuture

_Item = tuple[Context, BaseFuture[Any]] | None
_IDLE_SECONDS = 1.0


class TaskRunner(ABC):
    """Runs the futures that a flow run submits.

    Attributes:
        sequential: whether `submit` returns only when the future is settled.
    """

    sequential = False

    def __init__(self) -> None:
        self._started = False

    @property
    def name(self) -> str:
        """The runner's name, which is its class's, lower-cased, without ``taskrunner``."""
        return type(self).__name__.lower().removesuffix("taskrunner")

    @property
    def concurrency_type(self) -> str:
        """``SEQUENTIAL`` or ``CONCURRENT``."""
        return "SEQUENTIAL" if self.sequential else "CONCURRENT"

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

    @abstractmethod
    def _submit(self, future: BaseFuture[Any]) -> None: ...

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
        self._pool: _Pool | None = None

    def duplicate(self) -> Self:
        """Return a runner like this one that has not been started."""
        return type(self)(self.max_workers)

    def _submit(self, future: BaseFuture[Any]) -> None:
        if self._pool is None:
            self._pool = _Pool(self.max_workers or _default_workers())
        self._pool.submit(future)

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool = None


class _Pool:
    """Threads that run futures: one more whenever more wait than threads are idle, until there are enough.

    `concurrent.futures.ThreadPoolExecutor` makes a second future, with locks of its own, for each of ours;
    without it a submitted task takes a tenth less. A thread that has had nothing to do for a second ends, so
    that a flow run that nobody ends (a coroutine left alone) does not keep the process alive.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._lock = threading.Lock()  # for the two counts
        self._threads = 0
        self._idle = 0

    def submit(self, future: BaseFuture[Any]) -> None:
        """Run a future in one of the threads, in the caller's context."""
        with self._lock:
            self._queue.put((copy_context(), future))
            if self._threads < self._size and self._queue.qsize() > self._idle:
                self._threads += 1
                threading.Thread(target=self._work, name=f"flightlog-task_{self._threads}").start()

    def stop(self) -> None:
        """Let each thread end once it is through with what it does."""
        with self._lock:
            for _ in range(self._threads):
                self._queue.put(None)

    def _work(self) -> None:
        while (item := self._next()) is not None:
            context, future = item
            context.run(future.run)
            del context, future, item  # nothing is kept alive while the thread waits

    def _next(self) -> _Item:
        with suppress(Empty):
            return self._queue.get_nowait()
        with self._lock:
            self._idle += 1
        with suppress(Empty):
            item = self._queue.get(timeout=_IDLE_SECONDS)
            with self._lock:
                self._idle -= 1
            return item
        with self._lock:
            self._idle -= 1
            with suppress(Empty):
                return self._queue.get_nowait()  # put in just when the time was over
            self._threads -= 1
        return None


ThreadPoolTaskRunner = ConcurrentTaskRunner


class SequentialTaskRunner(TaskRunner):
    """Runs each submitted task to its end before `submit` returns."""

    sequential = True

    def _submit(self, future: BaseFuture[Any]) -> None:
        future.run()


def checked_runner(runner: Any) -> TaskRunner:
    """Return a task runner from an instance, a class, or None for the default.

    Raises:
        TypeError: it is neither.
    """
    if runner is None:
        return ConcurrentTaskRunner()
    if isinstance(runner, type) and issubclass(runner, TaskRunner):
        return runner()
    if isinstance(runner, TaskRunner):
        return runner
    raise TypeError(f"A task runner is a TaskRunner, not {type(runner).__name__}.")


def _default_workers() -> int:
    from flightlog.engine.runtime import current_engine

    return current_engine().settings.task_runner_max_workers
