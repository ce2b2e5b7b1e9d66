"""State hooks: what they are called with and when, and that they never change a run."""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from pydantic import SecretStr

from flightlog import flow, get_run_logger, runtime, task
from flightlog.engine.resuming import resume_run
from flightlog.engine.runtime import Engine, using
from flightlog.errors import MissingContextError, ParameterTypeError
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.settings import load
from flightlog.states import Completed, Failed

QUICK = 0.05


@pytest.fixture
def impatient(engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    """Give the test an engine whose hooks have little time."""
    environ = {"FLIGHTLOG_HOME": str(tmp_path), "FLIGHTLOG_HOOKS_TIMEOUT_SECONDS": str(QUICK)}
    with ExitStack() as stack:
        made = Engine(Log(MemoryStore()), engine.key, load(environ))
        stack.callback(made.log.close)
        stack.enter_context(using(made))
        yield made


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Return something to hang on, which is opened at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


class Seen:
    """A hook that notes what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any]] = []

    def __call__(self, subject: Any, run: Any, state: Any) -> None:
        self.calls.append((subject, run, state))

    @property
    def states(self) -> list[str]:
        """The names of the states that it was called for."""
        return [state.name for _, _, state in self.calls]


class Calls:
    """Hooks with the names that the calls use, which note them."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, str]] = []

    def flow_hook(self, flow: Any, flow_run: Any, state: Any) -> None:
        """Note a flow's state."""
        self.made.append((flow.name, flow_run.id, state.name))

    def task_hook(self, task: Any, task_run: Any, state: Any) -> None:
        """Note a task's state."""
        self.made.append((task.name, task_run.id, state.name))


def all_hooks(hook: Any) -> dict[str, Any]:
    """Return one hook for every state that flows have hooks for."""
    names = ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")
    return {name: [hook] for name in names}


def task_hooks(hook: Any) -> dict[str, Any]:
    """Return one hook for every state that tasks have hooks for."""
    return {name: [hook] for name in ("on_running", "on_completion", "on_failure")}


def boom(*_: Any) -> None:
    """Fail."""
    raise ValueError("boom")


# --- which hooks are called when --------------------------------------------------------------------


def test_E43_hooks_of_a_flow_that_completes(history: Any) -> None:
    """First `on_running`, then `on_completion`, with the flow, its run and the state; nothing else."""
    calls = Calls()

    @flow(**all_hooks(calls.flow_hook))
    def f() -> int:
        return 5

    assert f() == 5
    [run] = history.flow_runs("f")
    assert calls.made == [("f", run, "Running"), ("f", run, "Completed")]


def test_E43_hooks_of_a_flow_that_fails(history: Any) -> None:
    """First `on_running`, then `on_failure`; the caller gets the flow's own exception."""
    calls = Calls()
    f = flow(**all_hooks(calls.flow_hook))(boom)
    with pytest.raises(ValueError, match="boom"):
        f()
    [run] = history.flow_runs("boom")
    assert calls.made == [("boom", run, "Running"), ("boom", run, "Failed")]


def test_E43_hooks_of_an_async_flow() -> None:
    """The same for async flows."""
    seen = Seen()

    @flow(**all_hooks(seen))
    async def f(fail: bool) -> int:
        await asyncio.sleep(0)
        if fail:
            raise ValueError("boom")
        return 5

    assert asyncio.run(f(False)) == 5
    asyncio.run(f(True, return_state=True))
    assert seen.states == ["Running", "Completed", "Running", "Failed"]


@pytest.mark.parametrize("submitted", [False, True])
def test_E43_hooks_of_tasks(submitted: bool, history: Any) -> None:
    """Hooks of a task are called with the task, its run and the state."""
    calls = Calls()

    @task(**task_hooks(calls.task_hook))
    def t(fail: bool) -> int:
        if fail:
            raise ValueError("boom")
        return 5

    @flow
    def f() -> int:
        for fail in (False, True):
            if submitted:
                t.submit(fail).wait()
            else:
                t(fail, return_state=True)
        return 1

    f()
    good, bad = (event.data["task_run_id"] for event in history.events("task_run.created"))
    ids = {run.hex(): number for number, run in enumerate((good, bad))}
    found = [(name, ids[run.replace("-", "")], state) for name, run, state in calls.made]
    assert found == [("t", 0, "Running"), ("t", 0, "Completed"), ("t", 1, "Running"), ("t", 1, "Failed")]


def test_E43_hooks_of_async_tasks() -> None:
    """Hooks of async tasks are called in async and in sync flows."""
    seen = Seen()

    @task(**task_hooks(seen))
    async def t() -> int:
        await asyncio.sleep(0)
        return 5

    @flow
    async def f() -> int:
        future = await t.submit()
        return await t() + await future.result()

    @flow
    def g() -> Any:
        return t()

    assert asyncio.run(f()) == 10
    assert g() == 5
    assert sorted(seen.states) == ["Completed"] * 3 + ["Running"] * 3


def test_E43_tasks_have_no_hooks_for_crashes() -> None:
    """`on_crashed` and `on_cancellation` are for flows."""
    for name in ("on_crashed", "on_cancellation"):
        option: Any = {name: [boom]}
        with pytest.raises(TypeError, match=name):
            task(**option)(boom)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("in_async", [False, True])
def test_E43_hooks_of_a_flow_that_crashes(error: BaseException, in_async: bool) -> None:
    """`on_crashed` is called, `on_failure` is not, and the interrupt still reaches the caller."""
    seen = Seen()

    @flow(**all_hooks(seen))
    def f() -> None:
        raise error

    @flow(**all_hooks(seen))
    async def g() -> None:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(g()) if in_async else f()
    assert seen.states == ["Running", "Crashed"]


@pytest.mark.parametrize("async_hook", [False, True])
def test_E43_hooks_of_an_async_flow_that_is_cancelled(async_hook: bool) -> None:
    """Cancelled by its event loop the flow crashes: `on_crashed` is called, to its end, sync or async."""
    seen: list[str] = []

    def hook(_: Any, __: Any, state: Any) -> None:
        seen.append(state.name)

    async def later(_: Any, __: Any, state: Any) -> None:
        await asyncio.sleep(0)
        seen.append(state.name)

    started = asyncio.Event()

    @flow(on_crashed=[later if async_hook else hook], on_completion=[hook], on_failure=[hook])
    async def f() -> None:
        started.set()
        await asyncio.sleep(30)

    async def main() -> None:
        running = asyncio.ensure_future(f())
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert seen == ["Crashed"]


def test_E43_a_failed_aggregate_calls_the_failure_hook() -> None:
    """A flow that returns None and has a failed task is Failed, and its hook is told."""
    seen = Seen()

    @flow(**all_hooks(seen))
    def f() -> None:
        task(boom)(return_state=True)

    assert f(return_state=True).is_failed()
    assert seen.states == ["Running", "Failed"]


def test_E43_states_made_by_hand_call_the_hooks_of_their_type() -> None:
    """It is the type that counts, not the name."""
    seen = Seen()

    @task(**task_hooks(seen))
    def t(state: Any) -> Any:
        return state()

    @flow(on_completion=[seen])
    def f() -> Any:
        t(lambda: Completed(name="Skipped"))
        rejected: Any = t.submit(lambda: Failed(name="Rejected"))
        rejected.wait()
        return Completed(name="Fine")

    f()
    assert seen.states == ["Running", "Skipped", "Running", "Rejected", "Fine"]


def test_E43_time_outs_call_the_failure_hook() -> None:
    """TimedOut is a failure, of flows and tasks."""
    seen = Seen()

    @task(timeout_seconds=0.02, on_failure=[seen])
    async def t() -> None:
        await asyncio.sleep(30)

    @flow(timeout_seconds=0.05, on_failure=[seen])
    async def f() -> None:
        await t(return_state=True)
        await asyncio.sleep(30)

    asyncio.run(f(return_state=True))
    assert seen.states == ["TimedOut", "TimedOut"]


def test_E43_a_task_that_is_not_ready_calls_no_hook() -> None:
    """What never ran has neither completed nor failed."""
    seen = Seen()

    @task(**task_hooks(seen))
    def t(_: Any) -> int:
        return 1

    @flow
    def f() -> int:
        t.submit(task(boom).submit()).wait()
        return 1

    f()
    assert seen.calls == []


def test_E43_retried_tasks_call_each_hook_once() -> None:
    """`on_running` at the first Running, `on_failure` after the last retry only."""
    seen = Seen()
    left = [ValueError("boom")] * 2

    @task(retries=2, **task_hooks(seen))
    def t() -> int:
        if left:
            raise left.pop()
        return 5

    @flow
    def f() -> int:
        return t()

    assert f() == 5
    assert seen.states == ["Running", "Completed"]
    left.extend([ValueError("boom")] * 3)
    f(return_state=True)
    assert seen.states[2:] == ["Running", "Failed"]


def test_E43_retried_flows_call_each_hook_once() -> None:
    """Hooks of the flow, and of tasks that completed in the first attempt, are called once."""
    flow_seen, task_seen = Seen(), Seen()
    left = [ValueError("boom")] * 2

    @task(**task_hooks(task_seen))
    def t() -> int:
        return 5

    @flow(retries=2, **all_hooks(flow_seen))
    def f() -> int:
        value = t()
        if left:
            raise left.pop()
        return value

    assert f() == 5
    assert flow_seen.states == ["Running", "Completed"]
    assert task_seen.states == ["Running", "Completed"]


def test_E43_the_run_tells_its_attempts() -> None:
    """The hook's run says how often it ran."""
    counts: list[int] = []
    left = [ValueError("boom")]

    @task(retries=1, on_completion=[lambda _, run, __: counts.append(run.run_count)])
    def t() -> int:
        if left:
            raise left.pop()
        return 5

    @flow
    def f() -> int:
        return t()

    f()
    assert counts == [2]


def test_E43_hooks_of_subflows(history: Any) -> None:
    """A subflow's hooks are called with the subflow's own run, before those of its parent's end."""
    calls = Calls()

    @flow(**all_hooks(calls.flow_hook))
    def inner(fail: bool) -> int:
        if fail:
            raise ValueError("boom")
        return 1

    @flow(**all_hooks(calls.flow_hook))
    def outer() -> int:
        inner(True, return_state=True)
        return inner(False)

    assert outer() == 1
    [top] = history.flow_runs("outer")
    first, second = history.flow_runs("inner")
    assert calls.made == [
        ("outer", top, "Running"),
        ("inner", first, "Running"),
        ("inner", first, "Failed"),
        ("inner", second, "Running"),
        ("inner", second, "Completed"),
        ("outer", top, "Completed"),
    ]


def test_E43_hooks_of_async_subflows(history: Any) -> None:
    """Async subflows that are gathered each call their own hooks."""
    calls = Calls()

    @flow(**all_hooks(calls.flow_hook))
    async def inner(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @flow
    async def outer() -> Any:
        return list(await asyncio.gather(inner(1), inner(2)))

    assert asyncio.run(outer()) == [1, 2]
    runs = set(history.flow_runs("inner"))
    assert {(run, state) for _, run, state in calls.made} == {(r, s) for r in runs for s in ("Running", "Completed")}
    assert len(calls.made) == 4


@pytest.mark.parametrize("in_async", [False, True])
def test_E22_invalid_parameters_call_the_failure_hook(in_async: bool, history: Any) -> None:
    """A run whose parameters do not fit never runs, and its `on_failure` is called with the reason."""
    seen = Seen()

    @flow(**all_hooks(seen))
    def f(n: int) -> int:
        return n

    @flow(name="f", **all_hooks(seen))
    async def g(n: int) -> int:
        return n

    bad: Any = "many"
    with pytest.raises(ParameterTypeError):
        asyncio.run(g(bad)) if in_async else f(bad)
    [(_, run, state)] = seen.calls
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), ParameterTypeError)
    assert [run.id] == history.flow_runs("f")
    assert run.run_count == 0


