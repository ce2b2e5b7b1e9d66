"""Waiting for several futures: `as_completed`, `wait`, and the list that `map` returns."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flightlog import flow, task
from flightlog import futures as gathering
from flightlog.errors import BlockedLoop
from flightlog.futures import AsyncFuture, DoneAndNotDone, Future, FutureList, wait
from flightlog.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

SHORT = 0.03
as_completed: Any = gathering.as_completed


@task
def give(x: Any) -> Any:
    """Return what it is given."""
    return x


@task
async def give_later(x: Any) -> Any:
    """Return what it is given."""
    await asyncio.sleep(0)
    return x


@task
def broken(x: Any = None) -> None:
    """Fail."""
    raise ValueError(f"boom {x}")


@task
async def broken_later(x: Any = None) -> None:
    """Fail."""
    raise ValueError(f"boom {x}")


class Gates:
    """One event for each number; sync tasks wait for theirs."""

    def __init__(self, count: int) -> None:
        self.events = [threading.Event() for _ in range(count)]

    def wait(self, number: int) -> int:
        """Block until the gate is open."""
        assert self.events[number].wait(30)
        return number

    def open(self) -> None:
        """Open all."""
        for event in self.events:
            event.set()


@pytest.fixture
def gates() -> Iterator[Gates]:
    """Return four gates that are opened at the end of the test at the latest."""
    gates = Gates(4)
    yield gates
    gates.open()


def through(gates: Gates) -> Any:
    """Return a task that goes through a gate."""
    return task(name="through")(gates.wait)


# --- as_completed -----------------------------------------------------------------------------------


def test_E103_as_completed_gives_them_as_they_end(gates: Gates) -> None:
    """The futures come in the order in which their runs end, not in that of submission."""
    t = through(gates)

    @flow
    def f() -> Any:
        futures = [t.submit(n) for n in range(3)]
        order: list[int] = []
        gates.events[2].set()
        for future in as_completed(futures):
            assert future.done()
            assert future.state.is_completed()
            number = future.result()
            order.append(number)
            following = {2: 0, 0: 1}.get(number)
            if following is not None:
                gates.events[following].set()
        return order

    assert f() == [2, 0, 1]


def test_E103_as_completed_takes_any_iterable_and_each_future_once() -> None:
    """Generators, lists of `map` and duplicates will do; nothing in gives nothing out."""

    @flow
    def f() -> Any:
        future = give.submit(1)
        assert list(as_completed([])) == []
        assert list(as_completed(iter([future, future]))) == [future]
        mapped = give.map([1, 2, 3])
        assert set(as_completed(mapped)) == set(mapped)
        return 1

    assert f() == 1


def test_E103_as_completed_does_not_raise_for_failed_runs() -> None:
    """A failed run's future comes as others do; only its `result` raises."""

    @flow
    def f() -> Any:
        futures = [broken.submit(), give.submit(1)]
        return sorted(future.state.name for future in as_completed(futures))

    assert f() == ["Completed", "Failed"]


def test_E103_as_completed_says_how_many_are_unfinished(gates: Gates) -> None:
    """When the time is over those that are done have come, and a TimeoutError counts the rest."""
    t = through(gates)

    @flow
    def f() -> Any:
        futures = [t.submit(n) for n in range(3)]
        gates.events[1].set()
        futures[1].wait()
        came: list[int] = []
        with pytest.raises(TimeoutError, match=r"2 \(of 3\) futures unfinished"):
            came.extend(future.result() for future in as_completed(futures, timeout=SHORT))
        gates.open()
        return [came, [future.result() for future in futures]]

    assert f() == [[1], [0, 1, 2]]


@pytest.mark.parametrize("timeout", [0, 0.0, SHORT])
def test_E103_as_completed_gives_what_has_ended_whatever_the_time(timeout: float) -> None:
    """Even without any time left, futures whose runs have ended come, and no error."""

    @flow
    def f() -> Any:
        futures = [give.submit(n) for n in range(3)]
        wait(futures)
        return [future.result() for future in as_completed(futures, timeout=timeout)]

    assert sorted(f()) == [0, 1, 2]


@pytest.mark.parametrize("timeout", [0, SHORT])
def test_E103_async_as_completed_gives_what_has_ended_whatever_the_time(timeout: float) -> None:
    """The same with `async for`."""

    @flow
    async def f() -> Any:
        futures = [await give_later.submit(n) for n in range(3)]
        await wait(futures)
        return [await future.result() async for future in as_completed(futures, timeout=timeout)]

    assert sorted(asyncio.run(f())) == [0, 1, 2]


