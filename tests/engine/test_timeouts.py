"""Time limits of flows and tasks."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flightlog import flow, task


class Gate:
    """Something that blocks until it is opened."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.passed = threading.Event()

    def wait(self) -> None:
        """Block until the gate is open."""
        self.event.wait(30)
        self.passed.set()

    def open(self) -> None:
        """Let everybody go on."""
        self.event.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a gate that is opened at the end of the test at the latest."""
    gate = Gate()
    yield gate
    gate.open()


@task
def one() -> int:
    """Return 1."""
    return 1


def test_E62_a_sync_task_times_out(gate: Gate, history: Any) -> None:
    """A sync task that takes too long is TimedOut, of type FAILED; the flow goes on."""

    @task(timeout_seconds=0.05)
    def t() -> None:
        gate.wait()

    @flow
    def f() -> int:
        state = t(return_state=True)
        assert (state.name, state.type) == ("TimedOut", "FAILED")
        assert state.message is not None
        assert state.message.startswith("Task run exceeded timeout of 0.05 second")
        assert isinstance(state.result(raise_on_failure=False), TimeoutError)
        return one()

    assert f() == 1
    gate.open()
    assert history.states("t") == [["Pending", "Running", "TimedOut"]]


def test_E62_a_submitted_task_times_out(gate: Gate) -> None:
    """A submitted sync task times out, too."""

    @task(timeout_seconds=0.05)
    def t() -> None:
        gate.wait()

    @flow
    def f() -> int:
        state = t.submit().wait()
        assert state is not None
        assert state.name == "TimedOut"
        gate.open()
        return 1

    assert f() == 1


def test_E62_an_async_task_is_cancelled_at_an_await() -> None:
    """An async task that takes too long is cancelled."""
    ends: list[str] = []

    @task(timeout_seconds=0.05)
    async def t() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    @flow
    async def f() -> int:
        state = await t(return_state=True)
        assert state.name == "TimedOut"
        return 1

    assert asyncio.run(f()) == 1
    assert ends == ["cancelled"]


def test_E60_a_timed_out_task_is_retried(history: Any) -> None:
    """TimedOut is retried like any failure."""
    calls: list[int] = []

    @task(timeout_seconds=0.05, retries=1)
    async def t() -> int:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return 5

    @flow
    async def f() -> int:
        return await t()

    assert asyncio.run(f()) == 5
    assert history.states("t") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]]


def test_E62_a_task_in_time_is_not_disturbed() -> None:
    """A limit that is not reached changes nothing."""

    @task(timeout_seconds=60)
    def t() -> int:
        return 5

    @task(timeout_seconds=60)
    async def u() -> int:
        await asyncio.sleep(0)
        return 6

    @flow(timeout_seconds=60)
    def f() -> Any:
        return [t(), t.submit().result(), u(), u.submit().result()]

    assert f() == [5, 5, 6, 6]


def test_E37_a_sync_flow_times_out(gate: Gate, history: Any) -> None:
    """A sync flow that takes too long is TimedOut; the call returns though the code goes on."""

    @flow(timeout_seconds=0.05)
    def f() -> None:
        gate.wait()

    state = f(return_state=True)
    assert (state.name, state.type) == ("TimedOut", "FAILED")
    assert state.message is not None
    assert state.message.startswith("Flow run exceeded timeout of 0.05 second")
    with pytest.raises(TimeoutError):
        state.result()
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "TimedOut"]


def test_E37_a_call_of_a_flow_that_times_out_raises_timeout_error(gate: Gate) -> None:
    """Without `return_state` the call raises TimeoutError."""

    @flow(timeout_seconds=0.05)
    def f() -> None:
        gate.wait()

    with pytest.raises(TimeoutError):
        f()


def test_E37_a_timed_out_sync_flow_starts_no_more_tasks(gate: Gate, history: Any) -> None:
    """Code that goes on after the time limit stops at the next task call."""
    ended = threading.Event()
    after: list[int] = []

    @flow(timeout_seconds=0.05)
    def f() -> None:
        try:
            gate.wait()
            one()
            after.append(1)
        finally:
            ended.set()

    f(return_state=True)
    gate.open()
    assert ended.wait(30)
    assert after == []
    assert history.task_runs("one") == []


def test_E37_an_async_flow_is_cancelled_at_the_next_await(history: Any) -> None:
    """An async flow that takes too long is cancelled and TimedOut."""
    ends: list[str] = []

    @flow(timeout_seconds=0.05)
    async def f() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    state: Any = asyncio.run(f(return_state=True))
    assert state.name == "TimedOut"
    assert ends == ["cancelled"]


def test_E37_a_parent_survives_a_timed_out_subflow(gate: Gate) -> None:
    """A subflow that timed out leaves its parent alone."""

    @flow(timeout_seconds=0.05)
    def child() -> None:
        gate.wait()

    @flow
    def f() -> int:
        state = child(return_state=True)
        assert state.name == "TimedOut"
        gate.open()
        return one()

    assert f() == 1


@pytest.mark.parametrize("seconds", [None, 60])
def test_E38_a_timeout_error_of_user_code_is_plain_failed(seconds: Any) -> None:
    """TimeoutError raised by the function itself is Failed, not TimedOut."""

    @task(timeout_seconds=seconds)
    def t() -> None:
        raise TimeoutError("mine")

    @flow(timeout_seconds=seconds)
    def f() -> None:
        assert t(return_state=True).name == "Failed"
        raise TimeoutError("mine")

    state = f(return_state=True)
    assert state.name == "Failed"
    with pytest.raises(TimeoutError, match="mine"):
        state.result()


def test_E38_a_timeout_error_of_async_user_code_is_plain_failed() -> None:
    """TimeoutError raised by an async function itself is Failed, not TimedOut."""

    @task(timeout_seconds=60)
    async def t() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @flow(timeout_seconds=60)
    async def f() -> None:
        state = await t(return_state=True)
        assert state.name == "Failed"
        raise TimeoutError("mine")

    state: Any = asyncio.run(f(return_state=True))
    assert state.name == "Failed"
