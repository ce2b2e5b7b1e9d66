"""What a log needs of the place that keeps it, and the rules of appending that every place shares.

A store keeps bytes. It knows streams, versions, hashes and positions, and nothing of what events mean.
`flightlog.testing.LogContract` is the suite that a store has to pass.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any, NamedTuple, Protocol

from flightlog.errors import LogError, TakenOver, VersionConflict
from flightlog.events import codec

GENESIS = bytes(32)
"""The previous hash that the first event of a stream carries."""


class Body(NamedTuple):
    """An event as its maker packed it: all but what is given inside the commit."""

    event_id: bytes
    type: str
    packed: bytes


@dataclass(slots=True)
class Part:
    """What one append wants of one stream. See `flightlog.events.model.Append`."""

    stream: str
    bodies: list[Body]
    expected_version: int | None = None
    epoch: int | None = None
    blobs: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Unit:
    """What is appended atomically, and what became of it.

    Attributes:
        parts: what is wanted of each stream.
        done: the store has decided: the events are committed, or `error` says why not.
        versions: per part, the versions that the events have.
        error: why nothing of it was appended.
    """

    parts: list[Part]
    done: bool = False
    versions: list[list[int]] = field(default_factory=list)
    error: BaseException | None = None


@dataclass(slots=True)
class Head:
    """Where a stream ends: its last version, that event's hash, and the epoch of its owner."""

    prefix: bytes
    version: int = 0
    hash: bytes = GENESIS
    epoch: int = 0
    key: int = 0


class Row(NamedTuple):
    """A stored event, as it is read."""

    position: int
    recorded_at: int
    record: bytes


class IndexedRow(NamedTuple):
    """A stored event with the columns beside its record, for `verify` to compare."""

    position: int
    recorded_at: int
    record: bytes
    stream: str
    version: int
    event_id: bytes
    type: str


class StreamEnd(NamedTuple):
    """A stream's last version, hash and epoch, as the store keeps them, for `verify` to compare."""

    stream: str
    version: int
    hash: bytes
    epoch: int


class NewRow(NamedTuple):
    """An event that is about to be stored, and the head of its stream, which it has moved on."""

    head: Head
    stream: str
    version: int
    body: Body
    record: bytes


class LogHead(NamedTuple):
    """Where the log ends: the last position, and when it was recorded (microseconds since 1970)."""

    position: int
    recorded_at: int


class Cursor(NamedTuple):
    """How far a subscription has come.

    Attributes:
        name: the subscription's name.
        position: the last position that it has dealt with.
        epoch: raised by each owner; an earlier owner's moves are refused.
        owner: who works for it; empty for nobody.
        lease: until when, in microseconds since 1970 (UTC); after that, others may claim it.
    """

    name: str
    position: int
    epoch: int
    owner: str
    lease: int


class Store(Protocol):
    """Where the records of one log are kept.

    Attributes:
        log_id: the log's id, 16 bytes.
        location: where it is, in words that a person understands.
    """

    log_id: bytes
    location: str

    def write(self, units: Sequence[Unit], *, wait: bool) -> bool:
        """Commit the units in order, atomically each, all in one transaction; set `done` on each.

        A unit whose conditions are not met gets an `error` and leaves no trace; the others are committed
        all the same. When the method returns True, all is as durable as the store was asked to make it.

        Args:
            units: what to append.
            wait: whether to wait for another process that is writing just now.

        Returns:
            False if another process was writing and `wait` is False; then nothing happened.

        Raises:
            LogWriteError: the store cannot write at present; nothing happened.
            LogCorrupt: the store is damaged.
        """
        ...

    def read_stream(self, stream: str, after: int, limit: int) -> list[Row]:
        """Return up to `limit` events of a stream with versions above `after`, in order."""
        ...

    def read_all(self, after: int, types: Sequence[str] | None, limit: int) -> list[Row]:
        """Return up to `limit` events with positions above `after`, in order, of the given types or of all."""
        ...

    def event(self, event_id: bytes) -> Row | None:
        """Return an event by its id, or None if it is not here."""
        ...

    def indexed(self, after: int, limit: int) -> list[IndexedRow]:
        """Return what `read_all` returns, with the columns beside each record."""
        ...

    def ends(self) -> Iterable[StreamEnd]:
        """Return where every stream ends, by the store's own account."""
        ...

    def head(self) -> LogHead:
        """Return where the log ends."""
        ...

    def now(self) -> int:
        """Return the present by the log's clock, in microseconds since 1970 (UTC): one for all machines."""
        ...

    def tidy(self) -> None:
        """Do what has to be done now and then, and would hold up whoever waits for a commit. Called in the background."""
        ...

    def settle(self) -> None:
        """See to it that what is committed from here on is recorded later than now."""
        ...

    def blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return blobs by their SHA-256; those that are not here are missing. At most 500 at a time."""
        ...

    def facts(self) -> dict[str, bytes]:
        """Return what the store keeps about the log itself: ``log_id``, ``key_id``, ``created``."""
        ...

    def set_fact(self, name: str, value: bytes) -> bytes:
        """Keep a fact if there is none of that name yet; return the one that is kept."""
        ...

    def adopt(self, rows: Sequence[IndexedRow], blobs: Mapping[bytes, bytes]) -> None:
        """Store events of another place of the same log, with the positions and times that they have there.

        Args:
            rows: the events, in the order of their positions, all above what is here.
            blobs: what they rest on, by SHA-256.

        Raises:
            LogError: they do not go on from what is here.
        """
        ...

    def beats(self) -> dict[str, int]:
        """Return when each process that runs flows was alive last, in microseconds since 1970 (UTC)."""
        ...

    def beat(self, process: str, at: int | None) -> None:
        """Note that a process is alive; None: that it has ended."""
        ...

    def cursors(self) -> list[Cursor]:
        """Return the cursors of all subscriptions, by name."""
        ...

    def claim_cursor(self, name: str, owner: str, now: int, lease: int, start: int) -> Cursor | None:
        """Make a cursor somebody's until `lease`, and a new one if there is none; None if it is another's.

        Args:
            name: the subscription's name.
            owner: who works for it from here on.
            now: the present.
            lease: until when it is the owner's.
            start: where a new cursor begins.
        """
        ...

    def move_cursor(self, name: str, epoch: int, position: int, lease: int, connection: Any = None) -> bool:
        """Move a cursor on and keep it until `lease`; tell if it is still of that epoch.

        Args:
            name: the subscription's name.
            epoch: the epoch that the claim gave.
            position: the last position that is dealt with.
            lease: until when it is the owner's.
            connection: the transaction (of `writing`) to do it in; one of its own by default.
        """
        ...

    def release_cursor(self, name: str, epoch: int) -> None:
        """Give a cursor back, for others to claim."""
        ...

    def forget_cursor(self, name: str) -> bool:
        """Delete a subscription's cursor; tell if there was one."""
        ...

    def writing(self) -> AbstractContextManager[Any]:
        """Return one transaction that writes to the log's database, as a SQLAlchemy connection.

        For subscribers whose rows are there: the cursor moves in the same transaction. None in memory.
        """
        ...

    def close(self) -> None:
        """Give back files and connections. Further calls are mistakes."""
        ...


