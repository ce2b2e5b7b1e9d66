"""A log in the memory of one process: the reference that other stores are compared with."""

import threading
from collections.abc import Iterable, Sequence

from flightlog.clock import Clock, SystemClock
from flightlog.events import codec
from flightlog.events.store import Head, IndexedRow, LogHead, NewRow, Row, StreamEnd, Unit, place
from flightlog.ids import RandomIds


class MemoryStore:
    """Keeps records in lists. Nothing survives the process; everything else is as on disk."""

    def __init__(self, clock: Clock | None = None, log_id: bytes | None = None) -> None:
        self.log_id = log_id or RandomIds().new()
        self.location = "memory://"
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._rows: list[IndexedRow] = []
        self._streams: dict[str, list[int]] = {}
        self._heads: dict[str, Head] = {}
        self._known: dict[bytes, tuple[str, int]] = {}
        self._blobs: dict[bytes, bytes] = {}
        self._facts: dict[str, bytes] = {"log_id": self.log_id}

    def write(self, units: Sequence[Unit], *, wait: bool) -> bool:
        """Commit the units; see `flightlog.events.store.Store.write`."""
        with self._lock:
            for unit in units:
                for row in place(unit, self._head, self._known.get, doubt=True):
                    self._keep(row)
                if unit.error is None:
                    for part in unit.parts:
                        self._blobs.update(part.blobs)
                unit.done = True
        return True

    def _head(self, stream: str) -> Head:
        if stream not in self._heads:
            self._heads[stream] = Head(codec.prefix(self.log_id, stream))
        return self._heads[stream]

    def _keep(self, row: NewRow) -> None:
        position = len(self._rows) + 1
        recorded_at = max(self._clock.now(), self._rows[-1].recorded_at if self._rows else 0)
        body = row.body
        self._rows.append(
            IndexedRow(position, recorded_at, row.record, row.stream, row.version, body.event_id, body.type)
        )
        self._streams.setdefault(row.stream, []).append(position)
        self._known[body.event_id] = (row.stream, row.version)

    def read_stream(self, stream: str, after: int, limit: int) -> list[Row]:
        """Return events of a stream; see `flightlog.events.store.Store.read_stream`."""
        with self._lock:
            positions = self._streams.get(stream, [])[after : after + limit]
            return [Row(*self._rows[position - 1][:3]) for position in positions]

    def read_all(self, after: int, types: Sequence[str] | None, limit: int) -> list[Row]:
        """Return events of the log; see `flightlog.events.store.Store.read_all`."""
        with self._lock:
            rows = self._rows[after:] if types else self._rows[after : after + limit]
        return [Row(*row[:3]) for row in rows if not types or row.type in types][:limit]

    def indexed(self, after: int, limit: int) -> list[IndexedRow]:
        """Return events with their columns; see `flightlog.events.store.Store.indexed`."""
        with self._lock:
            return self._rows[after : after + limit]

    def ends(self) -> Iterable[StreamEnd]:
        """Return where every stream ends; see `flightlog.events.store.Store.ends`."""
        with self._lock:
            return [
                StreamEnd(name, head.version, head.hash, head.epoch)
                for name, head in self._heads.items()
                if head.version
            ]

    def head(self) -> LogHead:
        """Return where the log ends."""
        with self._lock:
            return LogHead(len(self._rows), self._rows[-1].recorded_at if self._rows else 0)

    def blob(self, digest: bytes) -> bytes | None:
        """Return a blob by its SHA-256, or None."""
        return self._blobs.get(digest)

    def facts(self) -> dict[str, bytes]:
        """Return what is kept about the log itself."""
        return dict(self._facts)

    def set_fact(self, name: str, value: bytes) -> bytes:
        """Keep a fact if there is none of that name yet; return the one that is kept."""
        return self._facts.setdefault(name, value)

    def close(self) -> None:
        """Do nothing: the memory goes with the object."""
