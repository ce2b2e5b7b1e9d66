"""Archives: what leaves the database stays part of the log, byte for byte, wherever it is."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightlog.errors import LogCorrupt, LogUnavailable, VersionConflict
from flightlog.events.archiving import Archiver, settled
from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.moving import blobs_of, copy
from flightlog.events.opening import open_log
from flightlog.events.sealing import seal
from flightlog.events.segments import Segment
from flightlog.events.types import ARCHIVES_STREAM
from flightlog.testing.log_contract import new_event

STREAMS = [f"flow-run/{number}" for number in range(5)]


def fill(log: Log, *, streams: int = 4, events: int = 6) -> None:
    """Append events to some streams in turns, some of them with blobs, and seal the log."""
    for number in range(events):
        for name in STREAMS[:streams]:
            content = f"{name} {number // 2}".encode() * 20
            digest = hashlib.sha256(content).digest()
            event = new_event(n=number, stream=name, result={"digest": digest, "size": len(content)})
            log.append(name, [event, new_event("other.thing", n=number)], blobs={digest: content})
    seal(log)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Yield a log in a file, with some streams that are sealed."""
    with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        fill(log)
        yield log


def archive(log: Log, *streams: str, events: int = 1000) -> list[int]:
    """Archive some streams; return the numbers of the archives."""
    with Archiver(log, events=events) as archiver:
        return [one.number for one in archiver.archive(streams or STREAMS, "state")]


def content(log: Log, until: int = 1 << 60) -> list[tuple[Any, ...]]:
    """Return all that must not change when events leave, but what is on record of their leaving."""
    rows = log.store.indexed(0, 100_000)
    return [tuple(row) for row in rows if row.position <= until and row.stream != ARCHIVES_STREAM]


def blobs(path: Path) -> int:
    """Return how many blobs a database has."""
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM blobs").fetchone()[0]
    return count


def test_what_is_archived_is_read_as_if_it_had_never_left(log: Log) -> None:
    """By stream, by position, by type, by id, and the blobs; whoever appends goes on where the stream was."""
    before, first = content(log), next(log.read(STREAMS[0]))
    contents = {event.id: log.blob(event.data["result"]["digest"]) for event in log.read_all(types=["thing.happened"])}
    assert archive(log, *STREAMS[:2]) == [1]
    assert {row.stream for row in log.store.stored(0, 1000)} == {*STREAMS[2:4], "seals", "archives"}
    assert content(log) == before
    assert [event.version for event in log.read(STREAMS[0], 3)] == list(range(4, 13))
    assert len(list(log.read_all(types=["other.thing"]))) == 24
    found = log.event(first.id)
    assert found is not None
    assert (found.position, found.record) == (first.position, first.record)
    assert {e.id: log.blob(e.data["result"]["digest"]) for e in log.read_all(types=["thing.happened"])} == contents
    assert log.append(STREAMS[0], [new_event()], expected_version=12) == [13]
    with pytest.raises(VersionConflict):
        log.append(STREAMS[1], [new_event()], expected_version=0)
    assert [event.version for event in log.read(STREAMS[0])] == list(range(1, 14))
    assert verify(log.store).problems == []


def test_blobs_go_along_that_only_archived_events_rest_on(tmp_path: Path, log: Log) -> None:
    """A blob that another event rests on too stays, and comes back with nothing."""
    shared = next(log.read(STREAMS[0])).data["result"]
    log.append("cache/x", [new_event(result=shared)])
    assert blobs(tmp_path / "log.db") == 12
    archive(log, STREAMS[0])
    assert blobs(tmp_path / "log.db") == 10
    archive(log, *STREAMS)
    assert blobs(tmp_path / "log.db") == 1
    assert verify(log.store).blobs == 12
    with Archiver(log) as archiver:
        archiver.restore(1)
        archiver.restore(2)
    assert blobs(tmp_path / "log.db") == 12
    assert verify(log.store).problems == []