def test_E22_a_subflow_with_invalid_parameters_calls_its_hook() -> None:
    """A subflow that is refused has a run of its own, and its hook is called; the parent goes on."""
    seen = Seen()

    @flow(**all_hooks(seen))
    def inner(n: int) -> int:
        return n

    @flow
    def outer() -> int:
        bad: Any = "many"
        inner(bad, return_state=True)
        return 1

    assert outer() == 1
    assert seen.states == ["Failed"]


def test_E43_a_resumed_run_calls_its_last_hook() -> None:
    """A run that failed and is resumed has failed and completed: each hook once."""
    seen = Seen()
    left = [ValueError("boom")]

    @flow(on_completion=[seen], on_failure=[seen])
    def f() -> int:
        if left:
            raise left.pop()
        return 5

    run = f(return_state=True).state_details.flow_run_id
    assert isinstance(run, str)
    assert resume_run(run, flow=f) == 5
    assert seen.states == ["Failed", "Completed"]


# --- how they are called ----------------------------------------------------------------------------


def test_E43_hooks_get_their_arguments_by_name() -> None:
    """The names may stand in any order, with defaults besides, or all be taken by `**kwargs`."""
    seen: list[Any] = []

    def turned(state: Any, flow_run: Any, flow: Any, channel: str = "#ops") -> None:
        seen.append((flow.name, flow_run.name, state.name, channel))

    def anything(**given: Any) -> None:
        seen.append(sorted(given))

    @flow(flow_run_name="once", on_completion=[turned, anything])
    def f() -> int:
        return 1

    f()
    assert seen == [("f", "once", "Completed", "#ops"), ["flow", "flow_run", "state"]]


