"""Every task runner passes the same contract."""

from collections.abc import Iterator

import pytest

from flightlog.engine.bridge import stop_background_loop
from flightlog.task_runners import ConcurrentTaskRunner, ProcessPoolTaskRunner, SequentialTaskRunner, TaskRunner
from flightlog.testing import RunnerContract, WorkerContract


class TestThreads(RunnerContract):
    """Threads and the event loop."""

    @pytest.fixture
    def runner(self) -> TaskRunner:
        """Return a runner with threads."""
        return ConcurrentTaskRunner()


class TestOneThread(RunnerContract):
    """One thread for all."""

    @pytest.fixture
    def runner(self) -> TaskRunner:
        """Return a runner with one thread."""
        return ConcurrentTaskRunner(max_workers=1)


class TestSequential(RunnerContract):
    """One after the other."""

    in_order = True

    @pytest.fixture
    def runner(self) -> TaskRunner:
        """Return a runner that does each task at once."""
        return SequentialTaskRunner()


class TestProcesses(WorkerContract):
    """Worker processes."""

    @pytest.fixture
    def runner(self) -> TaskRunner:
        """Return a runner with two worker processes."""
        return ProcessPoolTaskRunner(max_workers=2)


@pytest.fixture(autouse=True)
def _no_loop_is_left() -> Iterator[None]:
    yield
    stop_background_loop()
