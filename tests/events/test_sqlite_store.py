"""The SQLite store beside what every store does."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from flightlog.errors import LogError
from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.model import Append
from flightlog.events.stores import sqlite_statements, tables
from flightlog.events.stores.sqlite import SqliteStore
from flightlog.events.stores.sqlite_read_only import ReadOnlySqliteStore
from flightlog.testing.log_contract import new_event


def test_the_compiled_statements_are_those_of_the_tables() -> None:
    """What is said to SQLite while flows run is what SQLAlchemy makes of the tables."""
    for name, statement in tables.sqlite_statements().items():
        assert getattr(sqlite_statements, name) == statement, "run: python -m flightlog.events.stores.tables"


def test_two_writers_on_one_file_see_each_other(tmp_path: Path) -> None:
    """What a writer remembers of the log's end is void as soon as another one has written."""
    one, two = Log(SqliteStore(tmp_path / "log.db")), Log(SqliteStore(tmp_path / "log.db"))
    for number in range(50):
        assert (one if number % 3 else two).append("a", [new_event(n=number)]) == [number + 1]
    assert [event.data["n"] for event in one.read("a")] == list(range(50))
    assert verify(two.store).problems == []
    one.close()
    two.close()


def test_durability_is_what_sqlite_is_told(tmp_path: Path) -> None:
    """Under `commit` SQLite runs with synchronous NORMAL, under `fsync` with FULL, both with a write-ahead log."""
    for durability, expected in (("commit", 1), ("fsync", 2)):
        store = SqliteStore(tmp_path / f"{durability}.db", durability=durability)  # type: ignore[arg-type]
        connection = store._writing()
        assert connection.execute("PRAGMA synchronous").fetchone() == (expected,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        store.close()


def test_a_fork_neither_loses_nor_doubles_events(tmp_path: Path) -> None:
    """A forked child has its own connection, and what its parent has in line is the parent's to commit."""
    log = Log(SqliteStore(tmp_path / "log.db"))
    log.append("a", [new_event(n=0)])
    unit = log.enqueue([Append("a", [new_event(n=1)])])
    child = os.fork()
    if child == 0:
        code = 2
        with contextlib.suppress(BaseException):
            log.append("child", [new_event(n=2)])
            code = 0 if [event.data["n"] for event in log.read("child")] == [2] else 1
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    log.commit(unit)
    assert [event.data["n"] for event in log.read("a")] == [0, 1]
    assert [event.data["n"] for event in log.read("child")] == [2]
    assert verify(log.store).problems == []
    log.close()


def test_another_process_that_holds_the_file_is_waited_for(tmp_path: Path) -> None:
    """While somebody else writes, `try_commit` says so at once, and `commit` waits."""
    path = tmp_path / "log.db"
    log = Log(SqliteStore(path))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    unit = log.enqueue([Append("a", [new_event()])])
    assert log.try_commit(unit) is False
    assert [unit.done] == [False]
    other.execute("COMMIT")
    other.close()
    log.commit(unit)
    assert unit.done
    log.close()


def test_an_interrupt_between_two_steps_of_a_commit_does_no_harm(tmp_path: Path) -> None:
    """A transaction that was begun and left, as by Ctrl-C, is taken back; nothing that is in line is lost."""
    store = SqliteStore(tmp_path / "log.db")
    with Log(store) as log:
        log.append("s", [new_event()])
        store._writing().execute("BEGIN IMMEDIATE")  # and here the interrupt struck
        assert log.append("s", [new_event()]) == [2]
        assert len(list(log.read("s"))) == 2


def test_I9_a_log_of_the_first_layout_is_brought_up_to_date(tmp_path: Path) -> None:
    """The tables that came later are added; events stay as they are. One that cannot be written is read as it is."""
    path = tmp_path / "old.db"
    with Log(SqliteStore(path)) as log:
        log.append("s", [new_event(n=1)])
        before = [event.record for event in log.read_all()]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        layout = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        connection.execute("DROP TRIGGER events_no_delete")
        for table in ("liveness", "subscriptions", "inline_projections", "inline_states"):
            connection.execute(f"DROP TABLE {table}")
        for table in ("archives", "archived_streams", "archived_blobs"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, ''); END")
        connection.execute("PRAGMA user_version=1")
        connection.commit()
    with Log(ReadOnlySqliteStore(path)) as log:
        assert [event.record for event in log.read_all()] == before
        assert (log.store.beats(), log.store.cursors()) == ({}, [])
        with pytest.raises(LogError, match="keeps no inline projection 'x'"):
            log.state("x", "s")
    with Log(SqliteStore(path)) as log:
        assert [event.record for event in log.read_all()] == before
        log.store.beat("me", 5)
        assert log.store.beats() == {"me": 5}
        assert log.append("s", [new_event(n=2)]) == [2]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
        assert connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == layout


def test_what_is_committed_is_moved_into_the_file_in_the_background(tmp_path: Path) -> None:
    """Tidying up empties the write-ahead log now and then; nothing is lost by it."""
    store = SqliteStore(tmp_path / "log.db")
    with Log(store) as log:
        for _ in range(30):
            log.append("s", [new_event(text="x" * 2000)])
        size = (tmp_path / "log.db").stat().st_size
        store._untidied = 10_000
        store.tidy()
        assert (tmp_path / "log.db").stat().st_size > size
        assert len(list(log.read("s"))) == 30
