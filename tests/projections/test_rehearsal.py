"""A rehearsed upgrade: says what would change, changes nothing, and says what cannot be read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, Table, Text

from flightlog import flow, task
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.events import upcasting
from flightlog.events.log import Log
from flightlog.events.model import Event, NewEvent
from flightlog.events.types import SCHEMAS
from flightlog.ids import RandomIds
from flightlog.projections.places import FilePlace, Place, PostgresPlace, transaction
from flightlog.projections.projection import Look, Put
from flightlog.projections.projector import Projector, built_in
from flightlog.projections.rehearsal import read_all, rehearse


@task
def even(n: int) -> int:
    """Fail for odd numbers."""
    if n % 2:
        raise ValueError(f"odd: {n}")
    return n


@flow
def evens(n: int) -> int:
    """Try so many numbers."""
    return sum(even(i, return_state=True).is_completed() for i in range(n))


class Counts:
    """A projection: how many runs each flow had. Its second version counts in another column, and by two."""

    name = "counts"
    types: frozenset[str] | None = frozenset({"flow_run.created"})
    tables: Sequence[Table]

    def __init__(self, version: int, column: str = "number", step: int = 1) -> None:
        self.version = version
        self._column, self._step = column, step
        self.tables = [
            Table(
                "flow_counts",
                MetaData(),
                Column("flow", Text, primary_key=True),
                Column(column, Integer, nullable=False),
                Column("shared", Integer, nullable=False),
            )
        ]

    def apply(self, event: Event, look: Look) -> Iterator[Put]:
        """Count a run."""
        row = look("flow_counts", (event.data["flow"],)) or {self._column: 0, "shared": 0}
        values = {self._column: row[self._column] + 1, "shared": row["shared"] + self._step}
        yield Put("flow_counts", (event.data["flow"],), values)


@pytest.fixture(params=["sqlite", "postgres"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Run flows on a log of each kind, and yield it."""
    if request.param == "postgres":
        monkeypatch.setenv("FLIGHTLOG_LOG_URL", request.getfixturevalue("postgres_url"))
    for n in (2, 3):
        evens(n)
    log = current_engine().log
    log.flush()
    yield log
    close_engine()


@pytest.fixture
def place(log: Log, tmp_path: Path) -> Iterator[Place]:
    """Yield where that log's projections are."""
    made: Place = FilePlace(tmp_path / "p.db")
    if log.store.location.startswith("postgresql"):
        made = PostgresPlace(log.store.location)
    yield made
    made.close()


def kept(log: Log, place: Place, projections: list[Any]) -> None:
    """Have projections kept, as they are now."""
    Projector(log, place, projections).catch_up()


def test_the_same_version_changes_nothing(log: Log, place: Place) -> None:
    """All that comes with Flightlog, kept and made aside, is the same; nothing is suspect."""
    kept(log, place, built_in())
    changes = list(rehearse(log, place, built_in()))
    assert {change.name for change in changes} >= {"runs", "metrics", "result_cache", "outbox"}
    assert [(change.changed, change.columns) for change in changes] == [(0, [])] * len(changes)
    assert sum(change.rows for change in changes if change.name == "runs") > 7
    assert not any(change.is_suspect for change in changes)


def test_a_new_version_says_which_rows_and_columns_change(log: Log, place: Place) -> None:
    """And leaves what is kept as it is."""
    kept(log, place, [Counts(1)])
    (change, *_) = rehearse(log, place, [Counts(2, "total", 2)])
    assert (change.kept, change.installed, change.rows, change.changed) == (1, 2, 1, 1)
    assert change.columns == ["flow_counts.number", "flow_counts.total"]
    assert change.first is not None
    assert (change.first.kept, change.first.right) == ({"flow": "evens", "shared": 2}, {"flow": "evens", "shared": 4})
    assert not change.is_suspect
    with place.engine.connect() as connection:
        schema = "" if place.schema is None else f"{place.schema}."
        rows = connection.exec_driver_sql(f"SELECT flow, number, shared FROM {schema}flow_counts").all()
    assert [tuple(row) for row in rows] == [("evens", 2, 2)]


def test_rows_that_differ_in_the_same_version_are_suspect(log: Log, place: Place) -> None:
    """A row that is changed, one too much and one that is missing are counted, and the first is shown."""
    kept(log, place, built_in())
    (table,) = (t for p in built_in() for t in p.tables if t.name == "task_runs")
    with transaction(place) as connection:
        ids = [row.id for row in connection.execute(sqlalchemy.select(table.c.id).order_by(*table.primary_key))]
        connection.execute(table.update().where(table.c.id == ids[0]).values(state_name="Odd"))
        connection.execute(table.delete().where(table.c.id == ids[1]))
        copy = dict(connection.execute(table.select().where(table.c.id == ids[2])).mappings().one())
        connection.execute(table.insert().values(copy | {"id": b"\xff" * 16}))
    changes = {change.name: change for change in rehearse(log, place, built_in())}
    assert changes["runs"].changed == 3
    assert changes["runs"].is_suspect
    first = changes["runs"].first
    assert first is not None
    assert (first.key["id"], first.kept and first.kept["state_name"]) == (ids[0], "Odd")
    assert not changes["metrics"].is_suspect


def test_what_is_not_kept_yet_is_made(log: Log, place: Place) -> None:
    """It is no difference."""
    (change, *_) = rehearse(log, place, [Counts(1)])
    assert (change.kept, change.rows, change.changed, change.first) == (None, 1, 0, None)


def test_events_are_read_as_the_installed_version_reads_them(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old shapes are lifted, unknown ones carried along, and what cannot be read is named by its position."""
    monkeypatch.setitem(SCHEMAS, "variable.set", 2)
    monkeypatch.setattr(upcasting, "_UPCASTERS", {("variable.set", 1): lambda data: {**data, "name": data["nme"]}})
    ids = RandomIds()
    log.append("variable/a", [NewEvent(ids.new(), "variable.set", {"name": "a", "value": "1"}, 1)])
    bad = log.head().position
    log.append("x", [NewEvent(ids.new(), "moon.landed", {}, 1, schema=3)])
    log.append("y", [NewEvent(ids.new(), "variable.unset", {"nam": "a"}, 1)])
    monkeypatch.setitem(SCHEMAS, "flow_run.running", 2)
    found = read_all(log)
    assert found.events == log.head().position
    assert found.unknown == {"moon.landed (schema 3)": 1}
    assert found.lifted == {"flow_run.running (schema 1)": 2}
    assert found.wrong["variable.set"] == f"event {bad}: KeyError: 'nme'"
    assert found.wrong["variable.unset"].startswith(f"event {bad + 2}: ")


def test_progress_is_told(log: Log) -> None:
    """The last call says that all is done."""
    told: list[SimpleNamespace] = []
    read_all(log, lambda position, head: told.append(SimpleNamespace(position=position, head=head)))
    assert told[-1].position == told[-1].head == log.head().position
