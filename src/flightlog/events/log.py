"""The log: one append-only sequence of events, and the only synchronisation primitive of the system.

`Log` puts codec and store together and shares commits out. Whoever needs durability commits everybody's
pending events (leader and followers); there is no other thread to hand them to on the sequential path.
A small thread commits what nobody waits for within about ten milliseconds.
"""

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from flightlog.errors import LogCorrupt, LogError
from flightlog.events import codec
from flightlog.events.inline import Kept, unpacked
from flightlog.events.model import ANY, Append, Event, NewEvent
from flightlog.events.store import Body, Departure, Inline, LogHead, Part, Store, Unit

T = TypeVar("T")
FLUSH_SECONDS = 0.01
_IDLE_TICKS = 50
_PAGE = 1000
_WATCH_SECONDS = 0.02
_PATIENCE = 60.0

Source = Callable[[bool], bool]
"""Asked now and then to enqueue what it holds back (all of it, if told True); tells if it holds something."""


class Log:
    """One log, open for appending and reading; safe for threads, and for forks of the process.

    Args:
        store: where the records are kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.log_id = store.log_id
        self._queue: deque[Unit] = deque()
        self._sources: list[Source] = []
        self._tickers: list[list[Any]] = []
        self._commits = 0
        self._closed = False
        self._start_fresh()
        _OPEN.add(self)

    def _start_fresh(self) -> None:
        """Make the locks and note the process: at the start, and again in a forked child."""
        self._leader = threading.RLock()
        self._leading = False
        self._waking = threading.Lock()
        self._wake = threading.Event()
        self._parked = True
        self._flusher: threading.Thread | None = None
        self._pid = os.getpid()

    # --- the contract -----------------------------------------------------------------------------

    def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        *,
        expected_version: int | None = ANY,
        epoch: int | None = None,
        blobs: Mapping[bytes, bytes] | None = None,
    ) -> list[int]:
        """Append events to a stream and return their versions once they are committed.

        Appending events again whose ids are recorded changes nothing and returns the versions they have.

        Args:
            stream: the stream's name.
            events: the events, oldest first.
            expected_version: the version that the stream must have; `ANY` for no condition.
            epoch: the writer's epoch, see `flightlog.events.model.Append`.
            blobs: contents to store in the same commit, by their SHA-256.

        Raises:
            VersionConflict: the stream is at another version.
            TakenOver: the stream has a higher epoch.
            LogWriteError: the log cannot be written at present.
        """
        return self.append_all([Append(stream, events, expected_version, epoch, blobs or {})])[0]

    def append_all(self, appends: Sequence[Append]) -> list[list[int]]:
        """Append to several streams, all or nothing; return the versions per stream. See `append`."""
        unit = self.enqueue(appends)
        try:
            self.commit(unit)
        except BaseException:
            self._withdraw(unit)
            raise
        return unit.versions

    def archive(self, append: Append, departure: Departure) -> None:
        """Append `log.archived`, and take what it is about out of the database. See `flightlog.events.store.Store`.

        Raises:
            VersionConflict: somebody else archived or restored first; nothing happened.
        """
        self._alone(append, lambda unit: self.store.archive(unit, departure))

    def restore(self, append: Append, number: int, step: Callable[[str], object]) -> None:
        """Append `log.restored`, and put the events of an archive back. Raises what `archive` does."""
        self._alone(append, lambda unit: self.store.restore(unit, number, step))

    def _alone(self, append: Append, write: Callable[[Unit], object]) -> None:
        """Have a unit written with more than events, while nobody else in this process writes."""
        unit = Unit([_part(append)])
        with self._leader:
            self._leading = True
            try:
                write(unit)
            finally:
                self._leading = False
        if unit.error is not None:
            raise unit.error

    def read(self, stream: str, after: int = 0) -> Iterator[Event]:
        """Yield the events of a stream with versions above `after`, in order."""
        while rows := self.store.read_stream(stream, after, _PAGE):
            for row in rows:
                after += 1
                yield Event(*row, fetch=self.blob)

    def read_all(self, after: int = 0, types: Sequence[str] | None = None, limit: int | None = None) -> Iterator[Event]:
        """Yield the events with positions above `after`, in order: of some types or of all, at most `limit`."""
        while limit != 0:
            page = _PAGE if limit is None else min(_PAGE, limit)
            events = self.page(after, types, page)
            for event in events:
                after = event.position
                yield event
            if limit is not None:
                limit -= len(events)
            if len(events) < page:
                return

    def page(self, after: int, types: Sequence[str] | None, limit: int) -> list[Event]:
        """Return up to `limit` events with positions above `after`, in order: of some types or of all."""
        fetch = self.blob
        return [Event(*row, fetch) for row in self.store.read_all(after, types, limit)]

    def subscribe(
        self, after: int = 0, types: Sequence[str] | None = None, stop: threading.Event | None = None
    ) -> Iterator[Event]:
        """Yield the events with positions above `after`, and go on waiting for new ones until `stop` is set."""
        stop = stop or threading.Event()
        while not stop.is_set():
            seen = self.head().position
            for event in self.read_all(after, types):
                after = event.position
                yield event
            after = max(after, seen)
            while not stop.is_set() and not self.wait(after, _PATIENCE, stop):
                pass

    def wait(self, after: int, seconds: float, stop: threading.Event) -> bool:
        """Wait until there are events with positions above `after`; tell if there are.

        It looks fifty times a second: what another process appends is noticed within some 50 ms on every store,
        without a connection that listens.

        Args:
            after: a position.
            seconds: how long at the most.
            stop: ends the waiting when it is set.
        """
        deadline = _monotonic() + seconds
        while self.head().position <= after:
            if stop.wait(_WATCH_SECONDS) or _monotonic() > deadline:
                return False
        return True

    def head(self) -> LogHead:
        """Return the last position and when it was recorded; zeros for an empty log."""
        return self.store.head()

    def event(self, event_id: bytes) -> Event | None:
        """Return an event by its id, or None if it is not here."""
        row = self.store.event(event_id)
        return None if row is None else Event(*row, fetch=self.blob)

    def position_at(self, moment: int) -> int:
        """Return the position of the last event that was recorded at a moment or before; 0 if there is none.

        What it returns for a moment that is past never changes.

        Args:
            moment: in microseconds since 1970 (UTC).
        """
        self.store.settle()
        low, high = 0, self.head().position
        while low < high:  # times never decrease with the position
            middle = (low + high + 1) // 2
            rows = self.store.read_all(middle - 1, None, 1)
            if rows and rows[0].recorded_at <= moment:
                low = rows[0].position
            else:
                high = middle - 1
        return low

    def keep(self, projections: Sequence[Inline], *, anew: bool = False) -> None:
        """Keep inline projections in each commit from here on. See `flightlog.events.store.Store.keep_inline`.

        Raises:
            LogWriteError: the log cannot be written at present.
        """
        with self._leader:
            self.store.keep_inline(projections, anew=anew)

    def state(self, projection: str, stream: str) -> Kept:
        """Return what a stream has come to for an inline projection, and the version to expect when appending to it.

        Raises:
            LogError: the log does not keep that projection.
            LogWriteError: it keeps it in a newer version than this process has.
        """
        version, packed = self._kept(lambda: self.store.inline_state(projection, stream), projection)
        return Kept(version, unpacked(packed))

    def states(self, projection: str) -> dict[str, Any]:
        """Return what all streams have come to for an inline projection, by stream. Raises what `state` does."""
        packed = self._kept(lambda: self.store.inline_states(projection), projection)
        return {stream: unpacked(state) for stream, state in packed.items()}

    def _kept(self, read: Callable[[], T | None], projection: str) -> T:
        """Return what is kept; after a copy into the log it has to be made anew first."""
        found = read()
        if found is None:
            self.keep(())
            found = read()
        if found is None:
            raise LogError(f"The log at {self.store.location} keeps no inline projection {projection!r}.")
        return found

    def folded(self, projection: Inline) -> dict[str, Any]:
        """Return what `states` has to return: folded from the events, beside what is kept."""
        found: dict[str, Any] = {}
        for event in self.read_all(types=sorted(projection.types)):
            found[event.stream] = projection.apply(found.get(event.stream), event)
        return {stream: state for stream, state in found.items() if state is not None}

    @property
    def commits(self) -> int:
        """How often this process has committed."""
        return self._commits

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closed

    def blob(self, digest: bytes) -> bytes:
        """Return a blob by its SHA-256.

        Raises:
            LogCorrupt: there is no such blob.
        """
        content = self.store.blobs([digest]).get(digest)
        if content is None:
            raise LogCorrupt(f"The log at {self.store.location} lacks the blob {digest.hex()}.")
        return content

    def blobs(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return those of some blobs (500 at the most) that are here, by their SHA-256."""
        return self.store.blobs(digests)

    # --- sharing commits --------------------------------------------------------------------------

    def enqueue(self, appends: Sequence[Append]) -> Unit:
        """Put an append in line and return at once; it is committed with the next commit, or in about 10 ms."""
        if self._closed:
            raise LogError(f"The log at {self.store.location} is closed: nothing can be appended any more.")
        unit = Unit([_part(append) for append in appends])
        self._queue.append(unit)
        if self._parked:
            self.wake()
        return unit

    def commit(self, unit: Unit) -> None:
        """Return once the unit, and everything that was put in line before it, is committed.

        Raises:
            VersionConflict, TakenOver: this unit was refused.
            LogWriteError: the log cannot be written at present; what is in line stays there.
        """
        while not unit.done:
            with self._leader:
                if not unit.done:
                    self._lead(wait=True)
        if unit.error is not None:
            raise unit.error

    def try_commit(self, unit: Unit) -> bool:
        """Do what `commit` does, but only if nobody else, here or in another process, is writing just now."""
        if not unit.done:
            try:
                if not self._leader.acquire(blocking=False):
                    return False
                if self._queue and not self._lead(wait=False):
                    return False
            finally:
                # Whether or not an interrupt came between getting the lock and noting so: the lock itself knows. Not by
                # `suppress`, which is Python code: an interrupt in there would keep the lock for ever.
                try:  # noqa: SIM105
                    self._leader.release()
                except RuntimeError:
                    pass
        if unit.error is not None:
            raise unit.error
        return True

    def flush(self) -> None:
        """Commit everything that is in line, and what the sources hold back."""
        for source in self._sources:
            source(True)
        while self._queue:
            with self._leader:
                self._lead(wait=True)

    def _lead(self, *, wait: bool) -> bool:
        """Commit all that is in line, holding the leader's lock."""
        if self._leading:
            raise LogError("The log is being written by this very thread already: by code that interrupted it.")
        queue = self._queue
        written = False
        self._leading = True
        try:
            # Disk full, an interrupt at whatever moment, another writer: what is not committed stays in line. A unit
            # that was committed just before an interrupt is known by its event ids when it comes again.
            if units := [unit for unit in queue.copy() if not unit.done]:
                written = self.store.write(units, wait=wait)
        finally:
            self._leading = False  # first: Python lets no signal in before it
            while queue and queue[0].done:
                queue.popleft()
        self._commits += 1
        return written

    def _withdraw(self, unit: Unit) -> None:
        with self._leader:
            if unit in self._queue:
                self._queue.remove(unit)

    # --- what nobody waits for --------------------------------------------------------------------

    def add_source(self, source: Source) -> None:
        """Ask a function now and then to enqueue what it holds back. See `Source`."""
        self._sources.append(source)

    def add_ticker(self, ticker: Callable[[], object], seconds: float) -> None:
        """Call a function every so many seconds, once anything was ever put in line."""
        self._tickers.append([ticker, seconds, _monotonic() + seconds])

    def wake(self) -> None:
        """Make sure that what is in line or held back is committed soon."""
        with self._waking:
            if not self._closed and (self._flusher is None or not self._flusher.is_alive()):
                self._flusher = threading.Thread(target=self._tick, name="flightlog-flush", daemon=True)
                self._flusher.start()
        self._parked = False
        self._wake.set()

    def _tick(self) -> None:
        # Daemon and weak where it can be: an interpreter that ends does not wait here, it runs `close`.
        wake = self._wake
        while not self._closed:
            wake.wait(self._until_next())
            wake.clear()
            self._flush_while_busy()
            self._parked = True
            if self._queue:
                self._parked = False
                wake.set()

    def _until_next(self) -> float | None:
        """Return how long until a ticker is due, in seconds; None for ever."""
        return max(0.0, min(due for _, _, due in self._tickers) - _monotonic()) if self._tickers else None

    def _run_tickers(self) -> None:
        now = _monotonic()
        for entry in self._tickers:
            if entry[2] <= now:
                entry[2] = now + entry[1]
                entry[0]()

    def _flush_while_busy(self) -> None:
        idle, seen = 0 if self._queue else _IDLE_TICKS - 1, -1
        while idle < _IDLE_TICKS and not self._closed:
            self._run_tickers()
            _pause(FLUSH_SECONDS)
            self._tidy()
            held = [source(False) for source in self._sources]
            if self._queue and self._commits == seen:
                self._flush_quietly()
            seen = self._commits
            idle = 0 if self._queue or any(held) else idle + 1

    def _tidy(self) -> None:
        try:
            self.store.tidy()
        except LogError:
            return  # it will be tried again; a commit that really cannot be done says so itself

    def _flush_quietly(self) -> None:
        """Commit what is in line; if that cannot be done, whoever needs it next is told."""
        try:
            with self._leader:
                self._lead(wait=True)
        except LogError:
            _pause(10 * FLUSH_SECONDS)

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Commit what is in line and give back files, connections and the thread.

        Raises:
            LogWriteError: something could not be recorded; the message says how many events.
        """
        if self._closed:
            return
        lost: LogError | None = None
        try:
            self.flush()
        except LogError as error:
            count = sum(len(part.bodies) for unit in self._queue for part in unit.parts)
            lost = type(error)(f"{count} events could not be recorded. {error}")
        self._closed = True
        self._wake.set()
        if self._flusher is not None and self._flusher is not threading.current_thread():
            self._flusher.join()
        self.store.close()
        _OPEN.discard(self)
        if lost is not None:
            raise lost

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork(self) -> None:
        """In a forked child: what is in line is the parent's to commit; a later commit opens anew."""
        self._queue.clear()
        self._start_fresh()


def _part(append: Append) -> Part:
    codec.check_name(append.stream)
    epoch = append.epoch or 0
    bodies = []
    blobs = append.blobs
    for event in append.events:
        packed, spilled = codec.encode_body(
            event.id, event.type, event.schema, event.occurred_at, event.actor, event.follows, epoch, event.data
        )
        bodies.append(Body(event.id, event.type, packed))
        if spilled:
            blobs = {**blobs, **spilled}
    return Part(append.stream, bodies, append.expected_version, append.epoch, blobs)


def _monotonic() -> float:
    import time

    return time.monotonic()


def _pause(seconds: float) -> None:
    import time

    time.sleep(seconds)


_OPEN: "weakref.WeakSet[Log]" = weakref.WeakSet()


def _close_all() -> None:
    import sys

    for log in list(_OPEN):
        try:
            log.close()
        except LogError as error:
            if sys.stderr is not None:
                sys.stderr.write(f"flightlog: {error}\n")


def _fork_all() -> None:
    for log in list(_OPEN):
        log._after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fork_all)
