"""The tables of a log, as SQLAlchemy Core knows them, and the SQL that stores say.

All SQL of the log is made here, from these tables. What the SQLite store says while flows run stands compiled in
`flightlog.events.stores.sqlite_statements`, so that a flow's process need not import SQLAlchemy (which takes
longer than all the rest); ``python -m flightlog.events.stores.tables`` writes that module, and a test compares.
"""

from pathlib import Path

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("stream_id", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type_id", Integer, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("event_id", LargeBinary, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("events_by_stream", "stream_id", "version", unique=True),
    Index("events_by_id", "event_id", unique=True),
)
streams = Table(
    "streams",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("version", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("epoch", Integer, nullable=False),
)
event_types = Table(
    "event_types",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)
blobs = Table(
    "blobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("content", LargeBinary, nullable=False),
)
facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

_REFUSED = "events are append-only"
# REPLACE deletes the row that is in its way without a word to a DELETE trigger, hence the third.
SQLITE_TRIGGERS: Final = (
    f"CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END",
    f"CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END",
    "CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN "
    "EXISTS (SELECT 1 FROM events WHERE position = NEW.position) OR "
    "EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id) OR "
    "EXISTS (SELECT 1 FROM events WHERE stream_id = NEW.stream_id AND version = NEW.version) "
    f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END",
    "CREATE TRIGGER blobs_no_update BEFORE UPDATE ON blobs BEGIN SELECT RAISE(ABORT, 'blobs are immutable'); END",
)

select_end = select(events.c.position, events.c.recorded_at).order_by(events.c.position.desc()).limit(1)
select_head = select(streams.c.id, streams.c.version, streams.c.hash, streams.c.epoch).where(
    streams.c.name == bindparam("name")
)
insert_stream = insert(streams).values(
    name=bindparam("name"), version=bindparam("version"), hash=bindparam("hash"), epoch=bindparam("epoch")
)
update_stream = (
    update(streams)
    .where(streams.c.id == bindparam("key"))
    .values(version=bindparam("new_version"), hash=bindparam("new_hash"), epoch=bindparam("new_epoch"))
)
select_type = select(event_types.c.id).where(event_types.c.name == bindparam("name"))
insert_type = insert(event_types).values(name=bindparam("name"))
insert_event = insert(events).values({column.name: bindparam(column.name) for column in events.c})
insert_blob = insert(blobs).values(digest=bindparam("digest"), content=bindparam("content"))
select_known = (
    select(streams.c.name, events.c.version)
    .join(streams, streams.c.id == events.c.stream_id)
    .where(events.c.event_id == bindparam("event_id"))
)
_row = (events.c.position, events.c.recorded_at, events.c.record)
select_stream = (
    select(*_row)
    .where(
        events.c.stream_id == select(streams.c.id).where(streams.c.name == bindparam("name")).scalar_subquery(),
        events.c.version > bindparam("after"),
    )
    .order_by(events.c.version)
    .limit(bindparam("limit"))
)
select_all = (
    select(*_row).where(events.c.position > bindparam("after")).order_by(events.c.position).limit(bindparam("limit"))
)
select_of_types = (
    select(*_row)
    .where(
        events.c.position > bindparam("after"),
        events.c.type_id.in_(
            select(event_types.c.id).where(event_types.c.name.in_(bindparam("types", expanding=True)))
        ),
    )
    .order_by(events.c.position)
    .limit(bindparam("limit"))
)
# Outer joins: a row whose stream or type was taken away must be found by `verify`, not passed over.
select_indexed = (
    select(
        *_row,
        func.coalesce(streams.c.name, ""),
        events.c.version,
        events.c.event_id,
        func.coalesce(event_types.c.name, ""),
    )
    .select_from(
        events.outerjoin(streams, streams.c.id == events.c.stream_id).outerjoin(
            event_types, event_types.c.id == events.c.type_id
        )
    )
    .where(events.c.position > bindparam("after"))
    .order_by(events.c.position)
    .limit(bindparam("limit"))
)
select_ends = select(streams.c.name, streams.c.version, streams.c.hash, streams.c.epoch).order_by(streams.c.id)
select_blob = select(blobs.c.content).where(blobs.c.digest == bindparam("digest"))
select_facts = select(facts.c.name, facts.c.value)
insert_fact = insert(facts).values(name=bindparam("name"), value=bindparam("value"))


def sqlite_statements() -> dict[str, str | tuple[str, ...]]:
    """Return the statements that the SQLite store says while flows run, compiled, by the names of their constants."""

    def sql(statement: Any) -> str:
        text = str(statement.compile(dialect=sqlite_dialect(paramstyle="qmark")))
        return " ".join(text.split())

    make = []
    for table in metadata.sorted_tables:
        make.append(sql(CreateTable(table)))
        make += [sql(CreateIndex(index)) for index in sorted(table.indexes, key=lambda index: str(index.name))]
    return {
        "MAKE": (*make, *SQLITE_TRIGGERS),
        "SELECT_END": sql(select_end).replace("LIMIT ? OFFSET ?", "LIMIT 1"),
        "SELECT_HEAD": sql(select_head),
        "INSERT_STREAM": sql(insert_stream),
        "UPDATE_STREAM": sql(update_stream),
        "SELECT_TYPE": sql(select_type),
        "INSERT_TYPE": sql(insert_type),
        "INSERT_EVENT": sql(insert_event),
        "INSERT_BLOB": sql(insert_blob) + " ON CONFLICT (digest) DO NOTHING",
        "SELECT_KNOWN": sql(select_known),
        "SELECT_FACTS": sql(select_facts),
        "INSERT_FACT": sql(insert_fact) + " ON CONFLICT (name) DO NOTHING",
    }


def sqlite_module() -> str:
    """Return the source of `flightlog.events.stores.sqlite_statements`."""
    lines = ['"""SQL for SQLite, compiled from `flightlog.events.stores.tables`, which writes this module."""', ""]
    for name, statement in sqlite_statements().items():
        if isinstance(statement, str):
            lines.append(f"{name} = {statement!r}")
        else:
            lines += [f"{name} = (", *(f"    {part!r}," for part in statement), ")"]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    Path(__file__).with_name("sqlite_statements.py").write_text(sqlite_module())
