"""Keeps projections level with the log, in a database of their own that can be deleted at any time."""

import json
import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.schema import CreateIndex

from flightlog.errors import LogError, LogWriteError
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.store import REPLAY
from flightlog.garbage import no_collections
from flightlog.projections.artifacts import ArtifactsProjection
from flightlog.projections.logs import LogsProjection
from flightlog.projections.metrics import MetricsProjection
from flightlog.projections.places import FilePlace, Place, projections_path, transaction
from flightlog.projections.projection import Projection, Rows, fold
from flightlog.projections.runs import RunsProjection

_BATCH = 5000
_PAGE = 2000
_SHADOW = "__next"

metadata = MetaData()
cursors = Table(
    "cursors",
    metadata,
    Column("projection", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("log_id", LargeBinary, nullable=False),
)
Progress = Callable[[int, int], None]
"""Told how far a rebuild has come: a position, and the one that it goes to."""


def built_in() -> list[Projection]:
    """Return the projections that come with Flightlog."""
    return [RunsProjection(), LogsProjection(), MetricsProjection(), ArtifactsProjection()]


@dataclass(frozen=True, slots=True)
class Status:
    """How far a projection has come.

    Attributes:
        name: its name.
        version: the version of its tables; None if it was never made.
        position: up to which position of the log it has come.
        behind: how many positions it is behind the log.
    """

    name: str
    version: int | None
    position: int
    behind: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a projection differs from what the log says.

    Attributes:
        table: the table.
        key: the row's primary key, by column.
        kept: the row as it is kept; None if it is missing.
        right: the row as the log has it; None if there is to be none.
    """

    table: str
    key: dict[str, Any]
    kept: dict[str, Any] | None
    right: dict[str, Any] | None


class Projector:
    """Projections in a database, brought up to date before each read.

    Args:
        log: the log.
        place: where they are kept: a file (a temporary one where it cannot be written), memory (None), or another
            place.
        projections: what to keep; what comes with Flightlog by default.
        until: the last position that counts, for a view of the past; None for all.
        at: the moment that such a view shows, in microseconds since 1970 (UTC).
    """

    def __init__(
        self,
        log: Log,
        place: Place | Path | None,
        projections: Sequence[Projection] | None = None,
        *,
        until: int | None = None,
        at: int | None = None,
    ) -> None:
        self.log = log
        self.projections = built_in() if projections is None else projections
        self.until = until
        self.at = at
        self.place: Place = FilePlace(place) if place is None or isinstance(place, Path) else place

    # --- catching up ------------------------------------------------------------------------------

    def catch_up(self) -> int:
        """Apply all events that are not applied yet; return the position up to which all are.

        Raises:
            LogWriteError: the projections' database cannot be written.
        """
        try:
            return self._catch_up()
        except sqlalchemy.exc.DatabaseError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or not self.place.discard():
                raise LogWriteError(
                    f"The projections at {self.place.location} cannot be written: {error.orig}. Free some space, or "
                    "delete them: they are made again from the log."
                ) from error
        return self._catch_up()

    def now(self) -> int:
        """Return the moment that is shown, in microseconds since 1970 (UTC): the log's present, but for the past."""
        return self.log.store.now() if self.at is None else self.at

    @cached_property
    def is_past(self) -> bool:
        """Whether it shows the past, which what runs here now says nothing of."""
        return self.until is not None or REPLAY in self.log.store.facts()

    def _head(self) -> int:
        head = self.log.head().position
        return head if self.until is None else min(head, self.until)

    def _catch_up(self) -> int:
        head = self._head()
        with self.place.engine.connect() as connection:
            if self._positions(connection, head) == {p.name: head for p in self.projections}:
                return head
        self.place.prepare()
        done = False
        while not done:
            with transaction(self.place) as connection:  # the others wait and find it done
                metadata.create_all(connection)
                positions = self._positions(connection, head)
                for projection in self.projections:
                    if projection.name not in positions:
                        _make(connection, projection.tables)
                        self._move(connection, projection.name, projection.version, 0)
                        positions[projection.name] = 0
                done = self._advance(connection, positions)
        return self._head()

    def _positions(self, connection: sqlalchemy.Connection, head: int) -> dict[str, int]:
        """Return the cursors that can be gone on from: of this log, this version, and not ahead of the log."""
        found = self._cursors(connection)
        return {
            projection.name: row.position
            for projection in self.projections
            if (row := found.get(projection.name)) is not None
            and row.version == projection.version
            and row.log_id == self.log.log_id
            and row.position <= head
        }

    def _cursors(self, connection: sqlalchemy.Connection) -> dict[str, Any]:
        if not sqlalchemy.inspect(connection).has_table(cursors.name, schema=self.place.schema):
            return {}
        return {row.projection: row for row in connection.execute(select(cursors))}

    def _move(self, connection: sqlalchemy.Connection, name: str, version: int, position: int) -> None:
        values = {"version": version, "position": position, "log_id": self.log.log_id}
        statement = insert(cursors).values(projection=name, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["projection"], set_=values))

    def _events(self, after: int) -> tuple[list[Event], bool]:
        """Return a batch of events, and whether it was the last one."""
        with no_collections():
            events = list(self.log.read_all(after, limit=_BATCH))
        last = len(events) < _BATCH
        if self.until is not None and events and events[-1].position >= self.until:
            return [event for event in events if event.position <= self.until], True
        return events, last

    def _advance(self, connection: sqlalchemy.Connection, positions: dict[str, int]) -> bool:
        """Apply one batch of events, and move the cursors in the same transaction; tell if that was all."""
        start = min(positions.values())
        events, last = self._events(start)
        end = events[-1].position if events else start
        for projection in self.projections:
            after = positions[projection.name]
            fresh = events if after == start else [event for event in events if event.position > after]
            _apply(connection, projection, fresh, "")
            self._move(connection, projection.name, projection.version, max(after, end))
        return last

    # --- reading ----------------------------------------------------------------------------------

    def rows(self, statement: Any) -> list[Any]:
        """Return the rows that a query finds, after catching up."""
        self.catch_up()
        with self.place.engine.connect() as connection:
            return list(connection.execute(statement))

    def positions(self) -> dict[str, int]:
        """Return up to which position each projection has come; those that were never made are missing."""
        with self.place.engine.connect() as connection:
            return self._positions(connection, self._head())

    def status(self) -> list[Status]:
        """Return how far each projection has come, without taking any further."""
        head = self._head()
        with self.place.engine.connect() as connection:
            found = self._cursors(connection)
        states = []
        for projection in self.projections:
            row = found.get(projection.name)
            position = 0 if row is None or row.version != projection.version else row.position
            states.append(Status(projection.name, None if row is None else row.version, position, head - position))
        return states

    # --- making anew ------------------------------------------------------------------------------

    def rebuild(self, names: Sequence[str] | None = None, progress: Progress | None = None) -> int:
        """Make projections anew beside the old ones, which readers go on reading, and swap; return the position.

        Args:
            names: which; all by default.
            progress: told how far it has come.
        """
        self.catch_up()
        chosen = [projection for projection in self.projections if names is None or projection.name in names]
        for projection in chosen:
            self._rebuild(projection, progress)
        return self._head()

    def _rebuild(self, projection: Projection, progress: Progress | None) -> None:
        name = projection.name + _SHADOW
        with transaction(self.place) as connection:
            _make(connection, [_shadow(table) for table in projection.tables])
            self._move(connection, name, projection.version, 0)
        last = False
        while not last:
            with transaction(self.place) as connection:
                row = self._cursors(connection).get(name)
                if row is None:
                    raise LogError(f"Somebody else is making the projection {projection.name!r} anew; that goes on.")
                events, last = self._events(row.position)
                _apply(connection, projection, events, _SHADOW)
                position = events[-1].position if events else row.position
                self._move(connection, name, projection.version, position)
                if last:
                    self._swap(connection, projection, position)
            if progress is not None:
                progress(position, self._head())

    def _swap(self, connection: sqlalchemy.Connection, projection: Projection, position: int) -> None:
        """Put the tables that were made beside in the place of the old ones."""
        prefix = "" if self.place.schema is None else f"{self.place.schema}."
        for table in projection.tables:
            table.drop(connection, checkfirst=True)
            connection.exec_driver_sql(f"ALTER TABLE {prefix}{table.name}{_SHADOW} RENAME TO {table.name}")
            for index in table.indexes:
                connection.execute(CreateIndex(index))
        self._move(connection, projection.name, projection.version, position)
        connection.execute(cursors.delete().where(cursors.c.projection == projection.name + _SHADOW))

    def check(self, name: str) -> Difference | None:
        """Make a projection aside, and return the first place where the one that is kept differs; None if nowhere.

        Args:
            name: the projection's name.
        """
        self.catch_up()
        projection = next(projection for projection in self.projections if projection.name == name)
        with transaction(self.place) as connection:
            position = self._cursors(connection)[name].position
            aside = Projector(self.log, None, [projection], until=position)
            try:
                aside.catch_up()
                with aside.place.engine.connect() as right:
                    for table in projection.tables:
                        if (found := _first_difference(table, connection, right)) is not None:
                            return found
            finally:
                aside.close()
        return None

    def close(self) -> None:
        """Give back the database."""
        self.place.close()


