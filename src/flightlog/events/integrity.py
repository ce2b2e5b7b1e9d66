"""Verifying a log: is what is stored what was once recorded, as far as the hash chains can tell.

Every stream is a chain: each record holds the SHA-256 of the one before it. A changed, dropped, doubled or
swapped record in the middle of a stream breaks its chain. What chains alone cannot show is a stream whose end
was cut off together with the store's own note of where it ended: that takes a seal, and without one the tail
is unproved.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from flightlog.errors import LogError
from flightlog.events import codec
from flightlog.events.codec import MAX_RECORD, Envelope
from flightlog.events.store import GENESIS, PARTIAL, IndexedRow, Store

_PAGE = 2000
_MOST = 20


@dataclass
class Verification:
    """What verifying found.

    Attributes:
        events: how many events were read.
        streams: how many streams they belong to.
        blobs: how many blobs were compared with their digests.
        problems: what is wrong, the first `20` in the order of the log; empty if nothing is.
    """

    events: int = 0
    streams: int = 0
    blobs: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(slots=True)
class _Walk:
    """Where the walk is: the end of each stream so far, and the blobs that were checked."""

    position: int = 0
    recorded_at: int = 0
    ends: dict[str, tuple[int, bytes, int]] = field(default_factory=dict)
    checked: set[bytes] = field(default_factory=set)
    partial: bool = False


def verify(store: Store, progress: Callable[[int], None] | None = None) -> Verification:
    """Read a whole log and check every record, chain, index column and blob.

    Args:
        store: the log's store.
        progress: told now and then how many events have been read.
    """
    found, walk = Verification(), _Walk()
    try:
        walk.partial = PARTIAL in store.facts()  # it has some of another log's streams only
        while rows := store.indexed(walk.position, _PAGE):
            for row in rows:
                for problem in _check(row, walk, store, found):
                    found.problems.append(f"event {row.position}: {problem}")
                walk.position = row.position
                found.events += 1
            if progress is not None:
                progress(found.events)
            if len(found.problems) >= _MOST:
                break
        else:
            found.problems.extend(_check_ends(walk, store))
    except LogError as error:
        found.problems.append(str(error))
    found.streams = len(walk.ends)
    del found.problems[_MOST:]
    return found


def _check(row: IndexedRow, walk: _Walk, store: Store, found: Verification) -> list[str]:
    """Return what is wrong with one row, and take the walk on."""
    problems = []
    if row.position != walk.position + 1 and not walk.partial:
        problems.append(f"the events from {walk.position + 1} to {row.position - 1} are missing")
    if row.recorded_at < walk.recorded_at:
        problems.append("it was recorded before the one in front of it")
    walk.recorded_at = row.recorded_at
    try:
        envelope = codec.decode(row.record)
    except LogError as error:
        return [*problems, str(error)]
    problems += _check_columns(row, envelope, store.log_id)
    version, previous, epoch = walk.ends.get(envelope.stream, (0, GENESIS, 0))
    if envelope.version != version + 1:
        problems.append(f"{envelope.stream} goes from version {version} to {envelope.version}")
    elif envelope.previous != previous:
        problems.append(f"{envelope.stream}@{envelope.version} does not carry the hash of the event before it")
    if 0 < envelope.epoch < epoch:
        problems.append(f"{envelope.stream}@{envelope.version} was written under epoch {envelope.epoch} after {epoch}")
    walk.ends[envelope.stream] = (
        envelope.version,
        hashlib.sha256(row.record).digest(),
        max(epoch, envelope.epoch),
    )
    return problems + _check_blobs(envelope, walk, store, found)


def _check_columns(row: IndexedRow, envelope: Envelope, log_id: bytes) -> list[str]:
    """Return which columns beside the record differ from it."""
    pairs = (
        ("log id", log_id, envelope.log_id),
        ("stream", row.stream, envelope.stream),
        ("version", row.version, envelope.version),
        ("event id", row.event_id, envelope.event_id),
        ("type", row.type, envelope.type),
    )
    problems = [f"its {name} differs between index and record" for name, column, field_ in pairs if column != field_]
    if len(row.record) > MAX_RECORD:
        problems.append(f"its record has {len(row.record)} bytes, more than {MAX_RECORD}")
    return problems


def _check_blobs(envelope: Envelope, walk: _Walk, store: Store, found: Verification) -> list[str]:
    problems = []
    if not codec.may_have_blobs(envelope.data):
        return []
    for digest in codec.blob_digests(envelope.data):
        if digest in walk.checked:
            continue
        walk.checked.add(digest)
        content = store.blobs([digest]).get(digest)
        if content is None:
            problems.append(f"the blob {digest.hex()[:16]} that it rests on is missing")
        elif hashlib.sha256(content).digest() != digest:
            problems.append(f"the blob {digest.hex()[:16]} that it rests on was changed")
        found.blobs += 1
    return problems


def _check_ends(walk: _Walk, store: Store) -> list[str]:
    """Compare where streams end with where the store says that they end."""
    problems = []
    ends = {end.stream: end for end in store.ends()}
    for stream in sorted(walk.ends.keys() | ends.keys()):
        version, hash_, epoch = walk.ends.get(stream, (0, GENESIS, 0))
        end = ends.get(stream)
        if end is None or end.version != version:
            problems.append(
                f"{stream} ends at version {version}, but {0 if end is None else end.version} events were recorded"
            )
        elif end.hash != hash_:
            problems.append(f"the last event of {stream} is not the one that was recorded")
        elif end.epoch != epoch:
            problems.append(f"{stream} has epoch {end.epoch} by the index, {epoch} by its events")
    return problems
