"""Seals: events that hold the head of a Merkle tree over the log, so that nothing below can be changed unnoticed.

There is one tree over the whole log: leaf number i is the event at position i + 1, and the leaf binds its position, the
time at which it was recorded, and its record. A seal has the head of the tree over all that is in front of it, and its
peaks, so that the next seal reads only what came since. See ``docs/explanation/decisions/integrity.md``.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from flightlog.clock import Clock, SystemClock
from flightlog.errors import LogCorrupt, LogError, VersionConflict
from flightlog.events import codec
from flightlog.events.log import Log
from flightlog.events.merkle import Frontier
from flightlog.events.model import NewEvent
from flightlog.events.notes import Checkpoint, PublicKey, Signature, SigningKey, public_key
from flightlog.events.store import IndexedRow, Row, Store
from flightlog.events.types import LOG_SEALED, SCHEMAS, SEALS_STREAM
from flightlog.ids import Ids, RandomIds, id_text

_PAGE = 4000
_sha256 = hashlib.sha256
_start = struct.Struct(">BQq").pack  # the zero that tells leaves from nodes, position, recorded_at


def leaf_hashes(rows: Iterable[Row | IndexedRow], record_hashes: Iterable[bytes]) -> list[bytes]:
    """Return the hashes of the leaves that events are.

    A leaf's data are the position (8 bytes, big-endian), the time in microseconds (8 bytes, signed) and the SHA-256 of
    the record.

    Args:
        rows: the events.
        record_hashes: the hashes of their records, and maybe more.
    """
    return [
        _sha256(_start(0, row[0], row[1]) + hash_).digest() for row, hash_ in zip(rows, record_hashes, strict=False)
    ]


def record_hashes(rows: Iterable[Row | IndexedRow]) -> list[bytes]:
    """Return the hashes of the records of some events."""
    return [_sha256(row[2]).digest() for row in rows]


def origin_of(log_id: bytes) -> str:
    """Return what a log is called in checkpoints."""
    return f"flightlog/{id_text(log_id)}"


class Seal(NamedTuple):
    """A seal, as it is on record.

    Attributes:
        position: where it is in the log.
        version: its place among the seals.
        occurred_at: when it was made, in microseconds since 1970 (UTC).
        first: the first position that no earlier seal covers.
        last: the last position that it covers.
        root: the head of the tree over all positions up to that.
        peaks: the peaks of the tree.
        signer: the verifier key of whoever signed it; None if it is not signed.
        signature: the signature of the checkpoint's text.
    """

    position: int
    version: int
    occurred_at: int
    first: int
    last: int
    root: bytes
    peaks: tuple[bytes, ...]
    signer: PublicKey | None
    signature: bytes | None

    def checkpoint(self, log_id: bytes) -> Checkpoint:
        """Return the checkpoint that it stands for."""
        return Checkpoint(origin_of(log_id), self.last, self.root)

    def note(self, log_id: bytes) -> str:
        """Return the checkpoint that it stands for, signed as the seal is."""
        signatures = []
        if self.signer is not None and self.signature is not None:
            signatures.append(Signature(self.signer.name, self.signer.hash, self.signature))
        return self.checkpoint(log_id).note(*signatures)

    def frontier(self) -> Frontier:
        """Return the tree that it seals, to go on with."""
        return Frontier(self.last, self.peaks)


def seal_of(row: Row, fetch: Callable[[bytes], bytes]) -> Seal:
    """Return the seal that an event is.

    Args:
        row: the event.
        fetch: returns a blob by its SHA-256.

    Raises:
        LogCorrupt: its payload is none of a seal.
    """
    envelope = codec.decode(row.record)
    try:
        data = codec.decode_data(envelope.data, fetch)
        signer = data.get("signer")
        first, last, root, peaks = data["first"], data["last"], bytes(data["root"]), tuple(data["peaks"])
        made = Seal(row.position, envelope.version, envelope.occurred_at, first, last, root, peaks,
                    None if signer is None else public_key(signer), data.get("signature"))  # fmt: skip
        sound = 1 <= first <= last < 1 << 63 and len(root) == 32 and made.frontier().root() == root
    except (LogError, ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise LogCorrupt(f"The seal at position {row.position} is damaged. flightlog audit verify says more.")
    return made


def seals(store: Store) -> Iterator[Row]:
    """Yield the events that seal a log, oldest first."""
    after = last = 0
    # In a log that was tampered with versions may be anything; this comes to an end all the same.
    while (rows := store.read_stream(SEALS_STREAM, after, _PAGE)) and rows[-1].position > last:
        yield from rows
        after, last = after + len(rows), rows[-1].position


def seal_number(log: Log, version: int) -> Seal | None:
    """Return the seal that has a place among the seals, from 1 on; None if there are not so many."""
    rows = log.store.read_stream(SEALS_STREAM, version - 1, 1)
    found = seal_of(rows[0], log.blob) if rows else None
    return found if found is not None and found.version == version else None


def latest_seal(log: Log) -> Seal | None:
    """Return the last seal of a log; None if it has none."""
    return _last_seal(log, lambda _: True)


def seal_at(log: Log, size: int) -> Seal | None:
    """Return the seal that covers the log up to a position, neither more nor less; None if there is none."""
    found = _last_seal(log, lambda seal: seal.last <= size)
    return found if found is not None and found.last == size else None


def seal_over(log: Log, position: int) -> Seal | None:
    """Return the first seal that covers a position; None if there is none."""
    before = _last_seal(log, lambda seal: seal.last < position)
    return seal_number(log, 1 if before is None else before.version + 1)


def _last_seal(log: Log, fits: Callable[[Seal], bool]) -> Seal | None:
    """Return the last seal that fits, where all in front of it do too: in steps that double, then by halves."""
    found, at, step = None, 0, 1
    while (seal := seal_number(log, at + step)) is not None and fits(seal):
        found, at, step = seal, at + step, 2 * step
    while step > 1:
        step //= 2
        if (seal := seal_number(log, at + step)) is not None and fits(seal):
            found, at = seal, at + step
    return found


def unsealed(log: Log) -> int:
    """Return how many events no seal covers, the last seal itself not counted."""
    last = latest_seal(log)
    head = log.head().position
    return head if last is None else max(0, head - last.last - 1)


def seal(
    log: Log,
    signer: SigningKey | None = None,
    *,
    actor: str = "engine",
    clock: Clock | None = None,
    ids: Ids | None = None,
    progress: Callable[[int], None] | None = None,
) -> Seal | None:
    """Seal what no seal covers yet; return the seal, or None if there was nothing to seal, or somebody else was first.

    Args:
        log: the log.
        signer: signs it; None for nobody.
        actor: who has it sealed.
        clock: time.
        ids: identity.
        progress: told now and then which position it has come to.

    Raises:
        LogCorrupt: the last seal is damaged, or events are missing.
    """
    before = latest_seal(log)
    head = log.head().position
    frontier = Frontier() if before is None else before.frontier()
    first = frontier.size + 1
    if head < first or (before is not None and head == first and before.position == head):
        return None
    for rows in _pages(log.store, frontier.size, head):
        frontier.extend(leaf_hashes(rows, record_hashes(rows)))
        if progress is not None:
            progress(frontier.size)
    root, version = frontier.root(), 0 if before is None else before.version
    data = {"first": first, "last": head, "root": root, "peaks": frontier.peaks}
    if signer is not None:
        text = Checkpoint(origin_of(log.log_id), head, root).text()
        data |= {"signer": str(signer.public), "signature": signer.sign(text)}
    now = (clock or SystemClock()).now()
    event = NewEvent((ids or RandomIds()).new(), LOG_SEALED, data, now, schema=SCHEMAS[LOG_SEALED], actor=actor)
    try:
        # The one condition of the race: whoever seals first wins, and the other one's work is not needed any more.
        log.append(SEALS_STREAM, [event], expected_version=version)
    except VersionConflict:
        return None
    return seal_number(log, version + 1)


def _pages(store: Store, after: int, until: int) -> Iterator[Sequence[Row]]:
    """Yield the events from behind one position up to another one.

    Raises:
        LogCorrupt: one is missing.
    """
    while after < until:
        rows = store.read_all(after, None, min(_PAGE, until - after))
        if not rows or rows[0].position != after + 1 or rows[-1].position != after + len(rows):
            raise LogCorrupt(f"The log at {store.location} lacks events behind position {after}: see flightlog doctor.")
        yield rows
        after += len(rows)


def leaves(store: Store, low: int, high: int) -> Iterator[list[bytes]]:
    """Yield the hashes of the leaves with indices from `low` up to, and without, `high`, some thousand at a time."""
    for rows in _pages(store, low, high):
        yield leaf_hashes(rows, record_hashes(rows))


def part_root(store: Store, low: int, high: int) -> bytes:
    """Return the head of the part of the tree over the leaves with these indices."""
    frontier = Frontier()
    for hashes in leaves(store, low, high):
        frontier.extend(hashes)
    return frontier.root()
