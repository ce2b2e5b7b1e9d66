"""Concurrency limits: who holds slots of each, and who waits. Kept in the commit: who gets a slot rests on it."""

from typing import Any

from flightlog.events.model import Event
from flightlog.events.types import (
    LIMIT_DELETED,
    LIMIT_SET,
    SLOTS_ACQUIRED,
    SLOTS_AWAITED,
    SLOTS_EXPIRED,
    SLOTS_GIVEN_UP,
    SLOTS_RELEASED,
)

_LEAVING = frozenset({SLOTS_RELEASED, SLOTS_EXPIRED})


class ConcurrencyLimits:
    """Folds each limit's stream into the limit, its holders and its waiters.

    A value has ``name``, ``limit``, ``decay`` (slots a second that free themselves; 0 for none), ``holders`` and
    ``waiters`` by holder, and ``level`` at the time ``at``: slots that were taken for good, and free themselves.
    """

    name = "concurrency"
    version = 1
    types = frozenset({LIMIT_SET, LIMIT_DELETED, SLOTS_ACQUIRED, SLOTS_AWAITED, SLOTS_GIVEN_UP}) | _LEAVING

    def apply(self, state: Any, event: Event, /) -> Any:
        """Return what a limit has come to after an event; None where there is none."""
        data = event.data
        if event.type == LIMIT_SET:
            kept = state or {"holders": {}, "waiters": {}, "level": 0.0, "at": event.occurred_at}
            return {**kept, "name": data["name"], "limit": data["limit"], "decay": data.get("decay") or 0.0}
        if state is None or event.type == LIMIT_DELETED:
            return None
        return self._moved(state, event, data)

    def _moved(self, state: dict[str, Any], event: Event, data: dict[str, Any]) -> dict[str, Any]:
        who = data["holder"].hex()
        holders, waiters = dict(state["holders"]), dict(state["waiters"])
        told = {name: data[name] for name in ("slots", "process", "flow_run_id", "task_run_id") if name in data}
        waiters.pop(who, None)
        moved = {**state, "holders": holders, "waiters": waiters}
        if event.type == SLOTS_AWAITED:
            waiters[who] = {**told, "since": event.occurred_at}
        elif event.type in _LEAVING:
            holders.pop(who, None)
        elif event.type == SLOTS_ACQUIRED and data.get("decays"):
            moved |= {"level": level(state, event.occurred_at) + data["slots"], "at": event.occurred_at}
        elif event.type == SLOTS_ACQUIRED:
            holders[who] = {**told, "since": event.occurred_at}
        return moved


def level(state: dict[str, Any], now: int) -> float:
    """Return how many slots are taken by what decays, at a moment in microseconds since 1970."""
    passed = max(0, now - state["at"]) / 1e6
    left: float = state["level"] - passed * state["decay"]
    return max(0.0, left)


def taken(state: dict[str, Any], now: int) -> float:
    """Return how many slots are taken."""
    held: int = sum(holder["slots"] for holder in state["holders"].values())
    return held + level(state, now)
