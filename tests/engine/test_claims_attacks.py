"""Slots and cache keys under attack: interrupted claims, stale owners, keys that collide, waits that never end."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from tests.engine.conftest import History, VirtualClock
from tests.engine.invariants import violations

from flightlog import cancel_run, flow, resume_run, task
from flightlog.concurrency import set_limit
from flightlog.concurrency.asyncio import concurrency as concurrency_async
from flightlog.concurrency.sync import concurrency
from flightlog.engine.cache_policies import INPUTS, TASK_SOURCE, CacheKeyFnPolicy, CachePolicy
from flightlog.engine.runtime import Engine
from flightlog.errors import TakenOver
from flightlog.events.model import NewEvent
from flightlog.projections.projector import Projector
from flightlog.projections.queries import find_flow_run
from flightlog.projections.reasons import explain

SERIALIZABLE = INPUTS.configure(isolation_level="SERIALIZABLE")


def _until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


@pytest.mark.parametrize("after", range(1, 8))
@pytest.mark.parametrize("what", ["block", "tag", "cache"])
def test_I7_a_coroutine_that_is_cancelled_at_any_step_leaves_no_claim(
    what: str, after: int, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled once its first events are in line, or its second, ...: the slot or key that it was getting is free."""
    set_limit("tag:one" if what == "tag" else "one", 1)
    policy = SERIALIZABLE if what == "cache" else None

    @task(tags=["one"], cache_policy=policy)
    async def t() -> int:
        await asyncio.sleep(0)
        return 1

    @flow
    async def f() -> None:
        if what == "block":
            async with concurrency_async("one"):
                await asyncio.sleep(0)
        else:
            await t()

    async def main() -> None:
        enqueue, left = engine.log.enqueue, [after]

        def enqueue_and_cancel(appends: Any) -> Any:
            unit = enqueue(appends)
            left[0] -= 1
            if left[0] == 0:
                running.cancel()
            return unit

        monkeypatch.setattr(engine.log, "enqueue", enqueue_and_cancel)
        running = asyncio.create_task(f(return_state=True))
        await asyncio.wait([running], timeout=10)
        assert running.done()

    asyncio.run(main())
    assert violations(engine) == []


def test_I7_a_run_that_was_taken_over_gives_back_what_it_held(engine: Engine, history: History) -> None:
    """Somebody takes a run away while its task holds a slot: its late end is refused, but the slot becomes free."""
    set_limit("tag:one", 1)

    @task(tags=["one"], cache_policy=SERIALIZABLE)
    def t() -> int:
        engine.log.flush()
        (run,) = history.flow_runs("f")
        event = NewEvent(engine.ids.new(), "flow_run.crashed", {"message": "taken away"}, engine.clock.now())
        engine.log.append(f"flow-run/{run}", [event], epoch=2)
        return 1

    @flow
    def f() -> None:
        t()

    with pytest.raises(TakenOver):
        f()
    left = [line for line in violations(engine) if "left" in line and "flow-run/" not in line]
    assert left == []