def test_E43_partial_hooks_work() -> None:
    """Arguments that are fixed before, by place or by name, go with those of the call."""
    seen: list[Any] = []

    def hook(channel: str, flow: Any, flow_run: Any, state: Any) -> None:
        seen.append((channel, flow.name, state.name))

    async def later(task: Any, task_run: Any, state: Any, *, channel: str) -> None:
        await asyncio.sleep(0)
        seen.append((channel, task.name, state.name))

    @task(on_completion=[partial(later, channel="a")])
    def t() -> int:
        return 1

    @flow(on_completion=[partial(hook, "b"), partial(hook, channel="c")])
    def f() -> int:
        return t()

    f()
    assert seen == [("a", "t", "Completed"), ("b", "f", "Completed"), ("c", "f", "Completed")]


def test_E43_whatever_can_be_called_is_a_hook() -> None:
    """Other names of arguments, `*args`, methods, objects, async objects and mocks."""
    seen = Seen()
    mock = MagicMock()

    class Later:
        async def __call__(self, *given: Any) -> None:
            seen(*given)

    def star(*given: Any) -> None:
        seen(*given)

    def other(a: Any, b: Any, c: Any) -> None:
        seen(a, b, c)

    @flow(on_completion=[star, other, seen.__call__, seen, Later(), mock])
    def f() -> int:
        return 1

    f()
    assert seen.states == ["Completed"] * 5
    assert {subject for subject, _, _ in seen.calls} == {f}
    mock.assert_called_once()


