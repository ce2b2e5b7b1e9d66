"""What left a log's database: archives, and reading them as if they had never left.

An archive is a segment file, and what the database keeps of it: which events it has, and the hash of each one's leaf
in the Merkle tree, so that seals can be verified even where the file is not at hand.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightlog.errors import LogCorrupt
from flightlog.events.store import Archive, Row

if TYPE_CHECKING:
    from flightlog.events.segments import Segment

FOLDER = "archives"
"""The name of the fact that says where the segments of a log are that is in no file."""
_OPEN = 6


def folder_of(path: Path) -> Path:
    """Return the folder with the segments of a log in a file."""
    return path.with_name(path.name + ".archives")


class Catalogue:
    """The archives of a log as of one moment, with those segments open that were read last.

    Args:
        version: the version of the stream of archives.
        archives: the archives, in the order of their first positions.
        folder: where their files are.
        before: an earlier one, whose open segments are taken over.
    """

    def __init__(
        self, version: int, archives: Sequence[Archive], folder: Path, before: "Catalogue | None" = None
    ) -> None:
        self.version = version
        self.archives = archives
        self.folder = folder
        self.absent: set[int] = set() if before is None else before.absent
        """Archives that are passed over: for whoever verifies all the rest."""
        self._by_number = {archive.number: archive for archive in archives}
        self._open: OrderedDict[int, Segment] = OrderedDict() if before is None else before._open

    def segment(self, number: int) -> "Segment":
        """Return an archive's segment.

        Raises:
            LogCorrupt: it is not there, or was changed.
        """
        from flightlog.events.segments import Segment

        found = self._open.pop(number, None)
        if found is None:
            archive = self._by_number.get(number)
            if archive is None:
                raise LogCorrupt(f"The log names archive {number}, but has none. flightlog audit verify says more.")
            found = Segment(self.folder / archive.segment, archive.digest)
            while len(self._open) >= _OPEN:
                self._open.popitem(last=False)
        self._open[number] = found
        return found

    def reaches(self, after: int) -> bool:
        """Tell whether anything behind a position is archived."""
        return any(archive.last > after for archive in self.archives)

    def event(self, event_id: bytes) -> Row | None:
        """Return an archived event by its id, or None."""
        for archive in reversed(self.archives):
            for row in () if archive.number in self.absent else self.segment(archive.number).rows:
                if row.event_id == event_id:
                    return Row(*row[:3])
        return None

    def among(self, found: Sequence[Any], after: int, limit: int, types: Sequence[str] | None = None) -> list[Any]:
        """Return events of the database with the archived ones among them, in order.

        Args:
            found: the first `limit` of the database behind a position.
            after: that position.
            limit: how many at the most.
            types: only events of these types; None for all.
        """
        merged: list[Any] = list(found)
        for archive in self.archives:
            if len(merged) == limit and archive.first > _position(merged[-1]):
                break
            if archive.last > after and archive.number not in self.absent:
                rows = self.segment(archive.number).after(after, limit if types is None else archive.events)
                merged += rows if types is None else [row for row in rows if row.type in types]
                merged = sorted(merged, key=_position)[:limit]
        return merged


def _position(row: Any) -> int:
    position: int = row[0]
    return position
