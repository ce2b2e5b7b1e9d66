"""Hooks that misbehave (invariant I11): whatever one does, the run's state, value and log are as without it."""

import asyncio
import os
import threading
from typing import Any

import pytest
from tests.engine.conftest import History
from tests.engine.invariants import violations

from flightlog import flow, get_run_logger, task
from flightlog.engine.runtime import Engine
from flightlog.engine.states import StateType


async def _cancels_itself(*_: Any) -> None:
    raise asyncio.CancelledError


async def _awaits_what_was_cancelled(*_: Any) -> None:
    other = asyncio.ensure_future(asyncio.sleep(10))
    await asyncio.sleep(0)
    other.cancel()
    await other


class Unnamed:
    """A hook whose name and signature cannot be had."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__name__", "__signature__", "__wrapped__"):
            raise RuntimeError(f"no {name}")
        return super().__getattribute__(name)

    def __call__(self, *_: Any) -> None:
        """Do nothing."""


HOSTILE: list[Any] = [_cancels_itself, _awaits_what_was_cancelled, Unnamed()]


@pytest.mark.parametrize("kind", ["on_running", "on_completion"])
@pytest.mark.parametrize("hook", HOSTILE, ids=["cancels-itself", "awaits-cancelled", "unnamed"])
@pytest.mark.parametrize("in_async", [True, False])
def test_I11_a_hook_that_is_cancelled_or_hostile_changes_no_flow(
    in_async: bool, hook: Any, kind: str, engine: Engine, history: History
) -> None:
    """The flow completes with its value, and the caller gets that."""
    options: dict[str, Any] = {kind: [hook]}
    if in_async:

        @flow(name="f", **options)
        async def f() -> int:
            await asyncio.sleep(0)
            return 1

        try:
            assert asyncio.run(f()) == 1
        except asyncio.CancelledError:
            pytest.fail("the hook's cancellation reached the caller")
    else:

        @flow(name="f", **options)
        def g() -> int:
            return 1

        try:
            assert g() == 1
        except asyncio.CancelledError:
            pytest.fail("the hook's cancellation reached the caller")
    (run,) = history.flow_runs("f")
    assert history.flow_states(run)[-1] == "Completed"
    assert len(history.events("hook.ended")) == 1
    assert violations(engine) == []


@pytest.mark.parametrize("kind", ["on_running", "on_completion"])
@pytest.mark.parametrize("hook", HOSTILE, ids=["cancels-itself", "awaits-cancelled", "unnamed"])
@pytest.mark.parametrize("submitted", [True, False])
def test_I11_a_hook_that_is_cancelled_or_hostile_changes_no_task(
    submitted: bool, hook: Any, kind: str, engine: Engine, history: History
) -> None:
    """The task run completes with its value, submitted or called."""

    options: dict[str, Any] = {kind: [hook]}

    @task(**options)
    async def t() -> int:
        await asyncio.sleep(0)
        return 1

    @flow
    async def f() -> int:
        if submitted:
            future = await t.submit()
            value: int = await future.result()
            return value
        return await t()

    try:
        assert asyncio.run(f()) == 1
    except asyncio.CancelledError:
        pytest.fail("the hook's cancellation reached the caller")
    assert history.states("t")[0][-1] == "Completed"
    assert violations(engine) == []


def test_I11_a_condition_for_retries_that_is_cancelled_counts_as_no(history: History) -> None:
    """An async `retry_condition_fn` that ends by a cancellation has raised: the run is Failed, not Crashed."""

    @task(retries=2, retry_condition_fn=_cancels_itself)
    async def t() -> None:
        raise ValueError("x")

    @flow
    async def f() -> None:
        await t()

    try:
        state = asyncio.run(f(return_state=True))
    except asyncio.CancelledError:
        pytest.fail("the condition's cancellation reached the caller")
    assert state.is_failed()
    assert history.states("t")[0][-1] == "Failed"


def _spoils(subject: Any, run: Any, state: Any) -> None:
    state.type = StateType.FAILED
    state.name = "Spoilt"
    state.message = "spoilt"
    state.data = "spoilt"


@pytest.mark.parametrize("of", ["task", "flow"])
def test_I11_a_hook_that_changes_the_state_it_is_given_changes_no_run(of: str, history: History) -> None:
    """State, name, message and value that the caller gets are those on record."""

    @task(on_completion=[_spoils] if of == "task" else None)
    def t() -> int:
        return 1

    @flow(on_completion=[_spoils] if of == "flow" else None)
    def f() -> int:
        return t()

    state = f(return_state=True)
    assert str(state) == "Completed()"
    assert state.result() == 1


def test_I11_a_hook_that_forks_leaves_one_history(engine: Engine, history: History) -> None:
    """A child process that a hook makes, and that ends in the hook or falls out of it, writes nothing twice."""
    children: list[int] = []

    def forks(*_: Any) -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        children.append(child)
        os.waitpid(child, 0)

    @task(on_completion=[forks])
    def t() -> int:
        return 1

    @flow(on_completion=[forks])
    def f() -> int:
        return t()

    assert f() == 1
    assert len(children) == 2
    assert history.states("t") == [["Pending", "Running", "Completed"]]
    assert violations(engine) == []


def test_I11_a_hook_that_leaves_threads_behind_which_log_and_call_tasks(engine: Engine, history: History) -> None:
    """What they log belongs to the run or is dropped; what they call is refused; the run is as without them."""
    threads: list[threading.Thread] = []
    refused: list[BaseException] = []
    ended = threading.Event()

    @task
    def t() -> int:
        return 1

    def leaves(flow: Any, flow_run: Any, state: Any) -> None:
        from contextvars import copy_context

        def late() -> None:
            ended.wait(20)
            try:
                get_run_logger().info("late")
                t()
            except BaseException as error:
                refused.append(error)

        thread = threading.Thread(target=copy_context().run, args=(late,))
        thread.start()
        threads.append(thread)

    @flow(on_running=[leaves], on_completion=[leaves])
    def f() -> int:
        return t()

    assert f() == 1
    ended.set()
    for thread in threads:
        thread.join()
    assert len(refused) == 2
    assert len(history.task_runs("t")) == 1
    assert violations(engine) == []


def test_I11_hooks_of_copies_do_not_reach_the_original(history: History) -> None:
    """A hook that makes copies of its own flow with other hooks, and runs them, ends."""
    made: list[str] = []

    def copies(flow: Any, flow_run: Any, state: Any) -> None:
        if len(made) < 3:
            made.append(flow_run.name)
            flow.with_options(name=f"f{len(made)}")()

    @flow(on_completion=[copies])
    def f() -> int:
        return 1

    assert f() == 1
    assert len(made) == 3
    assert [len(history.flow_runs(name)) for name in ("f", "f1", "f2", "f3")] == [1, 1, 1, 1]
