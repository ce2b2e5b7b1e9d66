"""Inline projections in the tables of a PostgreSQL log."""

from collections.abc import Callable, Sequence

import sqlalchemy

from flightlog.errors import LogCorrupt
from flightlog.events.inline import Folding, Inlines, Recorded, States, fold_anew, on_record
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
            found = connection.execute(pg.postgres_records, {"types": sorted(projection.types)})
            records = ((key, record) for key, record in found)
            self.put(connection, fold_anew(projection, records, _fetcher(connection)))
            connection.execute(tables.put_inline, on_record(projection)._asdict())

    def folding_in(self, connection: sqlalchemy.Connection) -> Folding | None:
        """Return what folds the units of a transaction that has locked the heads of its streams; None for nothing."""
        if not self.types:
            return None

        def load(name: str, key: int) -> bytes | None:
            state: bytes | None = connection.execute(tables.select_state, {"name": name, "key": key}).scalar()
            return state

        return self.folding(load, _fetcher(connection))

    def put(self, connection: sqlalchemy.Connection, states: States) -> None:
        """Store values."""
        for (name, key), state in states.items():
            if state is None:
                connection.execute(tables.drop_state, {"name": name, "key": key})
            else:
                connection.execute(tables.put_state, {"projection": name, "stream_id": key, "state": state})


def _fetcher(connection: sqlalchemy.Connection) -> Callable[[bytes], bytes]:
    """Return what finds blobs, those of the running transaction among them."""

    def fetch(digest: bytes) -> bytes:
        row = connection.execute(tables.select_blobs, {"digests": [digest]}).first()
        if row is None:
            raise LogCorrupt(f"The log lacks the blob {digest.hex()}.")
        content: bytes = row[1]
        return content

    return fetch
