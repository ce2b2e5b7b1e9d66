"""Queues within a process: of many that wait for the same thing, one looks for it; the others wait for their turn."""

import threading
from collections import deque

from flightlog.engine.promises import Promise


class Gate:
    """A queue whose first one is inside; it lets the next one in when it leaves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Promise[None]] = deque()

    def enter(self) -> Promise[None]:
        """Join the queue; return what is settled when it is one's turn."""
        turn: Promise[None] = Promise()
        with self._lock:
            self._queue.append(turn)
            first = len(self._queue) == 1
        if first:
            turn.set(None)
        return turn

    def leave(self, turn: Promise[None]) -> None:
        """Leave the queue, wherever in it; whoever is first then may go on."""
        with self._lock:
            was_first = self._queue[0] is turn
            self._queue.remove(turn)
            following = self._queue[0] if was_first and self._queue else None
        if following is not None:
            following.set(None)


class Gates:
    """A gate for each thing that is waited for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: dict[tuple[str, ...], Gate] = {}

    def of(self, names: tuple[str, ...]) -> Gate:
        """Return the gate of some names; there are as many as there are limits, and these are few."""
        with self._lock:
            return self._gates.setdefault(names, Gate())
