"""The runs projection: flow runs, task runs, their attempts, and which run's result went where."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from flightlog.events.model import Event
from flightlog.events.narration import state_of
from flightlog.events.types import FLOW_RUN, STATES, TASK_RUN, TERMINAL, flow_run_of
from flightlog.projections.projection import Look, Put

metadata = MetaData()

_STATE = (
    lambda: Column("state_type", Text),
    lambda: Column("state_name", Text),
    lambda: Column("message", Text),
    lambda: Column("created", BigInteger),
    lambda: Column("started", BigInteger),
    lambda: Column("ended", BigInteger),
    lambda: Column("run_count", Integer),
    lambda: Column("tags", Text),  # JSON
)

flow_runs = Table(
    "flow_runs",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("name", Text),
    Column("flow", Text),
    Column("version", Text),
    *(column() for column in _STATE),
    Column("parent_flow_run_id", LargeBinary),
    Column("parent_task_run_id", LargeBinary),
    Column("entrypoint", Text),
    Column("parameters", Text),
    Column("not_recorded", Text),
    Column("host", Text),
    Column("boot", Text),
    Column("pid", Integer),
    Column("process_started", BigInteger),
    Column("namespace", BigInteger),
    Index("flow_runs_by_name", "name"),
    Index("flow_runs_by_state", "state_type", "id"),
    Index("flow_runs_by_flow", "flow", "id"),
    Index("flow_runs_by_parent", "parent_flow_run_id"),
    sqlite_with_rowid=False,
)
task_runs = Table(
    "task_runs",
    metadata,
    Column("flow_run_id", LargeBinary, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("name", Text),
    Column("task", Text),
    *(column() for column in _STATE),
    Column("parent", LargeBinary),
    Column("child_flow_run_id", LargeBinary),
    Column("uncached", Text),
    Column("runs_again", Text),
    sqlite_with_rowid=False,
)
attempts = Table(
    "attempts",
    metadata,
    Column("flow_run_id", LargeBinary, primary_key=True),
    Column("run_id", LargeBinary, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("started", BigInteger),
    Column("ended", BigInteger),
    Column("state_type", Text),
    Column("cause", Text),
    Column("error_type", Text),
    Column("error", Text),
    Column("traceback", Text),
    sqlite_with_rowid=False,
)
dependencies = Table(
    "dependencies",
    metadata,
    Column("flow_run_id", LargeBinary, primary_key=True),
    Column("task_run_id", LargeBinary, primary_key=True),
    Column("parameter", Text, primary_key=True),
    Column("upstream", LargeBinary, primary_key=True),
    sqlite_with_rowid=False,
)

_MAX_TEXT = 4000


class RunsProjection:
    """Folds state changes into the present of every run."""

    name: str = "runs"
    version: int = 5
    tables: Sequence[Table] = (flow_runs, task_runs, attempts, dependencies)
    types: frozenset[str] | None = frozenset(f"{kind}.{suffix}" for kind in (FLOW_RUN, TASK_RUN) for suffix in STATES)

    def apply(self, event: Event, look: Look, /) -> Iterable[Put]:
        """Return what an event changes."""
        flow_run = flow_run_of(event.stream)
        if flow_run is None:
            return
        kind, _, suffix = event.type.partition(".")
        data = event.data
        key: tuple[Any, ...]
        if kind == FLOW_RUN:
            table, key, run = "flow_runs", (flow_run,), flow_run
        else:
            run = data["task_run_id"]
            table, key = "task_runs", (flow_run, run)
        yield Put(table, key, _change(event, suffix, data) | _keeping(kind, suffix, data))
        yield from _attempt(event, suffix, data, flow_run, run)
        for parameter, sources in (data.get("inputs") or {}).items():
            for source in sources:
                yield Put("dependencies", (flow_run, run, parameter, source), {})


def _change(event: Event, suffix: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a run that an event sets."""
    state_type, state_name = state_of(event.type, data)
    change: dict[str, Any] = {
        "state_type": state_type,
        "state_name": state_name,
        "message": _short(data.get("message")),
    }
    if suffix == "created":
        change |= {"created": event.occurred_at, "run_count": 0} | _created(data)
    elif suffix == "running":
        attempt = data.get("attempt", 1)
        change["run_count"] = attempt
        change["ended"] = None
        if attempt == 1:
            change["started"] = event.occurred_at
    elif state_type in TERMINAL:
        change["ended"] = event.occurred_at
    if "tags" in data:
        change["tags"] = json.dumps(data["tags"])
    if "host" in data:
        change |= {
            "host": data["host"],
            "boot": data.get("boot"),
            "pid": data["pid"],
            "process_started": data.get("started"),
            "namespace": data.get("namespace"),
        }
    return change


_INCOMPARABLE = "its arguments cannot be compared with those of another process"


def _keeping(kind: str, suffix: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that say what of a run is not kept, and why."""
    reason = _short((data.get("result") or {}).get("not_recorded"))
    if kind == FLOW_RUN:
        return {"not_recorded": reason} if suffix in ("running", "completed") else {}
    change: dict[str, Any] = {}
    if "cache" in data:
        change["uncached"] = _short(data["cache"].get("uncached"))
    if suffix == "running" and data.get("attempt", 1) == 1:
        change["runs_again"] = None if "digest" in data else _INCOMPARABLE
    elif suffix == "completed" and reason is not None:
        change["runs_again"] = f"its result was not recorded ({reason})"
    elif suffix == "rolled_back":
        change["runs_again"] = "what it did was rolled back"
    return change


_CREATED = (
    "name",
    "task",
    "flow",
    "version",
    "parent",
    "child_flow_run_id",
    "parent_flow_run_id",
    "parent_task_run_id",
    "entrypoint",
    "parameters",
)


def _created(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in _CREATED if name in data}


def _attempt(event: Event, suffix: str, data: dict[str, Any], flow_run: bytes, run: bytes) -> Iterator[Put]:
    """Yield what an event changes of an attempt: it starts one, or ends one."""
    number = data.get("attempt", 1)
    key = (flow_run, run, number)
    if suffix == "running":
        yield Put("attempts", key, {"started": event.occurred_at, "state_type": "RUNNING"})
    elif suffix == "awaiting_retry" or (STATES[suffix][0] in TERMINAL and suffix != "rolled_back" and number):
        error = data.get("error") or {}
        state = "FAILED" if suffix == "awaiting_retry" else STATES[suffix][0]
        ended = {"ended": event.occurred_at, "state_type": state}
        if cause := data.get("cause"):
            ended["cause"] = cause
        if error:
            ended |= {
                "error_type": error["type"],
                "error": _short(error["message"]),
                "traceback": _short(error.get("traceback")),
            }
        yield Put("attempts", key, ended)


def _short(text: str | None) -> str | None:
    """Cut what is for people to look at; the event has all of it. What is encrypted cannot be cut."""
    return text if text is None or len(text) <= _MAX_TEXT or "<personal:" in text else text[:_MAX_TEXT] + " ..."
