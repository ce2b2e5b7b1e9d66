# mypy: disable-error-code="untyped-decorator"

"""Flows: declaration, calling, and what their final state is."""

import asyncio
import contextlib
import hashlib
import re
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

import flightlog
from flightlog import get_run_context
from flightlog.engine.context import FlowRunContext
from flightlog.engine.runtime import Engine
from flightlog.errors import (
    FailedRun,
    FlightlogError,
    InvalidNameError,
    ParameterBindError,
    ReservedArgumentError,
)
from flightlog.states import Cancelled, Completed, Crashed, Failed, Paused, Running
from flightlog.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

flow: Callable[..., Any] = flightlog.flow
task: Callable[..., Any] = flightlog.task


@task
def one() -> int:
    """Return 1."""
    return 1


@task
def number(x: Any) -> Any:
    """Return what it is given."""
    return x


@task
def broken(text: str = "boom") -> int:
    """Fail."""
    raise ValueError(text)


def test_E9_flow_works_bare_and_with_options() -> None:
    """The decorator works with and without parentheses and keeps the function's metadata."""

    @flow
    def bare() -> int:
        """Say one."""
        return 1

    @flow(name="Given", version="7", retries=2, retry_delay_seconds=3, description="Said", timeout_seconds=5)
    async def given() -> int:
        """Say two."""
        return 2

    assert bare.__name__ == "bare"
    assert bare.__doc__ == "Say one."
    assert bare.fn() == 1
    assert bare.isasync is False
    assert (given.name, given.version, given.description) == ("Given", "7", "Said")
    assert given.isasync is True
    assert asyncio.run(given.fn()) == 2


def test_E9_flow_has_a_schema_of_its_parameters() -> None:
    """`Flow.parameters` is a schema with the properties and what is required."""

    @flow
    def f(x: int, y: str = "a") -> None:
        pass

    schema: Any = f
    schema = schema.parameters
    properties = schema["properties"] if isinstance(schema, dict) else schema.properties
    required = schema["required"] if isinstance(schema, dict) else schema.required
    assert set(properties) == {"x", "y"}
    assert list(required) == ["x"]


def test_E9_calling_fn_leaves_no_trace(history: Any) -> None:
    """The raw function runs without a flow run."""

    @flow
    def f() -> int:
        return 3

    assert f.fn() == 3
    assert history.events() == []


def test_E11_the_default_name_has_hyphens() -> None:
    """Underscores of the function's name become hyphens in the flow's name."""

    @flow
    def my_first_flow() -> None:
        pass

    assert my_first_flow.name == "my-first-flow"


def test_E11_an_explicit_name_is_kept() -> None:
    """A name that is given is not changed."""

    @flow(name="My_Flow: a")
    def f() -> None:
        pass

    assert f.name == "My_Flow: a"


@pytest.mark.parametrize("character", list("/%&><"))
def test_E11_reserved_characters_in_a_name_are_refused(character: str) -> None:
    """A name with a reserved character is refused at decoration."""
    with pytest.raises(InvalidNameError) as caught:
        flow(name=f"a{character}b")(lambda: 1)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, FlightlogError)


def test_E11_a_name_that_is_no_string_is_refused() -> None:
    """A name of another type than str is a TypeError."""
    name: Any = 5
    with pytest.raises(TypeError, match="name"):
        flow(name=name)(lambda: 1)


def test_E11_a_lambda_can_be_a_flow() -> None:
    """A lambda becomes `unknown-lambda`, as its own name has reserved characters."""
    f = flow(lambda: 4)
    assert f.name == "unknown-lambda"
    assert f() == 4


def test_E12_the_description_falls_back_to_the_docstring() -> None:
    """Without a description the cleaned docstring is taken."""

    @flow
    def f() -> None:
        """First.

        Second.
        """

    assert f.description == "First.\n\nSecond."


def test_E12_the_version_falls_back_to_the_md5_of_the_source_file() -> None:
    """Without a version the MD5 of the source file is taken."""

    @flow
    def f() -> None:
        pass

    assert f.version == hashlib.md5(Path(__file__).read_bytes()).hexdigest()


def test_E12_the_version_is_none_without_a_source_file() -> None:
    """A function whose source file cannot be read has no version."""
    scope: dict[str, Any] = {"flow": flow}
    exec(compile("@flow\ndef f():\n    return 1\n", "<nowhere>", "exec"), scope)
    assert scope["f"].version is None


