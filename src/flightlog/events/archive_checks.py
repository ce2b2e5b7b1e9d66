"""Are the archives of a log what is on record of them? Their files are read, and compared with what the database keeps.

Where a file is missing, or was changed, the hashes of its leaves and of the ends of its streams stand in for its
events: what is around them, and every seal, is verified all the same.
"""

from pathlib import Path

from flightlog.errors import LogCorrupt, LogError
from flightlog.events import codec
from flightlog.events.absent import Absent
from flightlog.events.problems import Problem, Verification
from flightlog.events.sealing import leaf_hashes, record_hashes
from flightlog.events.segments import Segment
from flightlog.events.store import Archive, ArchiveIndex, Store
from flightlog.events.types import ARCHIVES_STREAM, LOG_ARCHIVED


def check_archives(store: Store, found: Verification) -> Absent:
    """Read all segments of a log; say what is wrong, and return what is known of the events that are not there."""
    absent = Absent(set(), {}, {})
    folder = store.archives_folder
    for archive in store.archives():
        index = ArchiveIndex([], [], [])
        try:
            index = store.archive_index(archive.number)
            _check_record(store, archive)
            segment = Segment((folder or Path()) / archive.segment, archive.digest)
        except LogError as error:
            what = f"archive {archive.number}, events {archive.first} to {archive.last}: {error}"
            found.problems.append(Problem(what, archive.first, until=archive.last))
            absent.numbers.add(archive.number)
            found.absent += archive.events
            absent.leaves.update(zip(index.positions, index.leaves, strict=False))
            absent.parts.update({(part.stream, part.first - 1): part for part in index.parts})
        else:
            found.segments += 1
            _compare(archive, index, segment, found)
    return absent


def _check_record(store: Store, archive: Archive) -> None:
    """Make sure that an archive is the one whose departure is on record.

    Raises:
        LogCorrupt: it is not.
    """
    for row in store.read_stream(ARCHIVES_STREAM, archive.number - 1, 1):
        envelope = codec.decode(row.record)
        data = codec.decode_data(envelope.data, lambda digest: store.blobs([digest])[digest])
        told = tuple(data.get(name) for name in ("segment", "sha256", "size", "kind", "first", "last", "events"))
        if (envelope.version, envelope.type, told) == (archive.number, LOG_ARCHIVED, archive[1:]):
            return
    raise LogCorrupt("It is not what the log has on record of it.")


def _compare(archive: Archive, index: ArchiveIndex, segment: Segment, found: Verification) -> None:
    """Compare a segment with what the database keeps of its events."""
    rows = segment.rows
    leaves = leaf_hashes(rows, record_hashes(rows))
    for row, position, leaf, right in zip(rows, index.positions, index.leaves, leaves, strict=False):
        if (row.position, right) != (position, leaf):
            what = "the hash that is kept of it is not that of the event in its segment"
            found.problems.append(Problem(what, row.position, row.stream, row.version, row.type))
            return
    parts = sorted(part._replace(number=archive.number) for part in segment.parts)
    if len(rows) != len(index.leaves) or parts != sorted(index.parts):
        what = f"archive {archive.number}: what is kept of it is not what its segment has"
        found.problems.append(Problem(what, archive.first, until=archive.last))
