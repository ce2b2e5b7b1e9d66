"""Flightlog's side of the benchmark: `python flightlog_side.py CASE N` prints one line of JSON."""

import asyncio
import os
import time
from pathlib import Path

from side_tools import WARM_UP, Answer, die, main, per_item, resident_bytes

from flightlog import flow, task
from flightlog.cache_policies import INPUTS, TASK_SOURCE
from flightlog.events.model import NewEvent
from flightlog.events.opening import open_log
from flightlog.task_runners import ProcessPoolTaskRunner

_FILE = Path(os.environ["FLIGHTLOG_HOME"], "flightlog.db")
_EVENTS_AT_MOST = 20_000


@task
def noop(i: int) -> None:
    """Do nothing: what is left is the engine."""
    return


@task
async def anoop(i: int) -> None:
    """Do nothing, on the event loop."""
    return


@flow
def child() -> int:
    """Stand for the smallest subflow."""
    return 1


@flow
def sequential(n: int) -> float:
    """Call a task n times, one after the other."""
    for i in range(WARM_UP):
        noop(i)
    start = time.perf_counter()
    for i in range(n):
        noop(i)
    return time.perf_counter() - start


@flow
def submitted(n: int) -> float:
    """Submit n tasks, then wait for each."""
    for future in [noop.submit(i) for i in range(WARM_UP)]:
        future.result()
    start = time.perf_counter()
    for future in [noop.submit(i) for i in range(n)]:
        future.result()
    return time.perf_counter() - start


@task(cache_policy=INPUTS + TASK_SOURCE)
def cached(i: int) -> int:
    """Have a value in the cache."""
    return i


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def processes(n: int) -> float:
    """Submit n tasks to worker processes, then wait for each."""
    for future in [noop.submit(i) for i in range(WARM_UP)]:
        future.result()
    start = time.perf_counter()
    for future in [noop.submit(i) for i in range(n)]:
        future.result()
    return time.perf_counter() - start


@flow
def from_cache(n: int) -> float:
    """Call a task n times whose value is known."""
    for _ in range(WARM_UP):
        cached(1)
    start = time.perf_counter()
    for _ in range(n):
        cached(1)
    return time.perf_counter() - start


@flow
async def gathered(n: int) -> float:
    """Await n async tasks at once."""
    await asyncio.gather(*[anoop(i) for i in range(WARM_UP)])
    start = time.perf_counter()
    await asyncio.gather(*[anoop(i) for i in range(n)])
    return time.perf_counter() - start


@flow
def subflows(n: int) -> float:
    """Call a subflow n times."""
    child()
    start = time.perf_counter()
    for _ in range(n):
        child()
    return time.perf_counter() - start


@flow
def fill(n: int) -> None:
    """Run n tasks without warm-up, so that exactly n are in the database."""
    for i in range(n):
        noop(i)


@flow
def grow(n: int) -> list[int]:
    """Run n tasks and return the memory held after a tenth, a half and all of them."""
    marks = (n // 10, n // 2, n)
    sizes = []
    for i in range(1, n + 1):
        noop(i)
        if i in marks:
            sizes.append(resident_bytes())
    return sizes


@flow
def killed(n: int) -> None:
    """Run n tasks to their return, then die."""
    for i in range(n):
        noop(i)
    die()


@flow
def killed_submitted(n: int) -> None:
    """Submit n tasks, wait for each, then die."""
    for future in [noop.submit(i) for i in range(n)]:
        future.result()
    die()


def _recorded(n: int) -> Answer:
    log = open_log(f"sqlite:///{_FILE}", create=False)
    started = sum(1 for _ in log.read_all(types=["task_run.started"]))
    completed = sum(1 for _ in log.read_all(types=["task_run.completed"]))
    log.close()
    return {"started": started, "completed": completed}


def _events(first: int, n: int) -> list[NewEvent]:
    now = time.time_ns() // 1000
    data = {"index": first, "name": "noop", "text": "x" * 100}
    return [NewEvent((first + i).to_bytes(16, "big"), "x.happened", data, now) for i in range(n)]


def _append(batch: int) -> Answer:
    log = open_log(f"sqlite:///{_FILE.with_name(f'append-{time.time_ns()}.db')}")
    total = min(_EVENTS_AT_MOST, max(2_000, batch * 10))
    for i in range(WARM_UP):
        log.append("stream", _events(i, 1))
    batches = [_events(1000 + first, batch) for first in range(0, total, batch)]
    start = time.perf_counter()
    for events in batches:
        log.append("stream", events)
    seconds = time.perf_counter() - start
    log.close()
    return {"samples": [len(batches) * batch / seconds]}


def _nothing(n: int) -> Answer:
    return {"samples": []}


def _fill(n: int) -> Answer:
    fill(n)
    return _nothing(n)


if __name__ == "__main__":  # worker processes load this file too
    main(
        {
            "sequential": lambda n: per_item(sequential(n), n),
            "submitted": lambda n: per_item(submitted(n), n),
            "processes": lambda n: per_item(processes(n), n),
            "cached": lambda n: per_item(from_cache(n), n),
            "gathered": lambda n: per_item(asyncio.run(gathered(n)), n),
            "subflows": lambda n: per_item(subflows(n), n),
            "fill": _fill,
            "grow": lambda n: {"samples": grow(n)},
            "killed": lambda n: {"samples": killed(n)},
            "killed_submitted": lambda n: {"samples": killed_submitted(n)},
            "recorded": _recorded,
            "append": _append,
        }
    )
