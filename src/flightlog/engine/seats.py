"""The other side of `flightlog.engine.clusters`: what a worker of a cluster does for one call of a task.

It asks the process that has the flow run, and waits until that says what is to be done: it calls functions, and nothing
else. The process may also say that a call is to go on no more, while the call's code runs.
"""

import ctypes
import os
import pickle
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any

from flightlog.engine.context import Abandoned
from flightlog.engine.loading import loading
from flightlog.engine.pickles import loads_beside
from flightlog.engine.travel import Way
from flightlog.engine.worker import ANSWER, CALL, DONE, RUN, Relay, answered

ASK, STOP, END = "ask", "stop", "end"

_NUMBER: ContextVar[int] = ContextVar("flightlog_frame", default=0)


class Stopped(Abandoned):
    """Raised where code of a call goes on that is to go on no more: it timed out, or was cancelled."""

    def __init__(self) -> None:
        super().__init__("Abandoned: the call that this code belongs to goes on no more.", "cancelled")


class _Frame:
    """A function that is called here: the task's, or one of a task that it calls.

    Args:
        number: tells it apart; those that are called in it have higher ones.
        done: set when it has ended or is left alone, if it has a thread of its own.
    """

    def __init__(self, number: int, done: threading.Event | None = None) -> None:
        self.number = number
        self.done = done
        self.stopped = False
        self.thread: int | None = None


class Seat:
    """A place in a worker for one call of a task.

    Args:
        number: the call's number.
        worker: the worker's name, by which its cluster can tell whether it is still there.
        upstream: what the seats of the calls that this one rests on returned, in the order in which they were given.
        send: takes a message to the process that has the flow run: in order, and without waiting for it.

    Attributes:
        id: tells this seat apart from all others.
        ended: whether it has been told that there is nothing more to do.
    """

    def __init__(
        self, number: int, worker: str, upstream: Sequence[bytes | None], send: Callable[[bytes], object]
    ) -> None:
        self.id = uuid.uuid4().hex
        self.number = number
        self.worker = worker
        self.upstream = upstream
        self._send = send
        self._changed = threading.Condition()
        self._inbox: deque[tuple[str, int, Any]] = deque()
        self._frames: list[_Frame] = []
        self.ended = False

    def serve(self) -> bytes | None:
        """Ask what is to be done, and do it until there is nothing more.

        Returns:
            The call's value as it travels, for the seats of calls that rest on it; None if it has none here.
        """
        relay, value = SeatRelay(self), None
        self.send(ASK, 0, (self.number, self.worker, [held is not None for held in self.upstream]))
        while True:
            kind, number, content = self.receive(0)
            if kind == END:
                return value if content else None
            if kind == RUN:
                value = relay.run(number, *content)

    def deliver(self, message: bytes) -> None:
        """Take a message from the process that has the flow run; in any thread."""
        kind, number, content = pickle.loads(message)  # noqa: S301 - from the process that has the flow run
        if kind == STOP:
            self.stop(number)
        else:
            self._put(kind, number, content)

    def leave(self) -> None:
        """End what is under way, since there is nobody any more for whom it is done; in any thread."""
        self.stop(0)
        self._put(END, 0, False)

    def _put(self, kind: str, number: int, content: Any) -> None:
        with self._changed:
            self.ended = self.ended or kind == END
            self._inbox.append((kind, number, content))
            self._changed.notify_all()

    def stop(self, number: int) -> None:
        """Have a call, and those that were made in it, go on no more; in any thread."""
        with self._changed:
            self._inbox = deque(message for message in self._inbox if message[0] != RUN or message[1] < number)
            going_on = [frame for frame in self._frames if frame.number >= number and not frame.stopped]
            for frame in going_on:
                frame.stopped = True
                if frame.done is not None:
                    frame.done.set()
            for thread in {frame.thread for frame in going_on}:
                # It comes at the next instruction of Python code; what waits in C goes on until it is back.
                _raise_in(thread)
            self._changed.notify_all()

    def send(self, kind: str, number: int, content: Any) -> None:
        """Send a message to the process that has the flow run."""
        self._send(pickle.dumps((self.id, kind, number, content), 5))

    def receive(self, number: int) -> tuple[str, int, Any]:
        """Wait for the next message to a call that is under way here; 0 for the seat itself.

        Raises:
            Stopped: it is to go on no more.
        """
        while True:
            with self._changed:
                self._go_on(number)
                while not self._inbox:
                    self._changed.wait()
                    self._go_on(number)
                message = self._inbox.popleft()
            if message[0] != ANSWER or message[1] == number:
                return message  # else it is for a call that was stopped

    def _go_on(self, number: int) -> None:
        if any(frame.stopped for frame in self._frames if frame.number == number):
            raise Stopped

    @contextmanager
    def open(self, frame: _Frame) -> Iterator[None]:
        """Count a call as under way in this thread while this is open."""
        token = _NUMBER.set(frame.number)
        try:
            with self._changed:
                frame.thread = threading.get_ident()
                self._frames.append(frame)
            yield
        finally:
            self._close(frame)
            _NUMBER.reset(token)

    def _close(self, frame: _Frame) -> None:
        while True:
            with suppress(Stopped):  # it may still come, until the lock is held
                with self._changed:
                    if frame in self._frames:
                        self._frames.remove(frame)
                    if frame.stopped and not self._is_stopped(frame.thread):
                        _let_come()
                return

    def _is_stopped(self, thread: int | None) -> bool:
        """Tell whether a call that goes on in a thread is to go on no more."""
        return any(frame.stopped for frame in self._frames if frame.thread == thread)