def test_E18_hooks_are_attached_with_decorators() -> None:
    """`@f.on_completion` and its like give the function back, and call it after those of the list."""
    order: list[str] = []

    @task(on_completion=[lambda *_: order.append("listed")])
    def t(fail: bool) -> int:
        if fail:
            raise ValueError("boom")
        return 1

    @t.on_completion
    def first(task: Any, task_run: Any, state: Any) -> None:
        order.append("first")

    @t.on_completion
    @t.on_failure
    async def second(task: Any, task_run: Any, state: Any) -> None:
        order.append(f"second {state.name}")

    @t.on_running
    def running(*_: Any) -> None:
        order.append("running")

    assert first.__name__ == "first"
    assert second.__name__ == "second"

    @flow
    def f() -> int:
        t(False)
        t(True, return_state=True)
        return 1

    f()
    assert order == ["running", "listed", "first", "second Completed", "running", "second Failed"]


@pytest.mark.parametrize("name", ["on_running", "on_completion", "on_failure", "on_crashed", "on_cancellation"])
def test_E18_attached_hooks_of_flows(name: str) -> None:
    """Every hook of a flow can be attached; what cannot be called is a TypeError."""
    f = flow(boom)
    attach: Callable[[Any], Any] = getattr(f, name)
    assert attach(boom) is boom
    assert f.hooks[name] == [boom]
    with pytest.raises(TypeError, match=name):
        attach("boom")


