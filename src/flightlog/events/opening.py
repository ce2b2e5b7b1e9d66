"""From a URL to an open log."""

from pathlib import Path

from flightlog.clock import Clock
from flightlog.errors import LogUnavailable
from flightlog.events.log import Log
from flightlog.values import Durability

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def is_memory(url: str) -> bool:
    """Tell whether a log's URL names one in memory, which ends with its process."""
    return url in ("memory://", "memory:")


def is_postgres(url: str) -> bool:
    """Tell whether a log's URL names a PostgreSQL database."""
    return url.startswith(_POSTGRES)


def path_of(url: str) -> Path | None:
    """Return the file that a log's URL names; None for a log in memory or in a database server.

    Raises:
        LogUnavailable: this is no URL of a log.
    """
    if is_memory(url) or is_postgres(url):
        return None
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE) and ":memory:" not in url:
        return Path(url.removeprefix(_SQLITE)).expanduser().absolute()
    kind = url.partition(":")[0]
    raise LogUnavailable(
        f"{kind}:... is not a log that this version can open. FLIGHTLOG_LOG_URL takes sqlite:///file.db (relative), "
        "sqlite:////folder/file.db (absolute), postgresql://user@host/database or memory://"
    )


def location_of(url: str) -> str:
    """Return where a log is, in words; passwords are left out."""
    path = path_of(url)
    if path is not None:
        return str(path)
    if is_memory(url):
        return "memory://"
    from flightlog.events.stores.postgres import url_of

    return url_of(url).set(drivername="postgresql").render_as_string(hide_password=True)


def open_log(
    url: str,
    *,
    clock: Clock | None = None,
    durability: Durability = "commit",
    create: bool = True,
    read_only: bool = False,
    log_id: bytes | None = None,
) -> Log:
    """Open the log at a URL.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user@host/name`` or ``memory://``.
        clock: gives `recorded_at`; the machine's (PostgreSQL: the server's) by default.
        durability: ``commit`` survives the end of the process, ``fsync`` the loss of power.
        create: whether to make a new log where there is none.
        read_only: read it without writing anything beside it.
        log_id: the id of a log that is made; a new one by default.

    Raises:
        LogUnavailable: it cannot be opened.
        LogCorrupt: its file is damaged.
    """
    path = path_of(url)
    if is_postgres(url):
        from flightlog.events.stores.postgres import PostgresStore

        return Log(PostgresStore(url, clock=clock, create=create, log_id=log_id))
    if path is None:
        from flightlog.events.stores.memory import MemoryStore

        return Log(MemoryStore(clock, log_id))
    from flightlog.events.stores.sqlite import SqliteStore

    if read_only:
        from flightlog.events.stores.sqlite_read_only import ReadOnlySqliteStore

        return Log(ReadOnlySqliteStore(path))
    return Log(SqliteStore(path, clock=clock, durability=durability, create=create, log_id=log_id))
