"""Where projections are kept: a file beside the log, memory, or a schema of the log's PostgreSQL database."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy
from sqlalchemy.pool import QueuePool, StaticPool

from flightlog.errors import LogWriteError
from flightlog.events.opening import is_postgres, path_of
from flightlog.events.stores import sharing

BUSY_SECONDS = 120.0
SCHEMA = "flightlog_projections"
_LOCK = 0x464C5052  # "FLPR": one projector at a time


def projections_path(database: Path) -> Path:
    """Return where the projections of the log in that file are kept."""
    return database.with_name(database.name + ".projections")


class Place(Protocol):
    """A database for projections.

    Attributes:
        engine: it.
        location: where it is, in words.
        schema: the schema of its tables; None for none.
    """

    engine: sqlalchemy.Engine
    location: str
    schema: str | None

    def prepare(self) -> None:
        """Make ready for writing."""
        ...

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Begin a transaction that no other projector is in at the same time."""
        ...

    def discard(self) -> bool:
        """Throw a damaged database away; tell if that was done."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


@contextmanager
def transaction(place: Place) -> Iterator[sqlalchemy.Connection]:
    """One transaction of one projector; the others wait."""
    with place.engine.connect() as connection, sharing.transaction(connection, place.begin):
        yield connection


class FilePlace:
    """An SQLite file; a temporary one where it cannot be written; memory for None."""

    schema: str | None = None

    def __init__(self, path: Path | None) -> None:
        self._temporary: Any = None
        self.path = path if path is None or _writable(path) else self._elsewhere(path)
        self.location = "memory" if self.path is None else str(self.path)
        self.engine = self._open()

    def _elsewhere(self, path: Path) -> Path:
        self._temporary = tempfile.TemporaryDirectory(prefix="flightlog-")
        return Path(self._temporary.name, path.name)

    def _open(self) -> sqlalchemy.Engine:
        path = ":memory:" if self.path is None else str(self.path)

        def connect() -> sqlite3.Connection:
            if self.path is not None:
                _touch(self.path)
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA synchronous=OFF")  # it can be made again from the log
            except BaseException:
                connection.close()  # the file may be no database
                raise
            return connection

        pool = StaticPool if self.path is None else QueuePool
        return sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=pool)

    def prepare(self) -> None:
        """Make ready for writing: readers and a writer do not hinder each other."""
        if self.path is not None:
            with self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Begin a transaction that no other projector is in at the same time."""
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def discard(self) -> bool:
        """Delete a damaged file: all that was in it is in the log."""
        if self.path is None:
            return False
        self.engine.dispose()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.engine = self._open()
        return True

    def close(self) -> None:
        """Give back the file."""
        self.engine.dispose()
        if self._temporary is not None:
            self._temporary.cleanup()


class PostgresPlace:
    """A schema of its own in the log's PostgreSQL database."""

    schema: str | None = SCHEMA

    def __init__(self, url: str) -> None:
        from flightlog.events.stores.postgres import url_of

        self.location = url_of(url).set(drivername="postgresql").render_as_string(hide_password=True)
        self.engine = sqlalchemy.create_engine(
            url_of(url),
            isolation_level="AUTOCOMMIT",
            execution_options={"schema_translate_map": {None: SCHEMA}},
            connect_args={"application_name": "flightlog-projector", "connect_timeout": 10},
        )

    def prepare(self) -> None:
        """Make the schema, if it is not there."""
        with self.engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_schema(SCHEMA):
                connection.execute(sqlalchemy.schema.CreateSchema(SCHEMA, if_not_exists=True))

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Begin a transaction that no other projector is in at the same time."""
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")  # it can be made again from the log

    def discard(self) -> bool:
        """Do nothing: the server looks after its files."""
        return False

    def close(self) -> None:
        """Give back the connections."""
        self.engine.dispose()


def _touch(path: Path) -> None:
    """Make the file, for its owner only: it shows what the log holds."""
    try:
        path.touch(0o600)
    except OSError as error:
        raise LogWriteError(
            f"The projections cannot be kept at {path}: {error.strerror}. Delete what is there; they are made again."
        ) from None


def _writable(path: Path) -> bool:
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        return False
    try:  # root may write everywhere, but not on a disk that is mounted read-only
        with tempfile.TemporaryFile(dir=path.parent):
            return True
    except OSError:
        return False


def place_of(log_url: str) -> Place:
    """Return where the projections of a log are kept: beside it, or in memory if it is there."""
    if is_postgres(log_url):
        return PostgresPlace(log_url)
    path = path_of(log_url)
    return FilePlace(None if path is None else projections_path(path))
