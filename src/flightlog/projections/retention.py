"""Which streams may leave the log's database: those of flow runs that are over and done with, and their log lines.

Every stream is of a class, by what its name begins with. *State* is a flow run with all its task runs, and what was
sent to it; *telemetry* is its log lines; all else is for the *audit*, and stays. A flow run is over when it and all its
subflows, and the flow run that it is a subflow of, have ended; it is done with when no incident is open about it.
"""

from collections.abc import Callable, Collection, Sequence
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
_STREAMS: Final[dict[Kind, tuple[Callable[[str], str], ...]]] = {
    "state": (flow_run_stream, input_stream),
    "telemetry": (logs_stream,),
}
KINDS: Final[tuple[Kind, ...]] = tuple(_STREAMS)
"""The classes of streams that may leave; all other streams are for the audit."""


def streams_of(kind: Kind, runs: Sequence[str]) -> list[str]:
    """Return the streams of a class that flow runs have, or may have."""
    return [name(run) for run in runs for name in _STREAMS[kind]]


def finished(projector: Projector, until: int) -> list[str]:
    """Return the ids of the flow runs that were over at a moment and are done with, the oldest first.

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
    return [id_text(run) for run in parents if _outermost(run, parents) not in kept]


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
