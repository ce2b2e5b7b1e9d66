"""Verifying a log: is what is stored what was once recorded, as far as chains and seals can tell.

Every stream is a chain: each record holds the SHA-256 of the one before it. A changed, dropped, doubled or
swapped record in the middle of a stream breaks its chain. What chains alone cannot show is a stream that was written
anew from some event on, or whose end was cut off together with the store's own note of where it ended: that takes a
seal (`flightlog.events.sealing`). What no seal covers is unproved.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flightlog.errors import LogCorrupt, LogError
from flightlog.events import codec
from flightlog.events.absent import Absent
from flightlog.events.codec import MAX_RECORD, Envelope
from flightlog.events.notes import Checkpoint, PublicKey
from flightlog.events.problems import Problem, Verification
from flightlog.events.seal_checks import SealChecks
from flightlog.events.store import GENESIS, PARTIAL, IndexedRow, Store, StreamEnd

_PAGE = 2000
_BLOBS = 100
_MOST = 20
_sha256 = hashlib.sha256


def verify(
    store: Store,
    progress: Callable[[int], None] | None = None,
    *,
    known: Sequence[Checkpoint] = (),
    keys: Sequence[PublicKey] = (),
) -> Verification:
    """Read a whole log and check every record, chain, index column, blob and seal.

    Args:
        store: the log's store.
        progress: told now and then how many events have been read.
        known: checkpoints of the log that were seen before; it must have grown out of them.
        keys: whose signatures count; the last seal must have one. Empty: any signature that is good.
    """
    found = Verification()
    absent = Absent(set(), {}, {})
    chains = _Chains(store, found)
    try:
        if store.archives():
            from flightlog.events.archive_checks import check_archives

            chains.absent = absent = check_archives(store, found)
            store.pass_over(absent.numbers)
        chains.partial = PARTIAL in store.facts()  # it has some of another log's streams only
        sealed = None if chains.partial else SealChecks(store, found, known, keys, absent.leaves)
        while rows := _page(store, chains.position, found):
            hashes = chains.take(rows)
            if sealed is not None:
                sealed.take(rows, hashes)
            if progress is not None:
                progress(found.events)
            if len(found.problems) >= _MOST or found.unreadable:
                break
        else:
            chains.check_ends()
            if sealed is not None:
                sealed.finish()
    except LogError as error:
        found.problems.append(Problem(str(error)))
    finally:
        if absent.numbers:
            store.pass_over(())
    found.streams = len(chains.ends)
    found.problems = _in_order(found.problems)[:_MOST]
    return found


def _page(store: Store, after: int, found: Verification) -> Sequence[IndexedRow]:
    """Return the next events: of a page that cannot be read those in front of the event that cannot; then say so."""
    try:
        return store.indexed(after, _PAGE)
    except LogError as error:
        rows: list[IndexedRow] = []
        try:
            while more := store.indexed(after, 1):
                rows += more
                after = rows[-1].position
        except LogError:
            found.unreadable = True
            found.problems.append(Problem(f"it cannot be read: {error}", after + 1))
        return rows


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Return the problems in the order of the log, each event once.

    A range that a seal shows counts only if neither an event in it nor that seal could be named; one that is an archive
    counts in any case.
    """
    named: dict[int, Problem] = {}
    for problem in problems:
        if problem.position is not None and problem.until is None:
            named.setdefault(problem.position, problem)
    rest, archives = [], []
    for problem in problems:
        if problem.position is None:
            rest.append(problem)
        elif problem.until is not None and problem.seal is None:
            archives.append(problem)
        elif problem.until is not None and not any(
            problem.position <= at <= problem.until or at == problem.seal for at in named
        ):
            named[problem.position] = problem
    return sorted([*archives, *named.values()], key=lambda problem: problem.position or 0) + rest


class _End(NamedTuple):
    """Where a stream ends, so far: the last event's version and hash, its owner's epoch, the event's position."""

    version: int = 0
    hash: bytes = GENESIS
    epoch: int = 0
    position: int = 0


