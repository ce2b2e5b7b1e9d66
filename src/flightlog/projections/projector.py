"""Keeps projections level with the log, in a database of their own that can be deleted at any time."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.pool import QueuePool, StaticPool

from flightlog.errors import LogWriteError
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.projections.logs import LogsProjection
from flightlog.projections.projection import Projection, Rows
from flightlog.projections.runs import RunsProjection

_BATCH = 5000
_BUSY_SECONDS = 120.0

metadata = MetaData()
cursors = Table(
    "cursors",
    metadata,
    Column("projection", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("log_id", LargeBinary, nullable=False),
)


def built_in() -> list[Projection]:
    """Return the projections that come with Flightlog."""
    return [RunsProjection(), LogsProjection()]


def projections_path(database: Path) -> Path:
    """Return where the projections of the log in that file are kept."""
    return database.with_name(database.name + ".projections")


class Projector:
    """Projections in an SQLite database, brought up to date before each read.

    Args:
        log: the log.
        path: the file; None for a log in memory. Where it cannot be written, a temporary one is used.
        projections: what to keep; what comes with Flightlog by default.
    """

    def __init__(self, log: Log, path: Path | None, projections: Sequence[Projection] | None = None) -> None:
        self.log = log
        self.projections = built_in() if projections is None else projections
        self._temporary: Any = None
        self.path = path if path is None or _writable(path) else self._elsewhere(path)
        self._engine = self._open()

    def _elsewhere(self, path: Path) -> Path:
        self._temporary = tempfile.TemporaryDirectory(prefix="flightlog-")
        return Path(self._temporary.name, path.name)

    def _open(self) -> sqlalchemy.Engine:
        path = ":memory:" if self.path is None else str(self.path)

        def connect() -> sqlite3.Connection:
            if self.path is not None:
                _touch(self.path)
            connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA synchronous=OFF")  # it can be made again from the log
            except BaseException:
                connection.close()  # the file may be no database
                raise
            return connection

        pool = StaticPool if self.path is None else QueuePool
        return sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=pool)

    def catch_up(self) -> int:
        """Apply all events that are not applied yet; return the position up to which all are.

        Raises:
            LogWriteError: the projections' database cannot be written.
        """
        try:
            return self._catch_up()
        except sqlalchemy.exc.DatabaseError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or self.path is None:
                raise LogWriteError(
                    f"The projections at {self.path} cannot be written: {error.orig}. Free some space, or delete "
                    "that file: it is made again from the log."
                ) from error
        self._discard()
        return self._catch_up()

    def _discard(self) -> None:
        """Delete a damaged database: all that was in it is in the log."""
        self._engine.dispose()
        assert self.path is not None
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._engine = self._open()

    def _catch_up(self) -> int:
        head = self.log.head().position
        with self._engine.connect() as connection:
            if _positions(connection, self.log, self.projections, head) == {p.name: head for p in self.projections}:
                return head
            if self.path is not None:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        done = False
        while not done:
            with self._transaction() as connection:  # one projector at a time; the others wait and find it done
                metadata.create_all(connection)
                positions = _positions(connection, self.log, self.projections, head)
                for projection in self.projections:
                    if projection.name not in positions:
                        positions[projection.name] = self._start_over(connection, projection)
                done = self._advance(connection, positions)
        return self.log.head().position

    @contextmanager
    def _transaction(self) -> Iterator[sqlalchemy.Connection]:
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise

    def _start_over(self, connection: sqlalchemy.Connection, projection: Projection) -> int:
        """Make a projection's tables anew, empty."""
        for table in projection.tables:
            table.drop(connection, checkfirst=True)
            table.create(connection)
        self._move(connection, projection, 0)
        return 0

    def _move(self, connection: sqlalchemy.Connection, projection: Projection, position: int) -> None:
        values = {"version": projection.version, "position": position, "log_id": self.log.log_id}
        statement = insert(cursors).values(projection=projection.name, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["projection"], set_=values))

    def _advance(self, connection: sqlalchemy.Connection, positions: dict[str, int]) -> bool:
        """Apply one batch of events, and move the cursors in the same transaction; tell if that was all."""
        start = min(positions.values())
        events = list(self.log.read_all(start, limit=_BATCH))
        end = events[-1].position if events else start
        for projection in self.projections:
            rows: Rows = {}
            after = positions[projection.name]
            for event in events:
                if event.position > after:
                    _apply(projection, event, rows)
            _store(connection, projection, rows)
            self._move(connection, projection, max(after, end))
        return len(events) < _BATCH

    def rows(self, statement: Any) -> list[Any]:
        """Return the rows that a query finds, after catching up."""
        self.catch_up()
        with self._engine.connect() as connection:
            return list(connection.execute(statement))

    def positions(self) -> dict[str, int]:
        """Return up to which position each projection has come; those that were never made are missing."""
        with self._engine.connect() as connection:
            return _positions(connection, self.log, self.projections, self.log.head().position)

    def close(self) -> None:
        """Give back the database."""
        self._engine.dispose()
        if self._temporary is not None:
            self._temporary.cleanup()


def _apply(projection: Projection, event: Event, rows: Rows) -> None:
    if projection.types is None or event.type in projection.types:
        for put in projection.apply(event):
            rows.setdefault((put.table, put.key), {}).update(put.values)


def _positions(
    connection: sqlalchemy.Connection, log: Log, projections: Sequence[Projection], head: int
) -> dict[str, int]:
    """Return the cursors that can be gone on from: of this log, this version, and not ahead of the log."""
    if not sqlalchemy.inspect(connection).has_table(cursors.name):
        return {}
    found = {row.projection: row for row in connection.execute(select(cursors))}
    return {
        projection.name: row.position
        for projection in projections
        if (row := found.get(projection.name)) is not None
        and row.version == projection.version
        and row.log_id == log.log_id
        and row.position <= head
    }


def _store(connection: sqlalchemy.Connection, projection: Projection, rows: Rows) -> None:
    """Write rows, those with the same columns together."""
    tables = {table.name: table for table in projection.tables}
    groups: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
    for (name, key), values in rows.items():
        columns = [column.name for column in tables[name].primary_key]
        row = {column: _storable(value) for column, value in (*zip(columns, key, strict=True), *values.items())}
        groups.setdefault((name, tuple(sorted(row))), []).append(row)
    for (name, columns_), group in groups.items():
        table = tables[name]
        keys = [column.name for column in table.primary_key]
        statement = insert(table)
        rest = {column: statement.excluded[column] for column in columns_ if column not in keys}
        if rest:
            upsert = statement.on_conflict_do_update(index_elements=keys, set_=rest)
        else:
            upsert = statement.on_conflict_do_nothing()
        connection.execute(upsert, group)


def _touch(path: Path) -> None:
    """Make the file, for its owner only: it shows what the log holds."""
    try:
        path.touch(0o600)
    except OSError as error:
        raise LogWriteError(
            f"The projections cannot be kept at {path}: {error.strerror}. Delete what is there; they are made again."
        ) from None


def _storable(value: Any) -> Any:
    """Return text with half surrogate pairs escaped, which SQLite does not take; the event has it as it was."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _writable(path: Path) -> bool:
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        return False
    try:  # root may write everywhere, but not on a disk that is mounted read-only
        with tempfile.TemporaryFile(dir=path.parent):
            return True
    except OSError:
        return False
