"""A log in a PostgreSQL database: for several machines at once.

Writers append without positions: each locks only the heads of its own streams, so that nobody waits for another's
disk sync. Whoever reads first gives positions to what is committed and has none yet, one sequencer at a time, in
rows of their own that are only ever inserted. So positions are dense and in the order in which events became
visible, and no reader ever sees a position appear below one that it has seen (invariant I5).
See ``docs/explanation/decisions/postgresql.md``.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import SystemRandom
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from flightlog.clock import Clock
from flightlog.errors import LogCorrupt, LogUnavailable
from flightlog.events import codec
from flightlog.events.placing import KnownToo, follow, place
from flightlog.events.store import Body, Committed, Head, IndexedRow, Inline, LogHead, NewRow, Part, Row, Unit
from flightlog.events.stores import postgres_tables as pg
from flightlog.events.stores import tables
from flightlog.events.stores.postgres_archives import PostgresArchives
from flightlog.events.stores.postgres_errors import is_away, state_of, translate
from flightlog.events.stores.postgres_inline import Outdated, PostgresInlines, PostgresRows
from flightlog.events.stores.postgres_tables import SCHEMA
from flightlog.events.stores.tables import Reading
from flightlog.ids import RandomIds

T = TypeVar("T")
FORMAT = 3
"""The version of the layout. A program refuses a log whose number is above its own."""
OUTAGE_SECONDS = 120.0
"""How long a database that is away is waited for."""
_LOCK = 0x464C4F47  # "FLOG": while the tables are made
_BATCH = 10_000
_CHANCE = SystemRandom()  # not the one that users seed
_AGAIN = frozenset({"40001", "40P01", "55P03"})  # serialisation failure, deadlock, lock not available


def url_of(text: str) -> URL:
    """Return the URL of a PostgreSQL database for SQLAlchemy and psycopg 3.

    Raises:
        LogUnavailable: it is none.
    """
    try:
        url = make_url(text.replace("postgres://", "postgresql://", 1))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise LogUnavailable(
            "FLIGHTLOG_LOG_URL is no URL of a PostgreSQL database: postgresql://user@host/name"
        ) from None
    return url.set(drivername="postgresql+psycopg")


class PostgresStore(PostgresArchives):
    """Keeps records in a PostgreSQL database, in a schema called ``flightlog``.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        clock: gives `recorded_at`; the server's by default.
        create: whether to make a new log where there is none.
        log_id: the id of a log that is made; a new one by default.

    Raises:
        LogUnavailable: the database cannot be reached, or holds a log that is written by a newer version.
    """

    is_remote = True
    tap: Callable[[Committed], object] | None = None

    def __init__(
        self, url: str, *, clock: Clock | None = None, create: bool = True, log_id: bytes | None = None
    ) -> None:
        self.url = url_of(url)
        self.location = self.url.set(drivername="postgresql").render_as_string(hide_password=True)
        self._clock = clock
        self._new_id = log_id
        self._types: dict[str, int] = {}
        self._doubt = False
        self._inline = PostgresInlines()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._engine = self._connect()
        try:
            self.log_id = self._prepare(create)
        except BaseException:
            self.close()
            raise

    # --- connections ------------------------------------------------------------------------------

    def _connect(self) -> sqlalchemy.Engine:
        try:
            return sqlalchemy.create_engine(
                self.url,
                poolclass=QueuePool,
                pool_size=4,
                max_overflow=64,
                isolation_level="READ COMMITTED",
                connect_args={"connect_timeout": 10, "application_name": "flightlog"},
                execution_options={"schema_translate_map": {None: SCHEMA}},
            )
        except (ModuleNotFoundError, NoSuchModuleError):
            raise LogUnavailable(
                "A log in PostgreSQL needs the driver psycopg: pip install 'flightlog[postgres]'"
            ) from None

    def _database(self) -> sqlalchemy.Engine:
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._engine.dispose(close=False)  # the parent's connections are not a forked child's to close
                    self._engine, self._pid = self._connect(), os.getpid()
        return self._engine

    @contextmanager
    def writing(self) -> Iterator[sqlalchemy.Connection]:
        """Return one transaction that writes; see `flightlog.events.store.Store.writing`."""
        try:
            with self._database().begin() as connection:
                yield connection
        except DBAPIError as error:
            raise translate(error, self.location) from error

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Do something that may be done again: a lost connection or a server that restarts is waited for."""
        deadline = time.monotonic() + OUTAGE_SECONDS
        pause = 0.05
        while True:
            try:
                return attempt()
            except DBAPIError as error:
                away = is_away(error)
                if not (away or state_of(error) in _AGAIN) or time.monotonic() > deadline:
                    raise translate(error, self.location, waited=OUTAGE_SECONDS) from error
                if away:
                    self._doubt = True
                time.sleep(pause * _CHANCE.uniform(0.5, 1.0))
                pause = min(2 * pause, 1.0)

    # --- the tables -------------------------------------------------------------------------------

    def _prepare(self, create: bool) -> bytes:
        try:
            with self._engine.connect() as connection:
                made = sqlalchemy.inspect(connection).has_table("facts", schema=SCHEMA)
            if not made:
                if not create:
                    raise LogUnavailable(
                        f"There is no log at {self.location} yet; it is made when the first flow runs."
                    )
                self._create()
            facts = self.facts()
        except DBAPIError as error:
            words = str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
            raise LogUnavailable(f"The log at {self.location} cannot be opened: {words}.") from None
        if "log_id" not in facts:
            raise LogCorrupt(f"The log at {self.location} has lost its own id.")
        version = int(facts.get("format", b"0"))
        if version > FORMAT:
            raise LogUnavailable(
                f"The log at {self.location} was written by a newer version of Flightlog (its format is {version}, "
                f"this version reads up to {FORMAT}). Update it: pip install --upgrade flightlog."
            )
        if version < FORMAT:
            self._migrate(version)
        return facts["log_id"]

    def _migrate(self, version: int) -> None:
        """Add the tables that later versions brought. Events are never touched (invariant I9)."""
        try:
            with self._engine.begin() as connection:
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_LOCK)))
                for number in range(version + 1, FORMAT + 1):
                    for table in pg.POSTGRES_SINCE[number]:
                        table.create(connection, checkfirst=True)
                    for statement in pg.POSTGRES_CHANGED.get(number, ()):
                        connection.exec_driver_sql(statement)
                connection.execute(tables.update_fact, {"key": "format", "new_value": str(FORMAT).encode()})
        except DBAPIError as error:
            raise LogUnavailable(
                f"The log at {self.location} lacks tables that this version needs, and this role may not make them. "
                "Run `flightlog doctor` once as the role that owns the log; then grant what `flightlog log role` says."
            ) from error

    def _create(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_LOCK)))
            if sqlalchemy.inspect(connection).has_table("facts", schema=SCHEMA):
                return  # another process was first
            connection.execute(sqlalchemy.schema.CreateSchema(SCHEMA, if_not_exists=True))
            for table in pg.POSTGRES_TABLES:
                table.create(connection)
            for statement in pg.POSTGRES_MAKE:
                connection.exec_driver_sql(statement)
            connection.execute(pg.sequencer.insert().values(id=1, horizon=0, position=0, recorded_at=0))
            now = connection.execute(pg.select_snapshot).one()[1] if self._clock is None else self._clock.now()
            facts = {
                "log_id": self._new_id or RandomIds().new(),
                "created": str(now).encode(),
                "format": str(FORMAT).encode(),
            }
            for name, value in facts.items():
                connection.execute(tables.insert_fact, {"name": name, "value": value})

    # --- writing ----------------------------------------------------------------------------------

    def write(self, units: Sequence[Unit], *, wait: bool) -> bool:
        """Commit the units; see `flightlog.events.store.Store.write`."""
        if not any(unit.parts for unit in units):
            for unit in units:
                unit.done = True
            return True
        if wait:
            self._patiently(lambda: self._commit(units, wait=True))
        elif not self._at_once(units):
            return False
        self._doubt = False
        for unit in units:
            unit.done = True
        return True

    def _at_once(self, units: Sequence[Unit]) -> bool:
        """Commit the units if nobody is in the way and the server answers; tell if that was done."""
        try:
            self._commit(units, wait=False)
        except DBAPIError as error:
            if not (is_away(error) or state_of(error) in _AGAIN):
                raise translate(error, self.location, waited=OUTAGE_SECONDS) from error
            self._doubt = self._doubt or is_away(error)
            return False
        return True

    def _commit(
        self, units: Sequence[Unit], *, wait: bool, work: Callable[[sqlalchemy.Connection], object] | None = None
    ) -> None:
        self._know_types(units)
        doubt = self._doubt
        while True:
            try:
                return self._try(units, doubt=doubt, wait=wait, work=work)
            except IntegrityError:
                if doubt:
                    raise
                doubt = True  # some event is recorded already: look at each one before it is stored
            except Outdated:
                self._make_inline()

    def _try(
        self,
        units: Sequence[Unit],
        *,
        doubt: bool,
        wait: bool,
        work: Callable[[sqlalchemy.Connection], object] | None = None,
    ) -> None:
        names = sorted({part.stream for unit in units for part in unit.parts})
        heads: dict[str, Head] = {}
        with self._database().begin() as connection:
            self._inline.check(self._lock_heads(connection, names, heads, wait=wait))
            folding = self._inline.folding(PostgresRows(connection))
            known = KnownToo(lambda event_id: _first(connection, event_id))
            rows: list[NewRow] = []
            blobs: dict[bytes, bytes] = {}
            for unit in units:
                if self._inline.refuses(unit):
                    continue
                placed = place(unit, heads.__getitem__, known, doubt=doubt, folding=folding)
                known.add(placed)
                rows += placed
                if placed:
                    for part in unit.parts:
                        blobs.update(part.blobs)
            if blobs:
                ordered = [{"digest": digest, "content": blobs[digest]} for digest in sorted(blobs)]
                connection.execute(tables.insert_new_blob, ordered)
            if rows:
                self._insert(connection, rows)
            if folding is not None:
                folding.store()
            if work is not None and rows:
                work(connection)
        if self.tap is not None and rows:
            self.tap(Committed(0, 0, [row.record for row in rows], [row.body.type for row in rows]))

    def _insert(self, connection: sqlalchemy.Connection, rows: list[NewRow]) -> None:
        values = [self._values(row.head, row.version, row.body, row.record) for row in rows]
        statement = pg.insert_placeless
        if self._clock is not None:
            statement = statement.values(inserted_at=self._clock.now())
        connection.execute(statement, values)
        connection.execute(tables.update_stream, _ends({row.stream: row.head for row in rows}.values()))

    def _values(self, head: Head, version: int, body: Body, record: bytes) -> dict[str, Any]:
        """Return an event's row."""
        return {
            "stream_id": head.key,
            "version": version,
            "type_id": self._types[body.type],
            "event_id": body.event_id,
            "record": record,
        }

    def _lock_heads(
        self, connection: sqlalchemy.Connection, names: list[str], heads: dict[str, Head], *, wait: bool = True
    ) -> str | None:
        """Lock the heads of streams, those that do not exist yet made first.

        Returns:
            Names and versions of the log's inline projections, which cannot change from here to the commit.
        """
        inlines = self._read_heads(connection, names, heads, wait=wait)
        if missing := [name for name in names if name not in heads]:
            connection.execute(pg.insert_new_stream, [{"name": name, "hash": bytes(32)} for name in missing])
            inlines = self._read_heads(connection, missing, heads, wait=wait)
        return inlines

    def _read_heads(
        self, connection: sqlalchemy.Connection, names: list[str], heads: dict[str, Head], *, wait: bool
    ) -> str | None:
        inlines: str | None = None
        for row in connection.execute(pg.lock_heads if wait else pg.lock_heads_now, {"names": names}):
            heads[row.name] = Head(codec.prefix(self.log_id, row.name), row.version, row.hash, row.epoch, row.id)
            inlines = row.inlines
        return inlines

    def _know_types(self, units: Sequence[Unit]) -> None:
        """Look up, or make, the numbers of event types: in a transaction of their own, or writers would queue."""
        wanted = {body.type for unit in units for part in unit.parts for body in part.bodies}
        if wanted <= self._types.keys():
            return
        with self._database().begin() as connection:
            connection.execute(pg.insert_new_type, [{"name": name} for name in sorted(wanted)])
        with self._database().connect() as connection:
            self._types = {row.name: row.id for row in connection.execute(pg.select_types)}

    def adopt(self, rows: Sequence[IndexedRow], blobs: Mapping[bytes, bytes]) -> None:
        """Store events of another place of the same log; see `flightlog.events.store.Store.adopt`."""
        parts = [Part(row.stream, [Body(row.event_id, row.type, b"")]) for row in rows]
        self._know_types([Unit(parts)])
        self._patiently(lambda: self._adopt(rows, blobs))

    def _adopt(self, rows: Sequence[IndexedRow], blobs: Mapping[bytes, bytes]) -> None:
        heads: dict[str, Head] = {}
        with self._database().begin() as connection:
            horizon, position, recorded_at = connection.execute(pg.lock_sequencer).one()
            if rows[0].position <= position:
                return  # a repetition after an outage: it was committed after all
            self._lock_heads(connection, sorted({row.stream for row in rows}), heads)
            if blobs:
                ordered = [{"digest": digest, "content": blobs[digest]} for digest in sorted(blobs)]
                connection.execute(tables.insert_new_blob, ordered)
            for row in rows:
                follow(heads[row.stream], row)
            values = [
                self._values(heads[row.stream], row.version, Body(row.event_id, row.type, b""), row.record)
                for row in rows
            ]
            connection.execute(pg.insert_placeless.values(inserted_at=0), values)
            wanted = {"ids": [row.event_id for row in rows]}
            serials = {row.event_id: row.serial for row in connection.execute(pg.select_serials, wanted)}
            placed = [
                {"position": row.position, "serial": serials[row.event_id], "recorded_at": row.recorded_at}
                for row in rows
            ]
            connection.execute(pg.insert_position, placed)
            connection.execute(tables.update_stream, _ends(heads.values()))
            last = max(recorded_at, rows[-1].recorded_at)
            moved = {"new_horizon": horizon, "new_position": rows[-1].position, "new_recorded_at": last}
            connection.execute(pg.move_sequencer, moved)
            connection.execute(tables.drop_inlines)  # whoever keeps some makes them anew before the next append

    # --- inline projections -----------------------------------------------------------------------

    def keep_inline(self, projections: Sequence[Inline], *, anew: bool = False) -> None:
        """Keep inline projections; see `flightlog.events.store.Store.keep_inline`."""
        self._inline.keep(projections)
        self._patiently(lambda: self._make_inline(projections if anew else ()))

    def _make_inline(self, anew: Sequence[Inline] = ()) -> None:
        """Make those inline projections anew that the log lacks, or the given ones."""
        with self._database().connect() as connection:
            if not self._inline.learn_from(connection, anew):
                return
        with self._database().begin() as connection:
            connection.exec_driver_sql(pg.stop_writers)
            self._inline.make(connection, self._inline.learn_from(connection, anew))
            self._inline.learn_from(connection)

    def inline_state(self, name: str, stream: str) -> tuple[int, bytes | None] | None:
        """Return a stream's version and what it has come to; see `flightlog.events.store.Store.inline_state`."""
        return self._inline.state_of(name, self._rows(tables.select_kept, name=name, stream=stream))

    def inline_states(self, name: str) -> dict[str, bytes] | None:
        """Return what all streams have come to, by stream; see `flightlog.events.store.Store.inline_states`."""
        return self._inline.states_of(name, self._rows(tables.select_states, name=name))

    # --- giving positions -------------------------------------------------------------------------

    def sequence(self) -> None:
        """Give positions to what is committed and has none yet."""
        self._patiently(self._sequence)

    def settle(self) -> None:
        """See to it that what is committed from here on is recorded later than now."""
        self._patiently(lambda: self._sequence(always=True))

    def _sequence(self, *, always: bool = False) -> None:
        with self._database().connect() as connection:
            if not always and not connection.execute(pg.some_unplaced).scalar():
                return
        more = True
        while more:
            with self._database().begin() as connection:
                more = self._place_batch(connection)

    def _place_batch(self, connection: sqlalchemy.Connection) -> bool:
        """Give positions to one batch; tell if there may be more."""
        before, position, recorded_at = connection.execute(pg.lock_sequencer).one()
        # Taken before the events are listed: whatever is below was visible by then, or never will be.
        horizon, now = connection.execute(pg.select_snapshot).one()
        if self._clock is not None:
            now = self._clock.now()
        found = connection.execute(pg.list_unplaced, {"limit": _BATCH}).all()
        rows = []
        for serial, inserted_at in found:
            position += 1
            recorded_at = max(recorded_at, min(inserted_at, now))
            rows.append({"position": position, "serial": serial, "recorded_at": recorded_at})
        if rows:
            connection.execute(pg.insert_position, rows)
        more = len(found) == _BATCH
        connection.execute(
            pg.move_sequencer,
            {
                "new_horizon": before if more else horizon,
                "new_position": position,
                # What is committed later is recorded later, so that a view as of a past moment never changes.
                "new_recorded_at": recorded_at if more else max(recorded_at, now),
            },
        )
        return more

    # --- reading ----------------------------------------------------------------------------------

    @property
    def _reading(self) -> Reading:
        return pg.postgres_reading

    def _rows(self, statement: Any, **parameters: Any) -> list[Any]:
        def read() -> list[Any]:
            with self._database().connect() as connection:
                return [tuple(row) for row in connection.execute(statement, parameters)]

        return self._patiently(read)

    def read_stream(self, stream: str, after: int, limit: int) -> list[Row]:
        """Return events of a stream; see `flightlog.events.store.Store.read_stream`."""
        self.sequence()
        return super().read_stream(stream, after, limit)

    def read_all(self, after: int, types: Sequence[str] | None, limit: int) -> list[Row]:
        """Return events of the log; see `flightlog.events.store.Store.read_all`."""
        self.sequence()
        return super().read_all(after, types, limit)

    def _read_types(self, after: int, types: Sequence[str], limit: int) -> list[Row]:
        if not self._types.keys() >= set(types):
            self._types = dict(self._rows(pg.select_types))
        numbers = [self._types[type_] for type_ in types if type_ in self._types]
        return [Row(*row) for row in self._rows(pg.postgres_of_types, after=after, numbers=numbers, limit=limit)]

    def event(self, event_id: bytes) -> Row | None:
        """Return an event by its id, or None."""
        self.sequence()
        return super().event(event_id)

    def indexed(self, after: int, limit: int) -> list[IndexedRow]:
        """Return events with their columns; see `flightlog.events.store.Store.indexed`."""
        self.sequence()
        return super().indexed(after, limit)

    def head(self) -> LogHead:
        """Return where the log ends."""
        self.sequence()
        return super().head()

    def facts(self) -> dict[str, bytes]:
        """Return what is kept about the log itself."""
        return dict(self._rows(tables.select_facts))

    def set_fact(self, name: str, value: bytes) -> bytes:
        """Keep a fact if there is none of that name yet; return the one that is kept."""
        with self.writing() as connection:
            connection.execute(pg.insert_new_fact, {"name": name, "value": value})
        return self.facts()[name]

    def now(self) -> int:
        """Return the present by the log's clock: the server's, which all machines share."""
        if self._clock is not None:
            return self._clock.now()
        now: int = self._rows(pg.select_snapshot)[0][1]
        return now

    def answers(self) -> bool:
        """Tell whether the server answers just now."""
        try:
            with self._database().connect() as connection:
                connection.execute(pg.select_snapshot).one()
        except DBAPIError:
            return False
        return True

    def sync(self) -> None:
        """Do nothing: how durable a commit is, the server's synchronous_commit says."""

    def tidy(self) -> None:
        """Do nothing: the server tidies up by itself."""

    def damage(self) -> list[str]:
        """Return what is wrong with the database itself: the server looks after that."""
        return []

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose(close=self._pid == os.getpid())


def _first(connection: sqlalchemy.Connection, event_id: bytes) -> tuple[str, int] | None:
    row = connection.execute(pg.postgres_known, {"event_id": event_id}).first()
    return None if row is None else (row[0], row[1])


def _ends(heads: Iterable[Head]) -> list[dict[str, Any]]:
    """Return what is written of where streams end."""
    return [{"key": h.key, "new_version": h.version, "new_hash": h.hash, "new_epoch": h.epoch} for h in heads]
