"""Messages on their way into a queue of a Dask scheduler: in order, and as many at a time as have gathered."""

import asyncio
from contextlib import suppress
from typing import Any


class Outbox:
    """Puts messages into a queue. Everything here happens in one event loop.

    Args:
        scheduler: the connection to the scheduler, of a client or a worker.
        name: the queue's name.
    """

    def __init__(self, scheduler: Any, name: str) -> None:
        self._scheduler = scheduler
        self._name = name
        self._held: list[Any] = []
        self._sending: asyncio.Task[None] | None = None

    def put(self, message: Any) -> None:
        """Send a message, after those before it."""
        self._held.append(message)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._held:
            messages, self._held = self._held, []
            with suppress(Exception):  # the scheduler is gone, or the other side: those who wait there notice
                await self._scheduler.queue_put(name=self._name, data=messages, timeout=None)

    async def sent(self) -> None:
        """Wait until everything is sent, or cannot be."""
        if self._sending is not None:
            await self._sending
