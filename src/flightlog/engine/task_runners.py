"""Task runners: where submitted tasks run. One for each flow run."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Self

from flightlog.engine.futures import BaseFuture


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
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def duplicate(self) -> Self:
        """Return a runner like this one that has not been started."""
        return type(self)(self.max_workers)

    def _submit(self, future: BaseFuture[Any]) -> None:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.max_workers or _default_workers(), "flightlog-task")
        self._pool.submit(copy_context().run, future.run)

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


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
