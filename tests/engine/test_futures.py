"""Futures: waiting for submitted tasks."""

import threading
from typing import Any

import pytest

from flightlog import flow, task


@task
def double(x: int) -> int:
    """Return twice the number."""
    return 2 * x


@task
def broken() -> int:
    """Fail."""
    raise ValueError("boom")


@task
def wait_for_event(event: Any) -> str:
    """Wait until somebody sets the event."""
    event.wait(30)
    return "ended"


class Gate:
    """An event that is passed around whole."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait for the gate to open."""
        return self.event.wait(seconds)


def test_E3_wait_returns_the_final_state() -> None:
    """`future.wait()` gives the final state, for good and bad ends, and does not raise."""

    @flow
    def f() -> int:
        good = double.submit(2).wait()
        bad = broken.submit().wait()
        assert good is not None
        assert bad is not None
        assert (good.name, good.result()) == ("Completed", 4)
        assert bad.is_failed()
        return 1

    f()


def test_E3_wait_returns_none_on_timeout() -> None:
    """`future.wait(timeout)` gives None if the task has not ended by then; the task goes on."""
    gate = Gate()

    @flow
    def f() -> int:
        future = wait_for_event.submit(gate)
        assert future.wait(0.01) is None
        assert future.wait(0) is None
        gate.event.set()
        state = future.wait()
        assert state is not None
        assert state.result() == "ended"
        return 1

    f()


def test_E3_state_is_there_without_waiting() -> None:
    """`future.state` and `future.get_state()` give the present state."""
    gate = Gate()

    @flow
    def f() -> int:
        future = wait_for_event.submit(gate)
        assert not future.state.is_final()
        assert not future.get_state().is_final()
        assert future.state.type in ("PENDING", "RUNNING")
        gate.event.set()
        future.wait()
        assert future.state.is_completed()
        assert future.get_state().is_completed()
        return 1

    f()


def test_E100_result_gives_the_value_or_raises_the_failure() -> None:
    """`future.result()` gives data or raises; `raise_on_failure=False` gives the exception."""

    @flow
    def f() -> int:
        assert double.submit(2).result() == 4
        future: Any = broken.submit()
        with pytest.raises(ValueError, match="boom") as caught:
            future.result()
        assert future.result(raise_on_failure=False) is caught.value
        return 1

    f()


def test_E100_result_raises_timeout_error() -> None:
    """`future.result(timeout)` raises TimeoutError if the task has not ended by then; the task goes on."""
    gate = Gate()

    @flow
    def f() -> int:
        future = wait_for_event.submit(gate)
        with pytest.raises(TimeoutError, match=r"^Call timed out before task finished\.$"):
            future.result(timeout=0.01)
        gate.event.set()
        assert future.result() == "ended"
        return 1

    f()


def test_E100_a_future_knows_its_run(history: Any) -> None:
    """`future.name` and `future.task_run` tell the run's name and id."""

    @flow
    def f() -> Any:
        future: Any = double.submit(1)
        return future.name, future.task_run.name, str(future.task_run.id)

    name, run_name, run_id = f()
    [created] = history.task_runs("double")
    assert name == run_name == created["name"]
    assert run_id.replace("-", "") == created["task_run_id"].hex()


def test_E102_a_future_is_true_with_a_warning() -> None:
    """`bool(future)` is True and warns, as it surely was meant for the result."""

    @flow
    def f() -> int:
        future = double.submit(0)
        with pytest.warns(UserWarning, match="result"):
            assert bool(future) is True
        return 1

    f()


def test_E102_a_future_is_hashable_and_shows_its_name() -> None:
    """Futures can be keys; their repr has the name of the run."""

    @flow
    def f() -> int:
        first, second = double.submit(1), double.submit(1)
        assert len({first, second, first}) == 2
        assert repr(first) == f"Future({first.name!r})"
        return 1

    f()


def test_E100_many_threads_may_wait_for_one_future() -> None:
    """All that wait get the same value."""
    gate = Gate()
    results: list[str] = []

    @flow
    def f() -> int:
        future = wait_for_event.submit(gate)
        threads = [threading.Thread(target=lambda: results.append(future.result())) for _ in range(5)]
        for thread in threads:
            thread.start()
        gate.event.set()
        for thread in threads:
            thread.join()
        return 1

    f()
    assert results == ["ended"] * 5


def test_E100_a_future_outlives_its_flow() -> None:
    """A future that was smuggled out of a flow still has its state and result."""
    kept: list[Any] = []

    @flow
    def f() -> int:
        kept.append(double.submit(4))
        return 1

    f()
    assert kept[0].result() == 8
    assert kept[0].wait().is_completed()
