"""A value that one thread sets once, and others wait for.

What `concurrent.futures.Future` does without its condition variable, which takes as long to make as half
the engine's work on a task: here a lock is made only by those who really have to wait.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from flightlog.later import asyncio

T = TypeVar("T")
_changing = threading.Lock()  # shared by all: it is held for two assignments


class Promise(Generic[T]):
    """A value to come."""

    __slots__ = ("_callbacks", "_value", "_waiting")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], object]] = []
        self._waiting = True
        self._value: Any = None

    def done(self) -> bool:
        """Tell whether the value is there."""
        return not self._waiting

    def value(self) -> T:
        """Return the value, which has to be there."""
        assert not self._waiting
        return self._value  # type: ignore[no-any-return]

    def set(self, value: T) -> None:
        """Set the value and call the callbacks, in this thread."""
        with _changing:
            self._value, self._waiting = value, False
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except BaseException:  # the others are to be told all the same
                logging.getLogger("flightlog.engine").exception("A callback of a run that has ended failed.")

    def then(self, callback: Callable[[], object]) -> None:
        """Call `callback` once the value is there; at once if it is."""
        with _changing:
            if self._waiting:
                self._callbacks.append(callback)
                return
        callback()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the value is there, or for `timeout` seconds, and tell whether it is."""
        if self._waiting:
            latch = threading.Lock()
            latch.acquire()
            self.then(latch.release)
            latch.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX))
        return not self._waiting

    async def settled(self) -> T:
        """Wait for the value in an event loop."""
        if self._waiting:
            loop = asyncio.get_running_loop()
            there = loop.create_future()

            def wake() -> None:
                with suppress(RuntimeError):  # the loop may be closed by then, and who waited gone with it
                    loop.call_soon_threadsafe(_finish, there)

            self.then(wake)
            await there
        return self.value()


def _finish(there: "asyncio.Future[None]") -> None:
    if not there.done():  # whoever waited may have been cancelled
        there.set_result(None)
