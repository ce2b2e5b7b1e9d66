"""Write-ahead (I1, I2): what is committed when a body starts, and when something leaves the process."""

import asyncio
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from flightlog import flow, task
from flightlog.engine.context import TaskRunContext, get_run_context
from flightlog.engine.runtime import current_engine
from flightlog.events.model import Append
from flightlog.events.opening import open_log
from flightlog.task_runners import SequentialTaskRunner
from flightlog.testing.log_contract import new_event


def committed() -> list[tuple[str, Any]]:
    """Return what another process would see in the log now: types, and the task runs they are of."""
    with open_log(f"sqlite:///{current_engine().log.store.location}", create=False) as log:
        return [(event.type, event.data.get("task_run_id")) for event in log.read_all()]


def assert_on_record() -> None:
    """Check that this body's start is committed, and everything before it."""
    context = get_run_context()
    found = committed()
    if isinstance(context, TaskRunContext):
        run = context.task_run.key
        assert ("task_run.created", run) in found
        assert found.count(("task_run.running", run)) == context.task_run.run_count
    else:
        assert [type_ for type_, _ in found].count("flow_run.running") >= 1


@pytest.fixture
def on_disk(own_home: Path) -> Path:
    """Use a log in a file, so that another connection can look at it."""
    return own_home


@task
def step(_: Any = None) -> int:
    """Look at the log from inside."""
    assert_on_record()
    return 1


@task
async def async_step() -> int:
    """Look at the log from inside, async."""
    assert_on_record()
    return 1


@task(retries=2)
def retried() -> int:
    """Look at the log from inside each attempt."""
    assert_on_record()
    context = TaskRunContext.get()
    assert context is not None
    if context.task_run.run_count < 3:
        raise ValueError(context.task_run.run_count)
    return 1


@flow
def inner() -> int:
    """Look at the log from inside a subflow."""
    assert_on_record()
    return step()


@flow
def outer() -> int:
    """Start bodies in every way that sync code can."""
    assert_on_record()
    step()
    futures: list[Any] = [step.submit(n) for n in range(5)]
    futures += [async_step.submit() for _ in range(3)]
    retried()
    inner()
    total: int = sum(future.result() for future in futures)
    return total + len(step.map(range(3)))


@flow(task_runner=SequentialTaskRunner)
def one_by_one() -> int:
    """Start bodies one after the other."""
    return sum([future.result() for future in step.map(range(3))])


@flow
async def asynchronous() -> int:
    """Start bodies in every way that async code can."""
    assert_on_record()
    results = await asyncio.gather(*[async_step() for _ in range(20)])
    future = await async_step.submit()
    return sum(results) + await future.result() + step()


def test_I1_a_body_starts_after_its_event_is_committed(on_disk: Path) -> None:
    """Whatever way a task or flow is called, its start is committed before its function is."""
    assert outer() == 11
    assert one_by_one() == 3
    assert asyncio.run(asynchronous()) == 22


def test_I1_an_outermost_flow_returns_after_its_end_is_committed(on_disk: Path) -> None:
    """When the outermost flow returns, or raises, its end and everything before it is committed."""

    @flow
    def fails() -> None:
        step()
        raise KeyError("x")

    for expected in ("flow_run.completed", "flow_run.failed", "flow_run.completed"):
        if expected == "flow_run.failed":
            with pytest.raises(KeyError):
                fails()
        elif not committed():
            one_by_one()
        else:
            asyncio.run(asynchronous())
        types = [type_ for type_, _ in committed()]
        assert types[-1] == expected
        assert types.count("task_run.running") == types.count("task_run.completed")


def test_I2_endings_that_nobody_waits_for_are_committed_soon(on_disk: Path) -> None:
    """A task's end is committed though nothing else happens in its flow."""
    seen = []

    @flow
    def waits_for_the_log() -> None:
        step()
        for _ in range(2000):
            if ("task_run.completed") in [type_ for type_, _ in committed()]:
                seen.append(True)
                return

    waits_for_the_log()
    assert seen == [True]


def test_a_sequential_task_costs_one_commit(on_disk: Path) -> None:
    """The end of one task and the start of the next go into one commit."""

    @task
    def noop() -> None:
        pass

    @flow
    def sequence(count: int) -> None:
        for _ in range(count):
            noop()

    sequence(1)
    log = current_engine().log
    before = log._commits
    sequence(200)
    assert log._commits - before <= 200 + 2 + 20  # the flusher may take a few ends by itself


# Where a signal strikes inside a callback of the garbage collector, Python itself drops its exception, and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("waits", [True, False])
def test_I2_an_interrupt_at_any_moment_loses_nothing(tmp_path: Path, waits: bool) -> None:
    """A signal's exception may strike anywhere in a commit: what was put in line is recorded, and others can commit."""
    chance = random.Random(20_261_123)
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    before = signal.signal(signal.SIGALRM, _interrupt)
    hits = 0
    try:
        for number in range(600):
            unit = log.enqueue([Append("s", [new_event(n=number)])])
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 2e-4))
                try:
                    (log.commit if waits else log.try_commit)(unit)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except _Interrupted:
                hits += 1
        # Another thread: the one that was interrupted would not notice that it holds the lock still.
        last = threading.Thread(target=log.append, args=("s", [new_event(n=600)]))
        last.start()
        last.join(30)
        assert not last.is_alive()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert hits > 20
    assert [event.data["n"] for event in log.read("s")] == list(range(601))
    log.close()


class _Interrupted(BaseException):
    """What the signal's handler raises."""


def _interrupt(*_: object) -> None:
    raise _Interrupted
