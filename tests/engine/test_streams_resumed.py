"""Generators that were left before their end: what is on record of them is not taken for all that they yield."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.engine.conftest import History
from tests.engine.invariants import violations

from flightlog import flow, resume_run, task
from flightlog.cache_policies import INPUTS
from flightlog.engine.resuming import fork_run
from flightlog.engine.runtime import Engine


class World:
    """What generators have yielded, and whether the world is broken."""

    def __init__(self) -> None:
        self.yielded: list[int] = []
        self.broken = True

    def numbers(self) -> Iterator[int]:
        """Yield numbers, and note which."""
        for number in range(4):
            self.yielded.append(number)
            yield number


@pytest.fixture
def world() -> World:
    """Return a world that is broken at first."""
    return World()


def _checking(world: World) -> Any:
    @task
    def check(number: int) -> int:
        if world.broken and number == 1:
            raise ConnectionError
        return number

    return check


@pytest.mark.parametrize("how", ["resumed", "retried", "forked"])
@pytest.mark.parametrize("kind", ["task", "flow"])
def test_E18_a_loop_that_failed_gets_all_pieces_when_it_is_gone_through_again(
    kind: str, how: str, world: World, history: History
) -> None:
    """Those on record are given as they are; for the others the generator begins anew."""
    check = _checking(world)

    def yields() -> Iterator[int]:
        yield from world.numbers()

    numbers: Any = task(yields) if kind == "task" else flow(yields)

    @flow(retries=1 if how == "retried" else 0)
    def f() -> list[int]:
        try:
            return [check(number) for number in numbers()]
        finally:
            world.broken = not world.broken if how == "retried" else world.broken

    state = f(return_state=True)
    if how == "retried":
        assert state.result() == [0, 1, 2, 3]
    else:
        assert world.yielded == [0, 1]
        world.broken = False
        go_on = resume_run if how == "resumed" else fork_run
        assert go_on(history.flow_runs("f")[0], flow=f) == [0, 1, 2, 3]
    assert world.yielded == [0, 1, 0, 1, 2, 3]
    left = [data for data in history.data("task_run.completed") if data.get("partial")]
    assert len(left) == (2 if how == "forked" else 1)


@pytest.mark.parametrize("how", ["resumed", "retried"])
def test_E18_an_async_loop_that_failed_gets_all_pieces_when_it_is_gone_through_again(
    how: str, world: World, history: History
) -> None:
    """The same with `async for`."""
    check = _checking(world)

    @task
    async def numbers() -> AsyncIterator[int]:
        for number in world.numbers():
            yield number

    @flow(retries=1 if how == "retried" else 0)
    async def f() -> list[int]:
        try:
            return [check(number) async for number in numbers()]
        finally:
            world.broken = not world.broken if how == "retried" else world.broken

    state = asyncio.run(f(return_state=True))
    if how == "resumed":
        world.broken = False
        assert asyncio.run(resume_run(history.flow_runs("f")[0], flow=f)) == [0, 1, 2, 3]
    else:
        assert state.result() == [0, 1, 2, 3]


def test_E18_a_generator_of_which_no_more_is_wanted_does_not_run_again(world: World, history: History) -> None:
    """Whoever left it at a piece, and leaves it there again, gets what is on record."""

    @task
    def numbers() -> Iterator[int]:
        yield from world.numbers()

    @flow
    def f() -> list[int]:
        found = []
        for number in numbers():
            found.append(number)
            if number == 2:
                break
        if world.broken:
            raise ConnectionError
        return found

    f(return_state=True)
    world.broken = False
    assert resume_run(history.flow_runs("f")[0], flow=f) == [0, 1, 2]
    assert world.yielded == [0, 1, 2]
    assert history.states("numbers") == [["Pending", "Running", "Completed"]]


def test_E18_a_generator_that_was_left_is_run_again_by_who_wants_all_of_it(world: World, history: History) -> None:
    """As a call that returns its state, it is gone through to its end."""

    @task
    def numbers() -> Iterator[int]:
        yield from world.numbers()

    @flow(retries=1)
    def f() -> Any:
        if world.broken:
            world.broken = False
            next(numbers())
            raise ConnectionError
        return numbers(return_state=True).result()

    assert f() == [0, 1, 2, 3]


def test_E18_the_pieces_of_a_generator_that_was_left_are_not_cached(world: World) -> None:
    """Somebody else may want more of them."""

    @task(cache_policy=INPUTS)
    def numbers() -> Iterator[int]:
        yield from world.numbers()

    @flow
    def first() -> int:
        return next(numbers())

    @flow
    def every() -> list[int]:
        return list(numbers())

    assert first() == 0
    assert every() == [0, 1, 2, 3]
    assert every() == [0, 1, 2, 3]
    assert world.yielded == [0, 0, 1, 2, 3]


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_E39_a_generator_that_somebody_holds_when_its_flow_crashes_has_an_end(engine: Engine, history: History) -> None:
    """Letting go of it later leaves no trace, and says nothing."""
    held: list[Any] = []

    @task
    def numbers() -> Iterator[int]:
        yield from range(4)

    @flow
    def f() -> None:
        held.append(numbers())
        next(held[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        f()
    assert history.states("numbers") == [["Pending", "Running", "Crashed"]]
    count = len(history.events())
    held.clear()
    gc.collect()
    assert len(history.events()) == count
    assert violations(engine) == []
