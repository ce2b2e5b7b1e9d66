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
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from flightlog.events.types import ARCHIVES_STREAM, LOG_ARCHIVED

metadata = MetaData()
"""The tables of a log in SQLite; PostgreSQL has the same but for `events`, see `postgres_metadata`."""
_KEY = BigInteger().with_variant(Integer, "sqlite")

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
    Column("id", _KEY, primary_key=True),
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
    Column("id", _KEY, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("content", LargeBinary, nullable=False),
)
facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

liveness = Table(
    "liveness",
    metadata,
    Column("process", Text, primary_key=True),
    Column("beat", BigInteger, nullable=False),
)
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease", BigInteger, nullable=False),
)
inline_projections = Table(
    "inline_projections",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("types", Text, nullable=False),
)
inline_states = Table(
    "inline_states",
    metadata,
    Column("projection", Text, primary_key=True),
    Column("stream_id", BigInteger, primary_key=True, autoincrement=False),
    Column("state", LargeBinary, nullable=False),
)
archives = Table(
    "archives",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("segment", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("events", Integer, nullable=False),
    Column("positions", LargeBinary, nullable=False),
    Column("leaves", LargeBinary, nullable=False),
)
"""What left the database: see `flightlog.events.archives.Archive`."""
archived_streams = Table(
    "archived_streams",
    metadata,
    Column("stream_id", BigInteger, primary_key=True, autoincrement=False),
    Column("first_version", Integer, primary_key=True, autoincrement=False),
    Column("last_version", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("epoch", Integer, nullable=False),
    sqlite_with_rowid=False,
)
archived_blobs = Table(
    "archived_blobs",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("number", Integer, nullable=False),
    sqlite_with_rowid=False,
)
_SINCE: Final = {
    2: (liveness, subscriptions),
    3: (inline_projections, inline_states),
    4: (archives, archived_streams, archived_blobs),
}
"""The tables that each version of the layout has added."""

_REFUSED = "events are append-only"
# REPLACE deletes the row that is in its way without a word to a DELETE trigger, hence the third.
_ABORT = f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
_REPLACED = " OR ".join(
    f"EXISTS (SELECT 1 FROM events WHERE {same})"  # noqa: S608 - of constants
    for same in (
        "position = NEW.position",
        "event_id = NEW.event_id",
        "stream_id = NEW.stream_id AND version = NEW.version",
    )
)
# Only those rows may go that the archive names whose `log.archived` is the last event, and not yet counted by its
# stream: so it is only within the transaction that appends it.
_NOW = (
    "SELECT e.version FROM events e JOIN streams s ON s.id = e.stream_id "  # noqa: S608 - of constants
    "AND e.version = s.version + 1 JOIN event_types t ON t.id = e.type_id "
    f"WHERE s.name = '{ARCHIVES_STREAM}' AND t.name = '{LOG_ARCHIVED}' AND e.position = "
    "(SELECT max(position) FROM events)"
)
_NAMED = (
    "SELECT 1 FROM archived_streams a WHERE a.stream_id = OLD.stream_id "  # noqa: S608 - of constants
    "AND a.first_version <= OLD.version "
    f"AND a.last_version >= OLD.version AND a.number = ({_NOW})"
)
_BACK = "SELECT 1 FROM events e WHERE e.stream_id = OLD.stream_id AND e.version = OLD.last_version"
_LEFT = "SELECT 1 FROM archived_streams a WHERE a.number = OLD.number"
_ABORT_TOO = "BEGIN SELECT RAISE(ABORT, 'archives are append-only'); END"
_NO_DELETE = f"CREATE TRIGGER events_no_delete BEFORE DELETE ON events WHEN NOT EXISTS ({_NAMED}) {_ABORT}"
_OF_ARCHIVES: Final = tuple(
    f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table} {condition} {_ABORT_TOO}"
    for table, what, condition in (
        ("archives", "UPDATE", ""),
        ("archives", "DELETE", f"WHEN EXISTS ({_LEFT})"),
        ("archived_streams", "UPDATE", ""),
        ("archived_streams", "DELETE", f"WHEN NOT EXISTS ({_BACK})"),
    )
)
SQLITE_TRIGGERS: Final = (
    f"CREATE TRIGGER events_no_update BEFORE UPDATE ON events {_ABORT}",
    _NO_DELETE,
    f"CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN {_REPLACED} {_ABORT}",
    "CREATE TRIGGER blobs_no_update BEFORE UPDATE ON blobs BEGIN SELECT RAISE(ABORT, 'blobs are immutable'); END",
    *_OF_ARCHIVES,
)
_CHANGED: Final = {4: ("DROP TRIGGER events_no_delete", _NO_DELETE, *_OF_ARCHIVES)}
"""What each version of the layout has changed besides."""

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


class Reading:
    """What is read of the events, from a table or view that has their positions.

    Args:
        events: it.
    """

    def __init__(self, events: Any) -> None:
        event = events.c
        row = (event.position, event.recorded_at, event.record)
        after = event.position > bindparam("after")
        self.end = select(event.position, event.recorded_at).order_by(event.position.desc()).limit(1)
        self.by_id = select(*row).where(event.event_id == bindparam("event_id"))
        self.stream = (
            select(*row)
            .where(
                event.stream_id == select(streams.c.id).where(streams.c.name == bindparam("name")).scalar_subquery(),
                event.version > bindparam("after"),
            )
            .order_by(event.version)
            .limit(bindparam("limit"))
        )
        self.all = select(*row).where(after).order_by(event.position).limit(bindparam("limit"))
        chosen = select(event_types.c.id).where(event_types.c.name.in_(bindparam("types", expanding=True)))
        self.of_types = (
            select(*row).where(after, event.type_id.in_(chosen)).order_by(event.position).limit(bindparam("limit"))
        )
        # Outer joins: a row whose stream or type was taken away must be found by `verify`, not passed over.
        self.indexed = (
            select(
                *row,
                func.coalesce(streams.c.name, text("''")),
                event.version,
                event.event_id,
                func.coalesce(event_types.c.name, text("''")),
            )
            .select_from(
                events.outerjoin(streams, streams.c.id == event.stream_id).outerjoin(
                    event_types, event_types.c.id == event.type_id
                )
            )
            .where(after)
            .order_by(event.position)
            .limit(bindparam("limit"))
        )


def known_in(events: Any) -> Any:
    """Return the query for where an event id is recorded."""
    return (
        select(streams.c.name, events.c.version)
        .join(streams, streams.c.id == events.c.stream_id)
        .where(events.c.event_id == bindparam("event_id"))
    )


sqlite_reading = Reading(events)
select_known = known_in(events)
select_ends = select(streams.c.name, streams.c.version, streams.c.hash, streams.c.epoch).order_by(streams.c.id)
select_blobs = select(blobs.c.digest, blobs.c.content).where(blobs.c.digest.in_(bindparam("digests", expanding=True)))
select_facts = select(facts.c.name, facts.c.value)
insert_fact = insert(facts).values(name=bindparam("name"), value=bindparam("value"))
update_fact = update(facts).where(facts.c.name == bindparam("key")).values(value=bindparam("new_value"))

# --- inline projections ---

select_inlines = select(inline_projections.c.name, inline_projections.c.version, inline_projections.c.types)
_inline = upsert(inline_projections).values(
    name=bindparam("name"), version=bindparam("version"), types=bindparam("types")
)
put_inline = _inline.on_conflict_do_update(
    index_elements=["name"], set_={"version": _inline.excluded.version, "types": _inline.excluded.types}
)
_kept = upsert(inline_states).values(
    projection=bindparam("projection"), stream_id=bindparam("stream_id"), state=bindparam("state")
)
put_state = _kept.on_conflict_do_update(
    index_elements=["projection", "stream_id"], set_={"state": _kept.excluded.state}
)
drop_state = delete(inline_states).where(
    inline_states.c.projection == bindparam("name"), inline_states.c.stream_id == bindparam("key")
)
drop_states = delete(inline_states).where(inline_states.c.projection == bindparam("name"))
drop_inlines = delete(inline_projections)
select_state = select(inline_states.c.state).where(
    inline_states.c.projection == bindparam("name"), inline_states.c.stream_id == bindparam("key")
)
# With the version of the projection: whoever reads values must know that they are there, and what they mean.
select_kept = (
    select(inline_projections.c.version, func.coalesce(streams.c.version, text("0")), inline_states.c.state)
    .select_from(
        inline_projections.outerjoin(streams, streams.c.name == bindparam("stream")).outerjoin(
            inline_states,
            and_(inline_states.c.stream_id == streams.c.id, inline_states.c.projection == inline_projections.c.name),
        )
    )
    .where(inline_projections.c.name == bindparam("name"))
)
select_states = (
    select(inline_projections.c.version, streams.c.name, inline_states.c.state)
    .select_from(
        inline_projections.outerjoin(inline_states, inline_states.c.projection == inline_projections.c.name).outerjoin(
            streams, streams.c.id == inline_states.c.stream_id
        )
    )
    .where(inline_projections.c.name == bindparam("name"))
)


def all_records(events: Any) -> Any:
    """Return the query for all records of some types, with the keys of their streams, in the order of each stream."""
    event = events.c
    chosen = select(event_types.c.id).where(event_types.c.name.in_(bindparam("types", expanding=True)))
    return (
        select(event.stream_id, event.record).where(event.type_id.in_(chosen)).order_by(event.stream_id, event.version)
    )


sqlite_records = all_records(events)

# --- archives ---

_catalogued = (archives.c.number, archives.c.segment, archives.c.digest, archives.c.size, archives.c.kind)
select_archives = select(*_catalogued, archives.c.first, archives.c.last, archives.c.events).order_by(archives.c.first)
select_leaves = select(archives.c.positions, archives.c.leaves).where(archives.c.number == bindparam("number"))
_part = archived_streams.c
_parts = select(streams.c.name, _part.first_version, _part.last_version, _part.hash, _part.epoch, _part.number)
_parts = _parts.join(streams, streams.c.id == _part.stream_id).order_by(_part.first_version)
select_parts = _parts.where(streams.c.name == bindparam("name"), _part.last_version > bindparam("after"))
select_parts_of = _parts.where(_part.number == bindparam("number"))
select_archived_blobs = select(archived_blobs.c.digest, archived_blobs.c.number).where(
    archived_blobs.c.digest.in_(bindparam("digests", expanding=True))
)
insert_archive = insert(archives).values({column.name: bindparam(column.name) for column in archives.c})
insert_part = insert(archived_streams).values(
    {column.name: bindparam(column.name) for column in archived_streams.c}
    | {"stream_id": select(streams.c.id).where(streams.c.name == bindparam("stream")).scalar_subquery()}
)
insert_archived_blob = (
    upsert(archived_blobs)
    .values(digest=bindparam("digest"), number=bindparam("number"))
    .on_conflict_do_nothing(index_elements=["digest"])  # an earlier archive has it too
)
delete_archive = delete(archives).where(archives.c.number == bindparam("key"))
delete_parts = delete(archived_streams).where(archived_streams.c.number == bindparam("key"))
delete_archived_blobs = delete(archived_blobs).where(archived_blobs.c.number == bindparam("key"))
delete_blob = delete(blobs).where(blobs.c.digest == bindparam("key"))
insert_new_blob = (
    upsert(blobs)
    .values(digest=bindparam("digest"), content=bindparam("content"))
    .on_conflict_do_nothing(index_elements=["digest"])
)


def delete_part_of(events: Any) -> Any:
    """Return the statement that deletes the events of a stream between two versions."""
    stream = select(streams.c.id).where(streams.c.name == bindparam("name")).scalar_subquery()
    return delete(events).where(
        events.c.stream_id == stream, events.c.version.between(bindparam("low"), bindparam("high"))
    )


sqlite_delete_part = delete_part_of(events)

# --- small tables that change: who is alive, and how far subscribers have come ---

_beat = upsert(liveness).values(process=bindparam("process"), beat=bindparam("beat"))
put_beat = _beat.on_conflict_do_update(index_elements=["process"], set_={"beat": _beat.excluded.beat})
delete_beat = delete(liveness).where(liveness.c.process == bindparam("key"))
select_beats = select(liveness.c.process, liveness.c.beat)
select_cursors = select(subscriptions).order_by(subscriptions.c.name)
# Either dialect says ON CONFLICT in the same words, so that the one's construct does for both.
insert_cursor = (
    upsert(subscriptions)
    .values(name=bindparam("name"), position=bindparam("position"), epoch=0, owner="", lease=0)
    .on_conflict_do_nothing(index_elements=["name"])
)
claim_cursor = (
    update(subscriptions)
    .where(
        subscriptions.c.name == bindparam("key"),
        or_(subscriptions.c.lease < bindparam("now"), subscriptions.c.owner == ""),
    )
    .values(owner=bindparam("new_owner"), lease=bindparam("new_lease"), epoch=subscriptions.c.epoch + 1)
)
move_cursor = (
    update(subscriptions)
    .where(subscriptions.c.name == bindparam("key"), subscriptions.c.epoch == bindparam("my_epoch"))
    .values(position=bindparam("new_position"), lease=bindparam("new_lease"))
)
release_cursor = (
    update(subscriptions)
    .where(subscriptions.c.name == bindparam("key"), subscriptions.c.epoch == bindparam("my_epoch"))
    .values(owner="", lease=0)
)
delete_cursor = delete(subscriptions).where(subscriptions.c.name == bindparam("key"))


def sqlite_statements() -> dict[str, Any]:
    """Return the statements that the SQLite store says while flows run, compiled, by the names of their constants."""

    def sql(statement: Any) -> str:
        text = str(statement.compile(dialect=sqlite_dialect(paramstyle="qmark")))
        return " ".join(text.split())

    added = [table for tables in _SINCE.values() for table in tables]
    make = []
    for table in (*(table for table in metadata.sorted_tables if table not in added), *added):
        make.append(sql(CreateTable(table)))
        make += [sql(CreateIndex(index)) for index in sorted(table.indexes, key=lambda index: str(index.name))]
    return {
        "MAKE": (*make, *SQLITE_TRIGGERS),
        "ADDED": {
            number: (*(sql(CreateTable(table)) for table in tables), *_CHANGED.get(number, ()))
            for number, tables in _SINCE.items()
        },
        "SELECT_END": sql(sqlite_reading.end).replace("LIMIT ? OFFSET ?", "LIMIT 1"),
        "SELECT_HEAD": sql(select_head),
        "INSERT_STREAM": sql(insert_stream),
        "UPDATE_STREAM": sql(update_stream),
        "SELECT_TYPE": sql(select_type),
        "INSERT_TYPE": sql(insert_type),
        "INSERT_EVENT": sql(insert_event),
        "INSERT_BLOB": sql(insert_blob) + " ON CONFLICT (digest) DO NOTHING",
        "SELECT_KNOWN": sql(select_known),
        "PUT_BEAT": sql(put_beat),
        "DELETE_BEAT": sql(delete_beat),
        "SELECT_STREAM": sql(sqlite_reading.stream).replace("LIMIT ? OFFSET ?", "LIMIT ?"),
        "SELECT_ALL": sql(sqlite_reading.all).replace("LIMIT ? OFFSET ?", "LIMIT ?"),
        "SELECT_INDEXED": sql(sqlite_reading.indexed).replace("LIMIT ? OFFSET ?", "LIMIT ?"),
        "SELECT_ENDS": sql(select_ends),
        "SELECT_BLOBS": sql(select_blobs).partition(" (")[0],
        "SELECT_INLINES": sql(select_inlines),
        "PUT_INLINE": sql(put_inline),
        "DROP_INLINES": sql(drop_inlines),
        "SELECT_STATE": sql(select_state),
        "SELECT_KEPT": sql(select_kept),
        "SELECT_STATES": sql(select_states),
        "PUT_STATE": sql(put_state),
        "DROP_STATE": sql(drop_state),
        "DROP_STATES": sql(drop_states),
        "SELECT_RECORDS": sql(sqlite_records).replace("__[POSTCOMPILE_types]", "%s"),
        "SELECT_ARCHIVES": sql(select_archives),
        "SELECT_PARTS": sql(select_parts),
        "SELECT_ARCHIVED_BLOBS": sql(select_archived_blobs).partition(" (")[0],
        "SELECT_FACTS": sql(select_facts),
        "INSERT_FACT": sql(insert_fact) + " ON CONFLICT (name) DO NOTHING",
    }


def sqlite_module() -> str:
    """Return the source of `flightlog.events.stores.sqlite_statements`."""
    lines = ['"""SQL for SQLite, compiled from `flightlog.events.stores.tables`, which writes this module."""', ""]
    for name, statement in sqlite_statements().items():
        if isinstance(statement, str):
            lines.append(f"{name} = {statement!r}")
        elif isinstance(statement, dict):
            lines += [f"{name} = {{", *(f"    {number}: {parts!r}," for number, parts in statement.items()), "}"]
        else:
            lines += [f"{name} = (", *(f"    {part!r}," for part in statement), ")"]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    Path(__file__).with_name("sqlite_statements.py").write_text(sqlite_module())
