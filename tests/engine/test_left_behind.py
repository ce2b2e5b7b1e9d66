"""Runs that end while code of theirs goes on: all that they have begun has an end on record, with the cause of it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import History
from tests.engine.invariants import violations

from flightlog import cancel_run, flow, get_run_context, task
from flightlog.concurrency import set_limit
from flightlog.engine.runtime import Engine, using
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.settings import load
from flightlog.task_runners import ProcessPoolTaskRunner


class Gate:
    """What code in threads hangs at, until the test is over.

    Attributes:
        reached: released each time that somebody gets there.
    """

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self._open = threading.Event()

    def hang(self) -> None:
        """Hang here."""
        self.reached.release()
        self._open.wait(30)

    def wait_for(self, many: int) -> None:
        """Wait until so many hang here."""
        for _ in range(many):
            assert self.reached.acquire(timeout=20)

    def open(self) -> None:
        """Let everybody go on, and wait until all threads of ours have ended."""
        self._open.set()
        for thread in threading.enumerate():
            if thread.name.startswith("flightlog-") and thread.name not in ("flightlog-flush", "flightlog-loop"):
                thread.join(20)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a gate that is opened at the end of the test at the latest."""
    gate = Gate()
    yield gate
    gate.open()


def ends(history: History, name: str) -> list[tuple[str, str | None]]:
    """Return how the runs of a task ended: the event's type, and the cause."""
    keys = {run["task_run_id"] for run in history.task_runs(name)}
    types = ("task_run.completed", "task_run.failed", "task_run.crashed", "task_run.cancelled")
    found = [event for event in history.events(*types) if event.data["task_run_id"] in keys]
    return [(event.type.partition(".")[2], event.data.get("cause")) for event in found]


def unchanged(history: History, engine: Engine, gate: Gate) -> None:
    """See that what goes on after the end of its run, and ends then, leaves no trace and holds nothing."""
    before = [event.id for event in history.events()]
    gate.open()
    after = [event for event in history.events() if event.id not in before]
    assert not [event.type for event in after if event.type.startswith(("task_run.", "flow_run."))]
    assert violations(engine) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_E39_tasks_in_threads_have_an_end_when_their_flow_is_interrupted(
    error: type[BaseException], gate: Gate, engine: Engine, history: History
) -> None:
    """Crashed, for being abandoned, before the flow is; with all tasks and subflows that they had called themselves."""

    @task
    def inner() -> None:
        gate.hang()

    @flow
    def child() -> None:
        inner()

    @task
    def outer() -> None:
        child()

    @task
    def plain() -> None:
        gate.hang()

    @flow
    def f() -> None:
        outer.submit()
        plain.submit()
        gate.wait_for(2)
        raise error

    with pytest.raises(error):
        f()
    for name in ("plain", "outer", "child", "inner"):
        assert ends(history, name) == [("crashed", "cancelled")]
    (run,) = history.flow_runs("child")
    assert history.flow_states(run)[-1] == "Crashed"
    assert history.events()[-1].type == "flow_run.crashed"
    message = history.data("task_run.crashed")[0]["message"]
    assert message.startswith("Abandoned: the flow run ")
    assert message.endswith("Its code may go on; what becomes of it is not recorded.")
    unchanged(history, engine, gate)


def test_E39_a_late_end_gives_back_what_its_task_holds(gate: Gate, engine: Engine, history: History) -> None:
    """The slot is held as long as the code goes on, and then free; a task that waits for it never begins."""
    set_limit("tag:one", 1)

    @task(tags=["one"])
    def t() -> None:
        gate.hang()

    @flow
    def f() -> None:
        t.submit()
        gate.wait_for(1)
        t.submit()
        while not any(data.get("name") == "AwaitingConcurrencySlot" for data in history.data("task_run.pending")):
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        f()
    assert sorted(ends(history, "t")) == [("crashed", "cancelled"), ("crashed", "cancelled")]
    assert history.data("slots.released") == []
    unchanged(history, engine, gate)
    assert len(history.data("slots.acquired")) == len(history.data("slots.released")) == 1


def test_E37_a_task_that_runs_when_its_flow_times_out_is_on_record_as_timed_out(
    gate: Gate, engine: Engine, history: History
) -> None:
    """In the thread of the flow's function, or another; never for an error of the user's."""

    @task
    def direct() -> None:
        gate.hang()

    @task
    def submitted() -> None:
        gate.hang()

    @flow(timeout_seconds=1)
    def f() -> None:
        submitted.submit()
        direct()

    assert f(return_state=True).name == "TimedOut"
    assert ends(history, "direct") == ends(history, "submitted") == [("crashed", "timed_out")]
    assert "exceeded its time limit" in history.data("task_run.crashed")[0]["message"]
    unchanged(history, engine, gate)


