"""Backups, copies from store to store, replays: the same records, verified on arrival."""

import threading
from pathlib import Path

import pytest

from flightlog import flow, task
from flightlog.engine.runtime import current_engine, open_engine
from flightlog.errors import LogCorrupt, LogUnavailable
from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.moving import backup, copy
from flightlog.events.opening import open_log
from flightlog.events.sealing import seal
from flightlog.settings import load
from flightlog.testing.log_contract import new_event


@task
def double(n: int) -> list[int]:
    """Return something that goes into a blob."""
    return [n, n]


@flow
def doubles(n: int) -> int:
    """Make some events."""
    return sum(len(double(i)) for i in range(n))


def content(log: Log) -> list[tuple[object, ...]]:
    """Return all that must not change when a log moves."""
    rows = log.store.indexed(0, 100_000)
    return [
        (row.position, row.recorded_at, row.record, row.stream, row.version, row.event_id, row.type) for row in rows
    ]


def test_ids_versions_positions_and_hashes_stay(tmp_path: Path, postgres_url: str) -> None:
    """From SQLite to PostgreSQL and back: byte for byte the same, and it verifies everywhere."""
    doubles(5)
    log = current_engine().log
    log.append("long", [new_event(text="x" * 100_000)], epoch=4)
    there = copy(log, postgres_url)
    assert there.events == there.verified == log.head().position
    with open_log(postgres_url) as server:
        assert content(server) == content(log)
        assert sorted(server.store.ends()) == sorted(log.store.ends())
        server.append("new", [new_event()])  # life goes on there
        copy(server, f"sqlite:///{tmp_path}/back.db")
        with open_log(f"sqlite:///{tmp_path}/back.db") as back:
            assert content(back) == content(server)
            assert back.append("new", [new_event()]) == [2]
            assert verify(back.store).problems == []


def test_seals_hold_wherever_a_log_is(tmp_path: Path, postgres_url: str) -> None:
    """A log that was sealed in a file verifies in PostgreSQL, is sealed there again, and verifies in a file again."""
    doubles(2)
    log = current_engine().log
    log.flush()
    first = seal(log)
    assert first is not None
    copy(log, postgres_url)
    with open_log(postgres_url) as server:
        server.append("new", [new_event()])
        second = seal(server)
        assert second is not None
        known = [first.checkpoint(log.log_id), second.checkpoint(log.log_id)]
        found = verify(server.store, known=known)
        assert (found.problems, found.seals, found.known) == ([], 2, second.last)
        copy(server, f"sqlite:///{tmp_path}/back.db")
    with open_log(f"sqlite:///{tmp_path}/back.db") as back:
        assert verify(back.store, known=known).sealed == second.last


def test_values_in_a_storage_are_not_missed(tmp_path: Path) -> None:
    """The log has their digests only: it verifies, and can be copied."""

    @task(result_storage=str(tmp_path / "values"))
    def kept() -> list[int]:
        return [1, 2]

    @flow
    def keeping() -> None:
        kept()

    keeping()
    log = current_engine().log
    log.flush()
    assert verify(log.store).problems == []
    assert copy(log, f"sqlite:///{tmp_path}/copy.db").events == log.head().position


def test_a_copy_goes_on_where_it_was(tmp_path: Path) -> None:
    """A second copy to the same place brings what is new; another log's place is refused."""
    doubles(2)
    log, url = current_engine().log, f"sqlite:///{tmp_path}/copy.db"
    half = log.head().position // 2
    assert copy(log, url, until=half).position == half
    assert copy(log, url).events == log.head().position - half
    doubles(1)
    copy(log, url)
    with open_log(url) as there:
        assert content(there) == content(log)
    with (
        open_log(f"sqlite:///{tmp_path}/other.db") as other,
        pytest.raises(LogUnavailable, match="Another log"),
    ):
        copy(other, url)


def test_a_copy_that_was_tampered_with_is_found(tmp_path: Path) -> None:
    """A copy whose records do not go on from what is there is refused."""
    doubles(1)
    log = current_engine().log
    rows = log.store.indexed(0, 10)
    with open_log(f"sqlite:///{tmp_path}/t.db", log_id=log.log_id) as there:
        with pytest.raises(Exception, match="does not follow"):
            there.store.adopt(rows[1:], {})
        there.store.adopt(rows[:1], {})
    with pytest.raises(LogCorrupt, match="does not verify"):
        # The blobs of the first event are missing there.
        copy(log, f"sqlite:///{tmp_path}/t.db")


def test_a_backup_is_hot(own_home: Path, tmp_path: Path) -> None:
    """While others write, the copy is as the log was at one moment; flows can be run on it."""
    doubles(2)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            current_engine().log.append("busy", [new_event()])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backup(own_home / "flightlog.db", tmp_path / "b" / "copy.db")
    finally:
        stop.set()
        writer.join()
    with open_log(f"sqlite:///{tmp_path}/b/copy.db") as there:
        log = current_engine().log
        assert content(there) == content(log)[: there.head().position]
        assert there.head().position > 0
    engine = open_engine(load({"FLIGHTLOG_LOG_URL": f"sqlite:///{tmp_path}/b/copy.db"}))
    engine.log.close()
    with pytest.raises(LogUnavailable, match="exists already"):
        backup(own_home / "flightlog.db", tmp_path / "b" / "copy.db")


def test_a_replay_takes_no_runs(tmp_path: Path) -> None:
    """It is there to be read: an engine refuses it with a clear line."""
    doubles(1)
    copy(current_engine().log, f"sqlite:///{tmp_path}/replay.db", until=5, replay=True)
    with pytest.raises(LogUnavailable, match="replay of another one's past"):
        open_engine(load({"FLIGHTLOG_LOG_URL": f"sqlite:///{tmp_path}/replay.db"}))


def test_position_at_a_time(tmp_path: Path) -> None:
    """A moment has a position: that of the last event that was recorded by then."""
    doubles(3)
    log = current_engine().log
    events = list(log.read_all())
    for event in events:
        at = log.position_at(event.recorded_at)
        assert at == max(e.position for e in events if e.recorded_at <= event.recorded_at)
    assert log.position_at(events[0].recorded_at - 1) == 0
    assert log.position_at(events[-1].recorded_at + 1) == events[-1].position


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_copy_that_went_its_own_way_is_not_gone_on_with(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Something was appended to the copy: what the source got since would be passed over without a word."""
    url = f"sqlite:///{tmp_path}/copy.db" if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))
    with open_log(f"sqlite:///{tmp_path}/source.db") as source:
        source.append("a", [new_event()])
        copy(source, url)
        source.append("a", [new_event()])
        assert copy(source, url).events == 1
        with open_log(url) as target:
            target.append("b", [new_event()])
        source.append("a", [new_event()])
        with pytest.raises(LogUnavailable, match="event 3 differs"):
            copy(source, url)


def test_a_backup_takes_nobody_elses_key(tmp_path: Path) -> None:
    """A key that is there already is another log's."""
    with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        log.append("a", [new_event()])
    (tmp_path / "copy.db.key").write_bytes(b"another log's")
    with pytest.raises(LogUnavailable, match=r"copy\.db\.key exists already"):
        backup(tmp_path / "log.db", tmp_path / "copy.db")
    assert (tmp_path / "copy.db.key").read_bytes() == b"another log's"