def test_I7_the_late_value_of_a_stale_owner_does_not_replace_a_newer_one(
    engine: Engine, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for dead, its claim passed to another that computed the value: what it writes after that is refused."""
    from flightlog.engine import caching

    first_in, release = threading.Event(), threading.Event()
    calls: list[str] = []

    @task(cache_policy=SERIALIZABLE)
    def t() -> str:
        calls.append(f"value {len(calls) + 1}")
        value = calls[-1]
        if value == "value 1":
            first_in.set()
            release.wait(20)
        return value

    @flow
    def f() -> str:
        return t()

    stale = threading.Thread(target=lambda: f(return_state=True))
    stale.start()
    assert first_in.wait(20)
    monkeypatch.setattr(caching, "is_dead", lambda *_: True)
    assert f() == "value 2"
    release.set()
    stale.join()
    assert f() == "value 2"


def test_I12_why_tells_what_a_block_of_a_flow_waits_for(engine: Engine, history: History) -> None:
    """A flow that waits for a slot in its own code: `runs why` names the limit."""
    set_limit("database", 1)

    @flow
    def f() -> None:
        with concurrency("database"):
            pass

    thread = threading.Thread(target=f)
    with concurrency("database"):
        thread.start()
        assert _until(lambda: history.events("slots.awaited"))
        text = _why(engine, history.flow_runs("f")[0])
    thread.join()
    assert "database" in text


@pytest.mark.parametrize("what", ["slot", "cache"])
def test_I12_why_of_a_flow_tells_which_task_waits(what: str, engine: Engine, history: History) -> None:
    """A flow whose only open task waits for a slot or for a cache key does not say that its code runs outside tasks."""
    set_limit("tag:one", 1)
    ready, release = threading.Event(), threading.Event()

    @task(tags=["one"] if what == "slot" else [], cache_policy=SERIALIZABLE if what == "cache" else None)
    def t() -> None:
        ready.set()
        release.wait(20)

    @flow
    def holds() -> None:
        t()

    @flow
    def waits() -> None:
        t()

    first = threading.Thread(target=holds)
    first.start()
    assert ready.wait(20)
    second = threading.Thread(target=waits)
    second.start()
    name = "AwaitingConcurrencySlot" if what == "slot" else "AwaitingCache"
    assert _until(lambda: any(name in states for states in history.states("t")))
    (run,) = history.flow_runs("waits")
    text, of_task = _why(engine, run), _why(engine, run, "t")
    release.set()
    first.join()
    second.join()
    assert "wait" in of_task.lower()
    assert "outside of any task" not in text
    assert "'t-" in text


def _why(engine: Engine, run: str, task_name: str | None = None) -> str:
    engine.log.flush()
    projector = Projector(engine.log, None)
    try:
        return explain(projector, find_flow_run(projector, run), task_name).text
    finally:
        projector.close()


# --- keys that collide ---------------------------------------------------------------------------------


class Only(CachePolicy):
    """A policy of one's own: one argument counts."""

    def __init__(self, name: str) -> None:
        self.name = name

    def compute_key(
        self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **_: Any
    ) -> str | None:
        """Return the argument as text."""
        return str(inputs[self.name])


@pytest.mark.parametrize(
    "policy",
    [
        Only("a") + Only("b"),
        CacheKeyFnPolicy(lambda _, inputs: f"a{inputs['a']}") + CacheKeyFnPolicy(lambda _, inputs: f"b{inputs['b']}"),
    ],
)
def test_E128_a_sum_of_two_policies_of_one_class_tells_both_apart(policy: CachePolicy) -> None:
    """`a + b` hashes both: no call gets the value of one that differs in what the first of them looks at."""

    @task(cache_policy=policy)
    def t(a: int, b: int) -> tuple[int, int]:
        return a, b

    @flow
    def f() -> list[Any]:
        return [t(1, 1), t(2, 1), t(1, 2)]

    assert f() == [(1, 1), (2, 1), (1, 2)]


def test_E128_task_source_tells_functions_without_a_source_apart() -> None:
    """Code that was typed in, where there is no file: functions that differ in the name they call differ."""

    def made(source: str) -> Any:
        names: dict[str, Any] = {}
        exec(source, names)
        return task(cache_policy=INPUTS + TASK_SOURCE)(names["t"])

    upper, lower = made("def t(x):\n    return x.upper()\n"), made("def t(x):\n    return x.lower()\n")

    @flow
    def f() -> list[str]:
        return [upper("a"), lower("a")]

    assert f() == ["A", "a"]


@pytest.mark.parametrize("expiration", [timedelta.max, timedelta(days=365 * 9000)])
def test_E124_a_value_may_count_for_a_very_long_time(expiration: timedelta, engine: Engine) -> None:
    """An expiration beyond what a clock can show is for ever; the run completes."""
    calls = []

    @task(cache_policy=INPUTS, cache_expiration=expiration)
    def t() -> int:
        calls.append(1)
        return 1

    @flow
    def f() -> list[int]:
        return [t(), t()]

    assert f() == [1, 1]
    assert len(calls) == 1
    assert violations(engine) == []


def test_E124_a_hit_on_record_is_not_computed_anew_when_the_value_has_expired_meanwhile(
    virtual_clock: VirtualClock, history: History
) -> None:
    """A run whose call was answered by the cache is resumed long after: a committed end never runs again."""
    calls, failing = [], [True]

    @task(cache_policy=INPUTS, cache_expiration=timedelta(seconds=60), tags=["one"])
    def t() -> int:
        calls.append(1)
        return len(calls)

    @flow
    def first() -> int:
        return t()

    @flow
    def f() -> int:
        value = t()
        if failing:
            raise ValueError("x")
        return value

    set_limit("tag:one", 1)
    assert first() == 1
    assert f(return_state=True).is_failed()
    failing.clear()
    virtual_clock.microseconds += 3_600_000_000
    (run,) = history.flow_runs("f")
    assert resume_run(run, flow=f) == 1
    assert len(calls) == 1
    assert first() == 2


# --- waits that never end ------------------------------------------------------------------------------


def test_E129_two_streams_of_one_key_in_one_flow_do_not_wait_for_each_other_for_ever(
    engine: Engine, history: History
) -> None:
    """`zip(pieces(), pieces())`: whoever consumes both cannot go on while one waits for the other."""

    @task(cache_policy=SERIALIZABLE)
    def pieces() -> Iterator[int]:
        yield 1
        yield 2

    @flow
    def f() -> list[tuple[int, int]]:
        return list(zip(pieces(), pieces(), strict=True))

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(f(return_state=True)))
    thread.start()
    thread.join(3)
    waited = thread.is_alive()
    if waited:
        cancel_run(history.flow_runs("f")[0], engine=engine)
        engine.inbox.look()
    thread.join(20)
    assert not waited
    assert found[0].result() == [(1, 1), (2, 2)]


