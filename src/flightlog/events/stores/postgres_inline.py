"""Inline projections in the tables of a PostgreSQL log."""

from collections.abc import Sequence

import sqlalchemy

from flightlog.errors import LogCorrupt
from flightlog.events.inline import Folding, Inlines, Recorded, on_record
from flightlog.events.store import Inline
from flightlog.events.stores import postgres_tables as pg
from flightlog.events.stores import tables


class Outdated(Exception):
    """Which inline projections the log has is not what this process last saw."""


class PostgresInlines(Inlines):
    """The inline projections of a PostgreSQL store. All of it happens inside the transaction of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: str | None = None
        self._looked = False

    def check(self, versions: str | None) -> None:
        """Compare what the log has now with what was seen.

        Args:
            versions: names and versions of the log's inline projections, as one text; None for none.

        Raises:
            Outdated: they differ.
        """
        if versions != self._seen or not self._looked:
            raise Outdated

    def learn_from(self, connection: sqlalchemy.Connection, anew: Sequence[Inline] = ()) -> list[Inline]:
        """Take in which projections the log has; return those of ours that have to be made anew."""
        self._seen = connection.execute(pg.select_versions).scalar()
        self._looked = True
        return self.learn([Recorded(*row) for row in connection.execute(tables.select_inlines)], anew)

    def make(self, connection: sqlalchemy.Connection, projections: Sequence[Inline]) -> None:
        """Make projections anew from the events."""
        for projection in projections:
            connection.execute(tables.drop_states, {"name": projection.name})
            folding = Folding([projection], PostgresRows(connection))
            found = connection.execute(pg.postgres_records, {"types": sorted(projection.types)})
            folding.take((row.stream_id, row.record) for row in found)
            folding.store()
            connection.execute(tables.put_inline, on_record(projection)._asdict())


class PostgresRows:
    """See `flightlog.events.inline.Rows`. The heads of the streams are locked, and so are their values."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection

    def load(self, name: str, key: int) -> bytes | None:
        """Return a value; None for nothing."""
        state: bytes | None = self._connection.execute(tables.select_state, {"name": name, "key": key}).scalar()
        return state

    def put(self, name: str, key: int, state: bytes) -> None:
        """Store a value."""
        self._connection.execute(tables.put_state, {"projection": name, "stream_id": key, "state": state})

    def drop(self, name: str, key: int) -> None:
        """Take a value away, if there is one."""
        self._connection.execute(tables.drop_state, {"name": name, "key": key})

    def fetch(self, digest: bytes) -> bytes:
        """Return a blob."""
        row = self._connection.execute(tables.select_blobs, {"digests": [digest]}).first()
        if row is None:
            raise LogCorrupt(f"The log lacks the blob {digest.hex()}.")
        content: bytes = row[1]
        return content