@pytest.mark.parametrize("timeout", [-1, -0.001])
def test_E103_a_negative_time_is_refused(timeout: float) -> None:
    """A negative timeout is a ValueError, at the call."""
    with pytest.raises(ValueError, match="negative"):
        as_completed([], timeout=timeout)


def test_E103_async_as_completed() -> None:
    """With `async for` the futures of async tasks come as they end."""

    @flow
    async def f() -> Any:
        events = [asyncio.Event() for _ in range(3)]

        @task
        async def t(n: int) -> int:
            await events[n].wait()
            return n

        futures = [await t.submit(n) for n in range(3)]
        events[1].set()
        order: list[int] = []
        async for future in as_completed(futures):
            number: int = await future.result()
            order.append(number)
            following = {1: 2, 2: 0}.get(number)
            if following is not None:
                events[following].set()
        return order

    assert asyncio.run(f()) == [1, 2, 0]


def test_E103_async_as_completed_with_threads(gates: Gates) -> None:
    """Futures of sync tasks in async flows can be waited for with `async for`, without blocking the loop."""
    t = through(gates)

    @flow
    async def f() -> Any:
        futures: list[Any] = [t.submit(0), t.submit(1), await give_later.submit(2)]
        order: list[int] = []
        async for future in as_completed(futures):
            value = future.result()
            number = await value if isinstance(future, AsyncFuture) else value
            order.append(number)
            following = {2: 1, 1: 0}.get(number)
            if following is not None:
                asyncio.get_running_loop().call_soon(gates.events[following].set)
        return order

    assert asyncio.run(f()) == [2, 1, 0]


def test_E103_async_as_completed_says_how_many_are_unfinished() -> None:
    """The TimeoutError counts, and the runs go on."""

    @flow
    async def f() -> Any:
        event = asyncio.Event()

        @task
        async def t() -> int:
            await event.wait()
            return 7

        futures = [await t.submit(), await give_later.submit(1)]
        came: list[Any] = []
        with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
            async for future in as_completed(futures, timeout=SHORT):
                came.append(await future.result())
        event.set()
        return [came, await futures[0].result()]

    assert asyncio.run(f()) == [[1], 7]


def test_E103_one_object_can_be_asked_twice() -> None:
    """Iterating again gives all futures again."""

    @flow
    def f() -> Any:
        futures = as_completed(give.map([1, 2]))
        return [len(list(futures)), len(list(futures))]

    assert f() == [2, 2]


# --- wait -------------------------------------------------------------------------------------------


def test_E103_wait_gives_done_and_not_done(gates: Gates) -> None:
    """A named tuple of two sets; it never raises, and the runs go on."""
    t = through(gates)

    @flow
    def f() -> Any:
        futures = [t.submit(0), give.submit(1), broken.submit()]
        for future in futures[1:]:
            future.wait()
        found = wait(futures, timeout=SHORT)
        assert isinstance(found, DoneAndNotDone)
        assert found.done == set(futures[1:])
        assert found.not_done == {futures[0]}
        gates.open()
        done, not_done = wait(futures)
        assert done == set(futures)
        assert not_done == set()
        return 1

    assert f() == 1


def test_E103_wait_takes_anything_and_nothing() -> None:
    """An empty list, a generator, the list of a `map`, and no time at all."""

    @flow
    def f() -> Any:
        assert wait([]) == (set(), set())
        mapped = give.map([1, 2])
        assert wait(mapped).done == set(mapped)
        assert wait(iter(mapped), timeout=0).done == set(mapped)
        assert wait([mapped[0], mapped[0]]).done == {mapped[0]}
        return 1

    assert f() == 1


def test_E103_wait_in_async_code() -> None:
    """For async tasks in async flows it is awaited, and gives the same."""

    @flow
    async def f() -> Any:
        event = asyncio.Event()

        @task
        async def t() -> int:
            await event.wait()
            return 7

        futures: list[Any] = [await t.submit(), await broken_later.submit(), give.submit(1)]
        await asyncio.to_thread(futures[2].wait)
        await futures[1].wait()
        done, not_done = await wait(futures, timeout=SHORT)
        assert done == set(futures[1:])
        assert not_done == {futures[0]}
        event.set()
        found = await wait(futures)
        assert found.done == set(futures)
        return 1

    assert asyncio.run(f()) == 1


