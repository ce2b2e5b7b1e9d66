"""Concurrency limits: tags, named limits, rate limits, waiting, giving back, holders that are gone."""

import asyncio
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import History, VirtualClock

from flightlog import flow, task
from flightlog.concurrency import delete_limit, set_limit
from flightlog.concurrency.asyncio import concurrency as concurrency_async
from flightlog.concurrency.asyncio import rate_limit as rate_limit_async
from flightlog.concurrency.sync import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    concurrency,
    rate_limit,
)
from flightlog.engine.runtime import Engine
from flightlog.engine.slots import limit_states


class Gauge:
    """Tells how many were inside at the same time, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


def holders(engine: Engine, name: str) -> int:
    """Return how many hold slots of a limit."""
    engine.log.flush()
    return len(limit_states(engine)[name]["holders"])


def test_E141_a_tag_limit_holds_for_all_tasks_with_the_tag(engine: Engine, history: History) -> None:
    """Of ten submitted runs no more run at once than the tag's limit says; the others wait, visibly."""
    set_limit("tag:db", 2)
    gauge = Gauge()

    @task(tags=["db", "free"])
    def t(x: int) -> int:
        with gauge:
            time.sleep(0.01)
        return x

    @flow
    def f() -> Any:
        return t.map(list(range(10)))

    assert f() == list(range(10))
    assert gauge.most <= 2
    waited = [data for data in history.data("task_run.pending") if data["name"] == "AwaitingConcurrencySlot"]
    assert waited
    assert any("'tag:db': 2 of 2 are taken" in data["message"] for data in waited)
    assert all("'tag:db'" in data["message"] for data in waited)
    assert holders(engine, "tag:db") == 0
    assert not limit_states(engine)["tag:db"]["waiters"]


def test_E141_a_task_needs_a_slot_of_every_limited_tag(engine: Engine) -> None:
    """Slots of all its tags are taken at once, or none: two tasks with crossed tags do not block each other."""
    set_limit("tag:a", 1)
    set_limit("tag:b", 1)
    gauge = Gauge()

    @task(tags=["a", "b"])
    def both(x: int) -> int:
        with gauge:
            return x

    @task(tags=["b", "a"])
    def crossed(x: int) -> int:
        with gauge:
            return x

    @flow
    def f() -> int:
        futures = [t.submit(x) for x in range(5) for t in (both, crossed)]
        return sum(future.result() for future in futures)

    assert f() == 20
    assert gauge.most == 1
    assert (holders(engine, "tag:a"), holders(engine, "tag:b")) == (0, 0)


def test_E141_a_limit_of_zero_lets_nothing_run(history: History) -> None:
    """A task with such a tag is cancelled, with the reason."""
    set_limit("tag:off", 0)

    @task(tags=["off"])
    def t() -> int:
        raise AssertionError("never called")

    @flow
    def f() -> Any:
        return str(t(return_state=True))

    assert "'tag:off' is 0" in f()
    assert history.states("t") == [["Pending", "Cancelled"]]


@pytest.mark.parametrize("how", ["raises", "exits", "times out"])
def test_E141_slots_are_given_back_however_an_attempt_ends(engine: Engine, how: str) -> None:
    """A failure, a crash, a time-out: the next one gets the slot; a retry takes it anew."""
    set_limit("tag:one", 1)
    attempts = []

    @task(tags=["one"], retries=1, timeout_seconds=0.05 if how == "times out" else None)
    def t() -> None:
        attempts.append(holders(engine, "tag:one"))
        if how == "raises":
            raise ValueError
        if how == "exits":
            raise SystemExit(3)
        time.sleep(0.1)

    @flow
    def f() -> None:
        t(return_state=True)

    if how == "exits":
        with pytest.raises(SystemExit):
            f()
    else:
        f(return_state=True)
    assert set(attempts) == {1}
    assert holders(engine, "tag:one") == 0