def test_E37_an_attempt_that_timed_out_cannot_write_into_the_next_one(
    gate: Gate, engine: Engine, history: History
) -> None:
    """Its task has an end before the flow is tried again; what completed in it before is taken over."""
    attempts: list[int] = []

    @task
    def quick() -> int:
        attempts.append(0)
        return 1

    @task
    def slow(attempt: int) -> int:
        if attempt == 1:
            gate.hang()
        return 2

    @flow(timeout_seconds=1, retries=1)
    def f() -> int:
        attempts.append(1)
        found = quick()
        return found + slow(attempts.count(1))

    assert f() == 3
    assert attempts == [1, 0, 1]
    assert ends(history, "slow") == [("crashed", "timed_out"), ("completed", None)]
    (run,) = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "AwaitingRetry", "Running", "Completed"]
    unchanged(history, engine, gate)


def test_E62_what_a_task_that_timed_out_has_called_has_an_end_with_the_flow(
    gate: Gate, engine: Engine, history: History
) -> None:
    """The flow goes on and completes; no task run of it is left Running."""

    @task
    def inner() -> None:
        gate.hang()

    @task(timeout_seconds=1)
    def outer() -> None:
        inner()

    @flow
    def f() -> str:
        return str(outer(return_state=True).name)

    assert f() == "TimedOut"
    assert ends(history, "outer") == [("failed", "timed_out")]
    assert ends(history, "inner") == [("crashed", "timed_out")]
    assert "the task run 'outer-" in history.data("task_run.crashed")[0]["message"]
    unchanged(history, engine, gate)


def test_E152_a_task_that_does_not_notice_that_it_is_cancelled_is_cancelled_on_record(
    gate: Gate, tmp_path: Path
) -> None:
    """After the time that it has for that."""
    settings = load({"FLIGHTLOG_HOME": str(tmp_path), "FLIGHTLOG_CANCEL_GRACE_SECONDS": "0.1"})
    engine = Engine(Log(MemoryStore()), b"k" * 32, settings)
    history = History(engine)

    @task
    def t() -> None:
        gate.hang()

    @flow
    def f() -> None:
        future = t.submit()
        gate.wait_for(1)
        engine.log.flush()
        cancel_run(get_run_context().flow_context.flow_run.id, engine=engine)
        future.result()

    with using(engine):
        assert f(return_state=True).is_cancelled()
        assert ends(history, "t") == [("cancelled", "cancelled")]
        unchanged(history, engine, gate)
    engine.log.close()


def _cancelled(work: Callable[[], Any], gate: Gate, many: int) -> None:
    """Run a coroutine function, and cancel it once so many hang at the gate."""

    async def main() -> None:
        running = asyncio.ensure_future(work())
        await asyncio.to_thread(gate.wait_for, many)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


def test_E39_sync_and_async_tasks_of_an_async_flow_that_is_cancelled(
    gate: Gate, engine: Engine, history: History
) -> None:
    """Those in the event loop end with the flow; those in threads are abandoned, on record."""

    @task
    async def waits() -> None:
        gate.reached.release()
        await asyncio.sleep(30)

    @task
    def hangs() -> None:
        gate.hang()

    @flow
    async def f() -> None:
        hangs.submit()
        await waits.submit()
        await waits()

    _cancelled(f, gate, 3)
    assert ends(history, "waits") == [("crashed", "cancelled")] * 2
    assert ends(history, "hangs") == [("crashed", "cancelled")]
    unchanged(history, engine, gate)


