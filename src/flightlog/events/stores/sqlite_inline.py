"""Inline projections in the tables of an SQLite log, without SQLAlchemy: they are on a flow's way to its commit."""

import sqlite3
from collections.abc import Callable, Sequence

from flightlog.errors import LogCorrupt
from flightlog.events.inline import Folding, Inlines, Recorded, States, fold_anew, on_record
from flightlog.events.store import Inline
from flightlog.events.stores import sqlite_statements as sql


class SqliteInlines(Inlines):
    """The inline projections of an SQLite store. All of it happens inside the transaction of a connection.

    Args:
        location: where the log is, in words.
    """

    def __init__(self, location: str) -> None:
        super().__init__()
        self._location = location

    def learn_from(self, connection: sqlite3.Connection, anew: Sequence[Inline] = ()) -> list[Inline]:
        """Take in which projections the log has; return those of ours that have to be made anew."""
        return self.learn([Recorded(*row) for row in connection.execute(sql.SELECT_INLINES)], anew)

    def make(self, connection: sqlite3.Connection, projections: Sequence[Inline]) -> None:
        """Make projections anew from the events."""
        for projection in projections:
            connection.execute(sql.DROP_STATES, (projection.name,))
            statement = sql.SELECT_RECORDS % ", ".join("?" * len(projection.types))
            records = connection.execute(statement, tuple(projection.types))
            self.put(connection, fold_anew(projection, records, self._fetcher(connection)))
            connection.execute(sql.PUT_INLINE, on_record(projection))

    def folding_in(self, connection: sqlite3.Connection) -> Folding | None:
        """Return what folds the units of a transaction; None if nothing is kept."""
        if not self.types:
            return None

        def load(name: str, key: int) -> bytes | None:
            row = connection.execute(sql.SELECT_STATE, (name, key)).fetchone()
            return None if row is None else row[0]

        return self.folding(load, self._fetcher(connection))

    def put(self, connection: sqlite3.Connection, states: States) -> None:
        """Store values."""
        for (name, key), state in states.items():
            if state is None:
                connection.execute(sql.DROP_STATE, (name, key))
            else:
                connection.execute(sql.PUT_STATE, (name, key, state))

    def _fetcher(self, connection: sqlite3.Connection) -> Callable[[bytes], bytes]:
        """Return what finds blobs, those of the running transaction among them."""

        def fetch(digest: bytes) -> bytes:
            row = connection.execute(f"{sql.SELECT_BLOBS} (?)", (digest,)).fetchone()
            if row is None:
                raise LogCorrupt(f"The log at {self._location} lacks the blob {digest.hex()}.")
            content: bytes = row[1]
            return content

        return fetch