def test_E141_async_tasks_wait_without_blocking_the_loop(engine: Engine) -> None:
    """Async tasks of one loop share the slots of a tag."""
    set_limit("tag:async", 2)
    gauge = Gauge()

    @task(tags=["async"])
    async def t(x: int) -> int:
        with gauge:
            await asyncio.sleep(0.01)
        return x

    @flow
    async def f() -> list[int]:
        return list(await asyncio.gather(*(t(x) for x in range(6))))

    assert asyncio.run(f()) == list(range(6))
    assert gauge.most <= 2
    assert holders(engine, "tag:async") == 0


def test_E142_concurrency_works_outside_of_flows_and_gives_back_on_errors(engine: Engine) -> None:
    """A context manager, sync; the slot is free again when the block raises."""
    set_limit("api", 1)
    with pytest.raises(ValueError, match="inside"), concurrency("api"):
        assert holders(engine, "api") == 1
        raise ValueError("inside")
    assert holders(engine, "api") == 0


def test_E142_concurrency_of_async_code(engine: Engine) -> None:
    """The same for async code: two coroutines take turns."""
    set_limit("api", 1)
    gauge = Gauge()

    async def one() -> None:
        async with concurrency_async("api"):
            with gauge:
                await asyncio.sleep(0.01)

    async def main() -> None:
        await asyncio.gather(one(), one(), one())

    asyncio.run(main())
    assert gauge.most == 1
    assert holders(engine, "api") == 0


def test_E142_a_timeout_is_an_error_of_its_own(engine: Engine) -> None:
    """`timeout_seconds` over: AcquireConcurrencySlotTimeoutError, which is a TimeoutError; the waiter is gone."""
    set_limit("api", 1)
    late = concurrency("api", timeout_seconds=0.05)
    with concurrency("api"):
        with pytest.raises(AcquireConcurrencySlotTimeoutError, match=r"'api' became free within 0\.05") as caught, late:
            raise AssertionError("there was a slot")
        engine.log.flush()
        assert not limit_states(engine)["api"]["waiters"]
    assert isinstance(caught.value, TimeoutError)


def test_E142_more_than_there_is_and_unknown_names() -> None:
    """More slots than the limit: an error; an unknown name does not limit, unless `strict` says so."""
    set_limit("api", 2)
    error = ConcurrencySlotAcquisitionError
    with pytest.raises(error, match=r"3 slots of 'api' cannot be had: its limit is 2"), concurrency("api", occupy=3):
        raise AssertionError("there were slots")
    with concurrency("nobody"):
        pass
    with pytest.raises(error, match="no concurrency limit 'nobody'"), concurrency("nobody", strict=True):
        raise AssertionError("there was a limit")
    set_limit("closed", 0)
    with pytest.raises(error, match="is 0"), concurrency("closed"):
        raise AssertionError("there was a slot")


def test_E142_a_rate_limit_frees_its_slots_with_time(virtual_clock: VirtualClock, engine: Engine) -> None:
    """Ten calls under 2 slots that decay at one a second take some eight seconds; nobody gives slots back."""
    set_limit("api", 2, slot_decay_per_second=1)
    start = virtual_clock.now()
    for _ in range(10):
        rate_limit("api")
    passed = (virtual_clock.now() - start) / 1e6
    assert 8 <= passed <= 9
    assert holders(engine, "api") == 0
    asyncio.run(rate_limit_async("api"))


def test_E142_a_rate_limit_needs_a_limit_that_decays() -> None:
    """`rate_limit` on a limit without decay is an error that says what to set."""
    set_limit("api", 2)
    with pytest.raises(ConcurrencySlotAcquisitionError, match="slot_decay_per_second"):
        rate_limit("api")


