"""Iterators among the arguments of tasks and subflows."""

import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import pytest

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
