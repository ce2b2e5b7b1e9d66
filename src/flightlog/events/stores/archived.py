"""What the stores with a database do about archives: read through to the segments, move events there and back.

A reader takes what is in the database first, and then makes sure that nothing was archived or restored meanwhile: the
stream of archives is still at the version that its catalogue is of. So it sees each event once, wherever it is.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flightlog.errors import LogCorrupt
from flightlog.events import codec
from flightlog.events.archives import Catalogue
from flightlog.events.store import Archive, ArchiveIndex, Departure, IndexedRow, Row, StreamPart, Unit
from flightlog.events.stores.sharing import DatabaseStore

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")
R = TypeVar("R")
_PAGE = 2000


class ArchivedStore(DatabaseStore):
    """Reads what was archived with what is in the database, as one."""

    location: str
    _catalogue: Catalogue | None = None

    # --- what the database knows of archives ------------------------------------------------------

    @property
    @abstractmethod
    def archives_folder(self) -> Path | None:
        """Where segments are; None if this store has no place for them."""

    def catalogue(self) -> Catalogue:
        """Return the archives as of now."""
        while True:
            version = self._archives_version()
            known = self._catalogue
            if known is not None and known.version == version:
                return known
            archives = [Archive(*row) for row in self._archive_rows()] if version else []
            folder = self.archives_folder or Path()
            self._catalogue = made = Catalogue(version, archives, folder, known)
            if self._archives_version() == version:
                return made

    def _through(self, read: Callable[[Catalogue], T], merge: Callable[[T, Catalogue], R]) -> R:
        """Return what the database and the archives of the very same moment have.

        Args:
            read: asks the database all that it is asked, given the archives as of just before.
            merge: puts in what is archived, without another look at the database.
        """
        while True:
            before = self._catalogue or self.catalogue()
            found = read(before)
            catalogue = self.catalogue()
            if catalogue is before:
                try:
                    return merge(found, catalogue)
                except LogCorrupt:
                    if self._archives_version() == catalogue.version:
                        raise  # else it was restored just now, and its segment is gone

    def archives(self) -> Sequence[Archive]:
        """Return the log's archives."""
        return self.catalogue().archives

    def parts(self, stream: str) -> list[StreamPart]:
        """Return the archived parts of a stream; see `flightlog.events.store.Store.parts`."""
        return [StreamPart(*row) for row in self._part_rows(stream, 0)] if self.archives() else []

    def archive_index(self, number: int) -> ArchiveIndex:
        """Return what the database keeps of an archive; see `flightlog.events.store.Store.archive_index`."""
        from flightlog.events.segments import unpack_rising
        from flightlog.events.stores import tables

        (positions, leaves), *_ = self._rows(tables.select_leaves, number=number)
        parts = [StreamPart(*row) for row in self._rows(tables.select_parts_of, number=number)]
        hashes = [bytes(leaves[start : start + 32]) for start in range(0, len(leaves), 32)]
        try:
            return ArchiveIndex(unpack_rising(bytes(positions)), hashes, parts)
        except (ValueError, TypeError):
            raise LogCorrupt(f"What the log at {self.location} keeps of archive {number} is damaged.") from None

    def pass_over(self, numbers: Collection[int]) -> None:
        """Read as if some archives were empty; see `flightlog.events.store.Store.pass_over`."""
        absent = self.catalogue().absent
        absent.clear()
        absent.update(numbers)

    # --- reading through --------------------------------------------------------------------------

    def stored(self, after: int, limit: int) -> list[IndexedRow]:
        """Return events that are in the database; see `flightlog.events.store.Store.stored`."""
        return super().indexed(after, limit)

    def read_stream(self, stream: str, after: int, limit: int) -> list[Row]:
        """Return events of a stream; see `flightlog.events.store.Store.read_stream`."""

        def read(known: Catalogue) -> tuple[list[Row], list[Any]]:
            found = super(ArchivedStore, self).read_stream(stream, after, limit)
            return found, self._part_rows(stream, after) if known.archives else []

        def merge(read: tuple[list[Row], list[Any]], catalogue: Catalogue) -> list[Row]:
            found, parts = read
            numbers = {number for *_, number in parts} - catalogue.absent
            segments = map(catalogue.segment, sorted(numbers))
            archived = [Row(*row[:3]) for segment in segments for row in segment.of_stream(stream, after, limit)]
            return sorted(found + archived)[:limit] if archived else found

        return self._through(read, merge)

    def read_all(self, after: int, types: Sequence[str] | None, limit: int) -> list[Row]:
        """Return events of the log; see `flightlog.events.store.Store.read_all`."""

        def merge(found: list[Row], catalogue: Catalogue) -> list[Row]:
            if not catalogue.reaches(after):
                return found
            return [Row(*row[:3]) for row in catalogue.among(found, after, limit, types)]

        return self._through(lambda _: super(ArchivedStore, self).read_all(after, types, limit), merge)

    def indexed(self, after: int, limit: int) -> list[IndexedRow]:
        """Return events with their columns; see `flightlog.events.store.Store.indexed`."""
        return self._through(
            lambda _: super(ArchivedStore, self).indexed(after, limit),
            lambda found, catalogue: catalogue.among(found, after, limit) if catalogue.reaches(after) else found,
        )

    def event(self, event_id: bytes) -> Row | None:
        """Return an event by its id, or None."""
        return self._through(
            lambda _: super(ArchivedStore, self).event(event_id),
            lambda found, catalogue: catalogue.event(event_id) if found is None else found,
        )

    def blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return blobs by their SHA-256."""

        def read(known: Catalogue) -> tuple[dict[bytes, bytes], list[Any]]:
            found = super(ArchivedStore, self).blobs(digests)
            missing = [digest for digest in digests if digest not in found] if known.archives else []
            return found, self._archived_blob_rows(missing) if missing else []

        def merge(read: tuple[dict[bytes, bytes], list[Any]], catalogue: Catalogue) -> dict[bytes, bytes]:
            found, places = read
            return found | {one: catalogue.segment(at).blob(one) for one, at in places if at not in catalogue.absent}

        return self._through(read, merge)

    # --- moving there and back --------------------------------------------------------------------

    @abstractmethod
    def _write_with(self, unit: Unit, work: "Callable[[Connection], object]") -> None:
        """Commit a unit, and in the same transaction, if it is not refused, what `work` does on the connection."""

    @abstractmethod
    def _take_out(self, connection: "Connection", parts: Iterable[StreamPart]) -> int:
        """Delete the events of some parts of streams; return how many there were."""

    @abstractmethod
    def _put_back(self, connection: "Connection", rows: Sequence[IndexedRow]) -> None:
        """Insert events with the positions that they had."""

    def archive(self, unit: Unit, departure: Departure) -> None:
        """Append `log.archived` and take events out; see `flightlog.events.store.Store.archive`."""
        self._write_with(unit, lambda connection: self._depart(connection, departure))

    def _depart(self, connection: "Connection", going: Departure) -> None:
        from flightlog.events.segments import pack_rising
        from flightlog.events.stores import tables

        columns = going.archive._asdict()
        columns |= {"positions": pack_rising(going.index.positions), "leaves": b"".join(going.index.leaves)}
        connection.execute(tables.insert_archive, columns)
        number = going.archive.number
        connection.execute(
            tables.insert_part,
            [
                {"stream": part.stream, "first_version": part.first, "last_version": part.last}
                | {"hash": part.hash, "epoch": part.epoch, "number": number}
                for part in going.index.parts
            ],
        )
        going.step("named")
        gone = self._take_out(connection, going.index.parts)
        if gone != going.archive.events:
            raise LogCorrupt(
                f"Of {going.archive.events} events that were archived, the log at {self.location} has {gone}: "
                "nothing was taken out. flightlog audit verify says more."
            )
        needed = self._needed_since(connection, going.seen)
        blobs = [digest for digest in going.blobs if digest not in needed]
        if blobs:
            connection.execute(tables.insert_archived_blob, [{"digest": one, "number": number} for one in blobs])
            connection.execute(tables.delete_blob, [{"key": one} for one in blobs])
        going.step("taken out")

    def _needed_since(self, connection: "Connection", position: int) -> set[bytes]:
        """Return the blobs that events rest on which have come since the others were looked through."""
        found: set[bytes] = set()
        while rows := connection.execute(self._reading.all, {"after": position, "limit": _PAGE}).all():
            for row in rows:
                found.update(codec.blob_digests(codec.decode(row.record).data))
            position = rows[-1].position
        return found

    def restore(self, unit: Unit, number: int, step: Callable[[str], object]) -> None:
        """Append `log.restored` and put events back; see `flightlog.events.store.Store.restore`."""
        segment = self.catalogue().segment(number)

        def work(connection: "Connection") -> None:
            from flightlog.events.stores import tables

            self._put_back(connection, segment.rows)
            for digest in segment.blobs:  # one after the other: all together may not fit into the memory
                connection.execute(tables.insert_new_blob, {"digest": digest, "content": segment.blob(digest)})
            step("put back")
            for statement in (tables.delete_archived_blobs, tables.delete_parts, tables.delete_archive):
                connection.execute(statement, {"key": number})
            step("forgotten")

        self._write_with(unit, work)
