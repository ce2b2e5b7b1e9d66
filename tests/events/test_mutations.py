"""Whatever is changed in a sealed log is found, and named; and a verifier that looks away is found too."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flightlog.events import codec, integrity, seal_checks
from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.notes import Checkpoint, SigningKey
from flightlog.events.problems import Verification
from flightlog.events.sealing import latest_seal, seal
from flightlog.events.stores.sqlite import SqliteStore
from flightlog.testing.log_contract import new_event

GUARDS = ("events_no_update", "events_no_delete", "events_no_replace", "blobs_no_update")
INDEXES = ("events_by_stream", "events_by_id")
KEY = SigningKey("flightlog/test", bytes(range(32)))
COLUMNS = "position, stream_id, version, type_id, recorded_at, event_id, record"


class Victim(NamedTuple):
    """A sealed log whose guards are gone, and a store that reads it."""

    path: Path
    connection: sqlite3.Connection
    store: SqliteStore
    known: Checkpoint
    events: int

    def verified(self, **options: Any) -> Verification:
        """Return what verifying finds."""
        return verify(self.store, **options)


def make(path: Path) -> None:
    """Make a log: 13 events and a seal, 6 more and a signed seal, a tail of 2."""
    with Log(SqliteStore(path)) as log:
        for number in range(13):
            text = "x" * (70_000 if number == 4 else 5)
            log.append(f"s{number % 3}", [new_event("thing.happened", n=number, text=text)], epoch=1)
        seal(log)
        for number in range(6):
            log.append(f"t{number % 2}", [new_event("thing.ended", n=number)])
        seal(log, KEY)
        log.append("s0", [new_event("thing.happened", n=98), new_event("thing.happened", n=99)])


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sealed log without its guards."""
    path = tmp_path_factory.mktemp("sealed") / "log.db"
    make(path)
    connection = sqlite3.connect(path)
    for name in GUARDS:
        connection.execute(f"DROP TRIGGER {name}")
    for name in INDEXES:
        connection.execute(f"DROP INDEX {name}")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture
def victim(sealed: Path, tmp_path: Path) -> Iterator[Victim]:
    """Yield a copy of the sealed log that may be changed."""
    path = tmp_path / "log.db"
    shutil.copyfile(sealed, path)
    log = Log(SqliteStore(path))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    last = latest_seal(log)
    assert last is not None
    assert isinstance(log.store, SqliteStore)
    yield Victim(path, connection, log.store, last.checkpoint(log.log_id), log.head().position)
    connection.close()
    log.close()


def flipped(content: bytes, index: int) -> bytes:
    """Return bytes with one bit of one byte changed."""
    return content[:index] + bytes([content[index] ^ 1 << index % 8]) + content[index + 1 :]


def names(found: Verification, position: int) -> bool:
    """Tell whether the first problem is that event, or the narrow range that it is in."""
    first = found.problems[0]
    return first.position is not None and first.position <= position <= (first.until or first.position)


def test_the_log_is_sound_before_it_is_changed(victim: Victim) -> None:
    """Seals cover all but the second of them and the tail."""
    found = victim.verified(known=[victim.known], keys=[KEY.public])
    assert (found.problems, found.events, found.seals) == ([], 23, 2)
    assert (found.sealed, found.signed, found.known, found.unproved) == (20, 20, 20, 3)
    assert found.signers == [str(KEY.public)]


def test_every_changed_byte_of_every_record_is_found_and_named(victim: Victim) -> None:
    """One bit in any byte of any record, those of seals and of the tail included: the event is named."""
    rows = victim.connection.execute("SELECT position, record FROM events").fetchall()
    missed = []
    for position, record in rows:
        for index in range(len(record)):
            changed = (flipped(record, index), position)
            victim.connection.execute("UPDATE events SET record = ? WHERE position = ?", changed)
            found = victim.verified()
            if found.sound or not names(found, position) or found.problems[0].until is not None:
                missed.append((position, index, [str(problem) for problem in found.problems]))
        victim.connection.execute("UPDATE events SET record = ? WHERE position = ?", (record, position))
    assert missed == []


