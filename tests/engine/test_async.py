"""Async flows and tasks, and how they mix with sync ones."""

import asyncio
import contextvars
import inspect
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flightlog import State, flow, task
from flightlog.engine.futures import Future
from flightlog.task_runners import SequentialTaskRunner


@task
async def double(x: int) -> int:
    """Return twice the number."""
    await asyncio.sleep(0)
    return 2 * x


@task
def add_one(x: int) -> int:
    """Return one more."""
    return x + 1


@task
async def broken() -> int:
    """Fail."""
    raise ValueError("boom")


def test_E3_the_async_example_of_prefect_runs() -> None:
    """`await task.submit(...)` gives a future whose `wait()` and `result()` are awaited."""

    @flow
    async def f() -> Any:
        future = await double.submit(2)
        state = await future.wait()
        assert state is not None
        assert state.is_completed()
        return [await future.result(), state.result()]

    assert asyncio.run(f()) == [4, 4]


def test_E101_methods_of_async_futures_are_awaited() -> None:
    """An async task's future in an async flow has awaitable methods, with and without `await` on submit."""

    @flow
    async def f() -> Any:
        future = double.submit(3)
        result = future.result()
        assert inspect.isawaitable(result)
        return [await result]

    assert asyncio.run(f()) == [6]


def test_E101_sync_tasks_in_async_flows_give_sync_futures() -> None:
    """A sync task called in an async flow behaves as in a sync one."""

    @flow
    async def f() -> Any:
        future = add_one.submit(1)
        assert isinstance(future, Future)
        return [add_one(5), future.result()]

    assert asyncio.run(f()) == [6, 2]


def test_E8_async_tasks_in_sync_flows_behave_as_sync_ones() -> None:
    """In a sync flow an async task's call gives data and its submit a sync future."""

    @flow
    def f() -> Any:
        state = double(3, return_state=True)
        assert isinstance(state, State)
        future: Any = double.submit(2)
        assert isinstance(future, Future)
        mapped = double.map([1, 2, 3])
        return [double(1), future.result(), state.result(), [child.result() for child in mapped]]

    assert f() == [2, 4, 6, [2, 4, 6]]


def test_E8_an_async_task_of_a_sync_flow_raises_its_own_exception() -> None:
    """The exception of an async task comes out of a sync call."""

    @flow
    def f() -> int:
        with pytest.raises(ValueError, match="boom"):
            _ = broken()
        return 1

    assert f() == 1


def test_E52_async_calls_are_awaited() -> None:
    """A direct call of an async task in an async flow is awaited, with `return_state` too."""

    @flow
    async def f() -> Any:
        state = await double(5, return_state=True)
        bad = await broken(return_state=True)
        assert bad.is_failed()
        with pytest.raises(ValueError, match="boom"):
            await broken()
        return [await double(4), state.result()]

    assert asyncio.run(f()) == [8, 10]


def test_E105_async_tasks_overlap() -> None:
    """Async tasks that were submitted run at the same time, on the flow's loop."""
    inside = 0
    loops: list[Any] = []

    @flow
    async def f() -> Any:
        both = asyncio.Event()

        @task
        async def meeting() -> int:
            nonlocal inside
            loops.append(asyncio.get_running_loop())
            inside += 1
            if inside == 2:
                both.set()
            await both.wait()
            return 1

        futures = [meeting.submit(), meeting.submit()]
        loops.append(asyncio.get_running_loop())
        return [await future.result() for future in futures]

    assert asyncio.run(f()) == [1, 1]
    assert len(set(map(id, loops))) == 1


def test_E105_gathered_direct_calls_overlap() -> None:
    """Direct async calls can be gathered."""

    @flow
    async def f() -> Any:
        return list(await asyncio.gather(*[double(x) for x in range(20)]))

    assert asyncio.run(f()) == [2 * x for x in range(20)]


def test_E106_async_tasks_with_the_sequential_runner_run_one_after_another() -> None:
    """With the sequential runner `await submit` ends the task first."""
    order: list[str] = []

    @task
    async def t(x: int) -> None:
        order.append(f"begin {x}")
        await asyncio.sleep(0)
        order.append(f"end {x}")

    @flow(task_runner=SequentialTaskRunner())
    async def f() -> None:
        await t.submit(1)
        await t.submit(2)

    asyncio.run(f())
    assert order == ["begin 1", "end 1", "begin 2", "end 2"]


def test_E32_an_async_flow_waits_for_tasks_that_nobody_awaited(history: Any) -> None:
    """Submitted async tasks end before their flow, also if nobody awaited them."""

    @task
    async def slow() -> int:
        for _ in range(10):
            await asyncio.sleep(0)
        return 1

    @flow
    async def f() -> int:
        slow.submit()
        return 5

    assert asyncio.run(f()) == 5
    assert [event.type for event in history.events("task_run.completed", "flow_run.completed")] == [
        "task_run.completed",
        "flow_run.completed",
    ]


