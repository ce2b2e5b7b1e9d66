"""Calls into plug-ins, each in a thread of the plug-in's own and for a limited time (invariant I11).

Whatever a plug-in's function does (raise, exit, hang, be slow), the caller goes on. A call that takes too long is left
to itself: its thread cannot be stopped, so it is given up, and the plug-in with it.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
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


@dataclass(slots=True)
class _Job:
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    called: Called = field(default_factory=Called)
    done: threading.Event = field(default_factory=threading.Event)

    def do(self) -> Called:
        """Call the function."""
        began = time.monotonic()
        try:
            self.called.value = self.function(**self.arguments)
        except BaseException as error:  # noqa: BLE001 - the border between a plug-in and us
            self.called.problem = _told(error)
        self.called.took = time.monotonic() - began
        return self.called


class Isolated:
    """A thread for the calls of one plug-in, one at a time. Made at the first call; it ends with `close`.

    Args:
        name: the plug-in's name.

    Attributes:
        hung: whether a call has not come back; then there are no more.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._closed = False
        self._start_fresh()

    def _start_fresh(self) -> None:
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.hung = False

    @property
    def is_here(self) -> bool:
        """Whether it is the plug-in itself that asks: it must not wait for what waits for it."""
        return threading.current_thread() is self._thread

    def call(self, function: Callable[..., Any], arguments: Mapping[str, Any], limit: float) -> Called:
        """Call a function and wait for it, for so many seconds at the most.

        Args:
            function: the function.
            arguments: its arguments, by name.
            limit: how many seconds it may take.
        """
        job = _Job(function, arguments)
        if self.is_here:
            return job.do()
        if self._process != os.getpid():  # a forked child has none of our threads
            self._start_fresh()
        with self._turn:
            return self._waited_for(job, limit)

    def _waited_for(self, job: _Job, limit: float) -> Called:
        if self.hung:
            return Called(problem="an earlier call of it has not come back", hung=True)
        if self._closed:
            return Called(problem="the process has let go of its plug-ins")
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name=f"flightlog-plugin-{self._name}", daemon=True)
            self._thread.start()
        self._jobs.put(job)
        if job.done.wait(limit):
            return job.called
        self.hung = True
        return Called(problem=f"it did not come back within {limit:g} seconds", took=limit, hung=True)

    def _work(self) -> None:
        jobs = self._jobs
        while (job := jobs.get()) is not None:
            job.do()
            job.done.set()
            del job  # or the last call's arguments would be kept until the next one

    def close(self) -> None:
        """Let the thread end: at once if it is idle, else when its call comes back, which nobody waits for."""
        self._closed = True
        self._jobs.put(None)
        if self._thread is not None and self._turn.acquire(blocking=False):
            if not self.hung and self._process == os.getpid():
                self._thread.join()
            self._turn.release()


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:1000]
    except BaseException:  # noqa: BLE001 - the plug-in's own exception, looked at
        return type(error).__name__
