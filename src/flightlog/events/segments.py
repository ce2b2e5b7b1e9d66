"""Segment files: events that left the log's database, compressed, each exactly as it was. The only user of zstd.

A file is a line that says what it is, some frames with blobs, a frame with the events, and a footer that says where
that begins. The events stand stream by stream. Of a record only that part is kept which its maker packed: what is
before it (log id, stream, version, and the hash of the record before) follows from the stream's own chain, and is
computed on reading. So a segment takes a ninth of its records, and what is read from it is chained or is nothing.
See ``docs/explanation/decisions/archives.md``.
"""

import hashlib
import os
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO, Final

from flightlog.errors import LogCorrupt
from flightlog.events import codec
from flightlog.events.store import IndexedRow, StreamPart

if sys.version_info >= (3, 14):  # the standard library has it
    from compression import zstd
else:
    from backports import zstd

_MAGIC: Final = b"flightlog segment 1\n"
_FOOTER = struct.Struct(">QQ12s")
_END: Final = b"log segment\n"
_LEVEL: Final = 6  # beyond, it takes longer and gets no smaller
_CHUNK: Final = 1 << 20
_sha256 = hashlib.sha256


def pack_rising(numbers: Sequence[int]) -> bytes:
    """Return numbers that mostly rise, by their differences."""
    return codec.pack([numbers[0], *(second - first for first, second in pairwise(numbers))] if numbers else [])


def unpack_rising(packed: bytes) -> list[int]:
    """Return what `pack_rising` made bytes of."""
    return list(accumulate(codec.unpack(packed)))


def write_segment(file: BinaryIO, rows: Sequence[Sequence[IndexedRow]], blobs: Iterable[tuple[bytes, bytes]]) -> None:
    """Write a segment.

    Args:
        file: where to.
        rows: the events of one stream after the other, in the order of their versions.
        blobs: what goes along: SHA-256 and content of each.

    Raises:
        LogCorrupt: an event does not follow on the one before it.
        OSError: it cannot be written.
    """
    file.write(_MAGIC)
    chunks = []
    for digests, chunk in _chunks(blobs):
        packed = zstd.compress(codec.pack(chunk), _LEVEL)
        chunks.append([file.tell(), len(packed), digests])
        file.write(packed)
    log_id = codec.decode(rows[0][0].record).log_id
    head = zstd.compress(codec.pack([log_id, [_packed(stream) for stream in rows], chunks]), _LEVEL)
    footer = _FOOTER.pack(file.tell(), len(head), _END)
    file.write(head)
    file.write(footer)


