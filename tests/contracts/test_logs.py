"""Every store passes the same contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flightlog.events.log import Log
from flightlog.events.opening import open_log
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.stores.sqlite import SqliteStore
from flightlog.testing import LogContract


class TestMemory(LogContract):
    """The store in memory."""

    @pytest.fixture
    def log(self) -> Iterator[Log]:
        """Yield a log in memory."""
        with Log(MemoryStore()) as log:
            yield log


class TestSqlite(LogContract):
    """The store in an SQLite file."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[Log]:
        """Yield a log in a file."""
        with Log(SqliteStore(tmp_path / "log.db")) as log:
            yield log


class TestSqliteFsync(LogContract):
    """The store in an SQLite file, every commit synced to the disk."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[Log]:
        """Yield a log in a file."""
        with Log(SqliteStore(tmp_path / "log.db", durability="fsync")) as log:
            yield log


class TestPostgres(LogContract):
    """The store in a PostgreSQL database."""

    @pytest.fixture
    def log(self, postgres_url: str) -> Iterator[Log]:
        """Yield a log in a database of its own."""
        with open_log(postgres_url) as log:
            yield log
