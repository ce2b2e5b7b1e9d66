"""Iterators among the arguments of tasks and subflows."""

import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import pytest
from tests.engine.conftest import History

from flightlog import allow_failure, flow, task


@task
def slowly(x: int) -> int:
    """Return the value, later than the flow asks for it."""
    time.sleep(0.02)
    return x


@task
def fails() -> int:
    """Fail."""
    raise ValueError("no")


@task
def total(numbers: Any, more: Any = ()) -> Any:
    """Return what was given, as lists."""
    assert isinstance(numbers, list)
    return [*numbers, *more]


@flow
def adds(numbers: Any) -> Any:
    """Return what was given, as a list."""
    return list(numbers)


@pytest.mark.parametrize(
    "made",
    [
        lambda futures: (future for future in futures),
        lambda futures: map(itemgetter(0), zip(futures, strict=True)),
        lambda futures: iter(futures),
        lambda futures: reversed([*reversed(futures)]),
        lambda futures: iter(dict.fromkeys(futures)),
    ],
)
@pytest.mark.parametrize("how", [total, total.submit, adds])
def test_E63_iterators_of_futures_become_lists_of_values(
    made: Callable[[Any], Any], how: Callable[[Any], Any], history: Any
) -> None:
    """A generator of futures that have not ended is as good as a list of them, and the log says what it rests on."""

    @flow
    def f() -> Any:
        return how(made([slowly.submit(n) for n in range(3)]))

    assert f() == [0, 1, 2]
    upstream = {run["task_run_id"] for run in history.task_runs("slowly")}
    [run] = [run for run in history.data("task_run.created") if run["task"] in ("total", "adds")]
    assert set(run["inputs"]["numbers"]) == upstream


def test_E63_an_iterator_that_is_given_twice_gives_the_same_twice() -> None:
    """In one call it is read once."""

    @flow
    def f() -> Any:
        numbers = (n for n in [1, slowly.submit(2)])
        return total(numbers, [*total(numbers), (5,)]), total(iter({3: 4}), list(numbers))

    def twice() -> Any:
        numbers = (n for n in [1, slowly.submit(2)])
        return total(numbers, numbers)

    assert flow(twice)() == [1, 2, 1, 2]
    assert f() == ([1, 2, (5,)], [3])


def test_E64_a_failure_in_an_iterator_blocks() -> None:
    """Unless it is allowed to."""

    @flow
    def f() -> Any:
        state: Any = total((future for future in [fails.submit()]), return_state=True)
        return state.name, total(allow_failure(future for future in [fails.submit()]))

    name, [error] = f()
    assert (name, str(error)) == ("NotReady", "no")


def test_an_iterator_that_raises_fails_the_flow() -> None:
    """What the user's own generator raises comes out of the call; no task run is made of it."""

    def numbers() -> Iterator[int]:
        yield 1
        raise KeyError("mine")

    @flow
    def f() -> Any:
        with pytest.raises(KeyError, match="mine"):
            total(numbers())
        return 1

    assert f() == 1


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