@pytest.mark.parametrize("column", ["stream_id", "version", "type_id", "recorded_at"])
def test_every_changed_column_is_found_and_named(victim: Victim, column: str) -> None:
    """Each bit of the low bytes of each number beside each sealed record, as far as it is another one."""
    proved = victim.verified().sealed
    for position in range(1, proved + 1):
        for bit in range(0, 48, 3):
            victim.connection.execute(
                f"UPDATE events SET {column} = ({column} | {1 << bit}) - ({column} & {1 << bit}) WHERE position = ?",
                (position,),
            )
            found = victim.verified()
            assert not found.sound, (position, bit)
            # A time that makes the next one the earlier is told by that.
            near = column == "recorded_at" and names(found, position + 1)
            assert names(found, position) or near, (position, bit, [str(problem) for problem in found.problems])
            victim.connection.execute(
                f"UPDATE events SET {column} = ({column} | {1 << bit}) - ({column} & {1 << bit}) WHERE position = ?",
                (position,),
            )
    assert victim.verified().sound


def test_every_changed_byte_of_an_event_id_is_found_and_named(victim: Victim) -> None:
    """The column of ids is compared with the records."""
    for position, event_id in victim.connection.execute("SELECT position, event_id FROM events").fetchall():
        for index in range(len(event_id)):
            changed = (flipped(event_id, index), position)
            victim.connection.execute("UPDATE events SET event_id = ? WHERE position = ?", changed)
            assert names(victim.verified(), position)
        victim.connection.execute("UPDATE events SET event_id = ? WHERE position = ?", (event_id, position))


@pytest.mark.parametrize("position", range(1, 24))
def test_a_dropped_row_is_found_and_named(victim: Victim, position: int) -> None:
    """Each row."""
    victim.connection.execute("DELETE FROM events WHERE position = ?", (position,))
    found = victim.verified()
    assert not found.sound
    first = found.problems[0]
    if position < victim.events:
        assert first.position == position
    else:
        assert (first.stream, first.version) == ("s0", 7)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (1, 4), (3, 9), (13, 15), (14, 21), (16, 18), (22, 23)])
def test_swapped_rows_are_found_and_named(victim: Victim, one: int, other: int) -> None:
    """Of one stream or of two, seals too."""
    swap = "UPDATE events SET position = ? WHERE position = ?"
    for pair in ((99, one), (one, other), (other, 99)):
        victim.connection.execute(swap, pair)
    found = victim.verified()
    assert not found.sound
    assert names(found, one) or (found.problems[0].position or 0) <= other, found.problems


@pytest.mark.parametrize("position", [1, 5, 14, 20, 23])
def test_a_doubled_row_is_found_and_named(victim: Victim, position: int) -> None:
    """At the end of the log, under a position of its own."""
    victim.connection.execute(
        f"INSERT INTO events ({COLUMNS}) SELECT {COLUMNS.replace('position', '24')} FROM events WHERE position = ?",
        (position,),
    )
    found = victim.verified()
    assert not found.sound
    assert found.problems[0].position == 24


@pytest.mark.parametrize("kept", range(23))
def test_a_truncated_log_is_found(victim: Victim, kept: int) -> None:
    """Its rows alone: where streams ended is still on record."""
    victim.connection.execute("DELETE FROM events WHERE position > ?", (kept,))
    assert not victim.verified().sound