def test_E103_wait_for_async_tasks_in_a_sync_flow() -> None:
    """There their futures are sync ones, and nothing is awaited (E8)."""

    @flow
    def f() -> Any:
        futures = [give_later.submit(n) for n in range(3)]
        assert wait(futures).not_done == set()
        return sorted(future.result() for future in as_completed(futures))

    assert f() == [0, 1, 2]


def test_E103_wait_for_tasks_that_cannot_start() -> None:
    """A run that is NotReady has come to an end, too: nobody waits for it for ever."""

    @flow
    def f() -> Any:
        bad = broken.submit()
        futures = [give.submit(bad), give.submit(1, wait_for=[bad])]
        assert wait(futures).done == set(futures)
        return [future.state.name for future in as_completed(futures)]

    assert f() == ["NotReady", "NotReady"]


def test_E103_waiting_with_the_sequential_runner() -> None:
    """All are done when they are submitted, and come in order."""

    @flow(task_runner=SequentialTaskRunner())
    def f() -> Any:
        futures = give.map([3, 1, 2])
        assert wait(futures, timeout=0).not_done == set()
        return [future.result() for future in as_completed(futures, timeout=0)]

    assert f() == [3, 1, 2]


def test_E103_futures_of_a_finished_flow_are_done() -> None:
    """After the flow has ended its futures can still be waited for, outside of it."""
    kept: list[Any] = []

    @flow
    def f() -> int:
        kept.extend(give.map([1, 2]))
        return 1

    f()
    assert wait(kept, timeout=0).done == set(kept)
    assert sorted(future.result() for future in as_completed(kept)) == [1, 2]


# --- the list of a map ------------------------------------------------------------------------------


def test_E103_map_returns_a_list_of_futures() -> None:
    """It is a list, with `wait` and `result` in the order of the items."""

    @flow
    def f() -> Any:
        futures: Any = give.map([3, 1, 2])
        nothing: Any = give.map([])
        assert isinstance(futures, FutureList)
        assert isinstance(futures, list)
        assert [type(future) for future in futures] == [Future] * 3
        assert [state.name for state in futures.wait()] == ["Completed"] * 3
        values = futures.result()
        assert values == [3, 1, 2]
        assert nothing.result() == nothing.wait() == []
        return values

    assert f() == [3, 1, 2]


def test_E103_the_result_of_a_map_raises_the_first_failure() -> None:
    """`raise_on_failure=False` puts the exceptions in the places of the values."""

    @task
    def picky(n: int) -> int:
        if n % 2:
            raise ValueError(f"odd {n}")
        return n

    @flow
    def f() -> Any:
        futures: Any = picky.map([0, 1, 2, 3])
        with pytest.raises(ValueError, match="odd 1"):
            futures.result()
        found = futures.result(raise_on_failure=False)
        return [found[0], str(found[1]), found[2], str(found[3]), [state.name for state in futures.wait()]]

    assert f() == [0, "odd 1", 2, "odd 3", ["Completed", "Failed", "Completed", "Failed"]]


def test_E103_the_result_of_a_map_has_a_time(gates: Gates) -> None:
    """The time is for all together: None stands for who is not done in `wait`, `result` raises TimeoutError."""
    t = through(gates)

    @flow
    def f() -> Any:
        futures = t.map([0, 1])
        gates.events[0].set()
        futures[0].wait()
        first, second = futures.wait(timeout=SHORT)
        assert first.is_completed()
        assert second is None
        with pytest.raises(TimeoutError):
            futures.result(timeout=SHORT)
        gates.open()
        return futures.result(timeout=30)

    assert f() == [0, 1]


def test_E103_the_list_of_a_map_in_async_code() -> None:
    """For async tasks in async flows `wait` and `result` are awaited."""

    @flow
    async def f() -> Any:
        futures: Any = give_later.map([3, 1, 2])
        assert isinstance(futures, FutureList)
        states = await futures.wait()
        assert [state.name for state in states] == ["Completed"] * 3
        bad: Any = broken_later.map([1, 2])
        with pytest.raises(ValueError, match="boom 1"):
            await bad.result()
        found = await bad.result(raise_on_failure=False)
        assert [str(error) for error in found] == ["boom 1", "boom 2"]
        return await futures.result(timeout=30)

    assert asyncio.run(f()) == [3, 1, 2]