def test_E18_a_hook_of_a_method_is_called_for_every_object() -> None:
    """A hook that is attached in the class goes for all objects' runs."""
    seen = Seen()

    class Source:
        @task
        def read(self) -> int:
            return 1

        read.on_completion(seen)

    @flow
    def f() -> int:
        return Source().read() + Source().read.submit().result()

    assert f() == 2
    assert seen.states == ["Completed"] * 2


@pytest.mark.parametrize("async_flow", [False, True])
@pytest.mark.parametrize("async_hook", [False, True])
def test_E43_sync_and_async_mix(async_flow: bool, async_hook: bool) -> None:
    """Async hooks in sync flows, and sync hooks in async flows, are called to their end before the call returns."""
    seen: list[str] = []

    def hook(_: Any, __: Any, state: Any) -> None:
        seen.append(state.name)

    async def later(_: Any, __: Any, state: Any) -> None:
        await asyncio.sleep(0)
        seen.append(state.name)

    used = later if async_hook else hook

    @task(**task_hooks(used))
    def t() -> int:
        return 1

    @flow(**all_hooks(used))
    def f() -> int:
        return t() + t.submit().result()

    @flow(**all_hooks(used))
    async def g() -> int:
        return t() + t.submit().result()

    assert (asyncio.run(g()) if async_flow else f()) == 2
    assert seen == ["Running"] + ["Running", "Completed"] * 2 + ["Completed"]


def test_E43_a_sync_hook_does_not_block_the_loop(gate: threading.Event) -> None:
    """While a sync hook of an async flow waits, other coroutines of the loop go on."""

    waited: list[bool] = []

    @flow(on_running=[lambda *_: waited.append(gate.wait(5))])
    async def f() -> int:
        return 1

    async def open_it() -> None:
        await asyncio.sleep(0)
        gate.set()

    async def main() -> Any:
        return await asyncio.gather(f(), open_it())

    assert asyncio.run(main()) == [1, None]
    assert waited == [True]


# --- what they may do -------------------------------------------------------------------------------


def test_E44_the_log_lines_of_hooks(history: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Two INFO lines for each hook, and what it logs itself between them."""

    def notify(flow: Any, flow_run: Any, state: Any) -> None:
        get_run_logger().info("my own line")

    f = flow(on_failure=[notify])(boom)
    with caplog.at_level(logging.INFO):
        f(return_state=True)
    wanted = [
        "Running hook 'notify' in response to entering state 'Failed'",
        "my own line",
        "Hook 'notify' finished running successfully",
    ]
    assert [line for line in history.log_lines() if line in wanted] == wanted
    records = [record for record in caplog.records if record.getMessage() in wanted]
    assert [record.levelno for record in records] == [logging.INFO] * 3
    [run] = history.flow_runs("boom")
    assert {getattr(record, "flow_run_id", None) for record in records} == {run}


@pytest.mark.parametrize("async_hook", [False, True])
@pytest.mark.parametrize(
    "error", [ValueError("oh dear"), SystemExit("oh dear"), KeyboardInterrupt("oh dear"), StopIteration("oh dear")]
)
def test_E44_a_hook_that_raises_changes_nothing(
    error: BaseException, async_hook: bool, history: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a hook raises is logged as an ERROR with its traceback; the next one is called, the value returned."""
    seen = Seen()

    def broken(*_: Any) -> None:
        raise error

    async def broken_later(*_: Any) -> None:
        raise error

    hook = broken_later if async_hook else broken

    @task(on_running=[hook, seen], on_completion=[hook, seen])
    def t() -> int:
        return 5

    @flow(on_running=[hook, seen], on_completion=[hook, seen])
    def f() -> int:
        return t()

    assert f() == 5
    assert seen.states == ["Running", "Running", "Completed", "Completed"]
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "Completed"]
    assert history.states("t") == [["Pending", "Running", "Completed"]]
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 4
    assert all(hook.__name__ in record.getMessage() for record in told)
    assert sum("oh dear" in line and "Traceback" in line for line in history.log_lines()) == 4


