"""A clock that goes when it is told to."""

import threading


class VirtualClock:
    """A clock under which waiting takes no time: sleeping moves it on.

    Args:
        start: where it begins, in microseconds since 1970 (UTC).

    Attributes:
        slept: the seconds of every sleep, in order.
    """

    def __init__(self, start: int = 1_767_225_600_000_000) -> None:
        self._now = start
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> int:
        """Return the present, in microseconds since 1970 (UTC)."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock on (or back)."""
        with self._lock:
            self._now += round(seconds * 1e6)

    def sleep(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Move the clock on, and return at once."""
        self.slept.append(seconds)
        self.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Move the clock on, and return at once."""
        self.sleep(seconds)
