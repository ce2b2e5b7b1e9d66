"""Which runs are over and done with, so that their streams may leave the database."""

from collections.abc import Iterator
from typing import Any

import pytest

from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import flow_run_stream, incident_stream, input_stream, logs_stream
from flightlog.ids import RandomIds, id_text
from flightlog.projections.inline import INLINE
from flightlog.projections.projector import Projector
from flightlog.projections.retention import KINDS, finished, streams_of

_IDS = RandomIds()


@pytest.fixture
def log() -> Iterator[Log]:
    """Yield a log in memory."""
    with Log(MemoryStore()) as log:
        yield log


def record(log: Log, stream: str, type_: str, at: int = 0, **data: Any) -> None:
    """Append an event that happened at a moment."""
    log.append(stream, [NewEvent(_IDS.new(), type_, data, at)])


def begun(log: Log, parent: bytes | None = None) -> bytes:
    """Begin a flow run; return its id."""
    run = _IDS.new()
    more: dict[str, Any] = {} if parent is None else {"parent_flow_run_id": parent}
    record(log, flow_run_stream(id_text(run)), "flow_run.created", name="r", flow="f", **more)
    record(log, flow_run_stream(id_text(run)), "flow_run.running", attempt=1)
    return run


def ended(log: Log, run: bytes, at: int, how: str = "completed") -> None:
    """End a flow run."""
    record(log, flow_run_stream(id_text(run)), f"flow_run.{how}", at)


def over(log: Log, until: int) -> list[bytes]:
    """Return the flow runs that were over at a moment."""
    projector = Projector(log, None)
    try:
        return [bytes.fromhex(run.replace("-", "")) for run in finished(projector, until)]
    finally:
        projector.close()


def test_a_run_is_over_when_its_whole_family_is(log: Log) -> None:
    """With one subflow at whatever remove that goes on, or ended lately, or whose parent does, nothing of it leaves."""
    root = begun(log)
    child = begun(log, root)
    grandchild = begun(log, child)
    other, paused = begun(log), begun(log)
    for number, run in enumerate((root, child, other)):
        ended(log, run, 100 + number, ("failed", "completed", "crashed")[number])
    record(log, flow_run_stream(id_text(paused)), "flow_run.paused", 5)
    assert over(log, 1000) == [other]
    ended(log, grandchild, 500, "cancelled")
    assert over(log, 1000) == [root, child, grandchild, other]
    assert over(log, 499) == [other]
    assert over(log, 101) == []
    record(log, flow_run_stream(id_text(root)), "flow_run.running", 600, attempt=2)  # it is resumed
    assert over(log, 1000) == [other]


def test_a_run_that_an_open_incident_is_about_stays(log: Log) -> None:
    """Until the incident is resolved."""
    run, another = begun(log), begun(log)
    ended(log, run, 1, "failed")
    ended(log, another, 1)
    told: dict[str, Any] = {
        "rule": "r",
        "group": "g",
        "reason": "",
        "text": "",
        "at": 1,
        "flow_run_id": run,
        "incident": "i",
        "count": 1,
    }
    record(log, incident_stream("i"), "incident.opened", **told)
    record(log, incident_stream("i"), "incident.updated", **(told | {"flow_run_id": None}))
    assert over(log, 10) == [another]
    record(log, incident_stream("i"), "incident.resolved", **told)
    assert over(log, 10) == [run, another]


def test_streams_are_of_classes() -> None:
    """A run, and what was sent to it, is state; its log lines are telemetry; nothing else leaves."""
    run = id_text(_IDS.new())
    assert {kind: streams_of(kind, [run]) for kind in KINDS} == {
        "state": [flow_run_stream(run), input_stream(run)],
        "telemetry": [logs_stream(run)],
    }


def test_inline_projections_need_nothing_that_may_leave() -> None:
    """What they fold has streams of its own, which stay: they are made anew from the database alone."""
    types = {type_ for projection in INLINE for type_ in projection.types}
    assert types
    assert not {type_ for type_ in types if type_.startswith(("flow_run.", "task_run.", "log.", "hook."))}
