"""What the stores with a database have in common: reading, facts, beats and cursors, through SQLAlchemy Core."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flightlog.events.store import Cursor, IndexedRow, LogHead, Row, StreamEnd
from flightlog.events.types import ARCHIVES_STREAM

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flightlog.events.stores.tables import Reading


class DatabaseStore(ABC):
    """Reads what a store's database holds. SQLAlchemy is imported at the first read, never by a flow's process."""

    @abstractmethod
    def _rows(self, statement: Any, **parameters: Any) -> list[Any]:
        """Return the rows that a query finds."""

    @abstractmethod
    def writing(self) -> Any:
        """Return a context manager for one transaction that writes, as a SQLAlchemy connection."""

    @property
    @abstractmethod
    def _reading(self) -> "Reading":
        """The queries for events."""

    def read_stream(self, stream: str, after: int, limit: int) -> list[Row]:
        """Return events of a stream; see `flightlog.events.store.Store.read_stream`."""
        return [Row(*row) for row in self._rows(self._reading.stream, name=stream, after=after, limit=limit)]

    def read_all(self, after: int, types: Sequence[str] | None, limit: int) -> list[Row]:
        """Return events of the log; see `flightlog.events.store.Store.read_all`."""
        if types is None:
            return [Row(*row) for row in self._rows(self._reading.all, after=after, limit=limit)]
        return self._read_types(after, types, limit)

    def _read_types(self, after: int, types: Sequence[str], limit: int) -> list[Row]:
        return [Row(*row) for row in self._rows(self._reading.of_types, after=after, types=list(types), limit=limit)]

    def event(self, event_id: bytes) -> Row | None:
        """Return an event by its id, or None."""
        rows = self._rows(self._reading.by_id, event_id=event_id)
        return Row(*rows[0]) if rows else None

    def indexed(self, after: int, limit: int) -> list[IndexedRow]:
        """Return events with their columns; see `flightlog.events.store.Store.indexed`."""
        return [IndexedRow(*row) for row in self._rows(self._reading.indexed, after=after, limit=limit)]

    def ends(self) -> Iterable[StreamEnd]:
        """Return where every stream ends; see `flightlog.events.store.Store.ends`."""
        from flightlog.events.stores import tables

        return [StreamEnd(*row) for row in self._rows(tables.select_ends) if row[1]]

    def head(self) -> LogHead:
        """Return where the log ends."""
        rows = self._rows(self._reading.end)
        return LogHead(*rows[0]) if rows else LogHead(0, 0)

    def blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return blobs by their SHA-256."""
        from flightlog.events.stores import tables

        return dict(self._rows(tables.select_blobs, digests=list(digests)))

    # --- what is kept of archives -----------------------------------------------------------------

    def _archives_version(self) -> int:
        """Return the version of the stream of archives; 0 if nothing was ever archived."""
        from flightlog.events.stores import tables

        rows = self._rows(tables.select_head, name=ARCHIVES_STREAM)
        return rows[0][1] if rows else 0

    def _archive_rows(self) -> list[Any]:
        """Return what is kept of archives."""
        from flightlog.events.stores import tables

        return self._rows(tables.select_archives)

    def _part_rows(self, stream: str, after: int) -> list[Any]:
        """Return the archived parts of a stream that end behind a version."""
        from flightlog.events.stores import tables

        return self._rows(tables.select_parts, name=stream, after=after)

    def _archived_blob_rows(self, digests: Sequence[bytes]) -> list[Any]:
        """Return in which archives blobs are."""
        from flightlog.events.stores import tables

        return self._rows(tables.select_archived_blobs, digests=list(digests))

    # --- who is alive -----------------------------------------------------------------------------

    def beats(self) -> dict[str, int]:
        """Return when each process that runs flows was alive last."""
        from flightlog.events.stores import tables

        return dict(self._rows(tables.select_beats))

    def beat(self, process: str, at: int | None) -> None:
        """Note that a process is alive; None: that it has ended."""
        from flightlog.events.stores import tables

        with self.writing() as connection:
            if at is None:
                connection.execute(tables.delete_beat, {"key": process})
            else:
                connection.execute(tables.put_beat, {"process": process, "beat": at})

    # --- how far subscribers have come ------------------------------------------------------------

    def cursors(self) -> list[Cursor]:
        """Return the cursors of all subscriptions."""
        from flightlog.events.stores import tables

        return [Cursor(*row) for row in self._rows(tables.select_cursors)]

    def claim_cursor(self, name: str, owner: str, now: int, lease: int, start: int) -> Cursor | None:
        """Make a cursor somebody's; None if it is another's. See `flightlog.events.store.Store.claim_cursor`."""
        from flightlog.events.stores import tables

        with self.writing() as connection:
            connection.execute(tables.insert_cursor, {"name": name, "position": start})
            claim = {"key": name, "new_owner": owner, "now": now, "new_lease": lease}
            if not connection.execute(tables.claim_cursor, claim).rowcount:
                return None
            return next(Cursor(*row) for row in connection.execute(tables.select_cursors) if row.name == name)

    def move_cursor(
        self, name: str, epoch: int, position: int, lease: int, connection: "Connection | None" = None
    ) -> bool:
        """Move a cursor on and keep it; tell if it is still its owner's."""
        from flightlog.events.stores import tables

        values = {"key": name, "my_epoch": epoch, "new_position": position, "new_lease": lease}
        if connection is not None:
            return bool(connection.execute(tables.move_cursor, values).rowcount)
        with self.writing() as own:
            return bool(own.execute(tables.move_cursor, values).rowcount)

    def release_cursor(self, name: str, epoch: int) -> None:
        """Give a cursor back, for others to claim."""
        from flightlog.events.stores import tables

        with self.writing() as connection:
            connection.execute(tables.release_cursor, {"key": name, "my_epoch": epoch})

    def forget_cursor(self, name: str) -> bool:
        """Delete a subscription's cursor; tell if there was one."""
        from flightlog.events.stores import tables

        with self.writing() as connection:
            return bool(connection.execute(tables.delete_cursor, {"key": name}).rowcount)


@contextmanager
def transaction(connection: "Connection", begin: Callable[["Connection"], object]) -> Iterator["Connection"]:
    """One transaction on a connection that begins none by itself."""
    begin(connection)
    try:
        yield connection
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
