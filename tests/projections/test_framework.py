"""Projections can be thrown away, made anew beside the old ones, checked, and asked about the past (invariant I6)."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from flightlog import flow, task
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.events.log import Log
from flightlog.events.moving import copy
from flightlog.events.opening import open_log
from flightlog.projections import queries
from flightlog.projections.places import FilePlace, Place, PostgresPlace, transaction
from flightlog.projections.projector import Projector, built_in
from flightlog.projections.prometheus import exposition


@task
def even(n: int) -> int:
    """Fail for odd numbers."""
    if n % 2:
        raise ValueError(f"odd: {n}")
    return n


@flow
def evens(n: int) -> int:
    """Try so many numbers; those that fail are passed over."""
    return sum(1 for state in [even(i, return_state=True) for i in range(n)] if state.is_completed())


@pytest.fixture(params=["sqlite", "postgres"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Run flows on a log of each kind, and yield it."""
    if request.param == "postgres":
        monkeypatch.setenv("FLIGHTLOG_LOG_URL", request.getfixturevalue("postgres_url"))
    for n in (2, 5, 3):
        evens(n)
    yield current_engine().log
    close_engine()


@pytest.fixture
def projector(log: Log, tmp_path: Path) -> Iterator[Projector]:
    """Yield the projections of that log."""
    place: Place = FilePlace(tmp_path / "p.db")
    if log.store.location.startswith("postgresql"):
        place = PostgresPlace(log.store.location)
    projector = Projector(log, place)
    yield projector
    projector.close()


def content(projector: Projector) -> dict[str, list[Any]]:
    """Return all rows of all tables."""
    projector.catch_up()
    with projector.place.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sqlalchemy.select(table)).mappings()))
            for projection in projector.projections
            for table in projection.tables
        }


def test_a_rebuild_is_the_same(projector: Projector) -> None:
    """Made anew, projections have the same content; their indexes are there again."""
    before = content(projector)
    assert before["flow_runs"]
    assert before["metrics"]
    steps: list[tuple[int, int]] = []
    position = projector.rebuild(progress=lambda done, head: steps.append((done, head)))
    assert content(projector) == before
    assert steps[-1] == (position, position)
    with projector.place.engine.connect() as connection:
        names = {
            index["name"]
            for index in sqlalchemy.inspect(connection).get_indexes("flow_runs", schema=projector.place.schema)
        }
    assert {"flow_runs_by_name", "flow_runs_by_state"} <= names
    assert projector.rebuild() == position


def test_readers_go_on_while_a_rebuild_runs(projector: Projector) -> None:
    """Nobody ever sees a projection that is empty or half made."""
    wanted = len(queries.list_flow_runs(projector))
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(len(queries.list_flow_runs(projector)))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(5):
        projector.rebuild()
    stop.set()
    reader.join()
    assert set(seen) == {wanted}


def test_what_was_changed_is_found_and_healed(projector: Projector) -> None:
    """A check names the first row that differs, in whatever way; a rebuild heals it."""
    names = [projection.name for projection in built_in()]
    assert [projector.check(name) for name in names] == [None] * len(names)
    for statement, kept in (
        ("UPDATE {p}flow_runs SET state_name = 'Fine' WHERE flow = 'evens'", True),
        ("DELETE FROM {p}task_runs", False),
    ):
        prefix = "" if projector.place.schema is None else f"{projector.place.schema}."
        with transaction(projector.place) as connection:
            connection.exec_driver_sql(statement.format(p=prefix))
        found = projector.check("runs")
        assert found is not None
        assert found.table in statement
        assert (found.kept is not None) is kept
        assert found.right is not None
        projector.rebuild(["runs"])
        assert projector.check("runs") is None


def test_as_of_is_as_it_was(log: Log, projector: Projector, tmp_path: Path) -> None:
    """A view as of a position is what a projection shows of a log that ends there."""
    events = list(log.read_all())
    for position in range(0, len(events) + 1, 7):
        past = Projector(log, None, until=position)
        url = f"sqlite:///{tmp_path}/until-{position}.db"
        copy(log, url, until=position)
        with open_log(url) as then:
            there = Projector(then, None)
            assert content(past) == content(there)
            there.close()
        created = sum(e.type == "flow_run.created" for e in events[:position])
        assert len(queries.list_flow_runs(past)) == created
        past.close()
    now = Projector(log, None, until=len(events))
    assert content(now) == content(projector)
    now.close()


def test_metrics_count_once(projector: Projector) -> None:
    """Counts by state, retries, and durations whose quantiles are in order."""
    views = {(view.flow, view.task): view for view in queries.list_metrics(projector)}
    own, tasks = views["evens", ""], views["evens", "even"]
    assert (own.completed, own.failed, own.ended) == (3, 0, 3)
    assert (tasks.completed, tasks.failed) == (6, 4)
    assert tasks.seconds > 0
    assert tasks.quantiles[0.5] <= tasks.quantiles[0.95] <= tasks.quantiles[0.99]
    (hourly,) = queries.list_metrics(projector, tasks=False, every=3_600_000_000 * 1000)
    assert hourly.completed == 3
    assert queries.list_metrics(projector, flow="nobody") == []


def test_prometheus_reads_it(projector: Projector) -> None:
    """Counters and summaries in the text format, one line a sample."""
    text = exposition(projector)
    assert 'flightlog_runs_total{flow="evens",task="even",state="failed"} 4' in text
    assert "# TYPE flightlog_run_duration_seconds summary" in text
    assert 'flightlog_run_duration_seconds_count{flow="evens",task=""} 3' in text
    for line in text.splitlines():
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


def test_open_runs_and_statuses(projector: Projector) -> None:
    """How far each projection has come, and which runs have not ended."""
    assert [status.behind for status in projector.status()] == [projector.log.head().position] * len(
        projector.projections
    )
    assert queries.list_open_runs(projector) == []
    assert {status.behind for status in projector.status()} == {0}
