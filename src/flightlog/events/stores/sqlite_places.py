"""Where a log in an SQLite file may be, and what SQLite's errors mean to whoever has it there."""

import os
import sqlite3
import time
from pathlib import Path
from random import SystemRandom
from typing import Any
from urllib.parse import quote

from flightlog.errors import LogCorrupt, LogError, LogUnavailable, LogWriteError
from flightlog.events.stores.mounts import network_file_system

BUSY_SECONDS = 60.0
"""How long another process may hold the file before that is an error."""
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CHANCE = SystemRandom()  # not the one that users seed
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def translate(error: BaseException, location: str) -> LogError:
    """Return the driver's error as one of ours, saying what happened and what to do."""
    code = getattr(error, "sqlite_errorcode", None)
    code = None if code is None else code & 0xFF
    if code in _DAMAGED:
        return LogCorrupt(
            f"The file of the log at {location} is damaged ({error}). Keep a copy of it, then see what "
            "`flightlog doctor` finds; a backup is the surest way back."
        )
    if code == sqlite3.SQLITE_FULL:
        return LogWriteError(
            f"The log at {location} could not be written: the disk is full. Free some space and run again; "
            "what was recorded is intact."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return LogWriteError(
            f"The log at {location} could not be written: it, or its folder, is read-only. Make it writable, "
            "or name another place in FLIGHTLOG_LOG_URL."
        )
    if code in BUSY:
        return LogWriteError(
            f"The log at {location} could not be written: another process has held it for {BUSY_SECONDS:.0f} s. "
            "See which one has the file open, and end it if it hangs."
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return LogUnavailable(f"The log at {location} cannot be opened: {error}. Check the path and its permissions.")
    return LogWriteError(f"The log at {location} cannot be used just now: {error}.")


def check_path(path: Path) -> None:
    """Refuse a path that cannot hold a log.

    Raises:
        LogUnavailable: it is a folder, something else than an SQLite file, or on a network file system.
    """
    if path.is_dir():
        raise LogUnavailable(f"{path} is a folder. Name a file in it: FLIGHTLOG_LOG_URL=sqlite:///{path}/flightlog.db")
    if path.is_file() and not _is_database(_readable(path)):
        raise LogUnavailable(f"{path} is not a Flightlog log. Name another file in FLIGHTLOG_LOG_URL.")
    if path.parent.exists() and not path.parent.is_dir():
        raise LogUnavailable(f"{path.parent} is a file, not a folder. Name another place for the log.")
    if kind := network_file_system(path):
        raise LogUnavailable(
            f"{path} is on a network file system ({kind}), where SQLite cannot lock safely. "
            "Name a file on a local disk in FLIGHTLOG_LOG_URL."
        )


def _is_database(path: Path) -> bool:
    """Tell whether a file is an SQLite database, or empty.

    SQLite itself is asked: whoever else closes a file takes away all locks that this process has on it (POSIX), also
    those of a log that is open here, and another process would then delete its write-ahead log
    (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    connection = sqlite3.connect(f"file:{quoted(path)}?mode=ro", uri=True, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA schema_version")
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_NOTADB
    finally:
        connection.close()
    return True


def check_not_emptied(path: Path) -> None:
    """Refuse an empty file that has a log's key beside it: it was a log, and somebody emptied it.

    Raises:
        LogCorrupt: it was.
    """
    key = path.with_name(path.name + ".key")  # made after the log's tables
    if key.exists() and path.is_file() and path.stat().st_size == 0:
        raise LogCorrupt(
            f"The file of the log at {path} is empty, but {key.name} says that it was a log. Put a backup there; "
            "to begin a new one, move the key away."
        )


def _readable(path: Path) -> Path:
    if not os.access(path, os.R_OK):
        raise LogUnavailable(f"The log at {path} cannot be read: you have no permission. Check who owns the file.")
    return path


def make_file(path: Path) -> None:
    """Make an empty file that only its owner can read, and its folder.

    Raises:
        LogUnavailable: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The log may hold what only its owner should see.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise LogUnavailable(
            f"A log cannot be made at {path}: {error.strerror}. Name another place in FLIGHTLOG_LOG_URL."
        ) from None


def quoted(path: Path) -> str:
    """Return a path as a part of a URI."""
    return quote(str(path.absolute()))


def identity(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return whose file it is and in which version, both from one moment: another process may be making it."""
    alone = not connection.in_transaction
    if alone:
        patiently(lambda: connection.execute("BEGIN"))
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
    finally:
        if alone:
            connection.execute("COMMIT")
    return application, version


def patiently(attempt: Any) -> None:
    """Try until no other process is in the way: short random waits, so that nobody starves."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            attempt()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_CHANCE.uniform(0.0002, 0.003))
        else:
            return


def rollback(connection: sqlite3.Connection) -> None:
    """End a transaction, if there is one, without a trace."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
