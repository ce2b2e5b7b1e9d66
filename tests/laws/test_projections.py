"""The laws of projections (I6), for logs that hypothesis makes up."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flightlog.events.archiving import Archiver
from flightlog.events.log import Log
from flightlog.events.model import Event, NewEvent
from flightlog.events.moving import copy
from flightlog.events.opening import open_log
from flightlog.events.sealing import seal
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import flow_run_stream, logs_stream
from flightlog.ids import RandomIds, id_text
from flightlog.projections.logs import LogsProjection
from flightlog.projections.metrics import MetricsProjection
from flightlog.projections.projection import Projection, Rows, fold
from flightlog.projections.projector import Projector
from flightlog.projections.runs import RunsProjection

RUNS = [bytes([n]) * 16 for n in range(1, 4)]
TASKS = [bytes([n]) * 16 for n in range(11, 15)]
REPEATABLE: list[Projection] = [RunsProjection(), LogsProjection()]
"""Those that may be given an event twice: they put, and never count."""
PROJECTIONS: list[Projection] = [*REPEATABLE, MetricsProjection()]
error = st.fixed_dictionaries({"type": st.just("ValueError"), "message": st.text(max_size=20)})
ended = st.fixed_dictionaries(
    {}, optional={"message": st.text(max_size=20), "attempt": st.integers(0, 3), "error": error}
)


def _data(suffix: str, draw: Any, kind: str) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if suffix == "created":
        data = {
            "name": draw(st.text(max_size=10)),
            **({"flow": "f"} if kind == "flow_run" else {"task": "t", "key": "k"}),
        }
        if kind == "task_run" and draw(st.booleans()):
            data["inputs"] = {"x": draw(st.lists(st.sampled_from(TASKS), max_size=2))}
    elif suffix == "running":
        data = {"attempt": draw(st.integers(1, 3))}
    else:
        data = dict(draw(ended))
        if suffix == "awaiting_retry":
            data["scheduled"] = 1
    return data if kind == "flow_run" else {"task_run_id": draw(st.sampled_from(TASKS)), **data}


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[str, str, dict[str, Any]]]:
    """Make up a history: streams, types and payloads, not always sensible ones."""
    suffixes = ["created", "running", "awaiting_retry", "completed", "failed", "crashed", "not_ready"]
    history = []
    for _ in range(draw(st.integers(0, 25))):
        run = id_text(draw(st.sampled_from(RUNS)))
        if draw(st.integers(0, 6)) == 0:
            line = [draw(st.integers(0, 9)), 20, "flightlog.task_runs", draw(st.sampled_from([None, *TASKS])), "text"]
            history.append((logs_stream(run), "log.lines", {"lines": [line, line]}))
        else:
            kind = draw(st.sampled_from(["flow_run", "task_run"]))
            suffix = draw(st.sampled_from(suffixes))
            history.append((flow_run_stream(run), f"{kind}.{suffix}", _data(suffix, draw, kind)))
    return history


def recorded(history: list[tuple[str, str, dict[str, Any]]]) -> Log:
    """Return a log with that history."""
    log, ids = Log(MemoryStore()), RandomIds()
    for moment, (stream, type_, data) in enumerate(history):
        log.append(stream, [NewEvent(ids.new(), type_, data, moment)])
    return log


def folded(events: list[Event]) -> list[Rows]:
    """Return what each projection makes of events."""
    return [fold(projection, events) for projection in PROJECTIONS]


@given(logs())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_I6_one_at_a_time_equals_the_batch(history: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Folding events one by one gives what folding them all at once gives."""
    with recorded(history) as log:
        events = list(log.read_all())
        for projection in PROJECTIONS:
            rows: Rows = {}
            for event in events:
                fold(projection, [event], rows)
            assert rows == fold(projection, events)


@given(logs(), st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_I6_any_restart_point_gives_the_same(
    history: list[tuple[str, str, dict[str, Any]]], data: st.DataObject
) -> None:
    """Going on from any point gives the same; so does, but where something is counted, applying events twice."""
    with recorded(history) as log:
        events = list(log.read_all())
        again = data.draw(st.integers(0, len(events)))
        for projection in PROJECTIONS:
            rows = fold(projection, events)
            assert fold(projection, events[again:], fold(projection, events[:again])) == rows
            if projection in REPEATABLE:
                assert fold(projection, events[again:], dict(rows)) == rows


@given(logs(), st.data())
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_I6_a_rebuild_equals_the_live_tables(
    tmp_path: Path, history: list[tuple[str, str, dict[str, Any]]], data: st.DataObject
) -> None:
    """Tables that followed the log step by step are those that are made anew from it."""
    log, ids = Log(MemoryStore()), RandomIds()
    live = Projector(log, None)
    for moment, (stream, type_, payload) in enumerate(history):
        log.append(stream, [NewEvent(ids.new(), type_, payload, moment)])
        if data.draw(st.booleans()):
            live.catch_up()
    live.catch_up()
    anew = Projector(log, None)
    anew.catch_up()
    assert tables(live) == tables(anew)
    for projector in (live, anew):
        projector.close()
    log.close()


@given(logs(), st.data())
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_I6_as_of_equals_a_copy_of_then(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str, dict[str, Any]]], data: st.DataObject
) -> None:
    """A view as of a position is what a copy of the log up to there shows."""
    with recorded(history) as log:
        position = data.draw(st.integers(0, len(history)))
        past = Projector(log, None, until=position)
        url = f"sqlite:///{tmp_path_factory.mktemp('then')}/then.db"
        copy(log, url, until=position)
        with open_log(url) as then:
            there = Projector(then, None)
            assert tables(past) == tables(there)
            there.close()
        past.close()


@given(logs(), st.data())
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_I6_archived_and_rest_fold_to_what_the_whole_folds_to(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str, dict[str, Any]]], data: st.DataObject
) -> None:
    """Made anew from a log of which a part is in segments, all tables are those that the whole log leads to."""
    with recorded(history) as whole:
        url = f"sqlite:///{tmp_path_factory.mktemp('archived')}/log.db"
        copy(whole, url)
        with open_log(url) as log:
            seal(log)
            streams = sorted({stream for stream, _, _ in history})
            chosen = data.draw(st.lists(st.sampled_from(streams), unique=True)) if streams else []
            with Archiver(log, events=data.draw(st.integers(1, 5))) as archiver:
                archived = sum(one.events for one in archiver.archive(chosen, "state"))
            assert archived == sum(stream in chosen for stream, _, _ in history)
            there, here = Projector(log, None), Projector(whole, None)
            assert tables(there) == tables(here)
            there.close()
            here.close()


def tables(projector: Projector) -> dict[str, list[tuple[Any, ...]]]:
    """Return the content of a projector's tables."""
    return {
        table.name: sorted(map(tuple, projector.rows(sqlalchemy.select(table))), key=repr)
        for projection in projector.projections
        for table in projection.tables
    }