def test_E103_the_list_of_a_map_in_async_code_has_a_time() -> None:
    """What is not done in time is None, or a TimeoutError."""

    @flow
    async def f() -> Any:
        event = asyncio.Event()

        @task
        async def t(n: int) -> int:
            if n:
                await event.wait()
            return n

        futures: Any = t.map([0, 1])
        first, second = await futures.wait(timeout=SHORT)
        assert first.is_completed()
        assert second is None
        with pytest.raises(TimeoutError):
            await futures.result(timeout=SHORT)
        event.set()
        return await futures.result()

    assert asyncio.run(f()) == [0, 1]


def test_E103_the_list_of_a_map_of_sync_tasks_in_async_code() -> None:
    """Futures of sync tasks are sync ones, and so is their list."""

    @flow
    async def f() -> Any:
        futures: Any = give.map([1, 2])
        return futures.result()

    assert asyncio.run(f()) == [1, 2]


def test_E103_a_map_of_states_is_a_list_of_states() -> None:
    """`return_state=True` waits, and gives states."""

    @flow
    def f() -> Any:
        states = give.map([1, 2], return_state=True)
        assert [state.result() for state in states] == [1, 2]
        return 1

    assert f() == 1


def test_E103_a_map_over_a_failed_future_has_one_child() -> None:
    """Where there is nothing to split the list has the one future that says why."""

    @flow
    def f() -> Any:
        futures: Any = give.map(broken.submit())
        assert isinstance(futures, FutureList)
        return [state.name for state in futures.wait()]

    assert f() == ["NotReady"]


def test_E103_the_list_is_an_argument_like_any_other() -> None:
    """Given to a task, the list of a map is replaced by its values; returned, it decides on the flow."""

    @task
    def total(values: list[int]) -> int:
        return sum(values)

    @flow
    def f() -> Any:
        return total(give.map([1, 2, 3]))

    @flow
    def g() -> list[int]:
        return give.map([1, 2])

    assert f() == 6
    state = g(return_state=True)
    assert state.result() == [1, 2]


# --- one future -------------------------------------------------------------------------------------


def test_E103_a_future_tells_its_run_and_state(gates: Gates, history: Any) -> None:
    """`task_run_id` is the id of the task run; `state` is the present one, without waiting."""
    t = through(gates)

    @flow
    def f() -> Any:
        future = t.submit(0)
        waiting = t.submit(future)
        early = waiting.state.name
        assert not future.done()
        assert not future.state.is_final()
        gates.open()
        wait([future, waiting])
        assert future.get_state().is_completed()
        return [early, future.task_run_id, future.state.state_details.task_run_id, future.state.name]

    early, run, run_too, name = f()
    assert (early, name) == ("Pending", "Completed")
    assert run == run_too
    assert run.replace("-", "") == history.task_runs("through")[0]["task_run_id"].hex()


def test_E103_callbacks_are_called_with_the_future(gates: Gates) -> None:
    """Once the run has ended, or at once if it has; one that raises harms neither the run nor the other ones."""
    t = through(gates)
    called: list[Any] = []

    def failing(_: Any) -> None:
        raise RuntimeError("in a callback")

    @flow
    def f() -> int:
        future = t.submit(0)
        future.add_done_callback(failing)
        future.add_done_callback(called.append)
        assert called == []
        gates.open()
        value: int = future.result()
        wait([future])
        future.add_done_callback(called.append)
        assert called[-1] is future
        return value

    assert f() == 0
    assert len(called) == 2
    assert called[0] is called[1]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_E103_a_callback_that_wants_to_leave_harms_nobody(error: BaseException, gates: Gates) -> None:
    """A callback that exits or is interrupted keeps no other one from being called, and nobody waits for ever."""
    t = through(gates)
    called: list[Any] = []

    def leaving(_: Any) -> None:
        raise error

    @flow
    def f() -> Any:
        future = t.submit(0)
        future.add_done_callback(leaving)
        future.add_done_callback(called.append)
        gates.open()
        return [future.result(timeout=0.2), give.submit(2).result(timeout=0.2)]

    assert f() == [0, 2]
    assert len(called) == 1


def test_E103_callbacks_of_failed_and_async_runs() -> None:
    """Failed runs call back, too, and so do async ones."""
    called: list[str] = []

    @flow
    def f() -> int:
        future = broken.submit()
        future.add_done_callback(lambda done: called.append(done.state.name))
        future.wait()
        return 1

    @flow
    async def g() -> int:
        future = await give_later.submit(1)
        future.add_done_callback(lambda done: called.append(done.state.name))
        await future.wait()
        return 1

    f()
    asyncio.run(g())
    assert called == ["Failed", "Completed"]