@pytest.mark.parametrize("async_hook", [False, True])
@pytest.mark.parametrize("error", [ValueError("oh"), SystemExit(1), KeyboardInterrupt()])
def test_E44_hooks_that_raise_in_async_flows_change_nothing(error: BaseException, async_hook: bool) -> None:
    """In async code, too, an exit or interrupt of a hook ends the hook alone."""
    seen = Seen()

    def broken(*_: Any) -> None:
        raise error

    async def broken_later(*_: Any) -> None:
        await asyncio.sleep(0)
        raise error

    hook = broken_later if async_hook else broken

    @task(on_completion=[hook, seen])
    async def t() -> int:
        return 5

    @flow(on_running=[hook], on_completion=[hook, seen])
    async def f() -> int:
        return await t()

    assert asyncio.run(f()) == 5
    assert seen.states == ["Completed", "Completed"]


def test_E44_a_hook_that_raises_hides_no_failure() -> None:
    """The exception of the run reaches the caller, not the one of its hook."""

    def broken(*_: Any) -> None:
        raise KeyError("of the hook")

    f = flow(on_failure=[broken], on_running=[broken])(boom)
    with pytest.raises(ValueError, match="boom") as caught:
        f()
    assert not isinstance(caught.value.__context__, KeyError)


def test_E44_sys_exit_in_a_hook_does_not_end_the_process() -> None:
    """`sys.exit` in hooks of a crashed flow leaves the flow's own interrupt to be raised."""

    def leave(*_: Any) -> None:
        sys.exit(7)

    @flow(on_crashed=[leave])
    def f() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        f()


def test_E44_a_hook_that_takes_other_arguments_is_told(history: Any) -> None:
    """A hook that cannot be called with three arguments has an error on record; the run is as it was."""

    def none() -> None:
        raise AssertionError("not to be reached")

    def four(a: Any, b: Any, c: Any, d: Any) -> None:
        raise AssertionError("not to be reached")

    @flow(on_completion=[none, four])
    def f() -> int:
        return 1

    assert f() == 1
    assert [data["problem"].partition(":")[0] for data in history.data("hook.ended")] == ["TypeError"] * 2


def test_E44_a_hook_that_hangs_is_left_to_itself(impatient: Engine, history: Any, gate: threading.Event) -> None:
    """After the time that the setting says the run goes on, with the next hook; an ERROR and the event say so."""
    seen = Seen()

    def hanging(*_: Any) -> None:
        gate.wait(30)

    @flow(on_completion=[hanging, seen])
    def f() -> int:
        return 5

    assert f() == 5
    assert seen.states == ["Completed"]
    first, second = type(history)(impatient).data("hook.ended")
    assert (first["hook"], second.get("problem")) == ("hanging", None)
    assert str(QUICK) in first["problem"]
    assert any("hanging" in line and str(QUICK) in line for line in type(history)(impatient).log_lines())


def test_E44_a_task_hook_that_hangs_is_left_to_itself(impatient: Engine, gate: threading.Event) -> None:
    """The task's value is there all the same, called or submitted."""

    @task(on_running=[lambda *_: gate.wait(30)])
    def t() -> int:
        return 5

    @flow
    def f() -> int:
        return t() + t.submit().result()

    assert f() == 10
    assert not gate.is_set()


@pytest.mark.parametrize("async_flow", [False, True])
def test_E44_an_async_hook_that_hangs_is_cancelled(async_flow: bool, impatient: Engine, history: Any) -> None:
    """An async hook that does not end in time is cancelled at its await."""
    ended: list[str] = []

    async def hanging(*_: Any) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("ended")

    @flow(on_completion=[hanging])
    def f() -> int:
        return 5

    @flow(on_completion=[hanging])
    async def g() -> int:
        return 5

    assert (asyncio.run(g()) if async_flow else f()) == 5
    assert ended == ["ended"]
    [told] = type(history)(impatient).data("hook.ended")
    assert str(QUICK) in told["problem"]