def _raise_in(thread: int | None) -> None:
    """Raise `Stopped` in a thread."""
    if thread is not None:
        what = ctypes.py_object(Stopped)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


def _let_come() -> None:
    """Have a `Stopped` that may be on its way to this thread come here, where it does no harm.

    Taken back with PyThreadState_SetAsyncExc(thread, NULL), it would leave the interpreter looking for it for good: at
    each call and jump of all threads, without end where code is traced (CPython 3.11).
    """
    with suppress(Stopped):
        _raise_in(threading.get_ident())
        while True:  # it comes at the jump back
            pass


class SeatRelay(Relay):
    """What the code of a call has of the process that has the flow run.

    Args:
        seat: where it runs.
    """

    way = Way.FROM_CLUSTER

    def __init__(self, seat: Seat) -> None:
        self.pid = os.getpid()
        self._seat = seat

    def send(self, kind: str, content: Any) -> None:
        """Send a message; nothing from a process that the user's code has forked."""
        if os.getpid() == self.pid:
            self._seat.send(kind, _NUMBER.get(), content)

    def _asked(self, content: bytes) -> Any:
        self.send(CALL, content)
        while True:
            kind, number, content = self._seat.receive(_NUMBER.get())
            if kind == RUN:
                self.run(number, *content)
            elif kind == ANSWER:
                return answered(pickle.loads(content))  # noqa: S301 - from the process that has the flow run

    def run(self, number: int, content: bytes, timed: bool) -> bytes | None:
        """Call a function, say what came of it, and return its value as it travels; None if it has none.

        One with a time limit gets a thread of its own, which is left to itself when the time is over, as everywhere.
        """
        outcome = self._in_thread(number, content) if timed else self._outcome(_Frame(number), content)
        if outcome is None:
            return None
        self._seat.send(outcome[0], number, outcome[1])
        return outcome[1] if outcome[0] == DONE else None

    def _in_thread(self, number: int, content: bytes) -> tuple[str, bytes] | None:
        """Call a function in a thread of its own; return what came of it, or None as soon as it is stopped."""
        found: list[tuple[str, bytes] | None] = []
        done = threading.Event()

        def work() -> None:
            try:
                found.append(self._outcome(_Frame(number, done), content))
            finally:
                done.set()

        threading.Thread(target=copy_context().run, args=(work,), name="flightlog-timed", daemon=True).start()
        done.wait()
        return found[0] if found else None

    def _outcome(self, frame: _Frame, content: bytes) -> tuple[str, bytes] | None:
        """Call a function and return what came of it; None if it was stopped."""
        outcome = None
        with suppress(Stopped), self._seat.open(frame):
            outcome = self.outcome(content, self._loads)
        return None if frame.stopped else outcome

    def _loads(self, content: bytes) -> Any:
        with loading():  # a module that this imports may call its flow, which would come here again
            return loads_beside(content, self._seat.upstream)


__all__ = ["Seat"]
