"""From a URL to an open log."""

from pathlib import Path

from flightlog.clock import Clock
from flightlog.errors import LogUnavailable
from flightlog.events.log import Log
from flightlog.settings import Durability

_SQLITE = "sqlite:///"


def path_of(url: str) -> Path | None:
    """Return the file that a log's URL names; None for a log in memory.

    Raises:
        LogUnavailable: this is no URL of a log.
    """
    if url in ("memory://", "memory:"):
        return None
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE) and ":memory:" not in url:
        return Path(url.removeprefix(_SQLITE)).expanduser().absolute()
    kind = url.partition(":")[0]
    raise LogUnavailable(
        f"{kind}:... is not a log that this version can open. FLIGHTLOG_LOG_URL takes sqlite:///file.db (relative), "
        "sqlite:////folder/file.db (absolute) or memory://"
    )


def open_log(
    url: str,
    *,
    clock: Clock | None = None,
    durability: Durability = "commit",
    create: bool = True,
    read_only: bool = False,
) -> Log:
    """Open the log at a URL.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``memory://``.
        clock: gives `recorded_at`; the machine's by default.
        durability: ``commit`` survives the end of the process, ``fsync`` the loss of power.
        create: whether to make a new log where there is none.
        read_only: read it without writing anything beside it.

    Raises:
        LogUnavailable: it cannot be opened.
        LogCorrupt: its file is damaged.
    """
    path = path_of(url)
    if path is None:
        from flightlog.events.stores.memory import MemoryStore

        return Log(MemoryStore(clock))
    from flightlog.events.stores.sqlite import SqliteStore

    if read_only:
        from flightlog.events.stores.sqlite_read_only import ReadOnlySqliteStore

        return Log(ReadOnlySqliteStore(path))
    return Log(SqliteStore(path, clock=clock, durability=durability, create=create))
