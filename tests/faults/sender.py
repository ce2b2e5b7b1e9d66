"""A process that folds rules and sends messages, and may be killed at a step of it.

Called as ``python sender.py URL NOW STEP``: the log, the virtual time in microseconds, and the step; `never` for none.
With ``race`` as the step it waits for a line on its standard input, and then sends all that is due, of many.
"""

import os
import signal
import sys
from typing import Any

from flightlog.events.opening import open_log
from flightlog.ids import RandomIds
from flightlog.notifications.channels import notifier_of
from flightlog.notifications.decisions import Decision
from flightlog.notifications.delivery import Claim, Delivery
from flightlog.notifications.folding import Fold
from flightlog.notifications.following import Follower
from flightlog.notifications.notifier import Message, Notifier, Receipt
from flightlog.notifications.rules import Channel
from flightlog.testing import VirtualClock

STEPS = ("deciding", "decided", "folded", "claiming", "claimed", "sent", "recorded")
"""Before decisions are on record; after that; once the cursor has moved; before a claim; after it; once the channel has
taken the message; once that is on record."""
_wanted = ""


def reached(step: str) -> None:
    """Die without a warning if this is the step to die at."""
    if step == _wanted:
        os.kill(os.getpid(), signal.SIGKILL)


class DyingFollower(Follower):
    """Dies when it puts decisions on record."""

    def _record(self, fold: Fold, decisions: list[Decision]) -> None:
        if decisions:
            reached("deciding")
        super()._record(fold, decisions)
        if decisions:
            reached("decided")


class DyingDelivery(Delivery):
    """Dies when it claims a message, or puts down what became of it."""

    def _claim(self, waiting: dict[str, Any]) -> Claim | None:
        reached("claiming")
        return super()._claim(waiting)

    def _end(self, claim: Claim, type_: str, facts: dict[str, Any]) -> None:
        super()._end(claim, type_, facts)
        reached("recorded")


class DyingNotifier:
    """Dies before it sends, or after that."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Send a message."""
        reached("claimed")
        receipt = await self._notifier.send(message, timeout=timeout)
        reached("sent")
        return receipt


def main(url: str, now: str, step: str) -> None:
    """Do all that is to be done at a time."""
    global _wanted
    _wanted = step
    clock = VirtualClock(int(now))

    def notifier(channel: Channel) -> Notifier:
        return DyingNotifier(notifier_of(channel))  # type: ignore[return-value]

    with open_log(url, clock=clock) as log:
        follower = DyingFollower(log)
        delivery = DyingDelivery(log, clock, RandomIds(), notifier=notifier)
        if step == "race":
            print("ready", flush=True)
            sys.stdin.readline()
        done = 1
        while done:
            while follower.step():
                pass
            reached("folded")
            done = delivery.step()
        follower.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
