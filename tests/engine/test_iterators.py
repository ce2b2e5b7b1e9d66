"""Iterators as arguments and in a flow's value: gone through once, with what they yield looked into."""

import time
from typing import Any

import pytest
from tests.engine.conftest import History

from flightlog import allow_failure, flow, task
from flightlog.task_runners import ConcurrentTaskRunner, SequentialTaskRunner


@task
def both(first: Any, second: Any = None) -> Any:
    """Return what it is given."""
    return first, second


@task
def plus_one(n: int) -> int:
    """Add one."""
    return n + 1


@pytest.mark.parametrize("how", ["call", "submit", "map"])
def test_E63_an_iterator_that_is_given_twice_gives_both_what_it_yields(how: str) -> None:
    """It can be gone through but once, so both get the list; also where one of them is nested."""

    @flow
    def f() -> Any:
        numbers = (n for n in range(3))
        if how == "map":
            return both.map(numbers, numbers).result()
        call: Any = both if how == "call" else both.submit
        found = call(numbers, {"again": [numbers]})
        return found if how == "call" else found.result()

    assert f() == ([(0, 0), (1, 1), (2, 2)] if how == "map" else ([0, 1, 2], {"again": [[0, 1, 2]]}))


@pytest.mark.parametrize("runner", [ConcurrentTaskRunner(max_workers=1), ConcurrentTaskRunner, SequentialTaskRunner])
def test_E63_futures_that_an_iterator_yields_are_resolved(runner: Any) -> None:
    """For calls and submits, also in a pool of one thread, and those that it submits itself."""

    @flow(task_runner=runner)
    def f() -> Any:
        futures = plus_one.map([1, 2])
        submitted = both.submit((future for future in futures), map(plus_one.submit, [3]))
        return submitted.result(), both(plus_one.submit(n) for n in [5])

    assert f() == (([2, 3], [4]), ([6], None))


@pytest.mark.parametrize("how", ["call", "submit"])
def test_E64_a_failure_that_an_iterator_yields_blocks(how: str) -> None:
    """As one in a list does, unless it is allowed."""

    @task
    def fail() -> None:
        raise ValueError("x")

    @flow
    def f() -> Any:
        call: Any = both if how == "call" else both.submit
        blocked = call((future for future in [fail.submit()]), return_state=True)
        allowed = call(allow_failure(future for future in [fail.submit()]), return_state=True)
        return blocked.name, repr(allowed.result())

    assert f() == ("NotReady", "([ValueError('x')], None)")


@pytest.mark.parametrize("how", ["call", "submit"])
def test_an_iterator_that_fails_fails_the_call(how: str, history: History) -> None:
    """It is the user's own code: Failed, with its exception."""

    def broken() -> Any:
        yield 1
        raise ValueError("half way")

    @flow
    def f() -> Any:
        call: Any = both if how == "call" else both.submit
        state = call(broken(), return_state=True)
        return state.name, repr(state.result(raise_on_failure=False))

    assert f() == ("Failed", "ValueError('half way')")
    assert history.states("both") == [["Pending", "Failed"]]


def test_E33_an_iterator_in_a_flows_value_becomes_a_list() -> None:
    """What it does is still done in the flow; one that fails, fails that."""

    def broken() -> Any:
        yield 1
        raise ValueError("half way")

    @flow
    def f() -> Any:
        numbers = (plus_one.submit(n) for n in range(2))
        return {"a": numbers, "b": numbers}

    @flow
    def g() -> Any:
        return [broken()]

    assert f() == {"a": [1, 2], "b": [1, 2]}
    state: Any = g(return_state=True)
    assert (state.name, str(state.result(raise_on_failure=False))) == ("Failed", "half way")


def test_what_an_iterator_in_a_flows_value_submits_and_keeps_to_itself_ends_with_the_flow(history: History) -> None:
    """The flow ends after all that it has submitted, also what its iterators have."""

    @task
    def slow() -> None:
        time.sleep(0.2)

    def numbers() -> Any:
        slow.submit()
        yield 1

    @flow
    def f() -> Any:
        return [numbers()]

    assert f() == [[1]]
    verbs = [event.type for event in history.events("task_run.completed", "flow_run.completed")]
    assert verbs == ["task_run.completed", "flow_run.completed"]


def test_an_iterator_in_a_flows_value_that_exits_crashes_the_flow(history: History) -> None:
    """As code in the flow's function does."""

    def leaving() -> Any:
        yield 1
        raise SystemExit(3)

    @flow
    def f() -> Any:
        return [leaving()]

    with pytest.raises(SystemExit):
        f()
    assert history.flow_states(history.flow_runs("f")[0]) == ["Pending", "Running", "Crashed"]