Known = Callable[[bytes], tuple[str, int] | None]
"""Tells in which stream and at which version an event id is recorded, or None."""
REPLAY = "replay"
"""The name of the fact that a log is a replay of another one's past: it is there to be read."""
PARTIAL = "partial"
"""The name of the fact that a log holds some of another one's streams only."""


class KnownToo:
    """Where event ids are recorded, those of the running transaction included.

    Args:
        stored: tells it of those that are committed.
    """

    def __init__(self, stored: Known) -> None:
        self._stored = stored
        self._here: dict[bytes, tuple[str, int]] = {}

    def add(self, rows: "list[NewRow]") -> None:
        """Take in what is about to be stored."""
        self._here.update({row.body.event_id: (row.stream, row.version) for row in rows})

    def __call__(self, event_id: bytes) -> tuple[str, int] | None:
        return self._here.get(event_id) or self._stored(event_id)


def place(unit: Unit, head_of: Callable[[str], Head], known: Known, *, doubt: bool) -> list[NewRow]:
    """Decide on a unit: give its events versions and hashes, or set its error; return what to store.

    Heads are moved forward in place. An append whose event ids are all recorded already changes nothing
    and gets the versions that they have.

    Args:
        unit: what is to be appended.
        head_of: returns the present head of a stream, the same object for the same stream.
        known: where an event id is recorded.
        doubt: whether to look every event id up; else only those of an append that would be refused.
    """
    pairs = [(part, head_of(part.stream)) for part in unit.parts]
    unit.versions, unit.error = [], None
    refusal = next(filter(None, starmap(_refusal, pairs)), None)
    if doubt or refusal is not None:
        versions = _recorded(unit, known)
        if versions is not None or unit.error is not None:
            unit.versions = versions or []
            return []
    if refusal is not None:
        unit.error = refusal
        return []
    rows: list[NewRow] = []
    for part, head in pairs:
        version, hash_ = head.version, head.hash
        for body in part.bodies:
            version += 1
            record = codec.join(head.prefix, version, hash_, body.packed)
            hash_ = hashlib.sha256(record).digest()
            rows.append(NewRow(head, part.stream, version, body, record))
        unit.versions.append(list(range(head.version + 1, version + 1)))
        head.version, head.hash = version, hash_
        if part.epoch is not None:
            head.epoch = part.epoch
    return rows


def follow(head: Head, row: IndexedRow) -> None:
    """Move a stream's head on by an event that was placed elsewhere.

    Raises:
        LogError: it does not follow on what is here.
    """
    envelope = codec.decode(row.record)
    if (envelope.version, envelope.previous) != (head.version + 1, head.hash):
        raise LogError(f"Event {row.position} does not follow on {row.stream}@{head.version}: the copies differ.")
    head.version, head.hash = envelope.version, hashlib.sha256(row.record).digest()
    head.epoch = max(head.epoch, envelope.epoch)


def _refusal(part: Part, head: Head) -> BaseException | None:
    if part.epoch is not None and part.epoch < head.epoch:
        return TakenOver(part.stream, part.epoch, head.epoch)
    if part.expected_version is not None and part.expected_version != head.version:
        return VersionConflict(part.stream, part.expected_version, head.version)
    return None


def _recorded(unit: Unit, known: Known) -> list[list[int]] | None:
    """Return the versions of a unit that is recorded already; None for one that is new, or in part (an error)."""
    found = [[known(body.event_id) for body in part.bodies] for part in unit.parts]
    flat = [place for places in found for place in places]
    if not any(flat):
        return None
    versions = []
    for part, places in zip(unit.parts, found, strict=True):
        if not all(place is not None and place[0] == part.stream for place in places):
            unit.error = LogError(
                f"An append to {part.stream!r} has events of which some are recorded already and some are not; "
                "an event id may be used for one event only."
            )
            return None
        versions.append([place[1] for place in places if place])
    return versions