def rewrite(victim: Victim, change: Callable[[int, bytes], bytes | None]) -> None:
    """Write a log anew as an attacker with the file can: chains, columns and ends of streams are made to fit.

    Args:
        victim: the log.
        change: returns an event's payload, packed, or None to leave the event out; told its position and its payload.
    """
    connection = victim.connection
    heads: dict[str, tuple[int, bytes]] = {}
    place = 0
    for position, record in connection.execute("SELECT position, record FROM events ORDER BY position").fetchall():
        fields = codec.fields(record)
        payload = change(position, fields[11])
        if payload is None:
            connection.execute("DELETE FROM events WHERE position = ?", (position,))
            continue
        place += 1
        version, hash_ = heads.get(fields[1], (0, bytes(32)))
        body = codec.pack((*fields[4:11], payload))[1:]
        made = codec.join(codec.prefix(fields[0], fields[1]), version + 1, hash_, body)
        heads[fields[1]] = version + 1, hashlib.sha256(made).digest()
        connection.execute(
            "UPDATE events SET position = ?, version = ?, record = ? WHERE position = ?",
            (place, version + 1, made, position),
        )
    connection.execute("UPDATE streams SET version = 0, hash = zeroblob(32), epoch = 0")
    for stream, (version, hash_) in heads.items():
        epoch = int(stream.startswith("s") and stream != "seals")
        ends = (version, hash_, epoch, stream)
        connection.execute("UPDATE streams SET version = ?, hash = ?, epoch = ? WHERE name = ?", ends)


@pytest.mark.parametrize("changed", [1, 7, 13, 14, 15, 20])
def test_a_sealed_event_that_is_changed_with_all_that_follows_is_found(victim: Victim, changed: int) -> None:
    """Every chain holds: only the seal tells, and says between which events it is."""
    rewrite(victim, lambda at, payload: codec.pack({"n": 1000}) if at == changed else payload)
    found = victim.verified()
    if changed == 14:  # the first seal itself: it is no seal any more
        assert found.problems[0].position == 14
        return
    first = found.problems[0]
    assert first.until is not None
    assert first.position is not None
    assert names(found, changed)
    assert first.until - first.position < 8


@pytest.mark.parametrize("dropped", [1, 7, 13, 16, 20])
def test_a_sealed_event_that_is_left_out_is_found(victim: Victim, dropped: int) -> None:
    """Positions and chains close up over it: the seals behind it do not fit."""
    rewrite(victim, lambda at, payload: None if at == dropped else payload)
    found = victim.verified()
    assert not found.sound
    assert (found.problems[0].position or 99) <= 21


def test_a_tail_that_is_changed_with_all_that_follows_is_reported_as_unproved(victim: Victim) -> None:
    """Nothing is wrong with it as far as anybody can tell, and that is what is said."""
    rewrite(victim, lambda at, payload: codec.pack({"n": 1000}) if at == 22 else payload)
    found = victim.verified(known=[victim.known], keys=[KEY.public])
    assert found.sound
    assert (found.sealed, found.unproved) == (20, 3)


def test_a_log_cut_off_in_front_of_its_last_seal_is_known_by_its_checkpoint(victim: Victim) -> None:
    """It verifies, and less is proved; whoever has seen the checkpoint knows better, and so does who expects a key."""
    rewrite(victim, lambda at, payload: payload if at < 20 else None)
    found = victim.verified()
    assert found.sound
    assert (found.sealed, found.unproved) == (13, 6)
    (problem,) = victim.verified(known=[victim.known]).problems
    assert "the log has 19 events, but a checkpoint of 20 was seen before" in str(problem)
    (problem,) = victim.verified(keys=[KEY.public]).problems
    assert "signed by nobody" in str(problem)


def sealed_anew(victim: Victim, key: SigningKey | None) -> None:
    """Change an event, drop all seals, and seal anew, as an attacker with the file can."""
    rewrite(victim, lambda at, payload: None if at in (14, 21) else codec.pack({"n": 7}) if at == 2 else payload)
    victim.connection.execute("DELETE FROM streams WHERE name = 'seals'")
    log = Log(SqliteStore(victim.path))
    assert seal(log, key) is not None
    log.close()


@pytest.mark.parametrize("key", [None, SigningKey("flightlog/test", bytes(32))])
def test_a_log_that_was_changed_and_sealed_anew_is_known_by_checkpoint_and_key(
    victim: Victim, key: SigningKey | None
) -> None:
    """By itself it verifies: what a seal proves, it proves since it was made."""
    sealed_anew(victim, key)
    assert victim.verified().sound
    (problem,) = victim.verified(known=[victim.known]).problems
    assert "not those of the checkpoint" in str(problem)
    (problem,) = victim.verified(keys=[KEY.public]).problems
    assert "not by a key that counts" in str(problem)