def test_E44_a_sync_hook_that_hangs_in_an_async_flow(impatient: Engine, gate: threading.Event) -> None:
    """An async flow, too, goes on without a sync hook that hangs."""

    @flow(on_completion=[lambda *_: gate.wait(30)])
    async def f() -> int:
        return 5

    assert asyncio.run(f()) == 5
    assert not gate.is_set()


def test_E44_a_hooks_own_timeout_error_is_an_error_like_others(history: Any) -> None:
    """A TimeoutError that a hook raises is not taken for its time being over."""

    def late(*_: Any) -> None:
        raise TimeoutError("the mail server")

    async def later(*_: Any) -> None:
        raise TimeoutError("the mail server")

    @flow(on_completion=[late, later])
    def f() -> int:
        return 5

    assert f() == 5
    assert [data["problem"] for data in history.data("hook.ended")] == ["TimeoutError: the mail server"] * 2


@pytest.mark.parametrize("async_hook", [False, True])
def test_E44_a_hook_that_calls_a_task_is_told(async_hook: bool, history: Any) -> None:
    """A hook belongs to no run that tasks could be called in: a clear error, and nothing in the log."""
    errors: list[str] = []

    @task
    def t() -> int:
        return 1

    @task
    async def u() -> int:
        return 1

    def hook(*_: Any) -> None:
        for call in (t, t.submit, u, u.submit, lambda: t.map([])):
            try:
                call()
            except MissingContextError as error:
                errors.append(str(error))

    async def later(*_: Any) -> None:
        hook()

    used = later if async_hook else hook

    @flow(on_running=[used], on_completion=[used])
    def f() -> None:
        boom_free = task(on_completion=[used])(lambda: 1)
        boom_free.with_options(name="own")()

    assert f(return_state=True).message == "All states completed."
    assert len(errors) == 15
    assert all("outside a flow" in error for error in errors)
    assert [run["task"] for run in history.data("task_run.created")] == ["own"]
    assert all("problem" not in data for data in history.data("hook.ended"))


def test_E43_a_hook_may_run_a_flow(history: Any) -> None:
    """A flow that a hook calls is an outermost one, with its own tasks, and counts for nothing in the other's state."""
    found: list[Any] = []

    @task
    def send() -> str:
        return "sent"

    @flow
    def notify() -> str:
        return send()

    def hook(*_: Any) -> None:
        found.append(notify(return_state=True))

    @flow(on_completion=[hook])
    def f() -> None:
        pass

    assert f(return_state=True).message is None
    assert [state.name for state in found] == ["Completed"]
    assert found[0].result() == "sent"
    created = next(data for data in history.data("flow_run.created") if data["flow"] == "notify")
    assert "parent_flow_run_id" not in created


@pytest.mark.parametrize("kind", ["flow", "task"])
def test_E44_the_state_is_committed_before_the_hook_is_called(kind: str, engine: Engine) -> None:
    """Each hook finds the event of the state that it is called for in the log."""
    found: list[tuple[str, bool]] = []

    def hook(_: Any, __: Any, state: Any) -> None:
        wanted = f"{kind}_run.{state.name.lower()}"
        found.append((state.name, wanted in [event.type for event in engine.log.read_all()]))

    @task(**(task_hooks(hook) if kind == "task" else {}))
    def t(fail: bool) -> int:
        if fail:
            raise ValueError("boom")
        return 1

    def body(fail: bool) -> int:
        return t(fail)

    f = flow(**(all_hooks(hook) if kind == "flow" else {}))(body)
    f(False, return_state=True)
    f(True, return_state=True)
    names = ["Running", "Completed", "Running", "Failed"]
    assert found == [(name, True) for name in names]


def test_E44_the_crash_is_committed_before_the_hook_is_called(engine: Engine) -> None:
    """Also for a flow that is interrupted, and for a subflow."""
    found: list[int] = []

    def hook(*_: Any) -> None:
        found.append(sum(event.type == "flow_run.crashed" for event in engine.log.read_all()))

    @flow(on_crashed=[hook])
    def inner() -> None:
        raise KeyboardInterrupt

    @flow(on_crashed=[hook])
    def outer() -> None:
        inner()

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert found == [1, 2]


