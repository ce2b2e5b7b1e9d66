"""How messages pass between a flow run's process and the workers of a Ray cluster: through an actor of the flow run.

Ray does not promise that calls of an actor from one place arrive in the order in which they were made, so that messages
have numbers.
"""

import asyncio
from typing import Any


class Box:
    """Messages for one receiver, from several senders, those of each in order."""

    def __init__(self) -> None:
        self._ready: list[bytes] = []
        self._early: dict[tuple[str, int], bytes] = {}
        self._next: dict[str, int] = {}
        self._there = asyncio.Event()

    def put(self, sender: str, number: int, message: bytes) -> None:
        """Take a message; `number` counts the messages of a sender from 0."""
        self._early[sender, number] = message
        due = self._next.get(sender, 0)
        while (sender, due) in self._early:
            self._ready.append(self._early.pop((sender, due)))
            due += 1
            self._there.set()
        self._next[sender] = due

    async def take(self) -> list[bytes]:
        """Return the messages that are there; wait until there are some."""
        await self._there.wait()
        self._there.clear()
        messages, self._ready = self._ready, []
        return messages


class Mailbox:
    """Passes messages from seats to the flow run's process, and back. An actor: its methods run in one event loop."""

    def __init__(self) -> None:
        self._own: Any = None
        self._seats: dict[str, Box] = {}

    async def tell(self, seat: str, number: int, message: bytes) -> None:
        """Take a message from a seat."""
        self._box().put(seat, number, message)

    async def told(self) -> list[bytes]:
        """Return what seats have said; wait until they have said something."""
        return await self._box().take()

    async def post(self, seat: str, number: int, message: bytes) -> None:
        """Take a message for a seat."""
        self._seat(seat).put("", number, message)

    async def collect(self, seat: str) -> list[bytes]:
        """Return what is for a seat; wait until there is something."""
        return await self._seat(seat).take()

    async def forget(self, seat: str) -> None:
        """Drop what is for a seat that is empty again."""
        self._seats.pop(seat, None)

    async def ready(self) -> None:
        """Do nothing: who waits for this knows that the actor is there."""

    def _box(self) -> Box:
        if self._own is None:
            self._own = Box()
        box: Box = self._own
        return box

    def _seat(self, seat: str) -> Box:
        if seat not in self._seats:
            self._seats[seat] = Box()
        return self._seats[seat]
