"""Flows and tasks that call themselves: a hundred levels work; what goes too deep fails, with all ends on record."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import History
from tests.engine.invariants import violations

from flightlog import flow, task
from flightlog.engine.runtime import Engine
from flightlog.task_runners import ConcurrentTaskRunner, ProcessPoolTaskRunner, SequentialTaskRunner

pytestmark = pytest.mark.timeout(240)


@flow
def count(n: int) -> int:
    """Count by subflows."""
    return 0 if n == 0 else 1 + count(n - 1)


@task
def down(n: int) -> int:
    """Count by tasks."""
    return 0 if n == 0 else 1 + down(n - 1)


@task
def submitted(n: int) -> int:
    """Count by submitted tasks."""
    return 0 if n == 0 else 1 + submitted.submit(n - 1).result()


@task
def pieces(n: int) -> Any:
    """Yield from itself."""
    yield n
    if n:
        yield from pieces(n - 1)


@flow
async def count_async(n: int) -> int:
    """Count by subflows that are awaited."""
    return 0 if n == 0 else 1 + await count_async(n - 1)


@task
async def down_async(n: int) -> int:
    """Count by tasks that are awaited."""
    return 0 if n == 0 else 1 + await down_async(n - 1)


@flow
def here_and_there(n: int) -> int:
    """Count by async tasks that call sync flows."""
    return 0 if n == 0 else 1 + there_and_here(n - 1)  # type: ignore[operator]


@task
async def there_and_here(n: int) -> int:
    """Count by sync flows that call async tasks."""
    return 0 if n == 0 else 1 + here_and_there(n - 1)


@flow
def by_tasks(n: int) -> int:
    """Count by tasks."""
    return down(n)


@flow
async def by_async_tasks(n: int) -> int:
    """Count by tasks that are awaited."""
    return await down_async(n)


@flow
def in_threads(n: int) -> int:
    """Count by tasks in a thread."""
    return down.submit(n).result()


@flow(task_runner=ConcurrentTaskRunner(max_workers=2))
def through_threads(n: int) -> int:
    """Count by tasks that are submitted to few threads."""
    return submitted.submit(n).result()


@flow(task_runner=SequentialTaskRunner)
def one_by_one(n: int) -> int:
    """Count by tasks that are submitted to one thread."""
    return submitted.submit(n).result()


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def in_a_worker(n: int) -> int:
    """Count by tasks in a worker process."""
    return down.submit(n).result()


@flow
def streamed(n: int) -> int:
    """Count the pieces of a generator."""
    return len(list(pieces(n))) - 1


@flow(timeout_seconds=200)
def limited(n: int) -> int:
    """Count by subflows with a time limit each."""
    return 0 if n == 0 else 1 + limited(n - 1)


WAYS = [
    count, by_tasks, in_threads, through_threads, one_by_one, in_a_worker, streamed, limited, count_async,
    by_async_tasks, here_and_there,
]  # fmt: skip


def _state(way: Any, n: int) -> Any:
    state = way(n, return_state=True)
    return asyncio.run(state) if way.isasync else state


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_E5_a_recursion_of_a_hundred_and_fifty_levels_works(way: Any, engine: Engine) -> None:
    """In flows and tasks, sync and async, called and submitted, in threads and processes, streamed and limited."""
    assert _state(way, 150).result() == 150
    assert violations(engine) == []


@pytest.mark.parametrize(
    "way", [count, in_threads, in_a_worker, one_by_one, count_async, by_async_tasks, limited], ids=lambda way: way.name
)
def test_E5_what_goes_too_deep_fails_with_all_ends_on_record(way: Any, engine: Engine, history: History) -> None:
    """The user's call raises a RecursionError that says what to do; each run that began has an end, and failed."""
    state = _state(way, 100_000)
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert type(error) is RecursionError
    assert str(error).startswith("maximum recursion depth exceeded: ")
    assert str(error).endswith("See that the recursion ends; sys.setrecursionlimit() raises the limit.")
    assert violations(engine) == []
    assert not history.events("flow_run.crashed", "task_run.crashed")
    facts = history.data("flow_run.failed")[0]["error"]
    assert facts["type"] == "RecursionError"
    assert "flightlog/engine" not in facts["traceback"].replace("tests/engine", "")


def test_what_goes_too_deep_names_itself_and_how_deep_that_is(history: History) -> None:
    """Its name, and how many runs are open around the call."""
    state = _state(count, 100_000)
    runs = len(history.flow_runs("count"))
    assert f"'count' was called inside {runs} runs, each called in the one before" in state.message


def test_a_recursion_of_plain_python_may_call_tasks_up_to_its_limit(engine: Engine, history: History) -> None:
    """What Python itself stops is the user's error; the engine always has room to keep its books."""

    @task
    def note(n: int) -> int:
        return n

    def walk(n: int) -> int:
        return note(n) + walk(n + 1)

    async def walk_async(n: int) -> int:
        return note(n) + await walk_async(n + 1)

    @flow
    def f() -> int:
        return walk(0)

    @flow
    async def g() -> int:
        return await walk_async(0)

    for way in (f, g):
        state: Any = way(return_state=True)
        if asyncio.iscoroutine(state):
            state = asyncio.run(state)
        assert type(state.result(raise_on_failure=False)) is RecursionError
    assert violations(engine) == []
    assert not history.events("task_run.crashed")


def test_what_goes_too_deep_is_not_tried_again(history: History) -> None:
    """Else each level would double what all below it do."""

    @task(retries=1)
    def deeper() -> None:
        deeper()

    @flow(retries=1)
    def f() -> None:
        deeper()

    with pytest.raises(RecursionError):
        f()
    assert not history.events("task_run.awaiting_retry", "flow_run.awaiting_retry")


def test_a_task_with_a_time_limit_does_what_it_waits_for_itself() -> None:
    """In a pool that is full, as a task without one does."""

    @task
    def inner() -> int:
        return 1

    @task(timeout_seconds=60)
    def outer() -> int:
        return inner.submit().result()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> int:
        return outer.submit().result()

    assert f() == 1


DEEP = """
import collections, sys, time
from flightlog import flow, task
from flightlog.engine.runtime import current_engine

@task
def down(n):
    if n:
        return down(n - 1)
    print("at the bottom", flush=True)
    for _ in range(1000):
        time.sleep(0.05)
        leaf()

@task
def leaf(): ...

@flow
def f():
    down(150)

try:
    f()
finally:
    engine = current_engine()
    engine.log.flush()
    states = {}
    for event in engine.log.read_all():
        kind, _, verb = event.type.partition(".")
        if kind in ("flow_run", "task_run"):
            states[event.stream + event.data.get("task_run_id", b"").hex()] = verb
    print(dict(collections.Counter(states.values())), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_E39_a_deep_recursion_that_is_interrupted_ends_at_every_level(tmp_path: Path, number: signal.Signals) -> None:
    """Also those levels that run in other threads: all runs are Crashed before the process ends."""
    script = tmp_path / "script.py"
    script.write_text(DEEP)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "FLIGHTLOG_HOME": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "at the bottom\n"
    process.send_signal(number)
    states = process.stdout.readline()
    process.wait(60)
    process.stdout.close()
    assert "'crashed': 152" in states
    assert "running" not in states
