"""What a projection is: a name, a version, tables, and a pure fold of events into rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Table

from flightlog.events.model import Event


class Put(NamedTuple):
    """A row is to have these values; columns that are not named keep theirs.

    Attributes:
        table: the table's name.
        key: the row's primary key.
        values: the values by column.
        new: whether there can be no such row yet, so that nobody need look.
    """

    table: str
    key: tuple[Any, ...]
    values: Mapping[str, Any]
    new: bool = False


Look = Callable[[str, tuple[Any, ...]], Mapping[str, Any] | None]
"""Returns a row of the projection's own, by table and key, as it is after all events so far; None if there is none."""


class Projection(Protocol):
    """A view of the log that can be thrown away and made again.

    Attributes:
        name: its name.
        version: raised when its tables or its fold change; then it is made again.
        tables: its tables; the primary key's columns, in order, are the keys of `Put`.
        types: the event types that it needs; None for all.
    """

    name: str
    version: int
    tables: Sequence[Table]
    types: frozenset[str] | None

    def apply(self, event: Event, look: Look, /) -> Iterable[Put]:
        """Return what an event changes. Pure: it reads nothing but the event and the projection's own rows."""
        ...


Rows = dict[tuple[str, tuple[Any, ...]], dict[str, Any]]
"""A projection's content in memory: rows by table and key."""


def fold(projection: Projection, events: Iterable[Event], rows: Rows | None = None, look: Look | None = None) -> Rows:
    """Return the rows that events lead to, on top of `rows`, which is changed.

    Args:
        projection: the projection.
        events: the events, in order.
        rows: what is there already.
        look: finds rows that are not in `rows`.
    """
    rows = {} if rows is None else rows
    new: set[tuple[str, tuple[Any, ...]]] = set()

    def find(table: str, key: tuple[Any, ...]) -> Mapping[str, Any] | None:
        here = rows.get((table, key))
        if (table, key) in new:
            return here
        stored = look(table, key) if look is not None else None
        if here is None or stored is None:
            return here if here is not None else stored
        return {**stored, **here}

    for event in events:
        if projection.types is None or event.type in projection.types:
            for put in projection.apply(event, find):
                rows.setdefault((put.table, put.key), {}).update(put.values)
                if put.new:
                    new.add((put.table, put.key))
    return rows
