"""Calls into plug-ins, each in a thread of the plug-in's own and for a limited time (invariant I11).

Whatever a plug-in's function does (raise, exit, hang, be slow), the caller goes on. A call that takes too long is left
to itself: its thread cannot be stopped, so it is given up, and the plug-in with it.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Called:
    """What came of a call.

    Attributes:
        value: what the function returned.
        problem: what went wrong; None if nothing did.
        took: how long it took, in seconds.
        hung: whether it is still going on.
    """

    value: Any = None
    problem: str | None = None
    took: float = 0.0
    hung: bool = False


class Isolated:
    """A thread for the calls of one plug-in, one at a time. Made at the first call; it ends with `close`.

    Args:
        name: the plug-in's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked = threading.Semaphore(0)
        self._job: tuple[Callable[..., Any], Mapping[str, Any], Called, threading.Event] | None = None
        self.hung = False

    def call(self, function: Callable[..., Any], arguments: Mapping[str, Any], limit: float) -> Called:
        """Call a function and wait for it, for so many seconds at the most.

        Args:
            function: the function.
            arguments: its arguments, by name.
            limit: how many seconds it may take.
        """
        with self._lock:
            if self.hung:
                return Called(problem="an earlier call of it has not come back", hung=True)
            called, done = Called(), threading.Event()
            self._job = (function, arguments, called, done)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"flightlog-plugin-{self._name}", daemon=True)
                self._thread.start()
            self._asked.release()
            if not done.wait(limit):
                self.hung = True
                return Called(problem=f"it did not come back within {limit:g} seconds", took=limit, hung=True)
            return called

    def _work(self) -> None:
        while True:
            self._asked.acquire()
            job, self._job = self._job, None
            if job is None:
                return
            function, arguments, called, done = job
            began = time.monotonic()
            try:
                called.value = function(**arguments)
            except BaseException as error:  # noqa: BLE001 - the border between a plug-in and us
                called.problem = _told(error)
            called.took = time.monotonic() - began
            done.set()
            del job, function, arguments, called

    def close(self) -> None:
        """Let the thread end; one that hangs is left."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and not self.hung:
            self._asked.release()
            thread.join()


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:1000]
    except Exception:  # noqa: BLE001 - the plug-in's own exception, looked at
        return type(error).__name__
