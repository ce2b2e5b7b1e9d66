"""Inline projections in the tables of an SQLite log, without SQLAlchemy: they are on a flow's way to its commit."""

import sqlite3
from collections.abc import Sequence

from flightlog.errors import LogCorrupt
from flightlog.events.inline import Folding, Inlines, Recorded, on_record
from flightlog.events.store import Inline
from flightlog.events.stores import sqlite_statements as sql


class SqliteInlines(Inlines):
    """The inline projections of an SQLite store. All of it happens inside the transaction of a connection."""

    def learn_from(self, connection: sqlite3.Connection, anew: Sequence[Inline] = ()) -> list[Inline]:
        """Take in which projections the log has; return those of ours that have to be made anew."""
        return self.learn([Recorded(*row) for row in connection.execute(sql.SELECT_INLINES)], anew)

    def make(self, connection: sqlite3.Connection, projections: Sequence[Inline]) -> None:
        """Make projections anew from the events."""
        for projection in projections:
            connection.execute(sql.DROP_STATES, (projection.name,))
            statement = sql.SELECT_RECORDS % ", ".join("?" * len(projection.types))
            folding = Folding([projection], SqliteRows(connection))
            folding.take(connection.execute(statement, tuple(projection.types)))
            folding.store()
            connection.execute(sql.PUT_INLINE, on_record(projection))


class SqliteRows:
    """See `flightlog.events.inline.Rows`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def load(self, name: str, key: int) -> bytes | None:
        """Return a value; None for nothing."""
        row = self._connection.execute(sql.SELECT_STATE, (name, key)).fetchone()
        return None if row is None else row[0]

    def put(self, name: str, key: int, state: bytes) -> None:
        """Store a value."""
        self._connection.execute(sql.PUT_STATE, (name, key, state))

    def drop(self, name: str, key: int) -> None:
        """Take a value away, if there is one."""
        self._connection.execute(sql.DROP_STATE, (name, key))

    def fetch(self, digest: bytes) -> bytes:
        """Return a blob."""
        row = self._connection.execute(f"{sql.SELECT_BLOBS} (?)", (digest,)).fetchone()
        if row is None:
            raise LogCorrupt(f"The log lacks the blob {digest.hex()}.")
        content: bytes = row[1]
        return content