def _make(connection: sqlalchemy.Connection, tables: Sequence[Table]) -> None:
    """Make tables anew, empty."""
    for table in tables:
        table.drop(connection, checkfirst=True)
        table.create(connection)


def _shadow(table: Table) -> Table:
    """Return a table like this one under another name, without its indexes."""
    columns = [Column(column.name, column.type, primary_key=column.primary_key) for column in table.columns]
    return Table(
        table.name + _SHADOW, MetaData(), *columns, sqlite_with_rowid=table.dialect_options["sqlite"]["with_rowid"]
    )


def _apply(connection: sqlalchemy.Connection, projection: Projection, events: Sequence[Event], suffix: str) -> None:
    """Fold events into a projection's tables, or into those that are made beside them."""
    with no_collections():
        _fold_into(connection, projection, events, suffix)


def _fold_into(connection: sqlalchemy.Connection, projection: Projection, events: Sequence[Event], suffix: str) -> None:
    tables = {table.name: table if not suffix else _shadow(table) for table in projection.tables}
    seen: dict[tuple[str, tuple[Any, ...]], Mapping[str, Any] | None] = {}

    def look(name: str, key: tuple[Any, ...]) -> Mapping[str, Any] | None:
        if (name, key) not in seen:
            table = tables[name]
            where = [column == value for column, value in zip(table.primary_key, key, strict=True)]
            row = connection.execute(select(table).where(*where)).mappings().first()
            seen[name, key] = None if row is None else dict(row)
        return seen[name, key]

    rows: Rows = fold(projection, events, look=look)
    _store(connection, tables, rows)


