"""Archiving: sealed streams leave the database for segment files, and come back. Nothing is lost or doubled on the way.

A segment is written beside its final name, synced, read again and compared with the events before it gets its name;
only then do the rows leave, in the commit that puts that on record. Whatever interrupts it, either the database has the
rows, and a file that is not on record is cleared away by the next archiver, or the segment has them.
See ``docs/explanation/decisions/archives.md``.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from flightlog.clock import Clock, SystemClock
from flightlog.errors import LogCorrupt, LogUnavailable, LogWriteError
from flightlog.events import codec
from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.sealing import latest_seal, leaf_hashes, record_hashes
from flightlog.events.segments import Segment, write_segment
from flightlog.events.store import Archive, ArchiveIndex, Cursor, Departure, IndexedRow, Row, StreamPart
from flightlog.events.stores.unarchived import no_archives
from flightlog.events.types import ARCHIVES_STREAM, LOG_ARCHIVED, LOG_RESTORED, SCHEMAS, SEALS_STREAM
from flightlog.ids import Ids, RandomIds

EVENTS: Final = 10_000
"""How many events a segment has at the most: as many rows as leave in one commit, which others wait for."""
BYTES: Final = 32 * 1024 * 1024
"""Past how many bytes of records a segment gets no further ones."""
_NO_END: Final = 1 << 31
_PAGE: Final = 2000
_BLOBS: Final = 20
_ROWS: Final = 1000
_PART: Final = ".part"
_SEGMENT: Final = ".segment"
_LOCK: Final = "archiving.lock"
_STAYING: Final = frozenset({SEALS_STREAM, ARCHIVES_STREAM})
Step = Callable[[str], object]
"""Told the name of each step when it is done."""


def _silent(_: str) -> None:
    """Listen to no step."""


@dataclass
class _Batch:
    """What goes into one segment."""

    streams: list[list[IndexedRow]] = field(default_factory=list)
    digests: dict[bytes, None] = field(default_factory=dict)
    events: int = 0
    size: int = 0

    def add(self, rows: list[IndexedRow]) -> None:
        """Take in events of a stream, one after the other."""
        self.streams.append(rows)
        self.digests.update(dict.fromkeys(_digests(rows)))
        self.events += len(rows)
        self.size += sum(len(row.record) for row in rows)


class Archiver:
    """Moves events of a log into segments, and back: one archiver at a time, by a lock in the folder of segments.

    Args:
        log: the log.
        actor: who has it done.
        clock: time.
        ids: identity.
        events: how many events a segment has at the most.
        step: told the name of each step when it is done.

    Raises:
        LogUnavailable: the log has no place for segments, or somebody else is archiving.
        LogWriteError: the folder cannot be written.
    """

    def __init__(
        self,
        log: Log,
        *,
        actor: str = "engine",
        clock: Clock | None = None,
        ids: Ids | None = None,
        events: int = EVENTS,
        step: Step = _silent,
    ) -> None:
        folder = log.store.archives_folder
        if folder is None:
            raise no_archives(log.store.location)
        self.folder: Path = folder
        self._log = log
        self._actor = actor
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._events = events
        self._step = step
        with _written(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (folder / _LOCK).open("a")
        try:
            _lock(self._lock, folder)
            self.clear()
            self._version = sum(1 for _ in log.read(ARCHIVES_STREAM))
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Let others archive."""
        self._lock.close()

    def __enter__(self) -> "Archiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def clear(self) -> list[Path]:
        """Delete what an interrupted archiver has left: files that are not on record; return them.

        A segment goes only if the log has all that is in it: else the log is not the one that it was made from, but an
        earlier one that somebody has put in its place, and the segment may be the only copy.
        """
        known = {archive.segment for archive in self._log.store.archives()}
        left = [
            path
            for path in sorted(self.folder.iterdir())
            if path.suffix == _PART or (path.suffix == _SEGMENT and path.name not in known and self._has_all(path))
        ]
        for path in left:
            path.unlink()
        return left

    def _has_all(self, path: Path) -> bool:
        """Tell whether the log has, elsewhere, all events and blobs of a segment."""
        try:
            segment = Segment(path)
            for part in segment.parts:
                count = part.last - part.first + 1
                here = segment.of_stream(part.stream, part.first - 1, count)
                if self._log.store.read_stream(part.stream, part.first - 1, count) != [Row(*row[:3]) for row in here]:
                    return False
            return all(self._log.blobs([digest]) for digest in segment.blobs)
        except LogCorrupt:
            return False

    # --- there ------------------------------------------------------------------------------------

    def archive(self, streams: Sequence[str], kind: str) -> Iterator[Archive]:
        """Move streams into segments, those that end where the log is `settled`; yield each archive that is on record.

        Args:
            streams: their names, in the order in which they began: what was recorded together stays together.
            kind: their class.

        Raises:
            LogCorrupt: an event is not what it has to be.
            LogWriteError: the disk is full, or cannot be written.
            VersionConflict: somebody else archived meanwhile.
        """
        until = settled(self._log)
        leaving = {stream for stream in streams if stream not in _STAYING}
        leaving -= {row.stream for rows in _stored(self._log, until) for row in rows}
        seen, present, staying = self._look(leaving, until)
        for batch in self._batches([stream for stream in streams if stream in present], until):
            yield self._move(batch, kind, [digest for digest in batch.digests if digest not in staying], seen)

    def _look(self, leaving: set[str], until: int) -> tuple[int, set[str], set[bytes]]:
        """Look through the database.

        Returns:
            Up to which position; which of those streams are there at all; which blobs others rest on.
        """
        seen, present, staying = 0, set[str](), set[bytes]()
        for rows in _stored(self._log, 0):
            going = [row for row in rows if row.stream in leaving and row.position <= until]
            present.update(row.stream for row in going)
            staying.update(_digests(row for row in rows if row.stream not in leaving or row.position > until))
            seen = rows[-1].position
        return seen, present, staying

    def _batches(self, streams: Sequence[str], until: int) -> Iterator[_Batch]:
        """Yield what is in the database of some streams, up to a position, in portions."""
        batch = _Batch()
        for stream in streams:
            for start, end in _gaps(self._log.store.parts(stream)):
                after = start
                while rows := self._rows(stream, after, min(end - after, self._events - batch.events, _ROWS), until):
                    batch.add(rows)
                    after = rows[-1].version
                    if batch.events >= self._events or batch.size >= BYTES:
                        yield batch
                        batch = _Batch()
        if batch.events:
            yield batch

    def _rows(self, stream: str, after: int, limit: int, until: int) -> list[IndexedRow]:
        """Return the next events of a stream, up to a position."""
        found = []
        for row in self._log.store.read_stream(stream, after, limit) if limit else ():
            if row.position <= until:
                fields = _fields(row.record)
                found.append(IndexedRow(*row, stream, fields[2], fields[4], fields[5]))
        return found

    def _move(self, batch: _Batch, kind: str, blobs: Sequence[bytes], seen: int) -> Archive:
        """Move one batch: into a segment, and out of the database."""
        rows = sorted(row for stream in batch.streams for row in stream)
        segment = self._write(batch.streams, rows, blobs)
        index = ArchiveIndex([row.position for row in rows], leaf_hashes(rows, record_hashes(rows)), segment.parts)
        version = self._version
        size = segment.path.stat().st_size
        archive = Archive(version + 1, segment.path.name, segment.digest, size, kind,
                          rows[0].position, rows[-1].position, len(rows))  # fmt: skip
        data = {"segment": archive.segment, "sha256": archive.digest, "size": size, "kind": kind}
        data |= {"first": archive.first, "last": archive.last, "events": archive.events}
        data |= {"streams": len(segment.parts), "blobs": len(blobs)}
        departure = Departure(archive, index, blobs, seen, self._step)
        self._log.archive(self._append(LOG_ARCHIVED, data, version), departure)
        self._version += 1
        self._step("archived")
        return archive

    def _write(
        self, streams: Sequence[Sequence[IndexedRow]], rows: list[IndexedRow], blobs: Sequence[bytes]
    ) -> Segment:
        """Write a segment, so that it is on the disk and says what the database says; return it."""
        part = self.folder / f"{rows[0].position}-{rows[-1].position}{_PART}"
        with _written(self.folder):
            try:
                with open(part, "xb", opener=_private) as file:
                    write_segment(file, streams, self._contents(blobs))
                    self._step("written")
                    file.flush()
                    os.fsync(file.fileno())
                self._step("synced")
                segment = Segment(part)
                _compare(segment, rows, blobs)
                self._step("verified")
                # With the digest in its name: what is archived again later, otherwise, is another file.
                segment.path = part.with_name(f"{part.stem}-{segment.digest.hex()[:12]}{_SEGMENT}")
                part.rename(segment.path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            self._step("named")
            _sync(self.folder)
        self._step("kept")
        return segment

    def _contents(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield blobs, never many of them in memory."""
        for start in range(0, len(digests), _BLOBS):
            found = self._log.blobs(digests[start : start + _BLOBS])
            for digest in digests[start : start + _BLOBS]:
                if digest not in found:
                    raise LogCorrupt(f"The log at {self._log.store.location} lacks the blob {digest.hex()}.")
                yield digest, found[digest]

    # --- and back ---------------------------------------------------------------------------------

    def restore(self, number: int) -> Archive:
        """Put the events of an archive back into the database, as they were, and delete its segment.

        Args:
            number: the archive's number.

        Raises:
            LogUnavailable: there is no such archive.
            LogCorrupt: its segment is missing or was changed.
            LogWriteError: the log cannot be written.
        """
        archives = {archive.number: archive for archive in self._log.store.archives()}
        archive = archives.get(number)
        if archive is None:
            raise LogUnavailable(f"There is no archive {number}. flightlog log ls lists what there is.")
        data = {"archive": number, "segment": archive.segment, "events": archive.events}
        self._log.restore(self._append(LOG_RESTORED, data, self._version), number, self._step)
        self._version += 1
        self._step("restored")
        self._log.store.sync()  # the file goes only when the rows would survive the loss of power
        self._step("synced")
        (self.folder / archive.segment).unlink(missing_ok=True)
        self._step("deleted")
        return archive

    def _append(self, type_: str, data: dict[str, object], version: int) -> Append:
        # The one condition of a race: whoever moves something first wins.
        event = NewEvent(self._ids.new(), type_, data, self._clock.now(), schema=SCHEMAS[type_], actor=self._actor)
        return Append(ARCHIVES_STREAM, [event], expected_version=version)


def settled(log: Log) -> int:
    """Return up to which position streams may leave: all is sealed, and every subscription has dealt with it."""
    seal = latest_seal(log)
    return 0 if seal is None else min([seal.last, *(cursor.position for cursor in held_up(log))])


def held_up(log: Log) -> list[Cursor]:
    """Return the subscriptions that have not dealt with all that is sealed, the one that is furthest behind first."""
    seal = latest_seal(log)
    cursors = [] if seal is None else [cursor for cursor in log.store.cursors() if cursor.position < seal.last]
    return sorted(cursors, key=lambda cursor: cursor.position)


def _stored(log: Log, after: int) -> Iterator[list[IndexedRow]]:
    """Yield what is in the database behind a position, some at a time."""
    while rows := log.store.stored(after, _PAGE):
        yield rows
        after = rows[-1].position


def _gaps(parts: Sequence[StreamPart]) -> Iterator[tuple[int, int]]:
    """Yield the versions of a stream that are in the database: behind one, up to another."""
    after = 0
    for part in parts:
        yield after, part.first - 1
        after = part.last
    yield after, _NO_END


def _fields(record: bytes) -> Sequence[Any]:
    """Return a record's fields, as fast as can be.

    Raises:
        LogCorrupt: the bytes are not a record.
    """
    found = codec.fields(record)
    return found if len(found) == len(codec.Envelope._fields) else codec.decode(record)


def _digests(rows: Iterable[IndexedRow]) -> Iterator[bytes]:
    """Yield the digests of the blobs that some events rest on."""
    for row in rows:
        payload = _fields(row.record)[11]
        if codec.may_have_blobs(payload):
            yield from codec.blob_digests(payload)


def _compare(segment: Segment, rows: list[IndexedRow], blobs: Sequence[bytes]) -> None:
    """Make sure that a segment says what the database says.

    Raises:
        LogCorrupt: it does not.
    """
    for digest in blobs:
        segment.blob(digest)
    if segment.rows != rows:
        raise LogCorrupt(f"The segment {segment.path} is not what was written to it; nothing was taken out of the log.")


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Say in our words why the folder of segments cannot be written.

    Raises:
        LogWriteError: it cannot.
    """
    try:
        yield
    except OSError as error:
        raise LogWriteError(
            f"A segment cannot be written to {folder}: {error.strerror}. Nothing was taken out of the log; free some "
            "space, or make the folder writable, and archive again."
        ) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: Path) -> None:
    """See to it that the names in a folder survive the loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(file: IO[str], folder: Path) -> None:
    """Make this the only process that moves files in a folder, until the file is closed or the process ends.

    Raises:
        LogUnavailable: another one does.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LogUnavailable(f"Another process is archiving in {folder} just now; try again when it is done.") from None


__all__ = ["BYTES", "EVENTS", "Archiver", "held_up", "settled"]