def test_E63_async_futures_are_resolved_in_arguments() -> None:
    """Futures of async tasks can be passed to sync and async tasks."""

    @flow
    async def f() -> Any:
        future = double.submit(1)
        given: Any = future
        return [await double(given), await double.submit(given).result(), add_one.submit(given).result()]

    assert asyncio.run(f()) == [4, 4, 3]


def test_E63_an_async_future_given_to_a_direct_sync_call() -> None:
    """A sync task called directly in an async flow gets the value of an async future that has ended."""

    @flow
    async def f() -> Any:
        future = double.submit(1)
        await future.wait()
        given: Any = future
        return [add_one(given)]

    assert asyncio.run(f()) == [3]


def test_E105_context_variables_reach_tasks() -> None:
    """Context variables set in a flow are seen in its tasks, called and submitted, sync and async."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @task
    def read() -> str:
        return variable.get()

    @task
    async def read_async() -> str:
        return variable.get()

    @flow
    def f() -> Any:
        variable.set("set")
        return [read(), read.submit().result(), read_async(), read_async.submit().result()]

    assert f() == ["set"] * 4


def test_E3_async_wait_returns_none_on_timeout() -> None:
    """`await future.wait(timeout)` gives None if the task has not ended by then; `result` raises."""

    @flow
    async def f() -> Any:
        go = asyncio.Event()

        @task
        async def slow() -> int:
            await go.wait()
            return 5

        future = slow.submit()
        assert await future.wait(0.01) is None
        with pytest.raises(TimeoutError, match="Call timed out before task finished"):
            await future.result(timeout=0.01)
        go.set()
        return [await future.result()]

    assert asyncio.run(f()) == [5]


def test_E8_async_tasks_of_sync_flows_share_a_loop_that_lives() -> None:
    """Async tasks submitted in a sync flow can wait for each other."""
    events: dict[str, Any] = {}
    ready = threading.Event()

    @task
    async def first() -> int:
        events["e"] = asyncio.Event()
        ready.set()
        await events["e"].wait()
        return 1

    @task
    async def second() -> int:
        while "e" not in events:
            await asyncio.sleep(0)
        events["e"].set()
        return 2

    @flow
    def f() -> Any:
        futures: list[Any] = [first.submit(), second.submit()]
        return [future.result() for future in futures]

    assert f() == [1, 2]


def test_E9_an_async_flow_can_run_in_a_loop_many_times(history: Any) -> None:
    """Many runs of an async flow can be gathered."""

    @flow
    async def f(x: int) -> Any:
        return [await double(x)]

    async def main() -> Any:
        return await asyncio.gather(*[f(x) for x in range(10)])

    assert asyncio.run(main()) == [[2 * x] for x in range(10)]
    assert len(history.flow_runs("f")) == 10


def test_E8_async_from_sync_from_async() -> None:
    """A sync task in an async flow may call an async task."""

    @task
    def middle(x: int) -> Any:
        inner: Any = double
        return inner(x)

    @flow
    async def f() -> Any:
        return [middle.submit(2).result(), middle(3)]

    assert asyncio.run(f()) == [4, 6]


ASYNC_IN_SYNC_IN_ASYNC_FLOWS = """
from flightlog import flow, task

@task
async def double(x):
    return 2 * x

@flow
def inner():
    return double.submit(1).result()

@flow
async def middle():
    return inner()

@flow
def outer():
    return middle()

print(outer())
"""

ASYNC_IN_SYNC_IN_ASYNC_TASKS = """
from flightlog import flow, task

@task
async def double(x):
    return 2 * x

@task
def inner(x):
    return double.submit(x).result()

@task
async def middle(x):
    return inner(x)

@flow
def outer():
    return middle.submit(1).result()

print(outer())
"""


@pytest.mark.parametrize("program", [ASYNC_IN_SYNC_IN_ASYNC_FLOWS, ASYNC_IN_SYNC_IN_ASYNC_TASKS])
def test_E8_async_submitted_in_sync_in_async_in_sync_does_not_hang(program: str, tmp_path: Path) -> None:
    """Sync code in async code in a sync flow may submit an async task and wait for it (E111: no deadlock)."""
    path = tmp_path / "program.py"
    path.write_text(program)
    environment = {"FLIGHTLOG_HOME": str(tmp_path), "FLIGHTLOG_LOG_URL": "memory://", "PATH": "/usr/bin:/bin"}
    # In a process of its own, as a deadlocked event loop could not be ended in this one.
    done = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True, timeout=20)
    assert done.stdout == "2\n", done.stderr


def test_E39_a_cancelled_flow_ends_after_what_it_submitted(history: Any) -> None:
    """When an async flow is cancelled its submitted tasks end first, and nothing follows its own end."""

    @task
    async def forever() -> None:
        await asyncio.sleep(60)

    @flow
    async def f() -> None:
        await forever.submit()
        await forever.submit()
        await asyncio.sleep(60)

    async def main() -> None:
        running = asyncio.create_task(f())
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    types = [event.type for event in history.events()]
    assert types[-1] == "flow_run.crashed"
    assert types.count("task_run.crashed") == 2
