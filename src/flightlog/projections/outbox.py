"""The outbox: messages that are due and neither delivered nor given up. Kept in the commit: who sends rests on it."""

from typing import Any

from flightlog.events.model import Event
from flightlog.events.types import (
    NOTIFICATION_ATTEMPTED,
    NOTIFICATION_DEAD,
    NOTIFICATION_DELIVERED,
    NOTIFICATION_FAILED,
    NOTIFICATION_QUEUED,
    NOTIFICATION_RETRIED,
)


class Outbox:
    """Folds each notification's stream into where it stands; one that is delivered takes no room any more.

    A value has ``notification``, ``channel``, ``kind``, ``incident``, ``first``, ``queued``, ``due`` (when the next
    attempt is),
    ``attempts``, ``claimed_until`` (0: nobody is sending), ``unknown`` (an attempt's outcome is not known), ``dead``
    and ``problem``.
    """

    name = "outbox"
    version = 1
    types = frozenset(
        {
            NOTIFICATION_QUEUED,
            NOTIFICATION_ATTEMPTED,
            NOTIFICATION_DELIVERED,
            NOTIFICATION_FAILED,
            NOTIFICATION_DEAD,
            NOTIFICATION_RETRIED,
        }
    )

    def apply(self, state: Any, event: Event, /) -> Any:
        """Return where a notification stands after an event; None if there is nothing left to do."""
        data = event.data
        if event.type == NOTIFICATION_QUEUED:
            told = {name: data.get(name) for name in ("notification", "channel", "kind", "incident", "first", "due")}
            return told | {
                "queued": data["due"],
                "attempts": 0,
                "claimed_until": 0,
                "unknown": False,
                "dead": False,
                "problem": None,
            }
        if state is None or event.type == NOTIFICATION_DELIVERED:
            return None
        if event.type == NOTIFICATION_ATTEMPTED:
            # Whoever had it before and left no word may have sent it.
            unknown = state["unknown"] or state["claimed_until"] > 0
            return {**state, "attempts": data["attempt"], "claimed_until": data["until"], "unknown": unknown}
        if event.type == NOTIFICATION_FAILED:
            unknown = state["unknown"] or bool(data.get("unknown"))
            told = {"due": data["retry_at"], "claimed_until": 0, "problem": data["problem"], "unknown": unknown}
            return {**state, **told}
        if event.type == NOTIFICATION_DEAD:
            return {**state, "dead": True, "claimed_until": 0, "problem": data["problem"]}
        return {**state, "dead": False, "attempts": 0, "due": event.occurred_at}
