"""Which streams may leave the log's database: those of flow runs that are over and done with, and their log lines.

Every stream is of a class, by what its name begins with. *State* is a flow run with all its task runs, and what was
sent to it; *telemetry* is its log lines; all else is for the *audit*, and stays. A flow run is over when it and all its
subflows, and the flow run that it is a subflow of, have ended; it is done with when no incident is open about it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import select

from flightlog.events.log import Log
from flightlog.events.types import (
    INCIDENT_OPENED,
    INCIDENT_RESOLVED,
    INCIDENT_UPDATED,
    TERMINAL,
    flow_run_stream,
    input_stream,
    logs_stream,
)
from flightlog.ids import id_text
from flightlog.projections.projector import Projector
from flightlog.projections.runs import flow_runs

Kind = Literal["state", "telemetry"]
KINDS: Final[dict[Kind, tuple[str, ...]]] = {"state": ("flow-run", "inputs"), "telemetry": ("logs",)}
"""The classes of streams that may leave, and what the names of theirs begin with; all others are for the audit."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Flow runs that are over and done with.

    Attributes:
        runs: their ids, the oldest first.
        streams: their streams, by class.
    """

    runs: list[str]
    streams: dict[Kind, list[str]]


def finished(projector: Projector, until: int) -> Finished:
    """Return the flow runs that were over at a moment and are done with.

    Args:
        projector: the projections.
        until: the moment, in microseconds since 1970 (UTC).
    """
    table = flow_runs.c
    held = held_by_incidents(projector.log)
    parents: dict[bytes, bytes | None] = {}
    open_: set[bytes] = set()
    for run, parent, state, ended in projector.rows(
        select(table.id, table.parent_flow_run_id, table.state_type, table.ended).order_by(table.id)
    ):
        parents[run] = parent
        if state not in TERMINAL or ended is None or ended > until or run in held:
            open_.add(run)
    kept = {_outermost(run, parents) for run in open_}
    runs = [id_text(run) for run in parents if _outermost(run, parents) not in kept]
    streams: dict[Kind, list[str]] = {
        "state": [stream for run in runs for stream in (flow_run_stream(run), input_stream(run))],
        "telemetry": [logs_stream(run) for run in runs],
    }
    return Finished(runs, streams)


def _outermost(run: bytes, parents: dict[bytes, bytes | None]) -> bytes:
    """Return the flow run that one is, at whatever remove, a subflow of; itself if it is none."""
    while (parent := parents.get(run)) is not None:
        run = parent
    return run


def held_by_incidents(log: Log) -> Collection[bytes]:
    """Return the flow runs that open incidents are about."""
    about: dict[str, set[bytes]] = {}
    for event in log.read_all(types=[INCIDENT_OPENED, INCIDENT_UPDATED, INCIDENT_RESOLVED]):
        run = event.data.get("flow_run_id")
        if event.type == INCIDENT_RESOLVED:
            about.pop(event.stream, None)
        elif run is not None:
            about.setdefault(event.stream, set()).add(run)
    return {run for runs in about.values() for run in runs}