def test_what_is_restored_is_as_it_was(tmp_path: Path, log: Log) -> None:
    """Rows, blobs and columns are the same, the segment is gone, and both moves are on record."""

    def rows() -> list[list[tuple[Any, ...]]]:
        with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
            return [
                connection.execute(statement).fetchall()
                for statement in (
                    "SELECT * FROM events e WHERE position < 50 ORDER BY position",
                    "SELECT digest, content FROM blobs ORDER BY digest",
                    "SELECT * FROM streams WHERE name != 'archives' ORDER BY id",
                )
            ]

    before = rows()
    assert archive(log, events=7) == [1, 2, 3, 4, 5, 6, 7]
    assert rows() != before
    with Archiver(log) as archiver:
        for number in (4, 2, 7, 1, 3, 6, 5):
            archiver.restore(number)
        with pytest.raises(LogUnavailable, match="There is no archive 4"):
            archiver.restore(4)
    assert rows() == before
    assert [path.suffix for path in (tmp_path / "log.db.archives").iterdir()] == [".lock"]
    assert [event.type for event in log.read(ARCHIVES_STREAM)] == ["log.archived"] * 7 + ["log.restored"] * 7
    assert archive(log) == [15]
    assert verify(log.store).problems == []


def test_what_is_not_sealed_or_not_dealt_with_stays(log: Log) -> None:
    """A stream leaves whole, when a seal covers it and every subscription has dealt with it."""
    log.append(STREAMS[0], [new_event()])  # no seal covers this one
    log.store.claim_cursor("slow", "me", 0, 1, 40)
    assert settled(log) == 40
    assert archive(log) == []
    log.store.forget_cursor("slow")
    assert archive(log) == [1]
    assert {row.stream for row in log.store.stored(0, 1000)} == {STREAMS[0], "seals", "archives"}
    seal(log)
    assert archive(log, "seals", "archives") == []


