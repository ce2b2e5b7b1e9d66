"""Time as something that is passed in, so that waiting can be tested without waiting.

Times are whole microseconds since 1970-01-01T00:00Z (UTC) everywhere inside; `to_datetime` turns one
into a `datetime` at the edge.
"""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What the rest of Flightlog knows of time."""

    def now(self) -> int:
        """Return the present in microseconds since 1970 (UTC)."""
        ...

    def sleep(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Block the calling thread for that many seconds, or until `wake` is set."""
        ...

    async def sleep_async(self, seconds: float) -> None:
        """Let other coroutines run for that many seconds."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> int:
        """Return the present in microseconds since 1970 (UTC)."""
        return time.time_ns() // 1000

    def sleep(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Block the calling thread for that many seconds, or until `wake` is set."""
        if wake is None:
            time.sleep(seconds)
        else:
            wake.wait(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Let other coroutines run for that many seconds."""
        import asyncio

        await asyncio.sleep(seconds)


def to_datetime(microseconds: int) -> datetime:
    """Return the moment as an aware `datetime` in UTC, exact to the microsecond."""
    return _EPOCH + timedelta(microseconds=microseconds)


def isoformat(microseconds: int) -> str:
    """Return the moment as ISO 8601 in UTC with milliseconds, such as ``2026-01-02T03:04:05.678Z``."""
    return to_datetime(microseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(microseconds: int | None) -> str:
    """Return a time span as people read it: ``850 ms``, ``4.2 s``, ``3m 20s``, ``2h 05m``."""
    if microseconds is None:
        return ""
    seconds = microseconds / 1e6
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"
