"""What evidence costs: `python flightlog_evidence.py CASE N` prints one line of JSON."""

import os
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

from side_tools import Answer, main

from flightlog import flow, task
from flightlog.engine.runtime import close_engine
from flightlog.events.archiving import Archiver
from flightlog.events.integrity import verify
from flightlog.events.model import NewEvent
from flightlog.events.notes import new_key
from flightlog.events.opening import open_log
from flightlog.events.sealing import origin_of, seal
from flightlog.events.types import flow_run_stream
from flightlog.ids import RandomIds, id_text
from flightlog.projections.bundles import export
from flightlog.projections.places import FilePlace
from flightlog.projections.projector import Projector

_HOME = Path(os.environ["FLIGHTLOG_HOME"])
_URL = f"sqlite:///{_HOME}/flightlog.db"
_IDS = RandomIds()


@task
def step(i: int) -> int:
    """Return what goes into a blob."""
    return i


@flow
def steps(n: int) -> None:
    """Call so many tasks."""
    for i in range(n):
        step(i)


def _run_events(tasks: int) -> tuple[str, list[NewEvent]]:
    """Return the stream and the events of a flow run with so many tasks, as the engine writes them."""
    now, run = time.time_ns() // 1000, _IDS.new()
    events: list[tuple[str, dict[str, Any]]] = []
    for number in range(tasks):
        key: dict[str, Any] = {"task_run_id": _IDS.new()}
        told = {"task": "step", "key": "steps.step", "name": f"step-{number}"}
        ends = {"result": {"value": None}}
        events += [
            ("task_run.created", key | told),
            ("task_run.running", key | {"digest": bytes(16)}),
            ("task_run.completed", key | ends),
        ]
    return flow_run_stream(id_text(run)), [NewEvent(_IDS.new(), type_, data, now, run) for type_, data in events]


def _sealed(n: int) -> Answer:
    """Seal so many events at once, and verify them, the seals included."""
    with open_log(_URL) as log:
        while (left := n - log.head().position) > 0:
            stream, events = _run_events(min(334, left // 3 + 1))
            log.append(stream, events[:left], epoch=1)
    with open_log(_URL) as log:  # as it is at rest: what was just written has gone from the write-ahead log to the file
        key = new_key(origin_of(log.log_id))
        start = time.perf_counter()
        seal(log, key)
        sealing = time.perf_counter() - start
        log.append("more", [NewEvent(_IDS.new(), "thing.happened", {}, 0)])
        seal(log, key)
        start = time.perf_counter()
        found = verify(log.store, keys=[key.public])
        seconds = time.perf_counter() - start
        if not found.sound or found.seals != 2:
            sys.exit(f"the log does not verify: {found.problems}")
    return {"samples": [sealing, found.events / seconds]}


def _used() -> int:
    """Return how many bytes of the log's file are in use: what archived events have left is free for others."""
    with closing(sqlite3.connect(_HOME / "flightlog.db")) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


def _archived(n: int) -> Answer:
    """Archive so many events, and restore them; count what both, the database and the segments, take afterwards."""
    with open_log(_URL) as log:
        while (left := n - log.head().position) > 0:
            stream, events = _run_events(min(34, left // 3 + 1))
            log.append(stream, events[:left], epoch=1)
        seal(log)
    before = _used()
    with open_log(_URL) as log, Archiver(log) as archiver:
        log.head()
        streams = [end.stream for end in log.store.ends() if end.stream.startswith("flow-run/")]
        start = time.perf_counter()
        archives = list(archiver.archive(streams, "state"))
        archiving = time.perf_counter() - start
        after = _used() + sum(archive.size for archive in archives)
        start = time.perf_counter()
        for archive in archives:
            archiver.restore(archive.number)
        restoring = time.perf_counter() - start
        if not verify(log.store).sound or sum(archive.events for archive in archives) != n:
            sys.exit("the log is not what it was")
    return {"samples": [n / archiving, n / restoring, 100 * after / before]}


def _bundle(n: int) -> Answer:
    """Export a run of so many tasks; have the program in the bundle verify it, in a process of its own."""
    steps(n)
    close_engine()
    with open_log(_URL) as log:
        made = seal(log, new_key(origin_of(log.log_id)))
        assert made is not None
        projector = Projector(log, FilePlace(_HOME / "p.db"))
        archive = export(projector, "@last", made, made.note(log.log_id))
        projector.close()
    bundle = _HOME / "run.zip"
    bundle.write_bytes(archive)
    program = _HOME / "verify.py"
    with zipfile.ZipFile(bundle) as opened:
        program.write_bytes(opened.read("verify.py"))
    start = time.perf_counter()
    subprocess.run([sys.executable, program, bundle], check=True, stdout=subprocess.DEVNULL)
    return {"samples": [float(len(archive)), time.perf_counter() - start]}


main({"sealed": _sealed, "archived": _archived, "bundle": _bundle})
