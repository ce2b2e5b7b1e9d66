"""Prefect's side of the benchmark: `python prefect_side.py CASE N` prints one line of JSON.

PREFECT_API_URL names the server, which the orchestrator has started.
"""

import asyncio
import time

from prefect import flow, task  # type: ignore[import-not-found]
from prefect.cache_policies import INPUTS, TASK_SOURCE  # type: ignore[import-not-found]
from prefect.task_runners import ProcessPoolTaskRunner  # type: ignore[import-not-found]
from side_tools import WARM_UP, Answer, die, main, per_item


def _noop(i: int) -> None:
    return


async def _anoop(i: int) -> None:
    return


def _child() -> int:
    return 1


def _cached_value(i: int) -> int:
    return i


# Called, not written as decorators: the type checker does not see Prefect.
noop = task(_noop)
cached = task(_cached_value, cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
anoop = task(_anoop)
child = flow(_child)


def _sequential(n: int) -> float:
    for i in range(WARM_UP):
        noop(i)
    start = time.perf_counter()
    for i in range(n):
        noop(i)
    return time.perf_counter() - start


def _submitted(n: int) -> float:
    for future in [noop.submit(i) for i in range(WARM_UP)]:
        future.result()
    start = time.perf_counter()
    for future in [noop.submit(i) for i in range(n)]:
        future.result()
    return time.perf_counter() - start


def _from_cache(n: int) -> float:
    for _ in range(WARM_UP):
        cached(1)
    start = time.perf_counter()
    for _ in range(n):
        cached(1)
    return time.perf_counter() - start


async def _gathered(n: int) -> float:
    await asyncio.gather(*[anoop(i) for i in range(WARM_UP)])
    start = time.perf_counter()
    await asyncio.gather(*[anoop(i) for i in range(n)])
    return time.perf_counter() - start


def _subflows(n: int) -> float:
    child()
    start = time.perf_counter()
    for _ in range(n):
        child()
    return time.perf_counter() - start


def _fill(n: int) -> None:
    for i in range(n):
        noop(i)


def _killed(n: int) -> None:
    for i in range(n):
        noop(i)
    die()


def _killed_submitted(n: int) -> None:
    for future in [noop.submit(i) for i in range(n)]:
        future.result()
    die()


def _filled(n: int) -> Answer:
    flow(_fill)(n)
    return {"samples": []}


if __name__ == "__main__":  # worker processes load this file too
    main(
        {
            "sequential": lambda n: per_item(flow(_sequential)(n), n),
            "submitted": lambda n: per_item(flow(_submitted)(n), n),
            "processes": lambda n: per_item(flow(_submitted, task_runner=ProcessPoolTaskRunner(max_workers=2))(n), n),
            "cached": lambda n: per_item(flow(_from_cache)(n), n),
            "gathered": lambda n: per_item(asyncio.run(flow(_gathered)(n)), n),
            "subflows": lambda n: per_item(flow(_subflows)(n), n),
            "fill": _filled,
            "killed": lambda n: {"samples": flow(_killed)(n)},
            "killed_submitted": lambda n: {"samples": flow(_killed_submitted)(n)},
        }
    )