def test_E13_return_state_and_wait_for_are_reserved() -> None:
    """Parameters that calls use themselves are refused at decoration."""

    def with_return_state(return_state: bool) -> None:
        pass

    def with_wait_for(wait_for: Any) -> None:
        pass

    for function in (with_return_state, with_wait_for):
        with pytest.raises(ReservedArgumentError) as caught:
            flow(function)
        assert isinstance(caught.value, TypeError)


def test_E14_a_task_runner_is_a_class_or_an_instance() -> None:
    """A task runner's class is instantiated, an instance is kept, and the default is the concurrent one."""

    @flow
    def default() -> None:
        pass

    @flow(task_runner=SequentialTaskRunner)
    def by_class() -> None:
        pass

    runner = SequentialTaskRunner()

    @flow(task_runner=runner)
    def by_instance() -> None:
        pass

    assert isinstance(default.task_runner, ConcurrentTaskRunner)
    assert isinstance(by_class.task_runner, SequentialTaskRunner)
    assert by_instance.task_runner is runner


def test_E14_a_falsy_timeout_is_none_and_others_are_floats() -> None:
    """`timeout_seconds` is stored as a float, or as None if it is falsy."""
    assert flow(timeout_seconds=0)(lambda: 1).with_options(name="a").timeout_seconds is None
    timeout = flow(name="a", timeout_seconds=5)(one.fn).timeout_seconds
    assert timeout == 5.0
    assert isinstance(timeout, float)


def test_E15_a_signature_that_cannot_be_modelled_is_refused() -> None:
    """Annotations without a model are a ValueError that names `validate_parameters`."""

    def f(x: Annotated[str, Field(pattern="(")]) -> None:
        pass

    with pytest.raises(ValueError, match="validate_parameters"):
        flow(f)
    assert flow(validate_parameters=False)(f).fn is f


def test_E17_with_options_returns_a_new_flow() -> None:
    """Options that are given change, the others are inherited, and the original stays as it is."""

    @flow(name="a", retries=3, retry_delay_seconds=2, timeout_seconds=9, log_prints=True, flow_run_name="x")
    def f() -> None:
        """Do nothing."""

    g: Any = f.with_options(name="b", retries=0, timeout_seconds=0)
    old: Any = f
    assert g is not f
    assert (g.name, g.retries, g.timeout_seconds) == ("b", 0, None)
    assert (g.retry_delay_seconds, g.log_prints, g.flow_run_name) == (2, True, "x")
    assert (g.description, g.version) == (f.description, f.version)
    assert g.fn is f.fn
    assert (old.name, old.retries, old.timeout_seconds) == ("a", 3, 9.0)


def test_E17_none_resets_log_prints_and_persist_result() -> None:
    """None given for the options that have it as a value is not the same as nothing given."""

    @flow(log_prints=True, persist_result=False)
    def f() -> None:
        pass

    kept: Any = f.with_options(name="kept")
    reset: Any = f.with_options(log_prints=None, persist_result=None)
    assert (kept.log_prints, kept.persist_result) == (True, False)
    assert (reset.log_prints, reset.persist_result) == (None, None)


def test_E19_a_call_makes_one_run_and_returns_the_value(history: Any) -> None:
    """Calling a flow creates one run, which goes from Pending over Running to Completed."""

    @flow
    def f(x: int) -> int:
        return x + 1

    assert f(1) == 2
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "Completed"]


def test_E19_return_state_gives_the_state_and_never_raises() -> None:
    """`return_state=True` gives the final state of a run that failed, too."""

    @flow
    def f(fail: bool) -> int:
        if fail:
            raise ValueError("no")
        return 1

    good = f(False, return_state=True)
    bad = f(True, return_state=True)
    assert good.is_completed()
    assert good.result() == 1
    assert bad.is_failed()
    with pytest.raises(ValueError, match="no"):
        bad.result()


def test_E19_an_async_flow_is_awaited() -> None:
    """Calling an async flow gives something to await."""

    @flow
    async def f(x: int) -> int:
        return x * 2

    async def main() -> tuple[int, Any]:
        return await f(4), await f(5, return_state=True)

    value, state = asyncio.run(main())
    assert value == 8
    assert state.result() == 10