def test_E142_coroutines_go_on_while_threads_of_their_loop_wait_for_their_slot(engine: Engine) -> None:
    """Sync flows in the loop's default threads wait for a slot that a coroutine holds: it can still call tasks."""
    set_limit("one", 1)

    @task(cache_policy=INPUTS)
    async def inner() -> int:
        return 1

    @flow
    def waits() -> None:
        with concurrency("one", timeout_seconds=2):
            pass

    @flow
    async def holds() -> int:
        async with concurrency_async("one"):
            others = [asyncio.ensure_future(asyncio.to_thread(waits, return_state=True)) for _ in range(4)]
            await asyncio.sleep(0.1)
            value = await inner()
        states = await asyncio.gather(*others)
        assert all(state.is_completed() for state in states), states
        return value

    async def main() -> int:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
        return await holds()

    assert asyncio.run(main()) == 1


def test_E141_many_coroutines_that_wait_for_one_slot_do_not_look_at_it_all_the_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eighty async tasks, one slot: the looks at the limit grow with the tasks, not with their square."""
    set_limit("tag:one", 1)
    looks, look = [0], engine.kept

    def kept(projection: str, stream: str) -> Any:
        looks[0] += 1
        return look(projection, stream)

    monkeypatch.setattr(engine, "kept", kept)

    @task(tags=["one"])
    async def t(n: int) -> int:
        return n

    @flow
    async def f() -> list[int]:
        return list(await asyncio.gather(*map(t, range(80))))

    assert asyncio.run(f()) == list(range(80))
    assert looks[0] <= 80 * 8
    assert violations(engine) == []


@pytest.mark.parametrize("given", [float("inf"), 1e300])
def test_E142_a_timeout_may_be_without_end(given: float) -> None:
    """`timeout_seconds=float("inf")` waits for as long as it takes."""
    set_limit("one", 1)
    with concurrency("one", timeout_seconds=given):
        pass


@pytest.mark.parametrize("limit", [2**64, 10**400], ids=["2**64", "10**400"])
def test_E142_a_limit_too_large_for_the_log_is_a_value_error(limit: int) -> None:
    """It is refused with a sentence, as other numbers that make no sense are."""
    with pytest.raises(ValueError, match="limit"):
        set_limit("one", limit)
