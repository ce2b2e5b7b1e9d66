"""The raw limit: what the standard library does without any engine, `python raw_side.py CASE N`."""

import asyncio
import os
import sqlite3
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

from side_tools import WARM_UP, Answer, die, main, per_item

_ROW = b"x" * 250
_WORKERS = 64
_INSERT = "INSERT INTO rows (content) VALUES (?)"


def _connect() -> sqlite3.Connection:
    level = os.environ.get("BENCH_SYNCHRONOUS") or "NORMAL"
    connection = sqlite3.connect(os.environ["RAW_BENCH_FILE"], isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={level}")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, content BLOB)")
    return connection


def _commit(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_INSERT, (_ROW,))
    connection.execute("COMMIT")


def _sequential(n: int) -> Answer:
    connection = _connect()
    for _ in range(WARM_UP):
        _commit(connection)
    start = time.perf_counter()
    for _ in range(n):
        _commit(connection)
    return per_item(time.perf_counter() - start, n)


def _noop(i: int) -> None:
    return


async def _anoop(i: int) -> None:
    return


def _submitted(n: int) -> Answer:
    with ThreadPoolExecutor(_WORKERS) as pool:
        for future in [pool.submit(_noop, i) for i in range(WARM_UP)]:
            future.result()
        start = time.perf_counter()
        for future in [pool.submit(_noop, i) for i in range(n)]:
            future.result()
        return per_item(time.perf_counter() - start, n)


def _processes(n: int) -> Answer:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for future in [pool.submit(_noop, i) for i in range(WARM_UP)]:
            future.result()
        start = time.perf_counter()
        for future in [pool.submit(_noop, i) for i in range(n)]:
            future.result()
        return per_item(time.perf_counter() - start, n)


async def _gather(n: int) -> float:
    await asyncio.gather(*[_anoop(i) for i in range(WARM_UP)])
    start = time.perf_counter()
    await asyncio.gather(*[_anoop(i) for i in range(n)])
    return time.perf_counter() - start


def _append(batch: int) -> Answer:
    connection = _connect()
    batches = max(2_000, batch * 10) // batch
    rows = [(_ROW,)] * batch
    for _ in range(WARM_UP):
        _commit(connection)
    start = time.perf_counter()
    for _ in range(batches):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_INSERT, rows)
        connection.execute("COMMIT")
    return {"samples": [batches * batch / (time.perf_counter() - start)]}


def _killed(n: int) -> Answer:
    connection = _connect()
    for _ in range(n):
        _commit(connection)
    die()
    return {}


if __name__ == "__main__":  # worker processes load this file too
    main(
        {
            "sequential": _sequential,
            "submitted": _submitted,
            "processes": _processes,
            "gathered": lambda n: per_item(asyncio.run(_gather(n)), n),
            "append": _append,
            "killed": _killed,
        }
    )