_NEW = _End()
_KINDS = [bytes, str, int, bytes, bytes, str, int, int, str, bytes, int, bytes]


class _Chains:
    """Walks through the log and follows the chain of each stream.

    Args:
        store: the log's store.
        found: where to say what was found.
    """

    def __init__(self, store: Store, found: Verification) -> None:
        self.position = 0
        self.ends: dict[str, tuple[int, bytes, int, int]] = {}  # as `_End`, which takes four times as long to make
        self.partial = False
        self.absent = Absent(set(), {}, {})
        self._store = store
        self._found = found
        self._recorded_at = 0
        self._checked: set[bytes] = set()
        self._stored_ends: dict[str, StreamEnd] | None = None

    def take(self, rows: Sequence[IndexedRow]) -> list[bytes]:
        """Check the next events; return the hashes of their records."""
        ends, log_id = self.ends, self._store.log_id
        last, recorded_at = self.position, self._recorded_at
        hashes = [_sha256(row[2]).digest() for row in rows]
        blobs: list[tuple[IndexedRow, list[bytes]]] = []
        for row, hash_ in zip(rows, hashes, strict=True):
            position, now, record, stream, version, event_id, type_ = row
            before, previous, owner, _ = ends.get(stream, _NEW)
            fields = codec.fields(record)
            # Nearly always all is well, which two comparisons say.
            if (
                (position == last + 1 or self.partial)
                and now >= recorded_at
                and version == before + 1
                and fields[:6] == [log_id, stream, version, previous, event_id, type_]
                and len(fields) == 12
                and len(record) <= MAX_RECORD
                and type(epoch := fields[10]) is int
                and (epoch >= owner or epoch == 0)
                and type(fields[11]) is bytes
            ):
                payload = fields[11]
                ends[stream] = (version, hash_, epoch or owner, position)
            else:
                payload = self._look(row, hash_, last, recorded_at)
            last, recorded_at = position, now
            if codec.may_have_blobs(payload):
                blobs.append((row, self._digests(row, payload)))
        self.position, self._recorded_at = last, recorded_at
        self._found.events += len(rows)
        self._check_blobs(blobs)
        return hashes

    def _look(self, row: IndexedRow, hash_: bytes, last: int, recorded_at: int) -> bytes:
        """Say what is wrong with an event, and follow its stream all the same; return its payload."""
        if row.position != last + 1 and not self.partial and not self.absent.has(last + 1, row.position - 1):
            self._say(f"the events from {last + 1} to {row.position - 1} are missing", last + 1)
        if row.recorded_at < recorded_at:
            self._blame(row, "it was recorded before the one in front of it")
        try:
            envelope = codec.decode(row.record)
            _check_kinds(envelope)
        except LogError as error:
            self._blame(row, str(error))
            self.ends[row.stream] = _End(row.version, hash_, 0, row.position)
            return b""
        for problem in _differing(row, envelope, self._store.log_id):
            self._blame(row, problem)
        end = self._end(envelope.stream)
        where = f"{envelope.stream}@{envelope.version}"
        if envelope.version != end.version + 1:
            self._blame(row, f"{envelope.stream} goes from version {end.version} to {envelope.version}")
        elif envelope.previous != end.hash:
            self._blame_either(row, envelope, end, hash_)
        if 0 < envelope.epoch < end.epoch:
            self._blame(row, f"{where} was written under epoch {envelope.epoch} after {end.epoch}")
        self.ends[envelope.stream] = _End(envelope.version, hash_, max(end.epoch, envelope.epoch), row.position)
        return envelope.data

    def _end(self, stream: str) -> _End:
        """Return where a stream ends so far; what is in segments that cannot be read is taken as it is known."""
        end = _End(*self.ends.get(stream, _NEW))
        while (part := self.absent.parts.get((stream, end.version))) is not None:
            end = _End(part.last, part.hash, max(end.epoch, part.epoch))
        return end

    def _blame_either(self, row: IndexedRow, envelope: Envelope, end: _End, hash_: bytes) -> None:
        """Say which of two events was changed, where one does not carry the hash of the other.

        If what comes behind it carries this one's hash, this one is as it was, and the one before it is not.
        """
        after = self._store.read_stream(envelope.stream, envelope.version, 1)
        if after:
            fields = codec.fields(after[0].record)
            intact = len(fields) == 12 and fields[3] == hash_
        else:
            stored = self._ends_of_store().get(envelope.stream)
            intact = stored is not None and stored.hash == hash_
        if end.position and intact:
            what = "it was changed: the next one of its stream carries the hash of another record"
            self._say(what, end.position, envelope.stream, end.version)
        else:
            where = f"{envelope.stream}@{envelope.version}"
            self._blame(row, f"{where} does not carry the hash of the event before it")

    def _blame(self, row: IndexedRow, what: str) -> None:
        self._found.problems.append(Problem(what, row.position, row.stream, row.version, row.type))

    def _say(self, what: str, position: int, stream: str | None = None, version: int | None = None) -> None:
        rows = self._store.indexed(position - 1, 1)
        type_ = rows[0].type if rows and rows[0].position == position else None
        self._found.problems.append(Problem(what, position, stream, version, type_))

    def _digests(self, row: IndexedRow, payload: bytes) -> list[bytes]:
        try:
            return codec.blob_digests(payload)
        except LogError as error:
            self._blame(row, str(error))
            return []

    def _check_blobs(self, wanted: list[tuple[IndexedRow, list[bytes]]]) -> None:
        """Compare the blobs that some events rest on with their digests."""
        new = {digest: row for row, digests in reversed(wanted) for digest in digests if digest not in self._checked}
        self._checked.update(new)
        self._found.blobs += len(new)
        digests = list(new)
        for start in range(0, len(digests), _BLOBS):
            part = digests[start : start + _BLOBS]
            contents = self._store.blobs(part)
            for digest in part:
                content = contents.get(digest)
                if content is None:
                    self._blame(new[digest], f"the blob {digest.hex()[:16]} that it rests on is missing")
                elif _sha256(content).digest() != digest:
                    self._blame(new[digest], f"the blob {digest.hex()[:16]} that it rests on was changed")

    def _ends_of_store(self) -> dict[str, StreamEnd]:
        if self._stored_ends is None:
            self._stored_ends = {end.stream: end for end in self._store.ends()}
        return self._stored_ends

    def check_ends(self) -> None:
        """Compare where streams end with where the store says that they end."""
        ends = self._ends_of_store()
        for stream in sorted(self.ends.keys() | ends.keys()):
            here, there = self._end(stream), ends.get(stream)
            if there is None or there.version != here.version:
                count = 0 if there is None else there.version
                what = f"{stream} ends at version {here.version}, but {count} events were recorded"
                self._found.problems.append(Problem(what, None, stream, here.version + 1))
            elif there.hash != here.hash:
                what = f"the last event of {stream} is not the one that was recorded"
                self._say(what, here.position, stream, here.version)
            elif there.epoch != here.epoch:
                what = f"{stream} has epoch {there.epoch} by the index, {here.epoch} by its events"
                self._found.problems.append(Problem(what, None, stream))


def _check_kinds(envelope: Envelope) -> None:
    """Refuse a record whose fields are something else than they have to be."""
    kinds = [type(field) for field in envelope]
    kinds[9] = bytes  # the id of the event that caused it, or None
    if kinds != _KINDS:
        raise LogCorrupt("Its record cannot be read: a field of it is something else than it has to be.")


def _differing(row: IndexedRow, envelope: Envelope, log_id: bytes) -> list[str]:
    """Return which columns beside the record differ from it."""
    pairs = (
        ("log id", log_id, envelope.log_id),
        ("stream", row.stream, envelope.stream),
        ("version", row.version, envelope.version),
        ("event id", row.event_id, envelope.event_id),
        ("type", row.type, envelope.type),
    )
    problems = [f"its {name} differs between index and record" for name, column, field in pairs if column != field]
    if len(row.record) > MAX_RECORD:
        problems.append(f"its record has {len(row.record)} bytes, more than {MAX_RECORD}")
    return problems
