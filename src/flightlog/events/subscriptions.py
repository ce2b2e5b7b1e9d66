"""Subscriptions: named, durable readers of the log.

Each event is handed over at least once and in order: the cursor moves after the handler has returned, and where the
handler's own rows are in the log's database, in the same transaction as these, which makes it exactly once. Of several
processes with the same subscription one works and the others stand by; a lease says for how long, and an epoch makes
sure that one that was taken for dead moves nothing.
"""

import os
import platform
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from flightlog.clock import Clock
from flightlog.errors import LogWriteError
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.store import Cursor

LEASE_SECONDS = 10.0
STANDBY_SECONDS = 0.5
_BATCH = 500

Handler = Callable[[list[Event]], object]
"""Deals with some events; if it raises, they come again."""
RowsHandler = Callable[[list[Event], Any], object]
"""The same, with a SQLAlchemy connection whose transaction also moves the cursor."""


class Subscription:
    """A named reader of a log. Not for several threads at once; each needs one of its own.

    Args:
        log: the log.
        name: the subscription's name: all that share it share its cursor.
        handler: deals with events, a batch at a time.
        rows: whether the handler takes a second argument, the transaction in which the cursor moves.
        types: the event types that it wants; None for all.
        start: where a subscription begins that never ran: a position; None for the log's present end.
        clock: time; the log's own by default, which is one for all machines.

    Attributes:
        outage: why `run` stands still just now; None if it does not.
    """

    def __init__(
        self,
        log: Log,
        name: str,
        handler: Handler | RowsHandler,
        *,
        rows: bool = False,
        types: Sequence[str] | None = None,
        start: int | None = 0,
        clock: Clock | None = None,
    ) -> None:
        self.log = log
        self.name = name
        self._handler: Any = handler
        self._rows = rows
        self._types = types
        self._start = start
        self._clock = clock
        self._owner = f"{platform.node()}/{os.getpid()}/{threading.get_ident()}"
        self._cursor: Cursor | None = None
        self._renewed = 0
        self.outage: LogWriteError | None = None

    @property
    def position(self) -> int | None:
        """The last position that was dealt with; None while another one works."""
        return None if self._cursor is None else self._cursor.position

    def begin(self) -> None:
        """See to it that there is a cursor: what is recorded from here on is handed over, whoever takes a step first.

        Raises:
            LogWriteError: the log cannot be written at present.
        """
        if self._cursor is None:
            self._claim()

    def step(self) -> int | None:
        """Deal with one batch; return how many events it had, or None if another one works.

        Raises:
            Exception: the handler's own; the cursor has not moved, and the same events come again.
        """
        if self._cursor is not None and self._now() - self._renewed > LEASE_SECONDS * 1e6:
            self._cursor = None  # it may be another's by now
        cursor = self._cursor or self._claim()
        if cursor is None:
            return None
        events, last = self._read(cursor.position)
        if last <= cursor.position and not self._is_due():
            return 0
        if not self._hand_over(cursor, events, max(last, cursor.position)):
            self._cursor = None  # somebody took it for dead
            return None
        return len(events)

    def _read(self, after: int) -> tuple[list[Event], int]:
        """Return the next batch after a position, and the position up to which it goes."""
        end = self.log.head().position
        events = self.log.page(after, self._types, _BATCH)
        return events, events[-1].position if len(events) == _BATCH else max(end, *(e.position for e in events[-1:]), 0)

    def _now(self) -> int:
        return self.log.store.now() if self._clock is None else self._clock.now()

    def _claim(self) -> Cursor | None:
        now = self._now()
        start = self.log.head().position if self._start is None else self._start
        self._cursor = self.log.store.claim_cursor(self.name, self._owner, now, self._lease(now), start)
        self._renewed = now
        return self._cursor

    def _lease(self, now: int) -> int:
        return now + round(LEASE_SECONDS * 1e6)

    def _is_due(self) -> bool:
        """Tell whether the lease should be renewed."""
        return self._now() - self._renewed > LEASE_SECONDS * 1e6 / 3

    def _hand_over(self, cursor: Cursor, events: list[Event], position: int) -> bool:
        """Let the handler deal with events and move the cursor; tell if it was still ours to move."""
        store = self.log.store
        moved = False
        if self._rows and events:
            try:
                with store.writing() as connection:
                    self._handler(events, connection)
                    lease = self._lease(self._now())
                    moved = store.move_cursor(self.name, cursor.epoch, position, lease, connection)
                    if not moved:
                        raise _Lost  # noqa: TRY301 - takes the handler's rows back
            except _Lost:
                return False
        else:
            if events:
                self._handler(events)
            moved = store.move_cursor(self.name, cursor.epoch, position, self._lease(self._now()))
        if moved:
            self._cursor = cursor._replace(position=position)
            self._renewed = self._now()
        return moved

    def run(self, stop: threading.Event) -> None:
        """Deal with events as they come, until `stop` is set; a log that cannot be reached or written is waited for.

        Raises:
            Exception: the handler's own.
        """
        try:
            while not stop.is_set():
                self._go_on(stop)
        finally:
            self.close()

    def _go_on(self, stop: threading.Event) -> None:
        """Deal with one batch, or wait for one."""
        try:
            done = self.step()
            self.outage = None
            if done is None:
                stop.wait(STANDBY_SECONDS)
            elif done == 0:
                self._wait(stop)
        except LogWriteError as error:  # a full disk, a server that restarts: the cursor is where it was
            self.outage = error
            stop.wait(STANDBY_SECONDS)

    def _wait(self, stop: threading.Event) -> None:
        """Wait for another event, or until the lease should be renewed."""
        assert self._cursor is not None
        self.log.wait(self._cursor.position, LEASE_SECONDS / 3, stop)

    def close(self) -> None:
        """Give the cursor back, for another one to go on at once."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            with suppress(LogWriteError):  # its lease ends by itself
                self.log.store.release_cursor(self.name, cursor.epoch)


class _Lost(Exception):
    """The cursor is somebody else's now: the handler's rows are taken back."""
