"""Tasks: declaration, calling, and the names of their runs."""

import hashlib
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from flightlog import State, flow, task
from flightlog.cache_policies import INPUTS
from flightlog.concurrency import set_limit
from flightlog.engine.futures import Future
from flightlog.errors import InvalidNameError, MissingContextError, ParameterBindError, ReservedArgumentError
from flightlog.task_runners import ConcurrentTaskRunner, ProcessPoolTaskRunner, SequentialTaskRunner


@task
def add_one(x: int) -> int:
    """Return one more."""
    return x + 1


@task
def broken() -> int:
    """Fail."""
    raise ValueError("boom")


def test_E50_the_default_name_is_the_functions_unchanged() -> None:
    """A task keeps the underscores of its function's name, and its metadata."""
    assert add_one.name == "add_one"
    anytask: Any = add_one
    assert anytask.__name__ == "add_one"
    assert anytask.__doc__ == "Return one more."


def test_E50_fn_is_the_raw_function(history: Any) -> None:
    """`task.fn` runs without a task run, inside and outside flows."""

    @flow
    def f() -> int:
        return add_one.fn(1)

    assert add_one.fn(2) == 3
    assert f() == 2
    assert history.task_runs("add_one") == []


def test_E50_a_callable_object_can_be_a_task() -> None:
    """An object with `__call__` can be made a task."""

    class Adder:
        def __init__(self, by: int) -> None:
            self.by = by

        def __call__(self, x: int) -> int:
            return x + self.by

    adder: Any = task(name="adder")(Adder(5))

    @flow
    def f() -> Any:
        return adder(1), adder.submit(2).result()

    assert f() == (6, 7)


def test_E50_a_callable_object_without_a_name_is_named_by_its_class() -> None:
    """An object with `__call__` needs no explicit name to be a task."""

    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

    adder: Any = task(Adder())
    assert adder.name == "Adder"


def test_E11_names_of_tasks_are_free_or_refused_as_the_types_say() -> None:
    """A task's name is a string."""
    name: Any = 5
    with pytest.raises(TypeError):
        task(name=name)(add_one.fn)
    with pytest.raises(InvalidNameError):
        task(name="a/b")(add_one.fn)


def test_E13_return_state_and_wait_for_are_reserved() -> None:
    """Parameters that calls use themselves are refused at decoration."""

    def with_return_state(return_state: bool) -> None:
        pass

    def with_wait_for(wait_for: Any) -> None:
        pass

    for function in (with_return_state, with_wait_for):
        with pytest.raises(ReservedArgumentError):
            task(function)


@pytest.mark.parametrize("how", ["__call__", "submit", "map"])
def test_E51_a_task_outside_a_flow_is_refused(how: str) -> None:
    """Calls, submits and maps outside a flow raise a RuntimeError."""
    with pytest.raises(MissingContextError) as caught:
        getattr(add_one, how)([1] if how == "map" else 1)
    assert isinstance(caught.value, RuntimeError)


def test_E51_the_refusal_points_at_fn() -> None:
    """The message of a call outside a flow says that `.fn` is the plain function."""
    with pytest.raises(RuntimeError, match=r"\.fn"):
        add_one(1)


def test_E52_a_call_returns_the_value_or_raises_the_tasks_own_exception() -> None:
    """A direct call gives data, and raises the very exception object of the task."""
    error = ValueError("mine")

    @task
    def fails() -> None:
        raise error

    @flow
    def f() -> int:
        with pytest.raises(ValueError, match="mine") as caught:
            fails()
        assert caught.value is error
        return add_one(1)

    assert f() == 2


def test_E52_a_call_with_return_state_gives_the_state() -> None:
    """`return_state=True` gives the state and does not raise."""

    @flow
    def f() -> int:
        good = add_one(1, return_state=True)
        bad = broken(return_state=True)
        assert isinstance(good, State)
        assert (good.name, good.result()) == ("Completed", 2)
        assert bad.is_failed()
        assert isinstance(bad.result(raise_on_failure=False), ValueError)
        return 1

    f()


def test_E52_submit_gives_a_future_or_waits_for_the_state() -> None:
    """`submit` gives a future; with `return_state=True` it waits and gives the state."""

    @flow
    def f() -> int:
        future = add_one.submit(1)
        assert isinstance(future, Future)
        assert future.result() == 2
        state = add_one.submit(2, return_state=True)
        assert isinstance(state, State)
        assert state.result() == 3
        return 1

    f()


def test_E52_map_gives_futures_or_states() -> None:
    """`map` gives a list of futures, or of states with `return_state=True`."""

    @flow
    def f() -> int:
        futures = add_one.map([1, 2])
        assert all(isinstance(future, Future) for future in futures)
        assert [future.result() for future in futures] == [2, 3]
        states = add_one.map([3, 4], return_state=True)
        assert all(isinstance(state, State) for state in states)
        assert [state.result() for state in states] == [4, 5]
        return 1

    f()


def test_E52_mutating_a_result_keeps_identity_in_process() -> None:
    """The value of a direct call is the very object that the task returned."""
    thing: list[int] = []

    @task
    def give() -> list[int]:
        return thing

    @flow
    def f() -> int:
        assert give() is thing
        assert give.submit().result() is thing
        return 1

    f()


@pytest.mark.parametrize("how", ["__call__", "submit"])
def test_E52_arguments_that_do_not_bind_raise(how: str, history: Any) -> None:
    """Arguments that do not fit the signature raise at once and make no task run."""

    @flow
    def f() -> int:
        with pytest.raises(ParameterBindError):
            getattr(add_one, how)(1, 2, 3)
        return 1

    f()
    assert history.task_runs("add_one") == []


