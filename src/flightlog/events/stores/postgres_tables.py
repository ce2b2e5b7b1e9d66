"""The tables that a log has in PostgreSQL alone, and the SQL that its store says.

Positions are given after the commit, by one sequencer at a time: events have a serial number, and `positions` says
where each one stands in the log.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from flightlog.events.stores.tables import (
    Reading,
    all_records,
    archived_blobs,
    archived_streams,
    archives,
    blobs,
    delete_part_of,
    event_types,
    events,
    facts,
    inline_projections,
    inline_states,
    known_in,
    liveness,
    streams,
    subscriptions,
)
from flightlog.events.types import ARCHIVES_STREAM, LOG_ARCHIVED

SCHEMA: Final = "flightlog"
"""The schema of our tables in a PostgreSQL database, which others may use too."""
_NOW: Final = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
_XID: Final = "pg_current_xact_id()::text::bigint"
postgres_metadata = MetaData()
postgres_events = Table(
    "events",
    postgres_metadata,
    Column("serial", BigInteger, Identity(always=True), primary_key=True),
    Column("xid", BigInteger, nullable=False, server_default=text(_XID)),
    Column("inserted_at", BigInteger, nullable=False, server_default=text(_NOW)),
    Column("stream_id", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type_id", Integer, nullable=False),
    Column("event_id", LargeBinary, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("events_by_stream", "stream_id", "version", unique=True),
    Index("events_by_id", "event_id", unique=True),
    Index("events_by_xid", "xid"),
)
positions = Table(
    "positions",
    postgres_metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("serial", BigInteger, nullable=False, unique=True),
    Column("recorded_at", BigInteger, nullable=False),
)
placed = Table(
    "placed",
    MetaData(),
    *(Column(column.name, column.type) for column in events.c),
)
"""A view: the events that have a position."""
sequencer = Table(
    "sequencer",
    postgres_metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("horizon", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
)


postgres_reading = Reading(placed)
# By numbers, not names: of names the planner does not know how many events have them, and sorts the whole log.
postgres_of_types = (
    select(placed.c.position, placed.c.recorded_at, placed.c.record)
    .where(placed.c.position > bindparam("after"), placed.c.type_id.in_(bindparam("numbers", expanding=True)))
    .order_by(placed.c.position)
    .limit(bindparam("limit"))
)
postgres_known = known_in(postgres_events)
postgres_records = all_records(postgres_events)
POSTGRES_SINCE: Final = {
    2: (inline_projections, inline_states),
    3: (archives, archived_streams, archived_blobs),
}
"""The tables that each version of the layout has added on PostgreSQL."""
stop_writers: Final = f"LOCK TABLE {SCHEMA}.streams IN EXCLUSIVE MODE"
"""Waits for all who are appending, and has others wait: every append locks rows of this table first."""
POSTGRES_TABLES: Final = (
    streams,
    event_types,
    blobs,
    facts,
    liveness,
    subscriptions,
    inline_projections,
    inline_states,
    archives,
    archived_streams,
    archived_blobs,
    postgres_events,
    positions,
    sequencer,
)
_GUARDS: Final = (("events", "UPDATE"), ("positions", "UPDATE"), ("blobs", "UPDATE"),
                  ("archives", "UPDATE"), ("archived_streams", "UPDATE"))  # fmt: skip
# Only those rows may go that an archive names whose `log.archived` was appended in this very transaction.
_IS_LEAVING = (
    f"CREATE FUNCTION {SCHEMA}.is_leaving(its_stream bigint, its_version integer) "  # noqa: S608 - of constants
    "RETURNS boolean LANGUAGE sql STABLE AS $$"
    f"SELECT EXISTS (SELECT 1 FROM {SCHEMA}.archived_streams a JOIN {SCHEMA}.streams s ON s.name = '{ARCHIVES_STREAM}' "
    f"JOIN {SCHEMA}.events e ON e.stream_id = s.id AND e.version = a.number "
    f"JOIN {SCHEMA}.event_types t ON t.id = e.type_id AND t.name = '{LOG_ARCHIVED}' "
    f"WHERE a.stream_id = its_stream AND its_version BETWEEN a.first_version AND a.last_version AND e.xid = {_XID})$$"
)
_LEFT = f"SELECT 1 FROM {SCHEMA}.archived_streams a WHERE a.number = OLD.number"  # noqa: S608 - of constants
_BACK = f"SELECT 1 FROM {SCHEMA}.events e WHERE e.stream_id = OLD.stream_id AND e.version = OLD.last_version"  # noqa: S608 - of constants
_PLACE = f"SELECT {SCHEMA}.is_leaving(e.stream_id, e.version) FROM {SCHEMA}.events e WHERE e.serial = OLD.serial"  # noqa: S608 - of constants
_ALLOWED: Final = {
    "events": f"{SCHEMA}.is_leaving(OLD.stream_id, OLD.version)",
    "positions": f"({_PLACE})",
    "archives": f"NOT EXISTS ({_LEFT})",
    "archived_streams": f"EXISTS ({_BACK})",
}
_VIEW = (
    f"CREATE VIEW {SCHEMA}.placed AS SELECT p.position, e.stream_id, e.version, e.type_id, p.recorded_at, "  # noqa: S608
    f"e.event_id, e.record FROM {SCHEMA}.positions p JOIN {SCHEMA}.events e USING (serial)"
)
_REFUSE = (
    f"CREATE FUNCTION {SCHEMA}.refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$BEGIN RAISE EXCEPTION '%% are append-only', TG_TABLE_NAME; END$$"
)


def _let_go(table: str, allowed: str) -> tuple[str, str]:
    """Return what makes a table refuse to delete rows but under a condition."""
    name = f"{SCHEMA}.let_go_of_{table}()"
    refuse = "RAISE EXCEPTION '%% are append-only', TG_TABLE_NAME"
    body = f"BEGIN IF {allowed} THEN RETURN OLD; END IF; {refuse}; END"
    return (
        f"CREATE FUNCTION {name} RETURNS trigger LANGUAGE plpgsql AS $${body}$$",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {SCHEMA}.{table} FOR EACH ROW EXECUTE FUNCTION {name}",
    )


_LETTING_GO: Final = tuple(statement for table in _ALLOWED.items() for statement in _let_go(*table))
POSTGRES_CHANGED: Final = {
    3: (
        *(f"DROP TRIGGER {table}_no_change ON {SCHEMA}.{table}" for table in ("events", "positions")),
        *(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE ON {SCHEMA}.{table} "
            f"FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.refuse()"
            for table in _ALLOWED
        ),
        *(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {SCHEMA}.{table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse()"
            for table in ("archives", "archived_streams")
        ),
        _IS_LEAVING,
        *_LETTING_GO,
    )
}
"""What each version of the layout has changed besides."""
POSTGRES_MAKE: Final = (
    _VIEW,
    _REFUSE,
    _IS_LEAVING,
    *_LETTING_GO,
    *(
        f"CREATE TRIGGER {table}_no_change BEFORE {what} ON {SCHEMA}.{table} "
        f"FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.refuse()"
        for table, what in _GUARDS
    ),
    *(
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {SCHEMA}.{table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse()"
        for table, _ in _GUARDS
    ),
)


def grants(role: str) -> list[str]:
    """Return the statements that let a role append and read: it may insert events, and change or delete none.

    Args:
        role: the role's name.
    """
    name = '"' + role.replace('"', '""') + '"'
    inserted = ("events", "positions", "blobs", "event_types", "facts")
    read = ("placed", "archives", "archived_streams", "archived_blobs")
    changed = ("streams", "sequencer", "liveness", "subscriptions", "inline_projections", "inline_states")
    return [
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name};",
        f"GRANT SELECT, INSERT ON {', '.join(f'{SCHEMA}.{table}' for table in inserted)} TO {name};",
        f"GRANT SELECT, INSERT, UPDATE ON {', '.join(f'{SCHEMA}.{table}' for table in changed)} TO {name};",
        f"GRANT DELETE ON {', '.join(f'{SCHEMA}.{table}' for table in changed[2:])} TO {name};",
        f"GRANT SELECT ON {', '.join(f'{SCHEMA}.{table}' for table in read)} TO {name};",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {name};",
    ]


# The heads of streams, locked in the order of their names, so that no two writers wait for each other in a ring.
_version = inline_projections.c.name + "=" + cast(inline_projections.c.version, Text)
_versions = func.string_agg(_version, aggregate_order_by(literal(","), inline_projections.c.name))
_inlines = select(_versions).scalar_subquery().label("inlines")
select_versions = select(_versions)
lock_heads = (
    select(streams.c.name, streams.c.id, streams.c.version, streams.c.hash, streams.c.epoch, _inlines)
    .where(streams.c.name.in_(bindparam("names", expanding=True)))
    .order_by(streams.c.name)
    .with_for_update()
)
lock_heads_now = lock_heads.with_for_update(nowait=True)
lock_sequencer = select(sequencer.c.horizon, sequencer.c.position, sequencer.c.recorded_at).with_for_update()
# Only the latest events are looked at, by the index, and each one is looked up; said in this way, since of a plain ">="
# and NOT EXISTS the planner expects a third of the table, and would read all positions (0.3 s for a million events).
_is_unplaced = (
    select(positions.c.serial).where(positions.c.serial == postgres_events.c.serial).scalar_subquery().is_(None)
)
_horizon = sequencer.c.horizon
_since = postgres_events.c.xid.between(
    select(_horizon).scalar_subquery(), select(_horizon + literal(1 << 62, BigInteger)).scalar_subquery()
)
some_unplaced = select(select(literal(1)).select_from(postgres_events).where(_since, _is_unplaced).exists())
list_unplaced = (
    select(postgres_events.c.serial, postgres_events.c.inserted_at)
    .where(_since, _is_unplaced)
    .order_by(postgres_events.c.serial)
    .limit(bindparam("limit"))
)
unplaced_records = select(postgres_events.c.record).where(_since, _is_unplaced)
postgres_delete_part = delete_part_of(postgres_events)
delete_positions = delete(positions).where(
    positions.c.serial.in_(
        select(postgres_events.c.serial).where(
            postgres_events.c.stream_id
            == select(streams.c.id).where(streams.c.name == bindparam("name")).scalar_subquery(),
            postgres_events.c.version.between(bindparam("low"), bindparam("high")),
        )
    )
)
select_snapshot = select(text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint"), text(_NOW))
insert_position = insert(positions).values({column.name: bindparam(column.name) for column in positions.c})
insert_new_stream = (
    upsert(streams)
    .values(name=bindparam("name"), version=0, hash=bindparam("hash"), epoch=0)
    .on_conflict_do_nothing(index_elements=["name"])
)
insert_new_type = upsert(event_types).values(name=bindparam("name")).on_conflict_do_nothing(index_elements=["name"])
insert_new_fact = (
    upsert(facts)
    .values(name=bindparam("name"), value=bindparam("value"))
    .on_conflict_do_nothing(index_elements=["name"])
)
select_serials = select(postgres_events.c.event_id, postgres_events.c.serial).where(
    postgres_events.c.event_id.in_(bindparam("ids", expanding=True))
)
select_types = select(event_types.c.name, event_types.c.id)
insert_placeless = insert(postgres_events).values(
    {name: bindparam(name) for name in ("stream_id", "version", "type_id", "event_id", "record")}
)
move_sequencer = update(sequencer).values(
    horizon=bindparam("new_horizon"), position=bindparam("new_position"), recorded_at=bindparam("new_recorded_at")
)
