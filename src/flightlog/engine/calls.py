"""What a retried flow remembers of its earlier attempts, so that what completed does not run again."""

import threading
from collections import defaultdict, deque
from typing import Any, NamedTuple

from flightlog.engine.runs import TaskRun
from flightlog.engine.states import State


class Call(NamedTuple):
    """An earlier call: its run (None for a subflow's), and the state that it ended in."""

    run: TaskRun | None
    state: State[Any]


class CallMemory:
    """The calls of a flow run by parent, function and arguments, in the order in which they were made.

    A call of a later attempt is matched with the earlier one that had the same parent, function and input
    digest, the k-th equal one with the k-th. A call whose arguments have no digest matches none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: defaultdict[tuple[bytes | None, str, bytes], deque[Call]] = defaultdict(deque)
        self._earlier: defaultdict[tuple[bytes | None, str, bytes], deque[Call]] = defaultdict(deque)

    def begin_attempt(self) -> None:
        """Make what was remembered so far the past, to be matched from here on."""
        with self._lock:
            for key, calls in self._calls.items():
                # Calls that the last attempt did not come to again stay available to the next one.
                calls.extend(self._earlier.pop(key, ()))
                self._earlier[key] = calls
            self._calls = defaultdict(deque)

    def take(self, parent: bytes | None, function: str, digest: bytes | None) -> Call | None:
        """Return the earlier call that this one repeats, once."""
        if digest is None:
            return None
        with self._lock:
            calls = self._earlier.get((parent, function, digest))
            return calls.popleft() if calls else None

    def add(self, parent: bytes | None, function: str, digest: bytes | None, call: Call) -> None:
        """Remember a call that has ended."""
        if digest is not None:
            with self._lock:
                self._calls[parent, function, digest].append(call)
