"""What a projection is: a name, a version, tables, and a pure fold of events into rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Table

from flightlog.events.model import Event


class Put(NamedTuple):
    """A row is to have these values; columns that are not named keep theirs.

    Putting the same again changes nothing, so events may be applied one by one or in batches, and again
    from any earlier point, with the same outcome.
    """

    table: str
    key: tuple[Any, ...]
    values: Mapping[str, Any]


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

    def apply(self, event: Event) -> Iterable[Put]:
        """Return what an event changes. Pure: it reads nothing but the event."""
        ...


Rows = dict[tuple[str, tuple[Any, ...]], dict[str, Any]]
"""A projection's content in memory: rows by table and key."""


def fold(projection: Projection, events: Iterable[Event], rows: Rows | None = None) -> Rows:
    """Return the rows that events lead to, on top of `rows`, which is changed."""
    rows = {} if rows is None else rows
    for event in events:
        if projection.types is None or event.type in projection.types:
            for put in projection.apply(event):
                rows.setdefault((put.table, put.key), {}).update(put.values)
    return rows
