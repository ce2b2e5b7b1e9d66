"""The rules of appending, which every store shares: what is refused, and which version and hash an event gets."""

import hashlib
from collections.abc import Callable
from itertools import starmap

from flightlog.errors import LogError, TakenOver, VersionConflict
from flightlog.events import codec
from flightlog.events.inline import Folding
from flightlog.events.store import Head, IndexedRow, NewRow, Part, Unit

Known = Callable[[bytes], tuple[str, int] | None]
"""Tells in which stream and at which version an event id is recorded, or None."""


class KnownToo:
    """Where event ids are recorded, those of the running transaction included.

    Args:
        stored: tells it of those that are committed.
    """

    def __init__(self, stored: Known) -> None:
        self._stored = stored
        self._here: dict[bytes, tuple[str, int]] = {}

    def add(self, rows: list[NewRow]) -> None:
        """Take in what is about to be stored."""
        self._here.update({row.body.event_id: (row.stream, row.version) for row in rows})

    def __call__(self, event_id: bytes) -> tuple[str, int] | None:
        """Return the stream and version of an event, or None."""
        return self._here.get(event_id) or self._stored(event_id)


def place(
    unit: Unit, head_of: Callable[[str], Head], known: Known, *, doubt: bool, folding: Folding | None = None
) -> list[NewRow]:
    """Decide on a unit: give its events versions and hashes, or set its error; return what to store.

    Heads are moved forward in place. An append whose event ids are all recorded already changes nothing
    and gets the versions that they have.

    Args:
        unit: what is to be appended.
        head_of: returns the present head of a stream, the same object for the same stream.
        known: where an event id is recorded.
        doubt: whether to look every event id up; else only those of an append that would be refused.
        folding: the inline projections that take in what is stored; None for none.
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
    before = [(head, head.version, head.hash, head.epoch) for _, head in pairs] if folding is not None else []
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
    if folding is not None and not _folded(unit, rows, folding):
        for head, version, hash_, epoch in reversed(before):
            head.version, head.hash, head.epoch = version, hash_, epoch
        return []
    return rows


def _folded(unit: Unit, rows: list[NewRow], folding: Folding) -> bool:
    """Let the inline projections take in a unit; if one of them fails, the unit is refused, and nobody else's."""
    blobs = {digest: content for part in unit.parts for digest, content in part.blobs.items()}
    try:
        folding.take([(row.head.key, row.record) for row in rows], blobs)
    except Exception as error:  # noqa: BLE001 - a fold is code like any other; the log must go on
        unit.versions, unit.error = [], LogError(f"An inline projection failed: {type(error).__name__}: {error}")
        return False
    return True


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