def test_a_signature_of_somebody_else_is_found(victim: Victim) -> None:
    """The signer that a seal names has to have signed it."""
    data = codec.unpack(codec.fields(victim.connection.execute(
        "SELECT record FROM events WHERE position = 21").fetchone()[0])[11])  # fmt: skip
    data["signature"] = SigningKey("flightlog/test", bytes(32)).sign("anything")
    rewrite(victim, lambda at, payload: codec.pack(data) if at == 21 else payload)
    (problem,) = victim.verified().problems
    assert "event 21: the signature of this seal is not by flightlog/test" in str(problem)


# --- who watches the verifier ---------------------------------------------------------------------------


def survivors(victim: Victim, **options: Any) -> list[str]:
    """Return the names of those changes, one of each kind, that verifying does not find."""
    image = victim.path.with_name("image")
    victim.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(victim.path, image)
    sql = victim.connection.execute

    def byte(position: int, index: int) -> Callable[[], object]:
        (record,) = sql("SELECT record FROM events WHERE position = ?", (position,)).fetchone()
        return lambda: sql("UPDATE events SET record = ? WHERE position = ?", (flipped(record, index), position))

    changes: dict[str, Callable[[], object]] = {
        "a byte in the middle of a stream": byte(22, -10),
        "a byte of the last event of a stream": byte(23, -2),
        "a column": lambda: sql("UPDATE events SET type_id = 3 - type_id WHERE position = 3"),
        "the time of a sealed event": lambda: sql(
            "UPDATE events SET recorded_at = recorded_at + 1 WHERE position = 13"
        ),
        "time running back": lambda: sql("UPDATE events SET recorded_at = 5 WHERE position = 22"),
        "a dropped row": lambda: sql("DELETE FROM events WHERE position = 23"),
        "a changed blob": lambda: sql("UPDATE blobs SET content = x'00'"),
        "a written-over past": lambda: rewrite(victim, lambda at, p: codec.pack({"n": 9}) if at == 2 else p),
        "a seal of another key": lambda: sealed_anew(victim, SigningKey("flightlog/test", bytes(32))),
        "a rewound log": lambda: rewrite(victim, lambda at, p: p if at < 15 else None),
    }
    found = []
    for name, change in changes.items():
        change()
        if victim.verified(**options).sound:
            found.append(name)
        with sqlite3.connect(image) as copy:
            copy.backup(victim.connection)
        copy.close()
    return found


def test_the_verifier_finds_all_kinds_of_changes(victim: Victim) -> None:
    """None survives."""
    assert survivors(victim, known=[victim.known], keys=[KEY.public]) == []


def _nothing(*_: Any, **__: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("room", "check", "instead", "missed"),
    [
        (integrity._Chains, "_blame_either", _nothing, "a byte in the middle of a stream"),
        (integrity._Chains, "check_ends", _nothing, "a byte of the last event of a stream"),
        (integrity, "_differing", lambda *_: [], "a column"),
        (integrity._Chains, "_blame", _nothing, "time running back"),
        (integrity._Chains, "check_ends", _nothing, "a dropped row"),
        (integrity._Chains, "_check_blobs", _nothing, "a changed blob"),
        (seal_checks.SealChecks, "_compare", _nothing, "a written-over past"),
        (seal_checks.SealChecks, "_differs", _nothing, "the time of a sealed event"),
        (seal_checks.SealChecks, "finish", _nothing, "a rewound log"),
    ],
)
def test_a_verifier_that_looks_away_is_found(
    victim: Victim, monkeypatch: pytest.MonkeyPatch, room: Any, check: str, instead: Any, missed: str
) -> None:
    """Taken away one by one, each check lets a change survive: so the changes above do test it."""
    monkeypatch.setattr(room, check, instead)
    # One check is often the second line of another one: the time of an event is in the tree and in the checkpoint.
    options = {} if check == "_differs" else {"known": [victim.known], "keys": [KEY.public]}
    assert missed in survivors(victim, **options)