def test_E20_arguments_bind_by_signature() -> None:
    """Defaults, positional and keyword arguments, and collecting parameters all arrive as Python has them."""

    @flow
    def f(a: Any, /, b: Any = 2, *rest: Any, c: Any = 3, **more: Any) -> Any:
        return a, b, rest, c, more

    assert f(1) == (1, 2, (), 3, {})
    assert f(1, 5, 6, 7, c=8, d=9) == (1, 5, (6, 7), 8, {"d": 9})


def test_E20_arguments_that_do_not_bind_are_refused_before_a_run_exists(history: Any) -> None:
    """Arguments that do not fit the signature raise, naming it and them, and leave no run."""

    @flow
    def f(a: int, b: int = 2) -> None:
        pass

    call: Any = f
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"zzz": 1})):
        with pytest.raises(ParameterBindError) as caught:
            call(*args, **kwargs)
        assert isinstance(caught.value, TypeError)
        assert "a: int" in str(caught.value)
    assert "zzz" in str(caught.value)
    assert history.events() == []


def test_E24_a_run_name_is_an_adjective_and_an_animal(history: Any) -> None:
    """Without a template a run is named by two words."""

    @flow
    def f() -> None:
        pass

    f()
    [created] = history.data("flow_run.created")
    assert re.fullmatch(r"[a-z]+-[a-z]+", created["name"])


def test_E24_a_run_name_is_a_template_over_the_parameters(history: Any) -> None:
    """`flow_run_name` is formatted with the parameters, defaults included."""

    @flow(flow_run_name="{who}-on-{day:%A}")
    def f(who: str, day: date = date(2024, 1, 1)) -> None:
        pass

    f("ann")
    assert history.data("flow_run.created")[0]["name"] == "ann-on-Monday"


def test_E24_a_run_name_can_come_from_a_function(history: Any) -> None:
    """`flow_run_name` may be a function without arguments."""

    @flow(flow_run_name=lambda: "by-function")
    def f() -> None:
        pass

    f()
    assert history.data("flow_run.created")[0]["name"] == "by-function"


def test_E24_a_run_name_function_runs_inside_the_run_context() -> None:
    """The function that names a run sees the run's context."""
    seen: list[Any] = []

    def name() -> str:
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        seen.append(dict(context.parameters))
        return "n"

    @flow(flow_run_name=name)
    def f(x: int) -> None:
        pass

    f(3)
    assert seen == [{"x": 3}]


def test_E24_a_run_name_of_another_type_is_refused() -> None:
    """A template that is neither a string nor a function is a TypeError at decoration."""
    template: Any = 5
    with pytest.raises(TypeError):
        flow(flow_run_name=template)(one.fn)


def test_E24_a_run_name_function_must_return_a_string() -> None:
    """A function that returns no string as the run's name makes the call raise a TypeError."""
    function: Any = lambda: 5  # noqa: E731

    @flow(flow_run_name=function)
    def f() -> None:
        pass

    with pytest.raises(TypeError):
        f()


def test_E24_a_run_name_is_made_once_per_run() -> None:
    """A retry does not name the run again."""
    calls: list[int] = []

    def name() -> str:
        calls.append(1)
        return "n"

    @flow(flow_run_name=name, retries=2)
    def f() -> None:
        raise ValueError

    f(return_state=True)
    assert calls == [1]


def test_E25_a_root_flow_cannot_wait_for_dependencies() -> None:
    """`wait_for` on a flow that is not called in a flow is a ValueError."""

    @flow
    def f() -> None:
        pass

    with pytest.raises(ValueError, match="Only flows run as subflows can wait for dependencies"):
        f(wait_for=[1])