# --- without blocking the loop that does the work ----------------------------------------------------


def test_E103_a_plain_for_in_async_code_over_sync_tasks() -> None:
    """Sync tasks run in threads, so a plain `for` over their futures works in an async flow."""

    @flow
    async def f() -> Any:
        return sorted(future.result() for future in as_completed(give.map([1, 2, 3])))

    assert asyncio.run(f()) == [1, 2, 3]


def test_E103_a_plain_for_in_async_code_over_what_has_ended() -> None:
    """Futures of async tasks that have ended come with a plain `for`, too."""

    @flow
    async def f() -> Any:
        futures = await give_later.map([1, 2, 3])
        await futures.wait()
        return sorted([await future.result() for future in as_completed(futures)])

    assert asyncio.run(f()) == [1, 2, 3]


async def loop_for(futures: Any) -> Any:
    """Iterate as users of sync flows do."""
    return list(as_completed(futures))


async def loop_for_in_time(futures: Any) -> Any:
    """The same, with a time."""
    return list(as_completed(futures, timeout=60))


async def call_with(futures: Any) -> Any:
    """Call a sync task with a future that is not done."""
    return give(futures[0])


async def call_after(futures: Any) -> Any:
    """Call a sync task that has to wait for one."""
    return give(1, wait_for=futures)


async def map_over(futures: Any) -> Any:
    """Map a sync task over one."""
    return give.map(futures[0])


async def ask_dependent(futures: Any) -> Any:
    """Ask a sync task's future that rests on one."""
    return give.submit(futures[0]).result()


async def ask_dependents_dependent(futures: Any) -> Any:
    """Ask one that rests on one that does."""
    return give.submit(give.submit([futures])).wait(timeout=60)


async def wait_for_dependent(futures: Any) -> Any:
    """Wait for it with `wait`, which blocks where only sync tasks are waited for."""
    return wait([give.submit(futures[0])])


@flow
def child(x: Any) -> Any:
    """Return what it is given."""
    return x


async def call_subflow(futures: Any) -> Any:
    """Call a sync subflow with a future that is not done."""
    return child(futures[0])


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("block", "runner"),
    [
        *itertools.product(
            [loop_for, loop_for_in_time, call_with, call_after, map_over, ask_dependent, call_subflow],
            [ConcurrentTaskRunner, SequentialTaskRunner],
        ),
        (ask_dependents_dependent, ConcurrentTaskRunner),
        (wait_for_dependent, ConcurrentTaskRunner),
    ],
)
def test_E103_blocking_the_loop_that_does_the_work_is_refused(block: Any, runner: Any) -> None:
    """What would wait for ever in an async flow raises one sentence that says what to do instead; the flow goes on."""
    gate: list[asyncio.Event] = []

    @task
    async def held(n: int) -> int:
        await gate[0].wait()
        return n

    @flow(task_runner=runner)
    async def f() -> Any:
        gate.append(asyncio.Event())
        futures = [held.submit(n) for n in range(2)]
        await asyncio.sleep(0)  # from here on they run
        with pytest.raises(BlockedLoop, match=r"in the event loop that this code is in, .*: `await` it first"):
            await block(futures)
        gate[0].set()
        return [await future.result() for future in futures]

    assert asyncio.run(f()) == [0, 1]


def test_E103_a_call_that_would_block_has_failed(history: Any) -> None:
    """The task run of such a call is Failed, for a reason that is the code's."""
    gate: list[asyncio.Event] = []

    @task
    async def held() -> int:
        await gate[0].wait()
        return 1

    @flow
    async def f() -> Any:
        gate.append(asyncio.Event())
        future = held.submit()
        await asyncio.sleep(0)
        with pytest.raises(BlockedLoop):
            give(future)
        gate[0].set()
        return await future.result()

    assert asyncio.run(f()) == 1
    assert [data["cause"] for data in history.data("task_run.failed")] == ["user_error"]


