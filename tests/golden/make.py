"""Makes a golden log: the records that this version writes, with fixed ids and times.

Run once for a release, ``python tests/golden/make.py STORY tests/golden/<version>.jsonl``; what it wrote is never
changed. The stories: ``first`` (events of most types), ``recovered`` (runs that were resumed, restarted and forked),
``blocks`` (blocks that were saved, changed, encrypted anew, shown and deleted; with keys that are no secret).
"""

import asyncio
import base64
import contextlib
import dataclasses
import json
import sys
import threading
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from flightlog import flow, fork_run, get_run_logger, restart_run, resume_run, task
from flightlog.blocks import Secret, String
from flightlog.engine import recovery
from flightlog.engine.history import read_history
from flightlog.engine.runtime import current_engine
from flightlog.errors import TakenOver
from flightlog.filesystems import RemoteFileSystem
from flightlog.ids import parse_id
from flightlog.plugins.block_store import BlockStore
from flightlog.states import Cancelled
from flightlog.task_runners import SequentialTaskRunner
from flightlog.testing import VirtualClock, memory_engine


class CountedIds:
    """Ids that count, so that a golden log is the same whenever it is made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def new(self) -> bytes:
        """Return the next id."""
        with self._lock:
            self._count += 1
            return bytes.fromhex("01890a5dac967000") + (0x8 << 60 | self._count).to_bytes(8, "big")

    def chance(self) -> float:
        """Return the same number always."""
        return 0.5

    def slug(self) -> str:
        """Return the next name."""
        return f"golden-run-{self._count}"


@task
def load(n: int) -> list[int]:
    """Return a value for a blob."""
    get_run_logger().info("loading %s", n)
    return list(range(n))


@task(retries=1, retry_delay_seconds=30)
def shaky(attempts: list[int]) -> bool:
    """Fail at the first attempt."""
    attempts.append(1)
    if len(attempts) == 1:
        raise ValueError("not yet")
    return True


@task
def never(_: Any) -> None:
    """Never run: what it rests on fails."""


@task
def fails() -> None:
    """Fail with a long text, which spills."""
    raise KeyError("k" * 100_000)


@flow
def child(n: int) -> int:
    """Be a subflow."""
    return len(load(n))


@flow(task_runner=SequentialTaskRunner, flow_run_name="golden-{n}")
def golden(n: int) -> Any:
    """Leave an event of most types."""
    state = fails(return_state=True)
    never(state, return_state=True)
    shaky([])
    child(n)
    return load.map([1, 2])


@flow
def ends_cancelled() -> Any:
    """End in a state made by hand."""
    return Cancelled(message="not today")


@flow
async def crashes() -> None:
    """End by an interruption."""
    raise asyncio.CancelledError


MENDED: list[bool] = []


@task
def fragile(rows: list[int]) -> int:
    """Fail until the world is mended."""
    if not MENDED:
        raise ConnectionError("no database")
    return len(rows)


@flow
def part(n: int) -> int:
    """Be a subflow that fails at first."""
    return fragile(load(n))


@flow
def goes_on(n: int) -> int:
    """Fail, and go on later."""
    return part(n) + len(load(n))


@flow
def is_lost() -> None:
    """Be taken for dead while a task runs, and then be refused."""
    load(1)
    engine = current_engine()
    engine.log.flush()
    for event in engine.log.read_all(types=["flow_run.created"]):
        run = parse_id(event.stream.partition("/")[2])
    history = read_history(engine.log, run)
    recovery._mark(engine.log, history, recovery._lost(history), "cli:golden", engine.clock, engine.ids)
    load(2)


def first() -> None:
    """Leave an event of most types."""
    _ = golden(3)
    _ = golden("no number", return_state=True)
    _ = ends_cancelled(return_state=True)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(crashes())


def recovered() -> None:
    """Leave runs that failed, crashed, were resumed, restarted and forked."""
    state = goes_on(2, return_state=True)
    run = str(state.state_details.flow_run_id)
    MENDED.append(True)
    resume_run(run, flow=goes_on, actor="cli:golden")
    restart_run(run, from_task="part", flow=goes_on)
    fork_run(run, flow=goes_on, parameters={"n": 3})
    with contextlib.suppress(TakenOver):
        is_lost()


BLOCK_KEYS = (b"golden-key-of-blocks-number-one.", b"golden-key-of-blocks-number-two.")


def blocks() -> None:
    """Leave blocks whose secrets were encrypted with one key and then with another."""
    engine = current_engine()
    one, two = (base64.urlsafe_b64encode(key).decode() for key in BLOCK_KEYS)
    engine.settings = dataclasses.replace(engine.settings, blocks_key=(one,))
    Secret(value=SecretStr("golden-secret")).save("key")
    RemoteFileSystem("s3://ann:golden-password@bucket", {"secret": "golden-dict"}).save("results")
    String(value="golden").save("greeting")
    String.delete("greeting", actor="cli:golden")
    engine.settings = dataclasses.replace(engine.settings, blocks_key=(two, one))
    Secret(value=SecretStr("golden-secret-2")).save("key", overwrite=True)
    BlockStore(engine).change_key(actor="cli:golden")
    BlockStore(engine).read_secrets("secret/key", actor="cli:golden")


def main(story: str, path: str) -> None:
    """Write a golden log."""
    with memory_engine(VirtualClock(), CountedIds()) as engine:
        {"first": first, "recovered": recovered, "blocks": blocks}[story]()
        engine.log.flush()
        lines = []
        for row in engine.log.store.indexed(0, 10_000):
            record = base64.b64encode(row.record).decode()
            lines.append(json.dumps({"position": row.position, "recorded_at": row.recorded_at, "record": record}))
        blobs = engine.log.store._blobs  # type: ignore[attr-defined]
        lines += [json.dumps({"blob": base64.b64encode(content).decode()}) for content in blobs.values()]
    Path(path).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