def _store(connection: sqlalchemy.Connection, tables: Mapping[str, Table], rows: Rows) -> None:
    """Write rows, those with the same columns together."""
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
            upsert = statement.on_conflict_do_nothing(index_elements=keys)
        connection.execute(upsert, group)


def _storable(value: Any) -> Any:
    """Return text with what databases do not take escaped, half surrogate pairs and NUL; the event has it as it was."""
    if not isinstance(value, str):
        return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
    if not value.isascii():
        value = value.encode("utf-8", "backslashreplace").decode()
    return value.replace("\0", "\\x00") if "\0" in value else value


def _first_difference(table: Table, kept: sqlalchemy.Connection, right: sqlalchemy.Connection) -> Difference | None:
    """Return the first row, in the order of the primary key, in which two databases differ."""
    with closing(in_order(table, kept)) as ours, closing(in_order(table, right)) as theirs:
        return next((_difference(table, *pair) for pair in zip_longest(ours, theirs) if pair[0] != pair[1]), None)


def _difference(table: Table, ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> Difference:
    """Return in what two rows differ: in their values, or in that one of them is missing."""
    keys = [column.name for column in table.primary_key]
    rows = [row for row in (ours, theirs) if row is not None]
    first = min(rows, key=lambda row: [comparable(row[key]) for key in keys])
    key = {name: first[name] for name in keys}
    here, there = (row if row is not None and row.items() >= key.items() else None for row in (ours, theirs))
    return Difference(table.name, key, here, there)


def comparable(value: Any) -> Any:
    """Return what stands for a key's value in comparisons: text sorts as its bytes do."""
    return value.encode() if isinstance(value, str) else value


def in_order(table: Table, connection: sqlalchemy.Connection) -> Generator[dict[str, Any], None, None]:
    """Yield the rows of a table in the order of its primary key, without holding all of them."""
    keys = list(table.primary_key)
    ordered = [column.collate("C") if _is_text(column, connection) else column for column in keys]
    statement = select(table).order_by(*ordered).execution_options(yield_per=_PAGE)
    with connection.execute(statement) as result:
        yield from (dict(row) for row in result.mappings())


def _is_text(column: Any, connection: sqlalchemy.Connection) -> bool:
    """Tell whether a column's order depends on the database's language, unless it is told otherwise."""
    return isinstance(column.type, Text) and connection.dialect.name == "postgresql"


__all__ = [
    "Difference",
    "Projector",
    "Status",
    "built_in",
    "comparable",
    "cursors",
    "in_order",
    "projections_path",
]
