"""A rehearsed upgrade: what this version makes of a log that another one has kept, without changing anything."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy
from pydantic import ValidationError
from sqlalchemy import MetaData, Table, select

from flightlog.events.log import Log
from flightlog.events.types import SCHEMAS
from flightlog.events.vocabulary import payload
from flightlog.projections.inline import INLINE
from flightlog.projections.places import Place, transaction
from flightlog.projections.projection import Projection
from flightlog.projections.projector import Difference, Projector, comparable, cursors, in_order

_EVERY = 10_000


@dataclass(slots=True)
class Reading:
    """What this version makes of the log's events.

    Attributes:
        events: how many there are.
        lifted: how many have an older shape, and are lifted when they are read, by type and schema version.
        unknown: how many this version does not know, by type and schema version: they are carried along as they are.
        wrong: the first event of each type that cannot be read, with why.
        seconds: how long it took.
    """

    events: int = 0
    lifted: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """What would change in a projection.

    Attributes:
        name: the projection's name.
        kept: the version that is kept; None if none is, or that is not known.
        installed: the version that is installed.
        rows: how many rows the installed version makes.
        changed: how many of them differ from what is kept, are missing there, or are there too much.
        first: the first of these; None for none.
        columns: the columns that only one of the two has, as ``table.column``.
        seconds: how long it took.
        in_log: whether it is kept in the log itself, in the commits that change it.
    """

    name: str
    kept: int | None
    installed: int
    rows: int
    changed: int
    first: Difference | None
    columns: list[str]
    seconds: float
    in_log: bool = False

    @property
    def is_suspect(self) -> bool:
        """Whether rows differ though the version is the same: one of the two is wrong."""
        return self.changed > 0 and self.kept in (None, self.installed)


def read_all(log: Log, progress: Callable[[int, int], None] | None = None) -> Reading:
    """Read every event as this version does: decoded, lifted, and held against its model.

    Args:
        log: the log.
        progress: told how far it has come: the position, and the last one.
    """
    found, began, head = Reading(), time.monotonic(), log.head().position
    for event in log.read_all():
        found.events += 1
        schema, known = event.envelope.schema, SCHEMAS.get(event.type)
        try:
            if payload(event) is None:
                found.unknown[f"{event.type} (schema {schema})"] += 1
            elif known is not None and schema < known:
                found.lifted[f"{event.type} (schema {schema})"] += 1
        except ValidationError as error:
            one = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in one["loc"])
            found.wrong.setdefault(event.type, f"event {event.position}: {where}: {one['msg']}")
        except Exception as error:  # noqa: BLE001 - an upcaster may fail in any way
            found.wrong.setdefault(event.type, f"event {event.position}: {type(error).__name__}: {error}")
        if progress is not None and event.position % _EVERY == 0:
            progress(event.position, head)
    if progress is not None:
        progress(head, head)
    found.seconds = time.monotonic() - began
    return found


def rehearse(log: Log, place: Place, projections: list[Projection]) -> Iterator[Change]:
    """Make each projection aside with the installed version, and compare it with what is kept. Nothing is changed.

    Args:
        log: the log.
        place: where projections are kept.
        projections: those that the installed version keeps.
    """
    status = {one.name: one for one in Projector(log, place, projections).status()}
    for projection in projections:
        yield _rehearsed(log, place, projection, status[projection.name].version)
    for inline in INLINE:
        began = time.monotonic()
        right = log.folded(inline)
        kept = log.states(inline.name) if log.store.inline_states(inline.name) is not None else {}
        wrong = sorted(key for key in kept.keys() | right.keys() if kept.get(key) != right.get(key))
        first = None
        if wrong:
            first = Difference("inline", {"stream": wrong[0]}, kept.get(wrong[0]), right.get(wrong[0]))
        seconds = time.monotonic() - began
        yield Change(inline.name, None, inline.version, len(right), len(wrong), first, [], seconds, in_log=True)


def _rehearsed(log: Log, place: Place, projection: Projection, kept: int | None) -> Change:
    began, rows, changed, columns = time.monotonic(), 0, 0, list[str]()
    first: Difference | None = None
    with transaction(place) as old:  # what is kept must not move on meanwhile
        aside = Projector(log, None, [projection], until=_position(log, place, projection, old))
        try:
            aside.catch_up()
            with aside.place.engine.connect() as new:
                for table in projection.tables:
                    there = None if kept is None else _reflected(old, place, table)
                    if there is not None:
                        columns += _columns(table, there)
                    for difference in _compared(table, there, old, new):
                        rows += difference.right is not None
                        if kept is not None and difference.kept != difference.right:
                            changed += 1
                            first = first or difference
        finally:
            aside.close()
    seconds = time.monotonic() - began
    return Change(projection.name, kept, projection.version, rows, changed, first, columns, seconds)


def _position(log: Log, place: Place, projection: Projection, connection: sqlalchemy.Connection) -> int:
    """Return up to which position a projection is kept; all of the log if it is not."""
    if sqlalchemy.inspect(connection).has_table(cursors.name, schema=place.schema):
        row = connection.execute(select(cursors).where(cursors.c.projection == projection.name)).first()
        if row is not None and row.log_id == log.log_id:
            return int(row.position)
    return log.head().position


def _reflected(connection: sqlalchemy.Connection, place: Place, table: Table) -> Table | None:
    """Return a table as it is kept, whatever columns it has; None if there is none."""
    try:
        return Table(table.name, MetaData(), autoload_with=connection, schema=place.schema)
    except sqlalchemy.exc.NoSuchTableError:
        return None


def _columns(here: Table, there: Table) -> list[str]:
    mine, theirs = {column.name for column in here.columns}, {column.name for column in there.columns}
    return [f"{here.name}.{name}" for name in sorted(mine ^ theirs)]


def _compared(
    table: Table, kept: Table | None, old: sqlalchemy.Connection, new: sqlalchemy.Connection
) -> Iterator[Difference]:
    """Yield each row of either, by key, as the one and the other have it, in the columns that both have."""
    keys = [column.name for column in table.primary_key]
    if kept is not None and [column.name for column in kept.primary_key] != keys:
        kept = None  # under another key all rows are others
    names = [column.name for column in table.columns if kept is None or column.name in kept.columns]

    def rows(source: Table, connection: sqlalchemy.Connection, side: int) -> Iterator[tuple[Any, int, dict[str, Any]]]:
        with closing(in_order(source, connection)) as found:
            for row in found:
                yield [comparable(row[key]) for key in keys], side, {name: row[name] for name in names}

    ours = iter(()) if kept is None else rows(kept, old, 0)
    for _, group in groupby(merge(ours, rows(table, new, 1), key=itemgetter(0)), key=itemgetter(0)):
        sides = {side: row for _, side, row in group}
        some = next(iter(sides.values()))
        yield Difference(table.name, {key: some[key] for key in keys}, sides.get(0), sides.get(1))