def test_E53_a_direct_call_makes_a_task_run(history: Any) -> None:
    """A direct call is a task run with its states, and counts for the flow."""

    @flow
    def f() -> None:
        add_one(1)

    state = f(return_state=True)
    assert history.states("add_one") == [["Pending", "Running", "Completed"]]
    assert state.message == "All states completed."


@pytest.mark.parametrize("runner", [ConcurrentTaskRunner, SequentialTaskRunner, ProcessPoolTaskRunner])
def test_E53_a_direct_call_does_without_the_runner_and_obeys_the_options(runner: Any, history: Any) -> None:
    """It runs where it is called, whatever the runner; with retries, cache and slots."""
    threads: list[Any] = []

    @task(retries=1, cache_policy=INPUTS, tags=["few"])
    def t(x: int) -> int:
        threads.append(threading.current_thread())
        if len(threads) == 1:
            raise ValueError("no")
        return x

    @flow(task_runner=runner)
    def f() -> list[int]:
        return [t(1), t(1)]

    set_limit("tag:few", 1)
    assert f() == [1, 1]
    assert threads == [threading.current_thread()] * 2
    assert history.states("t") == [
        ["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"],
        ["Pending", "Cached"],
    ]
    assert len(history.data("slots.acquired")) == len(history.data("slots.released")) == 2


def test_E6_run_names_have_the_tasks_hash_and_a_counter(history: Any) -> None:
    """A task run is named by its task, 8 hexadecimal digits of its key's MD5, and the n-th call of the key."""

    @flow
    def f() -> None:
        add_one(1)
        add_one.submit(2)
        add_one.with_options(name="other")(3)

    f()
    digits = hashlib.md5(f"{__name__}.add_one".encode()).hexdigest()[:8]
    names = [data["name"] for data in history.data("task_run.created")]
    assert names == [f"add_one-{digits}-0", f"add_one-{digits}-1", f"other-{digits}-2"]


def test_E6_the_counter_starts_anew_in_each_flow_run(history: Any) -> None:
    """The n-th call is counted within the flow run."""

    @flow
    def f() -> None:
        add_one(1)

    f()
    f()
    assert [data["name"][-2:] for data in history.task_runs("add_one")] == ["-0", "-0"]


def test_E21_tasks_are_never_coerced() -> None:
    """A task gets its arguments as they are, whatever its annotations say."""

    @task
    def t(x: int) -> Any:
        return x

    untyped: Any = t

    @flow
    def f() -> Any:
        return untyped("5")

    assert f() == "5"


def test_E17_with_options_returns_a_new_task() -> None:
    """Options that are given change, the others are inherited, and the original stays as it is."""
    old: Any = task(name="a", retries=3, retry_delay_seconds=1, timeout_seconds=5, log_prints=True)(add_one.fn)
    new: Any = old.with_options(name="b", retries=0, timeout_seconds=0, log_prints=None)
    assert (new.name, new.retries, new.timeout_seconds, new.log_prints) == ("b", 0, None, None)
    assert (old.name, old.retries, old.timeout_seconds, old.log_prints) == ("a", 3, 5.0, True)
    assert new.fn is old.fn


def test_E33_a_generator_that_a_task_returns_becomes_a_list() -> None:
    """A task that returns a generator has it consumed to a list."""

    @task
    def t() -> Iterable[int]:
        return (x for x in range(3))

    @flow
    def f() -> Any:
        return list(t()), list(t.submit().result())

    assert f() == ([0, 1, 2], [0, 1, 2])


@pytest.mark.parametrize("runner", [None, SequentialTaskRunner()])
def test_E6_a_task_with_the_same_name_of_another_function_counts_by_itself(runner: Any, history: Any) -> None:
    """Two functions of one name have keys of their own."""

    def make(n: int) -> Any:
        if n:

            @task(name="t")
            def first() -> int:
                return 1

            return first

        @task(name="t")
        def second() -> int:
            return 2

        return second

    @flow(task_runner=runner)
    def f() -> Any:
        return make(0).submit().result(), make(1).submit().result()

    assert f() == (2, 1)
    assert [data["name"][-2:] for data in history.task_runs("t")] == ["-0", "-0"]


@pytest.mark.parametrize("how", ["call", "submit"])
def test_E52_stop_iteration_of_a_task_arrives_as_itself(how: str) -> None:
    """A task that raises StopIteration (as `next` does) fails with that very exception."""

    @task
    def t() -> Any:
        return next(iter(()))

    @flow
    def f() -> int:
        with pytest.raises(StopIteration):
            _ = t() if how == "call" else t.submit().result()
        return 1

    assert f() == 1


def test_E26_stop_iteration_of_a_flow_arrives_as_itself() -> None:
    """A flow that raises StopIteration fails with that very exception."""

    @flow
    def f() -> None:
        raise StopIteration(5)

    with pytest.raises(StopIteration):
        f()


def test_E50_an_object_with_an_async_call_is_an_async_task() -> None:
    """An object whose `__call__` is a coroutine function is treated as an async function."""

    class Adder:
        async def __call__(self, x: int) -> int:
            return x + 1

    adder: Any = task(name="adder")(Adder())
    assert adder.isasync is True

    @flow
    def f() -> Any:
        return [adder(1)]

    assert f() == [2]