def test_E44_a_hook_knows_its_run() -> None:
    """The facts of `flightlog.runtime` in a hook are those of the run that it is called for."""
    found: list[Any] = []

    def hook(_: Any, run: Any, __: Any) -> None:
        found.append((runtime.flow_run.name, runtime.task_run.name, run.name))

    @task(task_run_name="the task", on_completion=[hook])
    def t() -> int:
        return 1

    @flow(flow_run_name="the flow", on_running=[hook], on_completion=[hook])
    def f() -> int:
        return t()

    f()
    assert found == [
        ("the flow", None, "the flow"),
        ("the flow", "the task", "the task"),
        ("the flow", None, "the flow"),
    ]


# --- what is on record ------------------------------------------------------------------------------


def test_E44_every_hook_leaves_an_event(history: Any) -> None:
    """`hook.ended` names hook, state, task run and time, and the problem if there was one."""

    def good(*_: Any) -> None:
        """Look on."""

    def bad(*_: Any) -> None:
        raise KeyError("gone")

    @task(on_completion=[good])
    def t() -> int:
        return 1

    @flow(on_running=[good], on_completion=[bad, good])
    def f() -> int:
        return t()

    f()
    events = history.events("hook.ended")
    [flow_run] = history.flow_runs("f")
    [run] = history.task_runs("t")
    assert {event.stream for event in events} == {f"flow-run/{flow_run}"}
    assert [(e.data["hook"], e.data["state"], e.data.get("task_run_id")) for e in events] == [
        ("good", "Running", None),
        ("good", "Completed", run["task_run_id"]),
        ("bad", "Completed", None),
        ("good", "Completed", None),
    ]
    assert all(event.data["took"] >= 0 for event in events)
    assert [event.data.get("problem") for event in events] == [None, None, "KeyError: 'gone'", None]


def test_E44_hooks_of_subflows_are_on_record_in_their_own_stream(history: Any) -> None:
    """The event of a subflow's hook stands with the subflow."""

    @flow(on_completion=[Seen()])
    def inner() -> int:
        return 1

    @flow
    def outer() -> int:
        return inner()

    outer()
    [event] = history.events("hook.ended")
    assert event.stream == f"flow-run/{history.flow_runs('inner')[0]}"
    assert event.data["hook"] == "Seen"


def test_E44_no_secret_in_what_hooks_leave(history: Any) -> None:
    """What a hook raises is masked in the event and in the log lines."""

    def telling(flow: Any, flow_run: Any, state: Any) -> None:
        raise ValueError("cannot log in with open-sesame-1234")

    @flow(on_completion=[telling])
    def f(password: SecretStr) -> int:
        return 1

    f(SecretStr("open-sesame-1234"))
    [told] = history.data("hook.ended")
    assert told["problem"].startswith("ValueError: cannot log in with ***")
    assert not any("open-sesame-1234" in line for line in history.log_lines())


def test_E44_a_problem_that_cannot_be_told_is_on_record(history: Any) -> None:
    """An exception whose own text raises, or is very long, still leaves an event."""

    class Shy(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def shy(*_: Any) -> None:
        raise Shy

    def long(*_: Any) -> None:
        raise ValueError("x" * 100_000)

    @flow(on_completion=[shy, long])
    def f() -> int:
        return 1

    assert f() == 1
    first, second = (data["problem"] for data in history.data("hook.ended"))
    assert first.startswith("Shy")
    assert len(second) < 10_000


def test_E43_hooks_that_are_attached_while_it_runs_count(history: Any) -> None:
    """A hook that the flow's own code attaches is called at its end; one that a hook attaches is not, this time."""
    seen: list[str] = []

    def hook(*_: Any) -> None:
        seen.append("first")
        f.on_completion(lambda *_: seen.append("second"))

    @flow
    def f() -> int:
        if not f.hooks:
            f.on_completion(hook)
        return 1

    f()
    assert seen == ["first"]
    f()
    assert seen == ["first", "first", "second"]
