"""What folds put aside between two runs of theirs, so that they need not begin anew: one content for each.

It stands with the projections, and like them can be deleted at any time.
"""

import sqlalchemy
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text, select
from sqlalchemy.dialects.postgresql import insert

from flightlog.errors import LogWriteError
from flightlog.events.log import Log
from flightlog.projections.places import Place, transaction

metadata = MetaData()
asides = Table(
    "asides",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("log_id", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
)


class Asides:
    """What folds of a log have put aside.

    Args:
        log: the log.
        place: where projections are.
    """

    def __init__(self, log: Log, place: Place) -> None:
        self._log = log
        self._place = place

    def load(self, name: str, version: int) -> bytes | None:
        """Return what was put aside under a name; None if that is nothing, of another log, or of another version."""
        try:
            with self._place.engine.connect() as connection:
                if not sqlalchemy.inspect(connection).has_table(asides.name, schema=self._place.schema):
                    return None
                row = connection.execute(select(asides).where(asides.c.name == name)).first()
        except sqlalchemy.exc.DatabaseError:
            return None
        if row is None or row.version != version or row.log_id != self._log.log_id:
            return None
        return bytes(row.content)

    def save(self, name: str, version: int, content: bytes) -> None:
        """Put something aside under a name, in the place of what was there.

        Raises:
            LogWriteError: the projections' database cannot be written.
        """
        values = {"version": version, "log_id": self._log.log_id, "content": content}
        statement = insert(asides).values(name=name, **values)
        try:
            self._place.prepare()
            with transaction(self._place) as connection:
                metadata.create_all(connection)
                connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
        except sqlalchemy.exc.DatabaseError as error:
            raise LogWriteError(
                f"The projections at {self._place.location} cannot be written: {error.orig}."
            ) from error

    def close(self) -> None:
        """Give back the database."""
        self._place.close()
