"""A log in the memory of one process: the reference that other stores are compared with."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from flightlog.clock import Clock, SystemClock
from flightlog.errors import LogError
from flightlog.events import codec
from flightlog.events.inline import Folding, Inlines, Recorded, on_record
from flightlog.events.placing import follow, place
from flightlog.events.store import Committed, Cursor, Head, IndexedRow, Inline, LogHead, NewRow, Row, StreamEnd, Unit
from flightlog.events.stores.unarchived import UnarchivedStore
from flightlog.ids import RandomIds


class MemoryStore(UnarchivedStore):
    """Keeps records in lists. Nothing survives the process; everything else is as on disk."""

    is_remote = False
    tap: Callable[[Committed], object] | None = None

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
        self._beats: dict[str, int] = {}
        self._cursors: dict[str, Cursor] = {}
        self._inline = Inlines()
        self._kept = _Kept(self._blobs)
        self._recorded: dict[str, Recorded] = {}

    def write(self, units: Sequence[Unit], *, wait: bool) -> bool:
        """Commit the units; see `flightlog.events.store.Store.write`."""
        with self._lock:
            before = len(self._rows)
            now = max(self._clock.now(), self._rows[-1].recorded_at if self._rows else 0)
            for unit in units:
                folding = self._inline.folding(self._kept)
                rows = place(unit, self._head, self._known.get, doubt=True, folding=folding)
                for row in rows:
                    self._keep(row, now)
                if unit.error is None:
                    for part in unit.parts:
                        self._blobs.update(part.blobs)
                if folding is not None:
                    folding.store()
                unit.done = True
            if self.tap is not None and len(self._rows) > before:
                new = self._rows[before:]
                self.tap(Committed(before + 1, now, [row.record for row in new], [row.type for row in new]))
        return True

    def _head(self, stream: str) -> Head:
        if stream not in self._heads:
            self._heads[stream] = Head(codec.prefix(self.log_id, stream), key=len(self._heads))
        return self._heads[stream]

    def _keep(self, row: NewRow, recorded_at: int) -> None:
        position = len(self._rows) + 1
        body = row.body
        self._rows.append(
            IndexedRow(position, recorded_at, row.record, row.stream, row.version, body.event_id, body.type)
        )
        self._streams.setdefault(row.stream, []).append(position)
        self._known[body.event_id] = (row.stream, row.version)

    def adopt(self, rows: Sequence[IndexedRow], blobs: Mapping[bytes, bytes]) -> None:
        """Store events of another place of the same log; see `flightlog.events.store.Store.adopt`."""
        with self._lock:
            for row in rows:
                if row.position != len(self._rows) + 1:
                    raise LogError(f"A log in memory has no gaps: event {len(self._rows) + 1} is missing.")
                follow(self._head(row.stream), row)
                self._rows.append(row)
                self._streams.setdefault(row.stream, []).append(row.position)
                self._known[row.event_id] = (row.stream, row.version)
            self._blobs.update(blobs)
            if (folding := self._inline.folding(self._kept)) is not None:
                folding.take((self._heads[row.stream].key, row.record) for row in rows)
                folding.store()

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

    def now(self) -> int:
        """Return the present by the log's clock."""
        return self._clock.now()

    def tidy(self) -> None:
        """Do nothing: there is nothing to tidy."""

    def answers(self) -> bool:
        """Tell whether it can be asked: always."""
        return True

    def sync(self) -> None:
        """Do nothing: there is no disk."""

    def settle(self) -> None:
        """Do nothing: positions and times are given inside the commit."""

    def blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return blobs by their SHA-256."""
        return {digest: self._blobs[digest] for digest in digests if digest in self._blobs}

    def facts(self) -> dict[str, bytes]:
        """Return what is kept about the log itself."""
        return dict(self._facts)

    def set_fact(self, name: str, value: bytes) -> bytes:
        """Keep a fact if there is none of that name yet; return the one that is kept."""
        return self._facts.setdefault(name, value)

    def event(self, event_id: bytes) -> Row | None:
        """Return an event by its id, or None."""
        with self._lock:
            return next((Row(*row[:3]) for row in self._rows if row.event_id == event_id), None)

    def beats(self) -> dict[str, int]:
        """Return when each process that runs flows was alive last."""
        return dict(self._beats)

    def beat(self, process: str, at: int | None) -> None:
        """Note that a process is alive; None: that it has ended."""
        if at is None:
            self._beats.pop(process, None)
        else:
            self._beats[process] = at

    def cursors(self) -> list[Cursor]:
        """Return the cursors of all subscriptions."""
        with self._lock:
            return sorted(self._cursors.values())

    def claim_cursor(self, name: str, owner: str, now: int, lease: int, start: int) -> Cursor | None:
        """Make a cursor somebody's; None if it is another's."""
        with self._lock:
            cursor = self._cursors.get(name) or Cursor(name, start, 0, "", 0)
            if cursor.owner and cursor.lease >= now:
                return None
            self._cursors[name] = Cursor(name, cursor.position, cursor.epoch + 1, owner, lease)
            return self._cursors[name]

    def move_cursor(self, name: str, epoch: int, position: int, lease: int, connection: Any = None) -> bool:
        """Move a cursor on and keep it; tell if it is still its owner's."""
        with self._lock:
            cursor = self._cursors.get(name)
            if cursor is None or cursor.epoch != epoch:
                return False
            self._cursors[name] = cursor._replace(position=position, lease=lease)
            return True

    def release_cursor(self, name: str, epoch: int) -> None:
        """Give a cursor back, for others to claim."""
        with self._lock:
            cursor = self._cursors.get(name)
            if cursor is not None and cursor.epoch == epoch:
                self._cursors[name] = cursor._replace(owner="", lease=0)

    def forget_cursor(self, name: str) -> bool:
        """Delete a subscription's cursor; tell if there was one."""
        with self._lock:
            return self._cursors.pop(name, None) is not None

    def keep_inline(self, projections: Sequence[Inline], *, anew: bool = False) -> None:
        """Keep inline projections; see `flightlog.events.store.Store.keep_inline`."""
        with self._lock:
            self._inline.keep(projections)
            for projection in self._inline.learn(self._recorded.values(), projections if anew else ()):
                self._kept.forget(projection.name)
                folding = Folding([projection], self._kept)
                folding.take((self._heads[row.stream].key, row.record) for row in self._rows)
                folding.store()
                self._recorded[projection.name] = on_record(projection)

    def inline_state(self, name: str, stream: str) -> tuple[int, bytes | None] | None:
        """Return a stream's version and what it has come to for an inline projection."""
        with self._lock:
            head = self._heads.get(stream) or Head(b"", key=-1)
            return (head.version, self._kept.load(name, head.key)) if name in self._recorded else None

    def inline_states(self, name: str) -> dict[str, bytes] | None:
        """Return what all streams have come to for an inline projection, by stream."""
        with self._lock:
            found = {stream: self._kept.load(name, head.key) for stream, head in self._heads.items()}
            if name not in self._recorded:
                return None
            return {stream: state for stream, state in found.items() if state is not None}

    def writing(self) -> AbstractContextManager[None]:
        """Return no transaction: there is no database."""
        return nullcontext()

    def close(self) -> None:
        """Do nothing: the memory goes with the object."""


class _Kept:
    """What inline projections have come to; see `flightlog.events.inline.Rows`."""

    def __init__(self, blobs: Mapping[bytes, bytes]) -> None:
        self._states: dict[tuple[str, int], bytes] = {}
        self._blobs = blobs

    def load(self, name: str, key: int) -> bytes | None:
        return self._states.get((name, key))

    def put(self, name: str, key: int, state: bytes) -> None:
        self._states[name, key] = state

    def drop(self, name: str, key: int) -> None:
        self._states.pop((name, key), None)

    def forget(self, name: str) -> None:
        self._states = {place_: state for place_, state in self._states.items() if place_[0] != name}

    def fetch(self, digest: bytes) -> bytes:
        return self._blobs[digest]
