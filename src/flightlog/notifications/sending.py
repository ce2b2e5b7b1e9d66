"""Sending beside other work: each channel in a thread of its own, so that one that hangs holds up no other."""

import threading
import time

from flightlog.errors import LogError
from flightlog.notifications.delivery import Delivery, Waiting

_PAUSE = 0.5


class Senders:
    """Sends what is due, without being waited for.

    Args:
        delivery: what is due, and how it is sent.

    Attributes:
        sent: how many messages were tried so far.
    """

    def __init__(self, delivery: Delivery) -> None:
        self.sent = 0
        self._delivery = delivery
        self._threads: dict[str, threading.Thread] = {}
        self._counting = threading.Lock()

    def step(self) -> int:
        """Begin to send what is due, through the channels that nobody is sending through; return how many those are.

        Raises:
            LogError: the log cannot be read at present.
        """
        busy = self.busy
        begun = {name: ours for name, ours in self._delivery.ready().items() if name not in busy}
        for name, waiting in begun.items():
            # A daemon: a process that ends does not wait for a notifier that hangs.
            thread = threading.Thread(
                target=self._send, args=(name, waiting), name=f"flightlog-sender-{name}", daemon=True
            )
            self._threads[name] = thread
            thread.start()
        return len(begun)

    def _send(self, name: str, waiting: list[Waiting]) -> None:
        try:
            count = self._delivery.send(name, waiting)
        except LogError:  # a full disk, a server that restarts: what was claimed runs out, and comes again
            time.sleep(_PAUSE)
        else:
            with self._counting:
                self.sent += count

    @property
    def busy(self) -> set[str]:
        """The channels that something is sent through just now."""
        return {name for name, thread in self._threads.items() if thread.is_alive()}

    @property
    def next_due(self) -> int | None:
        """When a message is due next through a channel that is free, in microseconds since 1970; None for none."""
        return self._delivery.next_due(self.busy)

    def join(self, seconds: float) -> None:
        """Wait for those that are sending, for so long at the most."""
        until = time.monotonic() + seconds
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))