def test_E142_several_limits_are_taken_at_once(engine: Engine) -> None:
    """Slots of all named limits, or of none."""
    set_limit("a", 1)
    set_limit("b", 1)
    late = concurrency(["b", "a"], timeout_seconds=0.02)
    with concurrency("a"), pytest.raises(AcquireConcurrencySlotTimeoutError, match="'a'"), late:
        raise AssertionError("there was a slot")
    with concurrency(["a", "b", "a"]):
        assert (holders(engine, "a"), holders(engine, "b")) == (1, 1)
    assert (holders(engine, "a"), holders(engine, "b")) == (0, 0)


def test_a_limit_can_be_changed_and_deleted_while_slots_are_held(engine: Engine) -> None:
    """A raised limit lets waiters in; a deleted one limits nobody; holders keep what they hold."""
    set_limit("api", 1)
    entered = threading.Event()

    def enter() -> None:
        with concurrency("api"):
            entered.set()

    with concurrency("api"):
        waiter = threading.Thread(target=enter)
        waiter.start()
        assert not entered.wait(0.05)
        set_limit("api", 2)
        waiter.join()
        assert entered.is_set()
        assert delete_limit("api")
        with concurrency("api", strict=False):
            pass
    assert not delete_limit("api")


@pytest.mark.parametrize(("name", "limit"), [("", 1), ("x" * 300, 1), ("a\nb", 1), ("a", -1), ("a", True), ("a", 1.5)])
def test_limits_that_make_no_sense_are_refused(name: str, limit: Any) -> None:
    """A name that nobody can type, or a limit that is no number of slots."""
    with pytest.raises(ValueError, match="concurrency limit"):
        set_limit(name, limit)


def _hold_for_ever(home: str, ready: Any) -> None:
    import os

    os.environ["FLIGHTLOG_HOME"] = home
    with concurrency("api"):
        ready.set()
        time.sleep(60)


def test_I7_a_dead_holders_slot_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that holds the only slot is killed: the next one that wants it gets it, and says so on record."""
    from flightlog.engine.runtime import open_engine, using
    from flightlog.settings import load

    monkeypatch.setenv("FLIGHTLOG_HOME", str(tmp_path))
    engine = open_engine(load())
    with using(engine):
        set_limit("api", 1)
        spawn = multiprocessing.get_context("spawn")
        ready = spawn.Event()
        process = spawn.Process(target=_hold_for_ever, args=(str(tmp_path), ready))
        process.start()
        assert ready.wait(30)
        with pytest.raises(AcquireConcurrencySlotTimeoutError), concurrency("api", timeout_seconds=0.05):
            raise AssertionError("there was a slot")
        process.kill()
        process.join()
        with concurrency("api", timeout_seconds=10):
            pass
    assert list(engine.log.read_all(types=["slots.expired"]))
    engine.log.close()


def test_I7_one_slot_among_many_threads_is_never_held_twice(engine: Engine) -> None:
    """Eight threads, fifty times each, one slot: never two inside, and every acquisition is given back."""
    set_limit("one", 1)
    gauge = Gauge()

    def work() -> None:
        for _ in range(10):
            with concurrency("one"), gauge:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gauge.most == 1
    engine.log.flush()
    count = {kind: len(list(engine.log.read_all(types=[f"slots.{kind}"]))) for kind in ("acquired", "released")}
    assert count == {"acquired": 40, "released": 40}


def test_E141_a_slot_that_was_given_back_just_now_is_free(history: History) -> None:
    """Tasks of one limit that follow each other, and retries, do not wait for themselves."""
    attempts: list[int] = []

    @task(tags=["few"], retries=1)
    def t(x: int) -> int:
        attempts.append(x)
        if len(attempts) == 1:
            raise ValueError("once")
        return x

    @flow
    def f() -> list[int]:
        return [t(1), t(2), t.submit(3).result()]

    set_limit("tag:few", 1)
    assert f() == [1, 2, 3]
    assert [name for states in history.states("t") for name in states].count("AwaitingConcurrencySlot") == 0
    assert not history.events("slots.awaited")