@pytest.mark.parametrize("sealed", [True, False])
def test_I3_no_row_leaves_but_those_that_an_archive_names_in_its_own_commit(
    tmp_path: Path, log: Log, sealed: bool
) -> None:
    """The database refuses to delete any other row, whoever tries, and to forget what left."""
    if sealed:
        archive(log, STREAMS[0])
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        for statement in (
            "DELETE FROM events WHERE position = 3",
            "INSERT INTO archived_streams VALUES (2, 1, 12, 1, x'', 0); DELETE FROM events WHERE stream_id = 2",
            "INSERT INTO archived_streams VALUES (2, 1, 12, 2, x'', 0); DELETE FROM events WHERE stream_id = 2",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.executescript(f"BEGIN; {statement}")
            connection.rollback()
    if sealed:
        with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
            for table in ("archives", "archived_streams"):
                for statement in (f"UPDATE {table} SET number = 9", f"DELETE FROM {table}"):
                    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                        connection.execute(statement)
                    connection.rollback()
    assert len(content(log)) == 49


def test_rows_leave_only_if_all_of_them_are_there(log: Log, tmp_path: Path) -> None:
    """If the database has changed behind our back, nothing is taken out."""
    fewer = log.store.read_stream
    store: Any = log.store

    class Other:
        """Looks as if a stream had one event less than it has."""

        def __call__(self, stream: str, after: int, limit: int) -> list[Any]:
            rows = fewer(stream, after, limit)
            return rows[:-1] + [rows[-1]._replace(record=rows[-1].record + b"x")] if len(rows) == 12 else rows

    store.read_stream = Other()
    with pytest.raises(LogCorrupt):
        archive(log)
    del store.read_stream
    assert log.store.archives() == []
    assert len(log.store.stored(0, 1000)) == 49


def test_two_archivers_are_not_at_it_at_once(log: Log) -> None:
    """The second one is told so; when the first is done, it can go on."""
    with Archiver(log), pytest.raises(LogUnavailable, match="Another process is archiving"):
        Archiver(log)
    assert archive(log) == [1]


def test_a_segment_that_is_not_on_record_goes_only_if_the_log_has_its_events(tmp_path: Path, log: Log) -> None:
    """Where an earlier copy of the log was put in its place, a segment may be the only one that has them."""
    for number in range(3):
        log.append("flow-run/late", [new_event(n=number)])
    before = tmp_path / "before.db"
    with closing(sqlite3.connect(tmp_path / "log.db")) as source, closing(sqlite3.connect(before)) as copied:
        source.backup(copied)
    log.append("flow-run/late", [new_event(n=3)])
    seal(log)
    archive(log, "flow-run/late")
    archive(log, STREAMS[0])
    folder = tmp_path / "log.db.archives"
    folder.rename(tmp_path / "before.db.archives")
    with open_log(f"sqlite:///{before}") as earlier, Archiver(earlier) as archiver:
        assert [path.name[:5] for path in archiver.folder.glob("*.segment")] == ["50-53"]
        assert len(list(earlier.read("flow-run/late"))) == 3


def test_another_process_that_has_the_log_open_notices(tmp_path: Path, log: Log) -> None:
    """A reader that was there before sees the same log through it all."""
    with open_log(f"sqlite:///{tmp_path}/log.db") as other:
        before = content(other)
        archive(log)
        assert content(other) == before
        other.append(STREAMS[0], [new_event(late=True)])
        with Archiver(log) as archiver:
            archiver.restore(1)
        assert content(other)[:49] == before
        assert [event.version for event in other.read(STREAMS[0])] == list(range(1, 14))


def test_a_copy_has_all_of_it_and_needs_no_segment(tmp_path: Path, log: Log) -> None:
    """Copied elsewhere, what was archived is in the database there."""
    archive(log)
    copy(log, f"sqlite:///{tmp_path}/copy.db")
    with open_log(f"sqlite:///{tmp_path}/copy.db") as there:
        assert content(there) == content(log)
        assert len(there.store.stored(0, 1000)) == 50
        assert not (tmp_path / "copy.db.archives").exists()
        assert archive(there) == [2]
        assert verify(there.store).problems == []


# --- verifying ------------------------------------------------------------------------------------


def test_a_missing_segment_is_named_and_all_else_is_verified(tmp_path: Path, log: Log) -> None:
    """The seals hold by the hashes that stayed; a change elsewhere is found all the same."""
    archive(log, STREAMS[1])
    archive(log, STREAMS[2])
    log.append(STREAMS[1], [new_event()])
    seal(log)
    segments = [tmp_path / "log.db.archives" / one.segment for one in log.store.archives()]
    kept = segments[0].read_bytes()
    segments[0].unlink()
    log.store._catalogue._open.clear()  # type: ignore[attr-defined]
    found = verify(log.store)
    assert [str(problem).partition(": The")[0] for problem in found.problems] == ["archive 1, events 3 to 44"]
    assert "is missing: put it back" in str(found.problems[0])
    assert (found.seals, found.sealed, found.segments) == (2, 52, 1)
    assert (found.absent, found.unproved) == (12, 1)  # the last seal itself
    with pytest.raises(LogCorrupt, match="is missing: put it back"):
        list(log.read(STREAMS[1]))
    assert len(list(log.read(STREAMS[3]))) == 12
    segments[0].write_bytes(kept)
    assert verify(log.store).problems == []


def test_every_altered_byte_of_a_segment_is_noticed(tmp_path: Path, log: Log) -> None:
    """One flipped bit anywhere: the archive is named, and nobody reads it."""
    archive(log, STREAMS[0])
    (one,) = log.store.archives()
    path = tmp_path / "log.db.archives" / one.segment
    sound = path.read_bytes()
    for place in range(0, len(sound), 7):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        log.store._catalogue._open.clear()  # type: ignore[attr-defined]
        (problem,) = verify(log.store).problems
        assert str(problem).startswith("archive 1, events 1 to 42: The segment")
        with pytest.raises(LogCorrupt, match="was changed"):
            list(log.read(STREAMS[0]))
    path.write_bytes(sound)
    assert verify(log.store).problems == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            "UPDATE archives SET leaves = CAST(x'00' || substr(leaves, 2) AS BLOB)",
            "event 1: the hash that is kept of it",
        ),
        ("UPDATE archives SET leaves = substr(leaves, 33)", "event 1: the hash that is kept of it"),
        ("UPDATE archives SET positions = substr(positions, 1, 5)", "archive 1"),
        ("UPDATE archives SET digest = x'00', segment = 'other'", "archive 1, events 1 to 42: It is not what"),
        ("UPDATE archives SET events = 11", "archive 1, events 1 to 42: It is not what"),
        ("UPDATE archived_streams SET hash = x'00'", "archive 1: what is kept of it is not what its segment has"),
        ("UPDATE archived_streams SET last_version = 11", "archive 1: what is kept of it is not what its segment has"),
        ("DELETE FROM archived_streams; DELETE FROM archives", "event 1: the events from 1 to 2 are missing"),
        ("DELETE FROM archived_streams", "archive 1: what is kept of it is not what its segment has"),
    ],
)
def test_what_the_database_keeps_of_an_archive_is_verified(tmp_path: Path, log: Log, change: str, named: str) -> None:
    """Whoever changes it, past the triggers, is found out."""
    archive(log, STREAMS[0])
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        for trigger in ("archives_no_update", "archives_no_delete", "archived_streams_no_update",
                        "archived_streams_no_delete"):  # fmt: skip
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.executescript(change)
    with open_log(f"sqlite:///{tmp_path}/log.db") as again:
        problems = [str(problem) for problem in verify(again.store).problems]
    assert any(problem.startswith(named) for problem in problems), problems


