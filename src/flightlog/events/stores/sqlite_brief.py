"""What a log in an SQLite file is asked often or at length: said in plain SQL, without SQLAlchemy.

Its import takes longer than all else that going on with a run needs, and each of its rows costs twice as much.
"""

import os
import sqlite3
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from flightlog.events.store import IndexedRow, LogHead, Row, StreamEnd
from flightlog.events.stores import sqlite_statements as sql
from flightlog.events.stores.sharing import DatabaseStore
from flightlog.events.stores.sqlite_places import translate
from flightlog.events.types import ARCHIVES_STREAM

_SPARE = 4  # readers at once that need open no connection


class BriefStore(DatabaseStore):
    """Reads an SQLite file one statement at a time."""

    location: str
    _pid: int
    _spare: list[sqlite3.Connection]

    @abstractmethod
    def _open(self) -> sqlite3.Connection:
        """Return a new connection."""

    @abstractmethod
    def _forked(self) -> None:
        """Drop what a forked child must not touch."""

    def read_stream(self, stream: str, after: int, limit: int) -> list[Row]:
        """Return events of a stream; see `flightlog.events.store.Store.read_stream`."""
        return list(map(Row._make, self._briefly(sql.SELECT_STREAM, (stream, after, limit))))

    def read_all(self, after: int, types: Sequence[str] | None, limit: int) -> list[Row]:
        """Return events of the log; see `flightlog.events.store.Store.read_all`."""
        if types is not None:
            return super().read_all(after, types, limit)
        return list(map(Row._make, self._briefly(sql.SELECT_ALL, (after, limit))))

    def indexed(self, after: int, limit: int) -> list[IndexedRow]:
        """Return events with their columns; see `flightlog.events.store.Store.indexed`."""
        return list(map(IndexedRow._make, self._briefly(sql.SELECT_INDEXED, (after, limit))))

    def ends(self) -> list[StreamEnd]:
        """Return where every stream ends; see `flightlog.events.store.Store.ends`."""
        return [StreamEnd(*row) for row in self._briefly(sql.SELECT_ENDS) if row[1]]

    def answers(self) -> bool:
        """Tell whether it can be asked: a file is there, or it says at once that it is not."""
        return True

    def head(self) -> LogHead:
        """Return where the log ends."""
        rows = self._briefly(sql.SELECT_END)
        return LogHead(*rows[0]) if rows else LogHead(0, 0)

    def blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return blobs by their SHA-256."""
        wanted = ", ".join("?" * len(digests))
        return dict(self._briefly(f"{sql.SELECT_BLOBS} ({wanted})", tuple(digests)))

    def _archives_version(self) -> int:
        """Return the version of the stream of archives."""
        rows = self._briefly(sql.SELECT_HEAD, (ARCHIVES_STREAM,))
        return rows[0][1] if rows else 0

    def _archive_rows(self) -> list[Any]:
        """Return what is kept of archives."""
        return self._briefly(sql.SELECT_ARCHIVES)

    def _part_rows(self, stream: str, after: int) -> list[Any]:
        """Return the archived parts of a stream."""
        return self._briefly(sql.SELECT_PARTS, (stream, after))

    def _archived_blob_rows(self, digests: Sequence[bytes]) -> list[Any]:
        """Return in which archives blobs are."""
        wanted = ", ".join("?" * len(digests))
        return self._briefly(f"{sql.SELECT_ARCHIVED_BLOBS} ({wanted})", tuple(digests))

    def beat(self, process: str, at: int | None) -> None:
        """Note that a process is alive; None: that it has ended. Without SQLAlchemy, which takes 15 MB."""
        if at is None:
            self._briefly(sql.DELETE_BEAT, (process,))
        else:
            self._briefly(sql.PUT_BEAT, (process, at))

    def facts(self) -> dict[str, bytes]:
        """Return what is kept about the log itself."""
        return dict(self._briefly(sql.SELECT_FACTS))

    def set_fact(self, name: str, value: bytes) -> bytes:
        """Keep a fact if there is none of that name yet; return the one that is kept."""
        self._briefly(sql.INSERT_FACT, (name, value))
        return self.facts()[name]

    def _briefly(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Say one statement outside of the writer's connection."""
        if self._pid != os.getpid():
            self._forked()
        try:
            try:
                connection = self._spare.pop()  # kept from the last time: opening one takes longer than most statements
            except IndexError:
                connection = self._open()
            try:
                rows = connection.execute(statement, parameters).fetchall()
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise translate(error, self.location) from error
        if len(self._spare) >= _SPARE:
            connection.close()
        else:
            self._spare.append(connection)
        return rows
