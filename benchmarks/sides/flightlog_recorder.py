"""The flight recorder's cases: `python flightlog_recorder.py CASE N` prints one line of JSON."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from side_tools import Answer, main

from flightlog import flow, resume_run, task
from flightlog.engine.runtime import close_engine
from flightlog.events.model import NewEvent
from flightlog.events.opening import open_log
from flightlog.events.types import flow_run_stream
from flightlog.ids import RandomIds, id_text
from flightlog.projections import queries
from flightlog.projections.metrics import BUCKET, metrics
from flightlog.projections.places import FilePlace, transaction
from flightlog.projections.projector import Projector, _store
from flightlog.projections.runs import flow_runs, task_runs

_HOME = Path(os.environ["FLIGHTLOG_HOME"])
_URL = f"sqlite:///{_HOME}/flightlog.db"
_DAY = 24 * 3_600_000_000
_TIMES = 60
_IDS = RandomIds()


@task
def step(i: int) -> int:
    """Return what goes into a blob."""
    return i


@flow
def steps(n: int) -> float:
    """Call so many tasks; fail at the end, as long as the flag is there."""
    for i in range(n):
        step(i)
    if (_HOME / "broken").exists():
        raise ConnectionError
    return time.perf_counter()


def _resume(n: int) -> Answer:
    (_HOME / "broken").touch()
    state = steps(n, return_state=True)
    close_engine()
    (_HOME / "broken").unlink()
    start = time.perf_counter()
    end = resume_run(str(state.state_details.flow_run_id), flow=steps)
    return {"samples": [end - start]}


def _catch_up(n: int) -> Answer:
    steps(n)
    close_engine()
    with open_log(_URL) as log:
        projector = Projector(log, FilePlace(_HOME / "p.db"))
        start = time.perf_counter()
        events = projector.catch_up()
        seconds = time.perf_counter() - start
        projector.close()
    return {"samples": [events / seconds]}


def _row(i: int, now: int, n: int) -> tuple[Any, dict[str, Any]]:
    created = now - (n - i) * _DAY // n
    state = "COMPLETED" if i % 20 else "FAILED"
    values = {
        "name": f"run-{i}",
        "flow": f"flow-{i % 50}",
        "state_type": state,
        "state_name": state.capitalize(),
        "created": created,
        "started": created + 1,
        "ended": created + 50_000,
        "run_count": 1,
    }
    return ("flow_runs", ((created << 64 | i).to_bytes(16, "big"),)), values


def _fill_metrics(projector: Projector, now: int) -> None:
    """Give each of fifty flows, with ten tasks, a day of hours, with twenty bins of durations in each."""
    tables = {"metrics": metrics}
    rows: dict[Any, dict[str, Any]] = {}
    bins = {str(bin_): 7 for bin_ in range(-100, 100, 10)}
    for number in range(50):
        for task_name in ("", *(f"task-{child}" for child in range(10))):
            for bucket in range((now - _DAY) // BUCKET * BUCKET, now, BUCKET):
                key = (task_name, bucket, f"flow-{number}")
                rows["metrics", key] = {"completed": 65, "failed": 4, "microseconds": 1_000_000, "bins": bins}
    with transaction(projector.place) as connection:
        _store(connection, tables, rows)


def _queries(n: int) -> Answer:
    """Fill the tables of so many runs, in a day, with ten tasks for each hundredth; then ask, again and again."""
    steps(1)
    close_engine()
    with open_log(_URL) as log:
        projector = Projector(log, FilePlace(_HOME / "p.db"))
        projector.catch_up()
        now = time.time_ns() // 1000
        tables = {"flow_runs": flow_runs, "task_runs": task_runs}
        key: Any = None
        for first in range(0, n, 50_000):
            rows = dict(_row(i, now, n) for i in range(first, min(first + 50_000, n)))
            for number, ((_, (run,)), values) in enumerate(list(rows.items())):
                if number % 100 == 0:
                    key = run
                    for child in range(10):
                        told = {"name": f"t-{child}", "task": "t", **{c: values[c] for c in ("state_type", "created")}}
                        rows["task_runs", (run, run[:8] + child.to_bytes(8, "big"))] = told
            with transaction(projector.place) as connection:
                _store(connection, tables, rows)
        _fill_metrics(projector, now)
        wanted = {
            "list": lambda: queries.list_flow_runs(projector, limit=200),
            "page": lambda: queries.list_task_runs(projector, str(key.hex())),
            "history": lambda: queries.list_metrics(projector, since=now - _DAY, tasks=False, every=BUCKET),
        }
        samples = []
        asks: list[Any] = list(wanted.values())
        for ask in asks:
            times = []
            for _ in range(_TIMES):
                start = time.perf_counter()
                ask()
                times.append(time.perf_counter() - start)
            samples.append(statistics.quantiles(times, n=20)[-1])
        projector.close()
    return {"samples": samples}


def _run_events(tasks: int) -> tuple[str, list[NewEvent]]:
    """Return the stream and the events of a flow run with so many tasks, as the engine writes them."""
    now, run = time.time_ns() // 1000, _IDS.new()
    text = id_text(run)
    created = {"name": f"run-{text[-6:]}", "flow": "steps", "parameters": {}, "entrypoint": "steps.py:steps"}
    events: list[tuple[str, dict[str, Any]]] = [("flow_run.created", created), ("flow_run.running", {})]
    for number in range(tasks):
        key: dict[str, Any] = {"task_run_id": _IDS.new()}
        told = {"task": "step", "key": "steps.step", "name": f"step-{number}"}
        ends = {"result": {"value": None}}
        events += [
            ("task_run.created", key | told),
            ("task_run.running", key | {"digest": bytes(16)}),
            ("task_run.completed", key | ends),
        ]
    events.append(("flow_run.completed", {"result": {"value": None}}))
    return flow_run_stream(text), [NewEvent(_IDS.new(), type_, data, now) for type_, data in events]


def _rebuild(n: int) -> Answer:
    """Let another process make all projections of so many events anew; ask meanwhile, again and again."""
    path = _HOME / "flightlog.db.projections"
    with open_log(_URL) as log:
        while log.head().position < n:
            log.append(*_run_events(332))
        projector = Projector(log, FilePlace(path))
        projector.catch_up()
        total, listed = log.head().position, len(queries.list_flow_runs(projector, limit=200))
        start = time.perf_counter()
        command = [sys.executable, "-m", "flightlog", "projections", "rebuild"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            times = []
            while process.poll() is None:
                asked = time.perf_counter()
                if len(queries.list_flow_runs(projector, limit=200)) != listed:
                    sys.exit("a reader saw a projection that was not whole")
                times.append(time.perf_counter() - asked)
                time.sleep(0.05)
        seconds = time.perf_counter() - start
        projector.close()
    if process.returncode:
        sys.exit(f"the rebuild ended with exit code {process.returncode}")
    return {"samples": [total / seconds, statistics.quantiles(times, n=20)[-1], max(times)]}


main({"resume": _resume, "catch_up": _catch_up, "queries": _queries, "rebuild": _rebuild})
