"""What verifying a log finds."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.stores.sqlite import SqliteStore
from flightlog.testing.log_contract import new_event

TRIGGERS = ("events_no_update", "events_no_delete", "events_no_replace", "blobs_no_update")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a log with thirty events in three streams, and one blob."""
    path = tmp_path / "log.db"
    with Log(SqliteStore(path)) as log:
        for number in range(30):
            log.append(f"s{number % 3}", [new_event(n=number, text="x" * (70_000 if number == 9 else 10))], epoch=1)
    return path


def tamper(path: Path, *statements: str, function: Callable[[bytes], bytes] | None = None) -> None:
    """Change a log behind its back, as somebody with the file can."""
    connection = sqlite3.connect(path)
    if function is not None:
        connection.create_function("altered", 1, function)
    for trigger in TRIGGERS:
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def problems(path: Path) -> list[str]:
    """Return what verifying finds."""
    store = SqliteStore(path)
    try:
        return [str(problem) for problem in verify(store).problems]
    finally:
        store.close()


def test_an_untouched_log_is_sound(path: Path) -> None:
    """Nothing is found where nothing was done."""
    assert problems(path) == []


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["DELETE FROM events WHERE position = 10"], "events from 10 to 10 are missing"),
        (["DELETE FROM events WHERE position = 30"], "but 10 events were recorded"),
        (["UPDATE events SET version = 99 WHERE position = 5"], "event 5: its version differs"),
        (["UPDATE events SET event_id = x'00' WHERE position = 5"], "event 5: its event id differs"),
        (["UPDATE events SET stream_id = 99 WHERE position = 5"], "event 5: its stream differs"),
        (["UPDATE events SET type_id = 99 WHERE position = 5"], "event 5: its type differs"),
        (["UPDATE events SET recorded_at = 1 WHERE position = 5"], "event 5: it was recorded before"),
        (["UPDATE events SET record = x'93' WHERE position = 5"], "event 5: A record of 1 bytes cannot be read"),
        (["UPDATE events SET record = 'x' || record WHERE position = 5"], "event 5: it cannot be read"),
        (["UPDATE streams SET hash = x'00' WHERE name = 's0'"], "the last event of s0 is not the one"),
        (["UPDATE streams SET epoch = 7 WHERE name = 's0'"], "s0 has epoch 7 by the index, 1 by its events"),
        (["UPDATE facts SET value = x'00' WHERE name = 'log_id'"], "event 1: its log id differs"),
        (["DELETE FROM blobs"], "event 10: the blob"),
        (["UPDATE blobs SET content = x'00'"], "that it rests on was changed"),
        (
            ["UPDATE events SET position = 100 WHERE position = 4", "UPDATE events SET position = 4 WHERE position = 7",
             "UPDATE events SET position = 7 WHERE position = 100"],
            "event 4: s0 goes from version 1 to 3",
        ),
    ],
)  # fmt: skip
def test_what_was_tampered_with_is_named(path: Path, statements: list[str], expected: str) -> None:
    """Rows that were changed, dropped or swapped are found, and the event is named."""
    tamper(path, *statements)
    found = problems(path)
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize("seed", range(40))
def test_any_changed_byte_of_a_record_is_found(path: Path, seed: int) -> None:
    """One changed byte anywhere in a record that another one follows breaks the chain."""

    def altered(record: bytes) -> bytes:
        index = (seed * 7919) % len(record)
        return record[:index] + bytes([record[index] ^ (1 << seed % 8)]) + record[index + 1 :]

    tamper(path, f"UPDATE events SET record = altered(record) WHERE position = {1 + seed % 27}", function=altered)
    assert problems(path) != []


def test_I3_the_database_refuses_to_change_the_past(path: Path) -> None:
    """UPDATE, DELETE and REPLACE of events are refused by the database itself, whoever asks."""
    connection = sqlite3.connect(path, isolation_level=None)
    row = "(position, stream_id, version, type_id, recorded_at, event_id, record)"
    for statement in (
        "UPDATE events SET record = x'00' WHERE position = 3",
        "DELETE FROM events WHERE position = 3",
        "DELETE FROM events",
        f"REPLACE INTO events {row} VALUES (3, 1, 1, 1, 1, x'01', x'00')",
        f"REPLACE INTO events {row} SELECT 500, stream_id, version, 1, 1, x'01', x'00' FROM events WHERE position = 3",
        f"INSERT OR REPLACE INTO events {row} SELECT 500, 9, 9, 1, 1, event_id, x'00' FROM events WHERE position = 3",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    with pytest.raises(sqlite3.IntegrityError, match="immutable"):
        connection.execute("UPDATE blobs SET content = x'00'")
    connection.close()
    assert problems(path) == []
