"""Archives of a log in PostgreSQL: rows leave, and come back, together with their positions.

The trigger that refuses all other deletions knows the transaction: an event carries the id of the one that inserted it.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import select

from flightlog.events import codec
from flightlog.events.archives import FOLDER
from flightlog.events.store import IndexedRow, StreamPart, Unit
from flightlog.events.stores import postgres_tables as pg
from flightlog.events.stores import tables
from flightlog.events.stores.archived import ArchivedStore

_MOST = 5000


class PostgresArchives(ArchivedStore):
    """Moves events out of a PostgreSQL database, and back."""

    _folder: Path | None = None

    @property
    def archives_folder(self) -> Path | None:
        """Where segments are: where the first who archived has put them; None before."""
        if self._folder is None and (folder := self.facts().get(FOLDER)) is not None:
            self._folder = Path(folder.decode())
        return self._folder

    @abstractmethod
    def facts(self) -> dict[str, bytes]:
        """Return what is kept about the log itself."""

    @abstractmethod
    def _commit(
        self, units: Sequence[Unit], *, wait: bool, work: Callable[[sqlalchemy.Connection], object] | None = None
    ) -> None:
        """Commit the units; if they are not refused, with what `work` does."""

    @abstractmethod
    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        """Do something that may be done again."""

    def _write_with(self, unit: Unit, work: Callable[[sqlalchemy.Connection], object]) -> None:
        def surely(connection: sqlalchemy.Connection) -> None:
            # Whatever the server's setting: a segment is deleted on the strength of this commit.
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO on")
            work(connection)

        self._patiently(lambda: self._commit([unit], wait=True, work=surely))
        unit.done = True

    def _take_out(self, connection: sqlalchemy.Connection, parts: Iterable[StreamPart]) -> int:
        gone = 0
        for part in parts:
            wanted = {"name": part.stream, "low": part.first, "high": part.last}
            connection.execute(pg.delete_positions, wanted)
            gone += connection.execute(pg.postgres_delete_part, wanted).rowcount
        return gone

    def _put_back(self, connection: sqlalchemy.Connection, rows: Sequence[IndexedRow]) -> None:
        types = {row[0]: row[1] for row in connection.execute(pg.select_types)}
        names = sorted({row.stream for row in rows})
        wanted = select(tables.streams.c.name, tables.streams.c.id).where(tables.streams.c.name.in_(names))
        streams = {row[0]: row[1] for row in connection.execute(wanted)}
        for start in range(0, len(rows), _MOST):
            some = rows[start : start + _MOST]
            values = [
                {"stream_id": streams[row.stream], "version": row.version, "type_id": types[row.type]}
                | {"event_id": row.event_id, "record": row.record}
                for row in some
            ]
            connection.execute(pg.insert_placeless.values(inserted_at=0), values)
            found = connection.execute(pg.select_serials, {"ids": [row.event_id for row in some]})
            serials = {row.event_id: row.serial for row in found}
            places = [
                {"position": row.position, "serial": serials[row.event_id], "recorded_at": row.recorded_at}
                for row in some
            ]
            connection.execute(pg.insert_position, places)

    def _needed_since(self, connection: sqlalchemy.Connection, position: int) -> set[bytes]:
        """Return the blobs that events rest on which have come since, those without a position included."""
        found = super()._needed_since(connection, position)
        for (record,) in connection.execute(pg.unplaced_records):
            found.update(codec.blob_digests(codec.decode(record).data))
        return found
