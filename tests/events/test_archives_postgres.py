"""Archives of a log in PostgreSQL: what leaves the database stays part of the log there too."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.events.test_archives import STREAMS, archive, content, fill
from tests.faults.test_archiving import forked, killed_at
from tests.postgres import BEFORE_ARCHIVES

from flightlog.errors import LogUnavailable
from flightlog.events.archives import FOLDER
from flightlog.events.archiving import Archiver
from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.opening import open_log
from flightlog.events.sealing import seal
from flightlog.testing.log_contract import new_event


@pytest.fixture
def log(postgres_url: str, tmp_path: Path) -> Iterator[Log]:
    """Yield a log in a database, with some streams that are sealed."""
    with open_log(postgres_url) as log:
        fill(log)
        log.store.set_fact(FOLDER, str(tmp_path / "segments").encode())
        yield log


def restore_all(log: Log) -> None:
    """Put everything back."""
    with Archiver(log) as archiver:
        for one in log.store.archives():
            archiver.restore(one.number)


def test_what_is_archived_is_read_and_restored(postgres_url: str, log: Log) -> None:
    """In every way in which it can be read, also by who had the log open before; appends go on where the stream was."""
    with open_log(postgres_url) as other:
        before, rows = content(other), log.store.read_stream(STREAMS[1], 3, 5)
        contents = {e.id: other.blob(e.data["result"]["digest"]) for e in other.read_all(types=["thing.happened"])}
        assert archive(log, *STREAMS[:3], events=10) == [1, 2, 3, 4]
        assert {row.stream for row in log.store.stored(0, 1000)} == {STREAMS[3], "seals", "archives"}
        for reader in (log, other):
            assert content(reader) == before
            assert reader.store.read_stream(STREAMS[1], 3, 5) == rows
            assert reader.store.event(before[0][5]) == before[0][:3]
            assert {
                e.id: reader.blob(e.data["result"]["digest"]) for e in reader.read_all(types=["thing.happened"])
            } == (contents)
            assert verify(reader.store).problems == []
        assert other.append(STREAMS[0], [new_event()]) == [13]
        restore_all(log)
        assert content(other)[:49] == before
        assert len(other.store.stored(0, 1000)) == other.head().position
        assert verify(other.store).problems == []


def test_I3_no_row_leaves_but_those_that_an_archive_names_in_its_own_commit(postgres_url: str, log: Log) -> None:
    """The database refuses to delete any other row, and to forget what left."""
    archive(log, STREAMS[0])
    named = (
        "INSERT INTO flightlog.archived_streams SELECT id, 1, 12, {}, '', 0 FROM flightlog.streams WHERE name = '{}'"
    )
    for number in (1, 2):
        for table in ("events", "positions"):
            with psycopg.connect(postgres_url) as connection, pytest.raises(psycopg.errors.RaiseException):
                connection.execute(named.format(number, STREAMS[1]).encode())
                connection.execute(f"DELETE FROM flightlog.{table}".encode())
    for table in ("archives", "archived_streams"):
        for statement in (f"UPDATE flightlog.{table} SET number = 9", f"DELETE FROM flightlog.{table}"):
            with psycopg.connect(postgres_url) as connection, pytest.raises(psycopg.errors.RaiseException):
                connection.execute(statement.encode())
    assert verify(log.store).problems == []


def test_a_log_without_a_folder_says_what_to_do(postgres_url: str) -> None:
    """Where the segments are to be must be said once."""
    with open_log(postgres_url) as log, pytest.raises(LogUnavailable, match="log archive --folder"):
        Archiver(log)


@pytest.mark.timeout(180)
def test_killed_at_every_step_nothing_is_lost_and_nothing_doubled(postgres_url: str, log: Log) -> None:
    """Archiving and restoring, by a process that is killed: the log is whole, and the next one goes on."""
    before = content(log)

    def archive_all(step: Callable[[str], object]) -> None:
        with open_log(postgres_url) as mine, Archiver(mine, step=step) as archiver:
            list(archiver.archive(STREAMS, "state"))

    def restore(step: Callable[[str], object]) -> None:
        with open_log(postgres_url) as mine, Archiver(mine, step=step) as archiver:
            for one in mine.store.archives():
                archiver.restore(one.number)

    works: list[tuple[Any, int]] = [(archive_all, 8), (restore, 5)]
    for work, steps in works:
        for number in range(1, steps + 1):
            restore_all(log)
            seal(log)
            if work is restore:
                archive(log)
            assert os.WTERMSIG(forked(lambda: work(killed_at(number)))) == signal.SIGKILL  # noqa: B023 - called at once
            assert content(log)[:49] == before
            assert verify(log.store).problems == []


def test_a_log_of_an_earlier_layout_is_brought_up_to_date(postgres_url: str, tmp_path: Path) -> None:
    """It gets the tables, and triggers that let go of what is archived, and is as one that is new."""
    with open_log(postgres_url) as log:
        fill(log)
    with psycopg.connect(postgres_url) as connection:
        triggers = connection.execute(_TRIGGERS).fetchall()
        connection.execute(BEFORE_ARCHIVES)
    with open_log(postgres_url) as log:
        log.store.set_fact(FOLDER, str(tmp_path / "segments").encode())
        before = content(log)
        archive(log)
        assert content(log) == before
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(_TRIGGERS).fetchall() == triggers


_TRIGGERS = b"SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2"