def _chunks(blobs: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield blobs, some together: most are short, and are compressed well with others only."""
    digests: list[bytes] = []
    contents: list[bytes] = []
    size = 0
    for digest, content in blobs:
        digests.append(digest)
        contents.append(content)
        size += len(content)
        if size >= _CHUNK:
            yield digests, contents
            digests, contents, size = [], [], 0
    if digests:
        yield digests, contents


def _packed(rows: Sequence[IndexedRow]) -> list[object]:
    """Return the events of a stream without what follows from its chain."""
    first = codec.decode(rows[0].record)
    prefix, previous = codec.prefix(first.log_id, first.stream), first.previous
    bodies = []
    for version, row in enumerate(rows, first.version):
        start = codec.join(prefix, version, previous, b"")
        if not row.record.startswith(start):
            raise LogCorrupt(
                f"Event {row.position} ({row.stream}@{row.version}) does not follow on the one before it, so that it "
                "cannot be archived. flightlog audit verify says more."
            )
        bodies.append(row.record[len(start) :])
        previous = _sha256(row.record).digest()
    positions, times = [row.position for row in rows], [row.recorded_at for row in rows]
    return [first.stream, first.version, first.previous, pack_rising(positions), pack_rising(times), bodies]


class Segment:
    """A segment file, read and compared with its digest.

    Args:
        path: the file.
        digest: the SHA-256 that it has to have; None to take what is there.

    Attributes:
        rows: its events, in the order of their positions.
        parts: the parts of streams that it has.
        digest: the file's SHA-256.

    Raises:
        LogCorrupt: it is not there, was changed, or is no segment.
    """

    def __init__(self, path: Path, digest: bytes | None = None) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.digest = hashlib.file_digest(file, "sha256").digest()
                if digest is not None and digest != self.digest:
                    raise LogCorrupt(f"The segment {path} was changed: put it back from a backup.")
                log_id, streams, chunks = codec.unpack(_head(file))
        except FileNotFoundError:
            raise LogCorrupt(f"The segment {path} is missing: put it back, or restore it from a backup.") from None
        except OSError as error:
            raise LogCorrupt(f"The segment {path} cannot be read: {error.strerror}.") from None
        except (ValueError, TypeError, zstd.ZstdError, struct.error):
            raise LogCorrupt(f"{path} is no segment of a log.") from None
        self.parts: list[StreamPart] = []
        self._streams: dict[str, list[IndexedRow]] = {}
        for stream in streams:
            self._take(log_id, *stream)
        self.rows = sorted(row for rows in self._streams.values() for row in rows)
        self._positions = [row.position for row in self.rows]
        self._places = {digest: (*place, number) for *place, digests in chunks for number, digest in enumerate(digests)}
        self._chunk: tuple[int, list[bytes]] = (-1, [])

    def _take(
        self, log_id: bytes, stream: str, version: int, previous: bytes, positions: bytes, times: bytes,
        bodies: list[bytes],
    ) -> None:  # fmt: skip
        """Take in the events of a stream, each with the hash of the one before it."""
        prefix, rows, epoch = codec.prefix(log_id, stream), self._streams.setdefault(stream, []), 0
        first = version
        places = zip(unpack_rising(positions), unpack_rising(times), bodies, strict=True)
        for version, (position, recorded_at, body) in enumerate(places, first):
            record = codec.join(prefix, version, previous, body)
            fields = codec.fields(record)
            rows.append(IndexedRow(position, recorded_at, record, stream, version, fields[4], fields[5]))
            previous, epoch = _sha256(record).digest(), max(epoch, fields[10])
        self.parts.append(StreamPart(stream, first, version, previous, epoch))

    def after(self, position: int, limit: int) -> list[IndexedRow]:
        """Return up to `limit` events with positions above one, in order."""
        start = bisect_right(self._positions, position)
        return self.rows[start : start + limit]

    def of_stream(self, stream: str, after: int, limit: int) -> list[IndexedRow]:
        """Return up to `limit` events of a stream with versions above one, in order."""
        rows = self._streams.get(stream, [])
        start = bisect_right(rows, after, key=lambda row: row.version)
        return rows[start : start + limit]

    @property
    def blobs(self) -> Iterable[bytes]:
        """The SHA-256 of each blob that it has."""
        return self._places.keys()

    def blob(self, digest: bytes) -> bytes:
        """Return a blob by its SHA-256.

        Raises:
            LogCorrupt: it is not there, or is not what it was.
        """
        offset, length, number = self._places.get(digest, (-1, 0, 0))
        chunk = self._chunk  # other threads may read another one meanwhile
        if chunk[0] != offset or offset < 0:
            self._chunk = chunk = (offset, self._read(offset, length))
        content = chunk[1][number] if number < len(chunk[1]) else b""
        if _sha256(content).digest() != digest:
            raise LogCorrupt(f"The segment {self.path} lacks the blob {digest.hex()}.")
        return content

    def _read(self, offset: int, length: int) -> list[bytes]:
        if offset < 0:
            return []
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                contents: list[bytes] = codec.unpack(zstd.decompress(file.read(length)))
        except (OSError, ValueError, zstd.ZstdError):
            raise LogCorrupt(f"The segment {self.path} was changed: put it back from a backup.") from None
        return contents


def _head(file: BinaryIO) -> bytes:
    """Return the frame with the events.

    Raises:
        ValueError: it is no segment.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC or size < len(_MAGIC) + _FOOTER.size:
        raise ValueError("it begins in another way")
    file.seek(size - _FOOTER.size)
    offset, length, end = _FOOTER.unpack(file.read(_FOOTER.size))
    if end != _END:
        raise ValueError("it ends in another way")
    file.seek(offset)
    return zstd.decompress(file.read(length))