def test_E26_a_flow_that_raised_is_failed() -> None:
    """The message of a flow that raised has the exception's type and text, the call raises the same object."""
    error = ValueError("no")

    @flow
    def f() -> None:
        raise error

    state = f(return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert state.message.startswith("Flow run encountered an exception")
    assert "ValueError: no" in state.message
    with pytest.raises(ValueError, match="no") as caught:
        f()
    assert caught.value is error


def test_E26_a_flow_without_runs_that_returns_none_is_completed() -> None:
    """Nothing made and nothing returned is Completed with None."""

    @flow
    def f() -> None:
        pass

    state = f(return_state=True)
    assert state.is_completed()
    assert state.result() is None


def test_E26_a_swallowed_failure_fails_a_flow_that_returns_none() -> None:
    """The failure of a direct call counts though the flow's code caught the exception."""

    @flow
    def f() -> None:
        one()
        with contextlib.suppress(ValueError):
            broken()

    state = f(return_state=True)
    assert state.is_failed()
    assert state.message == "1/2 states failed."
    with pytest.raises(ValueError, match="boom"):
        f()


def test_E26_a_failed_subflow_counts() -> None:
    """The state of a subflow is among those that decide."""

    @flow
    def child() -> None:
        raise ValueError("child")

    @flow
    def f() -> None:
        one()
        child(return_state=True)

    state = f(return_state=True)
    assert state.is_failed()
    assert state.message == "1/2 states failed."
    with pytest.raises(ValueError, match="child"):
        state.result()


def test_E28_none_stays_none_by_decision_2() -> None:
    """A flow that returns None gives None, also after it ran tasks."""

    @flow
    def f() -> None:
        one()
        one.submit()

    returned: Any = f
    state = f(return_state=True)
    assert returned() is None
    assert state.result() is None
    assert state.message == "All states completed."
    assert len(state.states) == 2


def test_E28_a_returned_future_becomes_its_value_by_decision_2() -> None:
    """A flow that returns a future gives its value, and its state is the aggregate's."""

    @flow
    def f() -> Any:
        return number.submit([1, 2])

    state = f(return_state=True)
    assert f() == [1, 2]
    assert state.result() == [1, 2]
    assert (state.name, state.message) == ("Completed", "All states completed.")


def test_E28_returned_futures_and_states_are_replaced_also_nested_by_decision_2() -> None:
    """Futures and states in lists, tuples, sets and dicts become their values."""

    @flow
    def f() -> Any:
        state = number(3, return_state=True)
        return {"a": [number.submit(1), (number.submit(2), state)], "b": {"c": number.submit(4)}, "d": 5}

    assert f() == {"a": [1, (2, 3)], "b": {"c": 4}, "d": 5}


@pytest.mark.parametrize("kind", [list, tuple, set])
def test_E28_a_collection_of_futures_is_aggregated(kind: Any) -> None:
    """A list, tuple or set of states and futures alone decides the state; its value is of the same type."""

    @flow
    def f() -> Any:
        return kind([number.submit(1), number(2, return_state=True)])

    state = f(return_state=True)
    assert state.message == "All states completed."
    assert state.result() == kind([1, 2])
    assert type(state.result()) is kind


def test_E28_a_returned_failed_future_fails_the_flow() -> None:
    """A flow never adopts a task's state, it counts it; the call raises the task's exception."""

    @flow
    def f() -> Any:
        one()
        return broken.submit()

    state = f(return_state=True)
    assert state.is_failed()
    assert state.message == "1/1 states failed."
    with pytest.raises(ValueError, match="boom"):
        f()


def test_E28_only_what_is_returned_counts() -> None:
    """A failed task that is not among the returned futures does not fail the flow."""

    @flow
    def f() -> Any:
        broken.submit()
        return [one.submit()]

    state = f(return_state=True)
    assert state.is_completed()
    assert state.result() == [1]


def test_E28_a_returned_manual_state_is_used_as_it_is() -> None:
    """A state made by hand becomes the flow's own: type, name, message and data."""

    @flow
    def good() -> Any:
        broken.submit()
        return Completed(message="mine", name="Custom", data=7)

    @flow
    def bad() -> Any:
        return Failed(message="on purpose")

    state = good(return_state=True)
    assert (state.name, state.message, state.result()) == ("Custom", "mine", 7)
    assert state.is_completed()
    failed = bad(return_state=True)
    assert (failed.name, failed.message) == ("Failed", "on purpose")
    with pytest.raises(FailedRun, match="on purpose"):
        bad()


def test_E29_another_value_is_completed_even_if_tasks_failed() -> None:
    """A flow that returns data is Completed without a message, whatever its tasks did."""

    @flow
    def f() -> int:
        broken.submit()
        return 5

    state = f(return_state=True)
    assert (state.name, state.message, state.result()) == ("Completed", None, 5)


def test_E29_a_mixed_container_is_not_aggregated() -> None:
    """A container that holds a future and data is data: Completed, without a message."""

    @flow
    def f() -> Any:
        return number.submit(1), 5

    state = f(return_state=True)
    assert (state.message, state.result()) == (None, (1, 5))


def test_E29_a_dict_with_a_failed_state_is_completed() -> None:
    """A dict is data though one of its values is a state that failed."""

    @flow
    def f() -> Any:
        return {"a": broken.submit()}

    assert f(return_state=True).is_completed()


def test_E29_an_empty_list_is_completed() -> None:
    """An empty list is a value, not an aggregate."""

    @flow
    def f() -> Any:
        broken.submit()
        return []

    state = f(return_state=True)
    assert (state.is_completed(), state.message, state.result()) == (True, None, [])


@pytest.mark.parametrize(
    ("states", "type_", "message"),
    [
        ([Completed(), Completed()], "COMPLETED", "All states completed."),
        ([Completed(), Cancelled(), Failed()], "CANCELLED", "1/3 states cancelled."),
        ([Completed(), Paused(), Failed()], "PAUSED", "1/3 states paused."),
        ([Completed(), Failed(), Crashed()], "FAILED", "2/3 states failed."),
        ([Completed(), Running()], "FAILED", "1/2 states are not final."),
    ],
)
def test_E30_aggregates_say_what_they_counted(states: list[Any], type_: str, message: str) -> None:
    """An aggregate's type and message follow from what its members are."""

    @flow
    def f() -> Any:
        return states

    state = f(return_state=True)
    assert (state.type, state.message) == (type_, message)


def test_E31_task_runs_in_a_task_do_not_count() -> None:
    """A failure inside a task that the task itself survives does not fail the flow."""

    @task
    def outer() -> int:
        try:
            broken()
        except ValueError:
            return 1
        return 2

    @flow
    def f() -> None:
        outer()

    state = f(return_state=True)
    assert state.is_completed()
    assert len(state.states) == 1


@pytest.mark.parametrize("ending", ["value", "none", "raise"])
def test_E32_a_flow_waits_for_every_submitted_task(ending: str, history: Any) -> None:
    """A flow ends after its last submitted task, whether it returned or raised."""
    go = threading.Event()

    @task
    def slow() -> int:
        go.wait(30)
        return 1

    @task
    def opener() -> None:
        go.set()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
    def f() -> Any:
        slow.submit()
        opener.submit()
        if ending == "raise":
            raise ValueError
        return 5 if ending == "value" else None

    f(return_state=True)
    ends = [e.type for e in history.events("task_run.completed", "flow_run.completed", "flow_run.failed")]
    assert ends[:2] == ["task_run.completed"] * 2
    assert ends[2].startswith("flow_run.")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "Execution was aborted by an interrupt signal."),
        (SystemExit(3), "Execution was aborted by Python system exit call."),
    ],
)
def test_E39_an_interrupt_crashes_the_run_and_goes_on_to_the_caller(
    error: BaseException, message: str, history: Any
) -> None:
    """KeyboardInterrupt and SystemExit in a flow make it Crashed and are raised again."""

    @flow
    def f() -> None:
        raise error

    with pytest.raises(type(error)):
        f()
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "Crashed"]
    assert history.data("flow_run.crashed")[0]["message"] == message


