"""A log in an SQLite file that cannot be written."""

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flightlog.errors import LogWriteError
from flightlog.events.store import Cursor, Inline, Unit
from flightlog.events.stores.sqlite import SqliteStore
from flightlog.events.stores.sqlite_places import quoted


class ReadOnlySqliteStore(SqliteStore):
    """Reads a log that cannot be written: on a read-only disk, or another user's.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._copy: Any = None
        self._old = False
        super().__init__(path, create=False)

    def _connect(self) -> None:
        wal = self.path.with_name(self.path.name + "-wal")
        if not wal.exists() or wal.stat().st_size == 0:
            self._uri = f"file:{quoted(self.path)}?mode=ro&immutable=1"
        else:
            # What is in the write-ahead log can be read only where SQLite may write beside it.
            self._uri = f"file:{quoted(self._copied(wal))}?mode=rw"
        super()._connect()

    def _copied(self, wal: Path) -> Path:
        self._copy = self._copy or tempfile.TemporaryDirectory(prefix="flightlog-")
        copy = Path(self._copy.name, self.path.name)
        shutil.copyfile(self.path, copy)
        shutil.copyfile(wal, copy.with_name(wal.name))
        return copy

    def write(self, units: Sequence[Unit], *, wait: bool) -> bool:
        """Refuse to write."""
        raise LogWriteError(f"The log at {self.path} is open for reading only.")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Leave the file as it is; what it lacks is empty."""
        self._old = True

    def _archives_version(self) -> int:
        """Return the version of the stream of archives; 0 in a log that has no tables for them yet."""
        return 0 if self._old else super()._archives_version()

    def beats(self) -> dict[str, int]:
        """Return when each process that runs flows was alive last."""
        return {} if self._old else super().beats()

    def cursors(self) -> list[Cursor]:
        """Return the cursors of all subscriptions."""
        return [] if self._old else super().cursors()

    def keep_inline(self, projections: Sequence[Inline], *, anew: bool = False) -> None:
        """Do nothing: what was kept can be read, and nothing changes."""

    def inline_state(self, name: str, stream: str) -> tuple[int, bytes | None] | None:
        """Return a stream's version and what it has come to; None in a log that has no inline projections yet."""
        return None if self._old else super().inline_state(name, stream)

    def inline_states(self, name: str) -> dict[str, bytes] | None:
        """Return what all streams have come to, by stream; None in a log that has no inline projections yet."""
        return None if self._old else super().inline_states(name)

    def _write_with(self, unit: Unit, work: Any) -> None:
        """Refuse to write."""
        raise LogWriteError(f"The log at {self.path} is open for reading only.")

    def writing(self) -> Any:
        """Refuse to write."""
        raise LogWriteError(f"The log at {self.path} is open for reading only.")

    def set_fact(self, name: str, value: bytes) -> bytes:
        """Refuse to write."""
        raise LogWriteError(f"The log at {self.path} is open for reading only.")

    def close(self) -> None:
        """Give back the file, and the copy if there is one."""
        super().close()
        if self._copy is not None:
            self._copy.cleanup()