def test_E39_async_tasks_of_a_sync_flow_that_is_interrupted(engine: Engine, history: History, gate: Gate) -> None:
    """They are cancelled at their await, in the loop that they run in; the flow waits for that."""

    @task
    async def waits() -> None:
        gate.reached.release()
        await asyncio.sleep(30)

    @flow
    def f() -> None:
        waits.submit()
        waits.submit()
        gate.wait_for(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        f()
    assert ends(history, "waits") == [("crashed", "cancelled")] * 2
    assert "Its code may go on" not in history.data("task_run.crashed")[0]["message"]
    unchanged(history, engine, gate)


@task
def touch_and_sleep(flag: str) -> None:
    """Say that it has begun, and take long."""
    Path(flag).touch()
    time.sleep(60)


def test_E110_tasks_in_worker_processes_end_with_their_worker(
    engine: Engine, history: History, tmp_path: Path, gate: Gate
) -> None:
    """The worker is killed; the task run is Crashed, for what ended its flow."""
    flag = tmp_path / "flag"

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def f() -> None:
        touch_and_sleep.submit(str(flag))
        while not flag.exists():
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        f()
    assert ends(history, "touch_and_sleep") == [("crashed", "cancelled")]
    unchanged(history, engine, gate)


# --- the cause of an attempt that was abandoned -------------------------------------------------------


def test_an_attempt_that_notices_that_it_was_abandoned_says_why(engine: Engine, history: History, gate: Gate) -> None:
    """Whatever its code makes of being stopped: not an error of the user's, and not worth another attempt."""

    @task
    def tick() -> None:
        time.sleep(0.01)

    @task(retries={"infrastructure": 3, "user_error": 3})
    def plain() -> None:
        while True:
            tick()

    @task(retries=3)
    def wraps() -> None:
        try:
            while True:
                tick()
        except BaseException as error:
            raise RuntimeError("something went wrong") from error

    @flow(timeout_seconds=1)
    def f() -> None:
        plain.submit()
        wraps.submit()
        gate.hang()

    assert f(return_state=True).name == "TimedOut"
    assert ends(history, "plain") == ends(history, "wraps") == [("crashed", "timed_out")]
    assert history.data("task_run.awaiting_retry") == []
    unchanged(history, engine, gate)


def test_an_error_of_the_users_stays_one_also_in_a_run_that_is_stopped(
    engine: Engine, history: History, gate: Gate
) -> None:
    """It did not come of being stopped."""

    @task
    def t() -> None:
        context = get_run_context().flow_context
        gate.reached.release()
        while context.stopped is None:
            time.sleep(0.005)
        raise KeyError("the user's own")

    @flow
    def f() -> None:
        t.submit()
        gate.wait_for(1)
        engine.log.flush()
        cancel_run(get_run_context().flow_context.flow_run.id, engine=engine)
        gate.hang()

    assert f(return_state=True).is_cancelled()
    assert ends(history, "t") == [("failed", "user_error")]
    assert violations(engine) == []


@pytest.mark.parametrize("where", ["flow", "task", "stream"])
def test_E37_async_tasks_of_a_run_that_times_out_have_timed_out(where: str, engine: Engine, history: History) -> None:
    """They are cancelled at their await; by the time limit, which is what is on record."""

    @task
    async def inner() -> None:
        await asyncio.sleep(30)

    @task(timeout_seconds=0.1 if where == "task" else None)
    async def middle() -> None:
        await inner()

    @task(timeout_seconds=0.1)
    async def pieces() -> Any:
        await inner()
        yield 1

    @flow(timeout_seconds=0.1 if where == "flow" else None)
    async def f() -> None:
        if where == "stream":
            async for _ in pieces():
                pass
        else:
            await middle(return_state=True)

    asyncio.run(f(return_state=True))
    assert ends(history, "inner") == [("crashed", "timed_out")]
    if where == "flow":
        assert ends(history, "middle") == [("crashed", "timed_out")]
    assert violations(engine) == []


def test_an_async_task_that_somebody_else_cancels_is_cancelled(history: History) -> None:
    """A time limit of the user's own code is none of the run's."""

    @task
    async def t() -> None:
        await asyncio.sleep(30)

    @flow(timeout_seconds=20)
    async def f() -> str:
        try:
            async with asyncio.timeout(0.05):
                await t()
        except TimeoutError:
            return "went on"
        return "never"

    assert asyncio.run(f()) == "went on"
    assert ends(history, "t") == [("crashed", "cancelled")]


def test_a_subflow_in_the_thread_of_a_flow_that_timed_out_has_timed_out(
    engine: Engine, history: History, gate: Gate
) -> None:
    """It and the task run that stands for it, with the cause of what stopped it."""

    @flow
    def child() -> None:
        gate.hang()

    @flow(timeout_seconds=1)
    def f() -> None:
        child()

    assert f(return_state=True).name == "TimedOut"
    assert ends(history, "child") == [("crashed", "timed_out")]
    assert [data["cause"] for data in history.data("flow_run.crashed")] == ["timed_out"]
    unchanged(history, engine, gate)
