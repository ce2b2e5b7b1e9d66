"""A log in one SQLite file: the embedded default, for many threads and many processes at once.

Every writer begins IMMEDIATE, reads the heads inside, and never reads before it writes; so processes wait
for each other, and none is ever refused. Readers use connections of their own and block nobody (WAL).
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightlog.clock import Clock, SystemClock
from flightlog.errors import LogCorrupt, LogError, LogUnavailable, LogWriteError
from flightlog.events import codec
from flightlog.events.archives import folder_of
from flightlog.events.placing import KnownToo, follow, place
from flightlog.events.store import Committed, Head, IndexedRow, Inline, NewRow, StreamPart, Unit
from flightlog.events.stores import sqlite_statements as sql
from flightlog.events.stores.archived import ArchivedStore
from flightlog.events.stores.sharing import transaction
from flightlog.events.stores.sqlite_brief import BriefStore
from flightlog.events.stores.sqlite_inline import SqliteInlines, SqliteRows
from flightlog.events.stores.sqlite_places import (
    BUSY,
    BUSY_SECONDS,
    check_not_emptied,
    check_path,
    identity,
    make_file,
    patiently,
    quoted,
    rollback,
    translate,
)
from flightlog.ids import RandomIds
from flightlog.setting_values import Durability

APPLICATION_ID = 0x464C4F47  # "FLOG"
_TIDY_ROWS = 2000
_LONG_WAL = 20_000
_LAST_RESORT_PAGES = 60_000
_CACHED_HEADS = 1000
if TYPE_CHECKING:
    import sqlalchemy

    from flightlog.events.stores.tables import Reading

FORMAT = 4
"""The version of the layout. A program refuses a log whose number is above its own."""


@dataclass(slots=True)
class _Cache:
    """Where the log and some streams end, as of the writer's last commit.

    `changes` is SQLite's ``data_version``: it changes when another connection commits, and then all of this is void.
    """

    changes: int
    position: int
    recorded_at: int
    heads: dict[str, Head]


class SqliteStore(ArchivedStore, BriefStore):
    """Keeps records in an SQLite file.

    Args:
        path: the file; it is made if it is not there, and so is its folder.
        clock: gives `recorded_at`.
        durability: ``commit`` or ``fsync``, see `flightlog.settings.Settings`.
        create: whether to make a new log where there is none.
        log_id: the id of a log that is made; a new one by default.

    Raises:
        LogUnavailable: the path cannot hold a log, or holds something else, or is written by a newer version.
        LogCorrupt: the file is damaged.
    """

    is_remote = False
    tap: Callable[[Committed], object] | None = None

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        durability: Durability = "commit",
        create: bool = True,
        log_id: bytes | None = None,
    ) -> None:
        self.path = path
        self.location = str(path)
        self._clock = clock or SystemClock()
        self._durability = durability
        self._new_id = log_id
        self._writer: sqlite3.Connection | None = None
        self._types: dict[str, int] = {}
        self._cache: _Cache | None = None
        self._inline = SqliteInlines()
        self._tidier: sqlite3.Connection | None = None
        self._spare: list[sqlite3.Connection] = []
        self._untidied = 0
        self._prefixes: dict[str, bytes] = {}
        self._reading_lock = threading.Lock()
        self._uri = f"file:{quoted(path)}?mode=rw"
        check_path(path)
        check_not_emptied(path)
        if not path.exists():
            if not create:
                raise LogUnavailable(f"There is no log at {path} yet; it is made when the first flow runs.")
            make_file(path)
        self._connect()
        self.log_id = self._prepare()

    # --- connections ------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._pid = os.getpid()
        self._engine: sqlalchemy.Engine | None = None

    def _reader(self) -> "sqlalchemy.Engine":
        """Return the pool of connections that read; SQLAlchemy is imported for it, and only for it."""
        import sqlalchemy
        from sqlalchemy.pool import QueuePool

        with self._reading_lock:
            if self._pid != os.getpid():
                self._forked()
            if self._engine is None:
                self._engine = sqlalchemy.create_engine(
                    "sqlite://", creator=self._open, poolclass=QueuePool, pool_size=4, max_overflow=64
                )
            return self._engine

    def _forked(self) -> None:
        """Drop what a forked child must not touch: its parent's connections."""
        self._writer = self._cache = self._tidier = None
        self._spare = []
        if self._engine is not None:
            self._engine.dispose(close=False)
        self._connect()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        sync = "FULL" if self._durability == "fsync" else "NORMAL"
        try:
            connection.execute(f"PRAGMA synchronous={sync}")
            connection.execute("PRAGMA recursive_triggers=ON")
            connection.execute(f"PRAGMA wal_autocheckpoint={_LAST_RESORT_PAGES}")
        except BaseException:
            connection.close()  # the file may be no database
            raise
        return connection

    def _writing(self) -> sqlite3.Connection:
        """Return the one connection that writes; the log's leader lock guards it."""
        if self._pid != os.getpid():
            self._forked()
        if self._writer is None:
            # The driver's own connection: SQLAlchemy costs four times as much at one row a commit.
            self._writer = self._open()
            self._writer.execute("PRAGMA busy_timeout=0")
        return self._writer

    def _prepare(self) -> bytes:
        """Check that the file is a log of ours, or make it one; return the log's id."""
        try:
            connection = self._writing()
            application, version = identity(connection)
            if application == 0 and version == 0:
                self._create(connection)
                application, version = identity(connection)
            self._check_identity(application, version)
            if version < FORMAT:
                self._migrate(connection)
            return self.facts()["log_id"]
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise translate(error, self.location) from error
            if isinstance(error, KeyError):
                raise LogCorrupt(f"The log at {self.path} has lost its own id.") from None
            raise

    def _check_identity(self, application: int, version: int) -> None:
        if application != APPLICATION_ID:
            raise self._not_ours()
        if version > FORMAT:
            raise LogUnavailable(
                f"The log at {self.path} was written by a newer version of Flightlog (its format is {version}, "
                f"this version reads up to {FORMAT}). Update it: pip install --upgrade flightlog."
            )

    def _not_ours(self) -> LogUnavailable:
        return LogUnavailable(
            f"{self.path} is an SQLite database, but not a Flightlog log. Name another file in FLIGHTLOG_LOG_URL."
        )

    def _create(self, connection: sqlite3.Connection) -> None:
        patiently(lambda: connection.execute("PRAGMA journal_mode=WAL"))
        self._begin(connection, wait=True)
        try:
            if identity(connection) == (0, 0):  # else another process was first
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                    raise self._not_ours()  # noqa: TRY301 - inside the transaction that looked
                self._create_tables(connection)
            connection.execute("COMMIT")
        except BaseException:
            rollback(connection)
            raise

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Add the tables that later versions brought. Events are never touched (invariant I9)."""
        self._begin(connection, wait=True)
        try:
            _, version = identity(connection)  # another process may have been first
            for number in range(version + 1, FORMAT + 1):
                for statement in sql.ADDED[number]:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={FORMAT}")
            connection.execute("COMMIT")
        except BaseException:
            rollback(connection)
            raise

    def _create_tables(self, connection: sqlite3.Connection) -> None:
        for statement in sql.MAKE:
            connection.execute(statement)
        created = str(self._clock.now()).encode()
        for name, value in (("log_id", self._new_id or RandomIds().new()), ("created", created)):
            connection.execute(sql.INSERT_FACT, (name, value))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT}")

    # --- writing ----------------------------------------------------------------------------------

    def write(self, units: Sequence[Unit], *, wait: bool) -> bool:
        """Commit the units; see `flightlog.events.store.Store.write`."""
        try:
            connection = self._writing()
            if not self._begin(connection, wait=wait):
                return False
            try:
                self._write(connection, units, doubt=False)
            except sqlite3.IntegrityError:
                # Some event is recorded already: look at each one before it is stored.
                rollback(connection)
                if not self._begin(connection, wait=wait):
                    return False
                self._write(connection, units, doubt=True)
        except sqlite3.Error as error:
            raise translate(error, self.location) from error
        for unit in units:
            unit.done = True
        self._untidied += len(units)
        return True

    def tidy(self) -> None:
        """Move what was committed from the write-ahead log into the file: on the way of a commit it takes 20 ms.

        As long as others write it never comes to the end, so that the write-ahead log grows; when it has become
        long, writers have to wait for once.
        """
        if self._untidied < _TIDY_ROWS or self._pid != os.getpid():
            return
        self._untidied = 0
        try:
            if self._tidier is None:
                self._tidier = self._open()
                self._tidier.execute("PRAGMA busy_timeout=200")
            _, pages, _ = self._tidier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages > _LONG_WAL:
                self._tidier.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        except sqlite3.Error as error:
            raise translate(error, self.location) from error

    def _begin(self, connection: sqlite3.Connection, *, wait: bool) -> bool:
        rollback(connection)  # an interrupt may have struck just after the last one began
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in BUSY:
                raise
            if not wait:
                return False
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        return True

    def _write(
        self,
        connection: sqlite3.Connection,
        units: Sequence[Unit],
        *,
        doubt: bool,
        then: Callable[[], object] | None = None,
    ) -> None:
        """Store the units inside the transaction that has begun, do what else is to be done there, and commit it."""
        new_types: dict[str, int] = {}
        types, inline, changed = self._types, self._inline, dict[int, Head]()
        known = KnownToo(lambda event_id: connection.execute(sql.SELECT_KNOWN, (event_id,)).fetchone())
        cache, self._cache = self._fresh_cache(connection), None  # on any error the next commit reads anew

        def head_of(stream: str) -> Head:
            return cache.heads.get(stream) or cache.heads.setdefault(stream, self._load_head(connection, stream))

        try:
            position, recorded_at = cache.position, max(cache.recorded_at, self._clock.now())
            rows: list[tuple[Any, ...]] = []
            new: list[NewRow] = []
            folding = inline.folding(SqliteRows(connection))
            for unit in units:
                if inline.refuses(unit):
                    continue
                placed = place(unit, head_of, known, doubt=doubt, folding=folding)
                if doubt:
                    known.add(placed)
                for head, _, version, body, record in placed:
                    position += 1
                    changed[head.key] = head
                    type_id = types.get(body.type) or self._type_id(connection, body.type, new_types)
                    rows.append((position, head.key, version, type_id, recorded_at, body.event_id, record))
                if placed:
                    new += placed
                    self._store_blobs(connection, unit)
            connection.executemany(sql.INSERT_EVENT, rows)
            if then is not None and rows:
                then()  # the triggers know by the stream's head, which is moved next, that it happens in here
            connection.executemany(sql.UPDATE_STREAM, [(h.version, h.hash, h.epoch, h.key) for h in changed.values()])
            if folding is not None:
                folding.store()
            connection.execute("COMMIT")
        except BaseException:
            rollback(connection)
            raise
        types.update(new_types)
        cache.position = position
        cache.recorded_at = recorded_at if rows else cache.recorded_at
        self._cache = cache
        self._tell(rows, new)

    def _tell(self, rows: Sequence[tuple[Any, ...]], new: Sequence[NewRow]) -> None:
        if self.tap is not None and new:
            self.tap(Committed(rows[0][0], rows[0][4], [one.record for one in new], [one.body.type for one in new]))

    def adopt(self, rows: Sequence[IndexedRow], blobs: Mapping[bytes, bytes]) -> None:
        """Store events of another place of the same log; see `flightlog.events.store.Store.adopt`."""
        try:
            connection = self._writing()
            self._begin(connection, wait=True)
            try:
                self._adopt(connection, rows, blobs)
                connection.execute("COMMIT")
            except BaseException:
                rollback(connection)
                raise
        except sqlite3.Error as error:
            raise translate(error, self.location) from error
        finally:
            self._cache = None

    def _adopt(self, connection: sqlite3.Connection, rows: Sequence[IndexedRow], blobs: Mapping[bytes, bytes]) -> None:
        heads: dict[str, Head] = {}
        new_types: dict[str, int] = {}
        connection.executemany(sql.INSERT_BLOB, list(blobs.items()))
        for row in rows:
            head = heads.get(row.stream) or heads.setdefault(row.stream, self._load_head(connection, row.stream))
            follow(head, row)
            type_id = self._types.get(row.type) or self._type_id(connection, row.type, new_types)
            values = (row.position, head.key, row.version, type_id, row.recorded_at, row.event_id, row.record)
            connection.execute(sql.INSERT_EVENT, values)
        ends = [(head.version, head.hash, head.epoch, head.key) for head in heads.values()]
        connection.executemany(sql.UPDATE_STREAM, ends)
        connection.execute(sql.DROP_INLINES)  # whoever keeps some makes them anew before the next append

    # --- archives -----------------------------------------------------------------------------

    @property
    def archives_folder(self) -> Path:
        """Where segments are: beside the file."""
        return folder_of(self.path)

    def _write_with(self, unit: Unit, work: "Callable[[sqlalchemy.Connection], object]") -> None:
        """Commit a unit, and what else is done, in a transaction of SQLAlchemy's connection."""
        import sqlalchemy

        try:
            with self._reader().connect() as connection:
                driver: Any = connection.connection.driver_connection
                self._begin(driver, wait=True)
                self._cache = None  # it is of the writer's connection
                try:
                    self._write(driver, [unit], doubt=True, then=lambda: work(connection))
                finally:
                    self._cache = None
                    rollback(driver)
        except sqlalchemy.exc.DBAPIError as error:
            raise translate(error.orig or error, self.location) from error
        except sqlite3.Error as error:
            raise translate(error, self.location) from error
        unit.done = True

    def _take_out(self, connection: "sqlalchemy.Connection", parts: Iterable[StreamPart]) -> int:
        from flightlog.events.stores import tables

        wanted = [{"name": part.stream, "low": part.first, "high": part.last} for part in parts]
        return connection.execute(tables.sqlite_delete_part, wanted).rowcount

    def _put_back(self, connection: "sqlalchemy.Connection", rows: Sequence[IndexedRow]) -> None:
        driver: Any = connection.connection.driver_connection
        keys = {stream: self._load_head(driver, stream).key for stream in {row.stream for row in rows}}
        types = {type_: self._type_id(driver, type_, {}) for type_ in {row.type for row in rows}}
        values = (
            (row.position, keys[row.stream], row.version, types[row.type], row.recorded_at, row.event_id, row.record)
            for row in rows
        )
        driver.executemany(sql.INSERT_EVENT, values)

    def _fresh_cache(self, connection: sqlite3.Connection) -> _Cache:
        """Return where the log and its streams end: as remembered, if nobody else has written since."""
        (changes,) = connection.execute("PRAGMA data_version").fetchone()
        cache = self._cache
        if cache is None or cache.changes != changes or len(cache.heads) > _CACHED_HEADS:
            end = connection.execute(sql.SELECT_END).fetchone() or (0, 0)
            cache = _Cache(changes, end[0], end[1], {})
            self._inline.make(connection, self._inline.learn_from(connection))
        return cache

    def _load_head(self, connection: sqlite3.Connection, stream: str) -> Head:
        prefix = self._prefixes.get(stream)
        if prefix is None:
            if len(self._prefixes) > 1000:
                self._prefixes.clear()
            prefix = self._prefixes[stream] = codec.prefix(self.log_id, stream)
        row = connection.execute(sql.SELECT_HEAD, (stream,)).fetchone()
        if row is not None:
            return Head(prefix, row[1], row[2], row[3], row[0])
        head = Head(prefix)
        head.key = connection.execute(sql.INSERT_STREAM, (stream, 0, head.hash, 0)).lastrowid or 0
        return head

    def _type_id(self, connection: sqlite3.Connection, name: str, new_types: dict[str, int]) -> int:
        if name in new_types:
            return new_types[name]
        row = connection.execute(sql.SELECT_TYPE, (name,)).fetchone()
        made: int = row[0] if row else connection.execute(sql.INSERT_TYPE, (name,)).lastrowid or 0
        new_types[name] = made
        return made

    def _store_blobs(self, connection: sqlite3.Connection, unit: Unit) -> None:
        for part in unit.parts:
            if part.blobs:
                connection.executemany(sql.INSERT_BLOB, part.blobs.items())

    # --- inline projections -----------------------------------------------------------------------

    def keep_inline(self, projections: Sequence[Inline], *, anew: bool = False) -> None:
        """Keep inline projections; see `flightlog.events.store.Store.keep_inline`."""
        inline = self._inline
        inline.keep(projections)
        try:
            connection = self._open()
            try:
                asked = projections if anew else ()
                if inline.learn_from(connection, asked):
                    self._begin(connection, wait=True)
                    inline.make(connection, inline.learn_from(connection, asked))  # another process may have been first
                    connection.execute("COMMIT")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise translate(error, self.location) from error

    def inline_state(self, name: str, stream: str) -> tuple[int, bytes | None] | None:
        """Return a stream's version and what it has come to; see `flightlog.events.store.Store.inline_state`."""
        return self._inline.state_of(name, self._briefly(sql.SELECT_KEPT, (stream, name)))

    def inline_states(self, name: str) -> dict[str, bytes] | None:
        """Return what all streams have come to, by stream; see `flightlog.events.store.Store.inline_states`."""
        return self._inline.states_of(name, self._briefly(sql.SELECT_STATES, (name,)))

    # --- reading ----------------------------------------------------------------------------------

    def _rows(self, statement: Any, **parameters: Any) -> list[Any]:
        import sqlalchemy

        try:
            with self._reader().connect() as connection:
                return [tuple(row) for row in connection.execute(statement, parameters)]
        except sqlalchemy.exc.DBAPIError as error:
            raise translate(error.orig or error, self.location) from error
        except sqlite3.Error as error:
            raise translate(error, self.location) from error

    @property
    def _reading(self) -> "Reading":
        from flightlog.events.stores import tables

        return tables.sqlite_reading

    @contextmanager
    def writing(self) -> Iterator["sqlalchemy.Connection"]:
        """Return one transaction that writes; see `flightlog.events.store.Store.writing`."""
        import sqlalchemy

        try:
            with self._reader().connect() as connection, transaction(connection, _begin_now):
                yield connection
        except sqlalchemy.exc.DBAPIError as error:
            raise translate(error.orig or error, self.location) from error

    def settle(self) -> None:
        """Do nothing: positions and times are given inside the commit."""

    def now(self) -> int:
        """Return the present by the log's clock: the machine's, which all writers share."""
        return self._clock.now()

    def sync(self) -> None:
        """See to it that what is committed survives the loss of power: what is not in the file is in the WAL."""
        wal = self.path.with_name(self.path.name + "-wal")
        try:
            descriptor = os.open(wal, os.O_RDWR)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LogWriteError(f"The log at {self.path} cannot be synced to the disk: {error.strerror}.") from None
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def usage(self) -> tuple[int, int]:
        """Return how many bytes of the file are in use, and how many are free for what comes."""
        (pages,), (free,), (size,) = (
            self._briefly(f"PRAGMA {name}")[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size, free * size

    def damage(self) -> list[str]:
        """Return what SQLite finds wrong with the file itself; an empty list if it is sound."""
        try:
            found = [row[0] for row in self._briefly("PRAGMA integrity_check(20)")]
        except LogError as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Give back the file."""
        while self._spare:
            self._spare.pop().close()
        if self._tidier is not None:
            self._tidier.close()
            self._tidier = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._engine is not None:
            self._engine.dispose()


def _begin_now(connection: "sqlalchemy.Connection") -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