def test_E39_cancellation_crashes_an_async_flow(history: Any) -> None:
    """An async flow that is cancelled from outside is Crashed, and the cancellation goes on."""

    @flow
    async def f() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        running = asyncio.ensure_future(f())
        while not history.events("flow_run.running"):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    [crash] = history.data("flow_run.crashed")
    assert crash["message"] == "Execution was cancelled by the runtime environment."


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_E40_an_interrupt_in_a_submitted_task_of_this_thread_crashes_the_flow(
    error: type[BaseException], history: Any
) -> None:
    """With the sequential runner, an interrupt while a submitted task runs ends the flow, it is not swallowed."""

    @task
    def t() -> None:
        raise error

    @flow(task_runner=SequentialTaskRunner)
    def f() -> int:
        t.submit()
        return 5

    with pytest.raises(error):
        f()
    [run] = history.flow_runs("f")
    assert history.flow_states(run)[-1] == "Crashed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_E40_an_exit_in_a_thread_crashes_the_task_and_counts_for_the_flow(
    error: type[BaseException], history: Any
) -> None:
    """A flow that asks for the value crashes with it; one that returns None failed; one with a value is fine."""

    @task
    def t() -> None:
        raise error

    @flow
    def asks() -> None:
        t.submit().result()

    @flow
    def returns_none() -> None:
        t.submit()

    @flow
    def returns_five() -> int:
        return 5 if t.submit().wait().is_crashed() else 6

    for f, ending in ((asks, "Crashed"), (returns_none, "Failed")):
        with pytest.raises(error):
            f()
        [run] = history.flow_runs(f.fn.__name__.replace("_", "-"))
        assert history.flow_states(run)[-1] == ending
    assert returns_five() == 5
    assert history.states("t") == [["Pending", "Running", "Crashed"]] * 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_E40_an_interrupt_in_a_task_crashes_task_and_flow(error: type[BaseException], history: Any) -> None:
    """KeyboardInterrupt and SystemExit in a task that is called directly crash the task and its flow."""

    @task
    def t() -> None:
        raise error

    @flow
    def f() -> None:
        t()

    with pytest.raises(error):
        f()
    assert history.states("t") == [["Pending", "Running", "Crashed"]]
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "Crashed"]


