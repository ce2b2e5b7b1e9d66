# mypy: disable-error-code="untyped-decorator"

"""Flows that are called in flows."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import flightlog
from flightlog import get_run_context
from flightlog.engine.context import FlowRunContext
from flightlog.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

flow: Callable[..., Any] = flightlog.flow
task: Callable[..., Any] = flightlog.task


@task
def give(x: Any) -> Any:
    """Return what it is given."""
    return x


@flow
def child(x: Any = 1) -> Any:
    """Return what it is given, in a list."""
    return [x]


@flow
def bad_child() -> None:
    """Fail."""
    raise ValueError("child")


def test_E41_a_subflow_is_a_run_and_a_tracking_task_run(history: Any) -> None:
    """A flow called in a flow is a flow run of its own, and a task run of the parent that mirrors it."""

    @flow
    def parent() -> Any:
        return child(5)

    assert parent() == [5]
    [parent_id] = history.flow_runs("parent")
    [child_id] = history.flow_runs("child")
    [tracker] = history.task_runs("child")
    [created] = [data for data in history.data("flow_run.created") if data["flow"] == "child"]
    assert created["parent_task_run_id"] == tracker["task_run_id"]
    assert created["parent_flow_run_id"].hex() == parent_id.replace("-", "")
    assert tracker["child_flow_run_id"].hex() == child_id.replace("-", "")
    assert tracker["name"].startswith("child-")
    assert tracker["name"].endswith("-0")
    assert history.flow_states(child_id) == ["Pending", "Running", "Completed"]
    assert history.task_states(tracker["task_run_id"]) == ["Pending", "Running", "Completed"]


def test_E41_the_tracker_mirrors_a_failure(history: Any) -> None:
    """The tracking task run fails as the child does, also through retries."""

    @flow
    def parent() -> int:
        bad_child.with_options(retries=1)(return_state=True)
        return 1

    parent()
    [child_id] = history.flow_runs("bad-child")
    [states] = history.states("bad-child")
    assert history.flow_states(child_id)[-1] == states[-1] == "Failed"
    assert "AwaitingRetry" in states


def test_E41_the_counter_of_trackers_counts_calls(history: Any) -> None:
    """Two calls of a subflow are two task runs, numbered."""

    @flow
    def parent() -> None:
        child(1)
        child(2)

    parent()
    assert [run["name"][-2:] for run in history.task_runs("child")] == ["-0", "-1"]


def test_E41_the_state_of_a_subflow_refers_to_its_runs(history: Any) -> None:
    """The state details have the child flow run."""
    seen: list[Any] = []

    @flow
    def parent() -> int:
        seen.append(child(return_state=True))
        return 1

    parent()
    [child_id] = history.flow_runs("child")
    assert seen[0].state_details.flow_run_id == child_id


def test_E42_subflows_block_the_parent(history: Any) -> None:
    """A subflow has ended when its call returns, with all it submitted."""

    @flow
    def slow_child() -> None:
        give.submit(1)

    @flow
    def parent() -> int:
        slow_child()
        ended = [event.type for event in history.events("flow_run.completed", "task_run.completed")]
        assert "flow_run.completed" in ended
        return 1

    assert parent() == 1


def test_E42_async_subflows_may_be_gathered() -> None:
    """Async subflows can run at the same time."""
    inside = 0
    both = asyncio.Event()

    @flow
    async def meeting(x: int) -> int:
        nonlocal inside
        inside += 1
        if inside == 2:
            both.set()
        await both.wait()
        return x

    @flow
    async def parent() -> Any:
        return list(await asyncio.gather(meeting(1), meeting(2)))

    assert asyncio.run(parent()) == [1, 2]


def test_E42_a_subflow_has_its_own_runner() -> None:
    """Parent and child have a runner each, also if they were given the same object."""
    runner = SequentialTaskRunner()
    seen: list[Any] = []

    @flow(task_runner=runner)
    def inner() -> Any:
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        seen.append(context.task_runner)
        return give.submit(1).result()

    @flow(task_runner=runner)
    def parent() -> Any:
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        seen.append(context.task_runner)
        inner()
        return give.submit(2).result()

    assert parent() == 2
    assert len({id(one) for one in seen}) == 2
    assert all(isinstance(one, SequentialTaskRunner) for one in seen)


def test_E112_different_runners_by_subflows(history: Any) -> None:
    """A child may have another kind of runner than its parent."""

    @flow(task_runner=SequentialTaskRunner)
    def inner() -> None:
        give.submit(1)

    @flow(task_runner=ConcurrentTaskRunner)
    def parent() -> None:
        inner()
        give.submit(2)

    parent()
    runners = {data["flow"]: data["task_runner"] for data in history.data("flow_run.created")}
    assert runners == {"parent": "ConcurrentTaskRunner", "inner": "SequentialTaskRunner"}


def test_E42_futures_and_states_in_parameters_are_resolved(history: Any) -> None:
    """A subflow gets the values of futures and states, also in containers, cast to its annotations."""

    @flow
    def typed(x: int, more: list[int]) -> Any:
        return [x, more]

    anytyped: Any = typed

    @flow
    def parent() -> Any:
        return anytyped(give.submit("3"), [give("4", return_state=True)])

    assert parent() == [3, [4]]


def test_E42_inputs_of_a_subflow_are_recorded(history: Any) -> None:
    """The tracking task run refers to the runs whose results the child was given."""

    @flow
    def parent() -> Any:
        return child(give.submit("3"))

    parent()
    [tracker] = history.task_runs("child")
    [upstream] = history.task_runs("give")
    assert tracker["inputs"]["x"] == [upstream["task_run_id"]]


def test_E25_a_subflow_can_wait_for_dependencies(history: Any) -> None:
    """A subflow with `wait_for` runs after them."""

    @flow
    def parent() -> Any:
        return child(1, wait_for=[give.submit(1)])

    assert parent() == [1]
    relevant = [event.type for event in history.events("task_run.completed", "flow_run.created")]
    assert relevant[:3] == ["flow_run.created", "task_run.completed", "flow_run.created"]


def test_E25_a_subflow_whose_dependencies_failed_is_not_ready() -> None:
    """A subflow does not run if something in its `wait_for` failed: its state is NotReady."""
    calls: list[int] = []

    @task
    def broken() -> None:
        raise ValueError

    @flow
    def never() -> None:
        calls.append(1)

    @flow
    def parent() -> int:
        state = never(wait_for=[broken.submit()], return_state=True)
        assert (state.name, state.type) == ("NotReady", "PENDING")
        return 1

    assert parent() == 1
    assert calls == []


def test_E26_a_failing_subflow_raises_in_the_parent() -> None:
    """The child's exception goes through the parent as any exception."""

    @flow
    def parent() -> int:
        bad_child()
        return 1

    with pytest.raises(ValueError, match="child"):
        parent()


def test_E28_a_returned_subflow_state_is_aggregated() -> None:
    """A parent that returns a child's state has the aggregate's, with the child's value."""

    @flow
    def parent() -> Any:
        return child(3, return_state=True)

    state = parent(return_state=True)
    assert state.message == "All states completed."
    assert state.result() == [3]


def test_E5_a_sync_flow_in_an_async_flow_and_the_other_way_round() -> None:
    """Sync and async flows can call each other."""

    @flow
    async def inner_async(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @flow
    def middle(x: int) -> int:
        value: Any = inner_async(x)
        if asyncio.iscoroutine(value):
            return int(asyncio.run(value))
        return int(value)

    @flow
    async def outer() -> Any:
        return child(1)

    assert asyncio.run(outer()) == [1]
    assert middle(3) == 4