def test_what_is_no_segment_is_refused(tmp_path: Path) -> None:
    """Something else in its place is said to be that."""
    path = tmp_path / "x.segment"
    for other in (b"", b"flightlog segment 1\n", b"x" * 100, b"flightlog segment 1\n" + bytes(100)):
        path.write_bytes(other)
        with pytest.raises(LogCorrupt, match="is no segment of a log"):
            Segment(path)


# --- the law --------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_archived_and_rest_are_the_whole(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is appended, sealed, archived and restored, in any order: every way of reading finds the same log."""
    path = tmp_path_factory.mktemp("law") / "log.db"
    some = st.lists(st.sampled_from(STREAMS), min_size=1, max_size=3, unique=True)
    with open_log(f"sqlite:///{path}") as log, open_log("memory://", log_id=log.log_id) as whole:
        for _ in range(data.draw(st.integers(2, 8))):
            for name in data.draw(st.lists(st.sampled_from(STREAMS), max_size=6)):
                text = data.draw(st.sampled_from(["short", "x" * 70_000]))
                log.append(name, [new_event(data.draw(st.sampled_from(["a", "b"])), text=text)])
            if data.draw(st.booleans()):
                seal(log)
            rows = log.store.indexed(whole.head().position, 1000)
            whole.store.adopt(rows, blobs_of(log, rows))
            archive(log, *data.draw(some), events=data.draw(st.integers(1, 5)))
            known = [one.number for one in log.store.archives()]
            with Archiver(log) as archiver:
                for number in data.draw(st.lists(st.sampled_from(known), unique=True)) if known else ():
                    archiver.restore(number)
        rows = log.store.indexed(whole.head().position, 1000)
        whole.store.adopt(rows, blobs_of(log, rows))
        _same(log, whole, data)
        assert verify(log.store).problems == []


def _same(log: Log, whole: Log, data: st.DataObject) -> None:
    """Compare two logs in every way in which they can be read."""
    head = whole.head().position
    after, limit = data.draw(st.integers(0, head)), data.draw(st.integers(1, 20))
    assert log.store.indexed(0, 10_000) == whole.store.indexed(0, 10_000)
    assert log.store.indexed(after, limit) == whole.store.indexed(after, limit)
    for types in (None, ["a"], ["a", "log.sealed"]):
        assert log.store.read_all(after, types, limit) == whole.store.read_all(after, types, limit)
    for name in (*STREAMS, "seals", ARCHIVES_STREAM):
        assert log.store.read_stream(name, 0, 10_000) == whole.store.read_stream(name, 0, 10_000)
        assert log.store.read_stream(name, after // 3, limit) == whole.store.read_stream(name, after // 3, limit)
        assert [event.data for event in log.read(name)] == [event.data for event in whole.read(name)]
    for row in whole.store.indexed(after, 3):
        assert log.store.event(row.event_id) == row[:3]
    assert sorted(log.store.ends()) == sorted(whole.store.ends())
