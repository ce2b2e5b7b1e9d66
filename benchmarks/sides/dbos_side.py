"""DBOS' side of the benchmark: `python dbos_side.py CASE N` prints one line of JSON.

DBOS_BENCH_FILE names the SQLite file. BENCH_SYNCHRONOUS, if given, puts that file into WAL mode with that
`synchronous`; without it DBOS runs as it comes, with a rollback journal and FULL.
"""

import asyncio
import os
import time
from typing import Any

import sqlalchemy
from dbos import DBOS  # type: ignore[import-not-found]
from side_tools import WARM_UP, Answer, die, main, per_item


def _noop(i: int) -> None:
    return


async def _anoop(i: int) -> None:
    return


def _child(i: int) -> int:
    return 1


# Called, not written as decorators: the type checker does not see DBOS.
noop = DBOS.step()(_noop)
anoop = DBOS.step()(_anoop)
child = DBOS.workflow()(_child)


def _sequential(n: int) -> float:
    for i in range(WARM_UP):
        noop(i)
    start = time.perf_counter()
    for i in range(n):
        noop(i)
    return time.perf_counter() - start


def _submitted(n: int) -> float:
    for handle in [DBOS.start_workflow(child, i) for i in range(WARM_UP)]:
        handle.get_result()
    start = time.perf_counter()
    for handle in [DBOS.start_workflow(child, i) for i in range(n)]:
        handle.get_result()
    return time.perf_counter() - start


async def _gathered(n: int) -> float:
    await asyncio.gather(*[anoop(i) for i in range(WARM_UP)])
    start = time.perf_counter()
    await asyncio.gather(*[anoop(i) for i in range(n)])
    return time.perf_counter() - start


def _subflows(n: int) -> float:
    child(0)
    start = time.perf_counter()
    for i in range(n):
        child(i)
    return time.perf_counter() - start


def _fill(n: int) -> None:
    for i in range(n):
        noop(i)


def _killed(n: int) -> None:
    for i in range(n):
        noop(i)
    die()


def _killed_submitted(n: int) -> None:
    for handle in [DBOS.start_workflow(child, i) for i in range(n)]:
        handle.get_result()
    die()


sequential = DBOS.workflow()(_sequential)
submitted = DBOS.workflow()(_submitted)
gathered = DBOS.workflow()(_gathered)
subflows = DBOS.workflow()(_subflows)
fill = DBOS.workflow()(_fill)
killed = DBOS.workflow()(_killed)
killed_submitted = DBOS.workflow()(_killed_submitted)


def _set_pragmas(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={os.environ['BENCH_SYNCHRONOUS']}")


def _filled(n: int) -> Answer:
    fill(n)
    return {"samples": []}


def _run() -> None:
    if os.environ.get("BENCH_SYNCHRONOUS"):
        sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _set_pragmas)
    url = f"sqlite:///{os.environ['DBOS_BENCH_FILE']}"
    DBOS(config={"name": "bench", "system_database_url": url})
    DBOS.launch()
    main(
        {
            "sequential": lambda n: per_item(sequential(n), n),
            "submitted": lambda n: per_item(submitted(n), n),
            "gathered": lambda n: per_item(asyncio.run(gathered(n)), n),
            "subflows": lambda n: per_item(subflows(n), n),
            "fill": _filled,
            "killed": lambda n: {"samples": killed(n)},
            "killed_submitted": lambda n: {"samples": killed_submitted(n)},
        }
    )
    DBOS.destroy()


_run()
