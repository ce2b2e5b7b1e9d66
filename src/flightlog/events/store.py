"""What a log needs of the place that keeps it; `flightlog.events.placing` has the rules that all places share.

A store keeps bytes. It knows streams, versions, hashes and positions, and nothing of what events mean.
`flightlog.testing.LogContract` is the suite that a store has to pass.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from flightlog.events.model import Event

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


class Committed(NamedTuple):
    """Events that this process has just committed, in the form that costs the commit least.

    Attributes:
        position: the position of the first; 0 where positions are given later.
        recorded_at: when the log took them; 0 where that is given later.
        records: their records, in order.
        types: their types, in the same order.
    """

    position: int
    recorded_at: int
    records: list[bytes]
    types: list[str]

    def each(self) -> Iterator[tuple[int, int, bytes, str]]:
        """Return the position, time, record and type of each."""
        positions = count(self.position) if self.position else repeat(0)
        return zip(positions, repeat(self.recorded_at), self.records, self.types, strict=False)


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


class Archive(NamedTuple):
    """Events that left the database: a segment file has them.

    Attributes:
        number: the version of its `log.archived` in the stream of archives.
        segment: the name of its file.
        digest: the file's SHA-256.
        size: how many bytes the file has.
        kind: the class of its streams: ``state`` or ``telemetry``.
        first: the position of its first event.
        last: the position of its last event.
        events: how many events it has.
    """

    number: int
    segment: str
    digest: bytes
    size: int
    kind: str
    first: int
    last: int
    events: int


class StreamPart(NamedTuple):
    """Some events of one stream that were archived, one after the other.

    Attributes:
        stream: the stream's name.
        first: the version of the first one.
        last: the version of the last one.
        hash: the hash of the last one's record.
        epoch: the highest epoch that one of them has.
        number: the archive's number.
    """

    stream: str
    first: int
    last: int
    hash: bytes
    epoch: int
    number: int = 0


class ArchiveIndex(NamedTuple):
    """What the database keeps of the events of an archive.

    Attributes:
        positions: where they are in the log, in order.
        leaves: the hashes of the leaves of the Merkle tree that they are, in the same order.
        parts: which streams they are of.
    """

    positions: Sequence[int]
    leaves: Sequence[bytes]
    parts: Sequence[StreamPart]


@dataclass(frozen=True, slots=True)
class Departure:
    """Events that are to leave the database, since a segment has them.

    Attributes:
        archive: the archive.
        index: what the database keeps of them.
        blobs: those that go along: no event in front of `seen` rests on them but archived ones.
        seen: the position up to which that is known.
        step: told the name of each step when it is done.
    """

    archive: Archive
    index: ArchiveIndex
    blobs: Sequence[bytes]
    seen: int
    step: Callable[[str], object]


class Inline(Protocol):
    """A fold that is kept in the commit itself.

    Attributes:
        name: its name.
        version: raised when the fold changes; then its values are made anew.
        types: the event types that it folds.
    """

    name: str
    version: int
    types: frozenset[str]

    def apply(self, state: Any, event: Event, /) -> Any:
        """Return what a stream has come to after an event; None for nothing, which takes no room.

        Pure, and it must not raise. Neither `position` nor `recorded_at` of the event is given yet: both are 0.

        Args:
            state: what it had come to before; None for nothing. Not to be changed.
            event: the event.
        """
        ...


class Store(Protocol):
    """Where the records of one log are kept.

    Attributes:
        log_id: the log's id, 16 bytes.
        location: where it is, in words that a person understands.
        is_remote: whether every look at it goes over a network.
        tap: called after each commit with what this process has committed; None for nobody. It must be quick.
    """

    log_id: bytes
    location: str
    is_remote: bool
    tap: Callable[[Committed], object] | None

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
        """Do what has to be done now and then, and would hold up who waits for a commit. Called in the background."""
        ...

    def answers(self) -> bool:
        """Tell whether it can be asked just now, without waiting for a server that is away."""
        ...

    def sync(self) -> None:
        """See to it that what is committed survives the loss of power, whatever the store's durability is.

        Raises:
            LogWriteError: that cannot be done.
        """
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

    def keep_inline(self, projections: Sequence[Inline], *, anew: bool = False) -> None:
        """Fold for these inline projections inside each commit from here on; make those anew that the log lacks.

        An append of event types that are folded by a projection which this process lacks, or has in an older
        version, is refused from then on: its values would no longer be what the events say.

        Args:
            projections: the projections.
            anew: whether to make all of them anew, whatever is there.
        """
        ...

    def inline_state(self, name: str, stream: str) -> tuple[int, bytes | None] | None:
        """Return the version of a stream, and what it has come to for an inline projection, packed; both of one moment.

        None if the log keeps no such projection, or has to make it anew first.

        Raises:
            LogWriteError: it is kept in a newer version than this process has.
        """
        ...

    def inline_states(self, name: str) -> dict[str, bytes] | None:
        """Return what all streams have come to for an inline projection, packed, by stream. See `inline_state`."""
        ...

    @property
    def archives_folder(self) -> Path | None:
        """Where the log's segments are; None if it has no place for them."""
        ...

    def archives(self) -> Sequence[Archive]:
        """Return the log's archives, in the order of their first positions.

        What was archived is read by all methods as if it had never left, but for `stored`; they raise `LogCorrupt`
        where a segment is missing or was changed.
        """
        ...

    def archive_index(self, number: int) -> ArchiveIndex:
        """Return what the database keeps of the events of an archive.

        Raises:
            LogCorrupt: it is damaged.
        """
        ...

    def parts(self, stream: str) -> Sequence[StreamPart]:
        """Return the archived parts of a stream, in order."""
        ...

    def stored(self, after: int, limit: int) -> list[IndexedRow]:
        """Return what `indexed` returns, but only events that are in the database."""
        ...

    def pass_over(self, numbers: Collection[int]) -> None:
        """Read from here on as if there were no events in these archives: for whoever verifies all the rest."""
        ...

    def archive(self, unit: Unit, departure: Departure) -> None:
        """Commit a unit with a `log.archived`; in the same transaction, take out exactly the events that it is about.

        If the unit is refused it gets an `error`, and nothing is taken out.

        Raises:
            LogCorrupt: the events are not all there; nothing is taken out.
            LogWriteError: the store cannot write at present; nothing happened.
            LogUnavailable: this store keeps no archives.
        """
        ...

    def restore(self, unit: Unit, number: int, step: Callable[[str], object]) -> None:
        """Commit a unit with a `log.restored`; in the same transaction, put the events of an archive back as they were.

        Args:
            unit: the unit; if it is refused it gets an `error`, and nothing comes back.
            number: the archive's number.
            step: told the name of each step when it is done.

        Raises:
            LogCorrupt: its segment is missing or was changed.
            LogWriteError: the store cannot write at present; nothing happened.
        """
        ...

    def writing(self) -> AbstractContextManager[Any]:
        """Return one transaction that writes to the log's database, as a SQLAlchemy connection.

        For subscribers whose rows are there: the cursor moves in the same transaction. None in memory.
        """
        ...

    def close(self) -> None:
        """Give back files and connections. Further calls are mistakes."""
        ...


REPLAY = "replay"
"""The name of the fact that a log is a replay of another one's past: it is there to be read."""
PARTIAL = "partial"
"""The name of the fact that a log holds some of another one's streams only."""