def test_E103_looking_whether_they_are_done_is_no_blocking() -> None:
    """A time of 0 asks without waiting, so it may be asked anywhere."""

    @flow
    async def f() -> Any:
        future = give_later.submit(1)
        dependent = give.submit(future)
        assert dependent.wait(timeout=0) is None
        assert wait([dependent], timeout=0).not_done == {dependent}
        with pytest.raises(TimeoutError, match=r"1 \(of 1\) futures unfinished"):
            list(as_completed([future], timeout=0))
        return await asyncio.to_thread(dependent.result)

    assert asyncio.run(f()) == 1


def test_E103_other_threads_may_block() -> None:
    """Code in another thread than the loop's waits for its futures as for any others."""

    @flow
    async def f() -> Any:
        futures = [give_later.submit(n) for n in range(3)]
        ended = await asyncio.to_thread(lambda: list(as_completed(futures)))
        return sorted([await future.result() for future in ended])

    assert asyncio.run(f()) == [0, 1, 2]


def test_E103_async_tasks_of_sync_flows_do_not_block_their_loop() -> None:
    """An async task in a sync flow cannot block the loop in which the flow's other async tasks run."""
    others: list[Any] = []
    begun, leave = threading.Event(), threading.Event()

    @task
    async def held() -> int:
        while not leave.is_set():
            await asyncio.sleep(0)
        return 1

    @task
    async def blocking() -> int:
        assert begun.wait(30)
        return others[0].result()  # type: ignore[no-any-return]

    @flow
    def f() -> Any:
        future = blocking.submit()
        others.append(held.submit())
        begun.set()
        failed = future.wait().is_failed()  # type: ignore[attr-defined]
        leave.set()
        return [failed, others[0].result()]

    assert f() == [True, 1]


# --- `await task.map(...)` ----------------------------------------------------------------------------


@pytest.mark.parametrize("runner", [ConcurrentTaskRunner, SequentialTaskRunner])
@pytest.mark.parametrize("given", [[3, 1, 2], []])
def test_E101_a_map_can_be_awaited(given: Any, runner: Any) -> None:
    """`await task.map(...)` gives the list of futures, an empty one too, as `await task.submit(...)` gives one."""

    @flow(task_runner=runner)
    async def f() -> Any:
        futures = await give_later.map(given)
        assert isinstance(futures, FutureList)
        assert [type(future) for future in futures] == [AsyncFuture] * len(given)
        if runner is SequentialTaskRunner:
            assert all(future.done() for future in futures)
        assert [state.result() for state in await futures.wait()] == given
        assert await give_later.map(given).result() == given
        return [await future.result() for future in futures]

    assert asyncio.run(f()) == given


def test_E101_a_map_of_sync_tasks_can_be_awaited_too() -> None:
    """Nobody has to know whether the task is async."""

    @flow
    async def f() -> Any:
        futures = await give.map([3, 1, 2])
        return futures.result()

    assert asyncio.run(f()) == [3, 1, 2]


def test_E101_the_states_of_a_map_are_awaited() -> None:
    """With `return_state=True` what is awaited is the list of states."""

    @flow
    async def f() -> Any:
        states: Any = await give_later.map([1, 2], return_state=True)  # type: ignore[misc]
        return [state.result() for state in states]

    assert asyncio.run(f()) == [1, 2]


def test_E72_a_map_over_a_future_of_the_same_loop_is_awaited(history: Any) -> None:
    """The items are waited for without blocking the loop, and every child is linked to the run that made them."""

    @flow
    async def f() -> Any:
        words = await give_later.submit(["one", "two"])
        futures = await give_later.map(words)
        assert isinstance(futures, FutureList)
        assert await give_later.map(await give_later.submit([5])).result(timeout=60) == [5]
        states: Any = await give_later.map(give_later.submit([6]), return_state=True)  # type: ignore[misc]
        assert [state.result() for state in states] == [6]
        return [await future.result() for future in futures]

    assert asyncio.run(f()) == ["one", "two"]
    source, *children = history.task_runs("give_later")[:3]
    assert [child["inputs"] for child in children] == [{"x": [source["task_run_id"]]}] * 2


def test_E72_a_map_over_a_future_of_the_same_loop_says_that_it_is_to_be_awaited() -> None:
    """Used without `await`, the list says so in one sentence; awaited afterwards, it is there."""

    @flow
    async def f() -> Any:
        futures: Any = give_later.map(give_later.submit([1, 2]))
        for use in (list, len, bool, lambda futures: futures[0]):
            with pytest.raises(BlockedLoop, match=r"write `await give_later\.map\("):
                use(futures)
        first, second = await asyncio.gather(futures, futures)
        assert first is second is futures
        return [len(futures), bool(futures), await futures[1].result()]

    assert asyncio.run(f()) == [2, True, 2]