def test_E5_a_flow_may_call_itself(history: Any) -> None:
    """Recursion makes a run for each call."""

    @flow
    def factorial(n: int) -> int:
        if n < 2:
            return 1
        inner: int = factorial(n - 1)
        return n * inner

    assert factorial(5) == 120
    assert len(history.flow_runs("factorial")) == 5


def test_E5_a_task_may_call_tasks_and_flows(history: Any) -> None:
    """Tasks and flows can be called in a task."""

    @flow
    def inner(x: int) -> int:
        return x + 1

    @task
    def outer(x: int) -> int:
        return int(number(x) + inner(x))

    @flow
    def f() -> int:
        return int(outer.submit(3).result())

    assert f() == 7
    assert len(history.flow_runs("inner")) == 1


def test_E5_one_flow_may_run_in_several_threads() -> None:
    """Concurrent runs of one flow do not disturb each other."""

    @flow
    def f(x: int) -> int:
        return sum(future.result() for future in number.map([x, x, x]))

    results: dict[int, int] = {}

    def run(x: int) -> None:
        results[x] = f(x)

    threads = [threading.Thread(target=run, args=(x,)) for x in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {x: 3 * x for x in range(6)}


def test_E2_two_identical_calls_run_twice() -> None:
    """There is no caching that nobody asked for."""
    calls: list[int] = []

    @task
    def t(x: int) -> int:
        calls.append(x)
        return x

    @flow
    def f() -> None:
        t(1)
        t(1)

    f()
    f()
    assert calls == [1, 1, 1, 1]


def test_E20_a_run_is_in_the_log_before_its_code_runs(engine: Engine) -> None:
    """When the function starts, its Running state can be read from the log."""
    seen: list[str] = []

    @flow
    def f() -> None:
        seen.extend(event.type for event in engine.log.read_all())

    f()
    assert seen == ["flow_run.created", "flow_run.running"]


def test_E28_a_cyclic_value_is_returned_by_decision_2() -> None:
    """A flow and a task may return a value that contains itself."""
    cyclic: list[Any] = []
    cyclic.append(cyclic)

    @flow
    def f() -> Any:
        assert number(5) == 5
        return cyclic

    state = f(return_state=True)
    assert state.is_completed()
    assert state.result() is cyclic


@pytest.mark.parametrize("where", ["flow", "task", "submitted"])
def test_E26_an_exception_that_cannot_be_shown_is_a_failure(where: str) -> None:
    """An exception whose `__str__` raises fails the run as any other, and is raised itself."""

    class Unshowable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("str")

    def raise_it() -> None:
        raise Unshowable

    t = task(name="t")(raise_it)

    @flow
    def f() -> int:
        if where == "flow":
            raise_it()
        elif where == "task":
            t()
        else:
            t.submit().result()
        return 1

    state = f(return_state=True)
    assert state.name == "Failed"
    assert isinstance(state.result(raise_on_failure=False), Unshowable)