def test_E72_a_map_over_a_failed_future_of_the_same_loop() -> None:
    """The one run of such a map says why nothing ran."""

    @flow
    async def f() -> Any:
        futures = await give_later.map(broken_later.submit())
        return [state.name for state in await futures.wait()]

    assert asyncio.run(f()) == ["NotReady"]


# --- in the threads of a pool -----------------------------------------------------------------------


def ask_as_completed(futures: Any) -> list[Any]:
    """Return the values with `as_completed`."""
    return sorted(future.result() for future in as_completed(futures))


def ask_as_completed_in_time(futures: Any) -> list[Any]:
    """Return the values with `as_completed` and a time limit."""
    return sorted(future.result() for future in as_completed(futures, timeout=0.2))


def ask_wait(futures: Any) -> list[Any]:
    """Return the values with `wait`."""
    assert wait(futures).not_done == set()
    return [future.result() for future in futures]


def ask_wait_in_time(futures: Any) -> list[Any]:
    """Return the values with `wait` and a time limit."""
    assert wait(futures, timeout=0.2).not_done == set()
    return [future.result() for future in futures]


def ask_list(futures: Any) -> list[Any]:
    """Return the values with the list's own method."""
    values: list[Any] = futures.result()
    return values


def ask_list_in_time(futures: Any) -> list[Any]:
    """Return the values with the list's own method and a time limit."""
    values: list[Any] = futures.result(timeout=0.2)
    return values


def ask_states_in_time(futures: Any) -> list[Any]:
    """Return the values by way of the states, with a time limit."""
    return [state.result() for state in futures.wait(timeout=0.2)]


def ask_each_in_time(futures: Any) -> list[Any]:
    """Return the values one by one, with a time limit."""
    return [future.result(timeout=0.2) for future in futures]


@pytest.mark.parametrize(
    "ask",
    [
        ask_as_completed,
        ask_as_completed_in_time,
        ask_wait,
        ask_wait_in_time,
        ask_list,
        ask_list_in_time,
        ask_states_in_time,
        ask_each_in_time,
    ],
)
def test_E103_a_full_pool_does_not_wait_for_itself(ask: Any) -> None:
    """A task that submits tasks and waits for them gets their values though it holds the only thread."""

    @task
    def outer(numbers: list[int]) -> Any:
        return ask(give.map(numbers))

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> Any:
        return outer.submit([1, 2, 3]).result()

    assert f() == [1, 2, 3]


def test_E103_a_full_pool_of_tasks_that_wait_for_each_other() -> None:
    """Several levels deep, with two threads for many tasks."""

    @task
    def tree(depth: int) -> int:
        if depth == 0:
            return 1
        futures = [tree.submit(depth - 1) for _ in range(2)]
        return sum(future.result() for future in as_completed(futures))

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def f() -> Any:
        return [future.result() for future in [tree.submit(3) for _ in range(3)]]

    assert f() == [8, 8, 8]


def test_E103_a_full_pool_and_futures_that_rest_on_each_other() -> None:
    """A task that waits for a chain of futures in the only thread gets its end."""

    @task
    def outer() -> Any:
        first = give.submit(1)
        second = give.submit(first)
        third = give.submit(second)
        return sorted([future.result() for future in as_completed([third, second, first])])

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> Any:
        return outer.submit().result()

    assert f() == [1, 1, 1]


def test_E103_a_full_pool_and_a_future_of_the_flow() -> None:
    """A task in the only thread may wait for a future that the flow submitted after it."""
    later: list[Any] = []
    submitted = threading.Event()

    @task
    def outer() -> Any:
        assert submitted.wait(30)
        return [future.result() for future in as_completed(later)]

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> Any:
        future = outer.submit()
        later.append(give.submit(5))
        submitted.set()
        return future.result()

    assert f() == [5]


def test_E103_async_tasks_wait_for_each_other() -> None:
    """An async task in an async flow waits for tasks that it submitted, with `async for` and `wait`."""

    @task
    async def outer(numbers: list[int]) -> Any:
        futures: Any = give_later.map(numbers)
        found = await wait(futures)
        assert found.not_done == set()
        return sorted([await future.result() async for future in as_completed(futures)])

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    async def f() -> Any:
        future = await outer.submit([1, 2])
        return await future.result()

    assert asyncio.run(f()) == [1, 2]
