"""The result cache: what each cache key has come to. Kept in the commit, since whether a task runs rests on it."""

from typing import Any

from flightlog.events.model import Event
from flightlog.events.types import CACHE_CLAIMED, CACHE_DROPPED, CACHE_RELEASED, CACHE_STORED


class ResultCache:
    """Folds each key's stream into its newest entry, and the claim of whoever computes it now.

    A value has ``result``, ``flow_run_id``, ``task_run_id``, ``at`` and ``expires`` if there is an entry, and ``claim``
    (``task_run_id``, ``flow_run_id``, ``process``, ``at``) if somebody computes it.
    """

    name = "result_cache"
    version = 1
    types = frozenset({CACHE_STORED, CACHE_CLAIMED, CACHE_RELEASED, CACHE_DROPPED})

    def apply(self, state: Any, event: Event, /) -> Any:
        """Return what a key has come to after an event; None for nothing."""
        data = event.data
        before = dict(state or {})
        if event.type == CACHE_CLAIMED:
            claim = {name: data[name] for name in ("task_run_id", "flow_run_id", "process")}
            return before | {"claim": {**claim, "at": event.occurred_at}}
        if event.type == CACHE_DROPPED:
            own = before.get("task_run_id") == data["task_run_id"]
            return ({"claim": before["claim"]} if "claim" in before else None) if own else state
        if (before.get("claim") or {}).get("task_run_id") == data["task_run_id"]:
            del before["claim"]
        if event.type == CACHE_STORED:
            before |= {name: data[name] for name in ("result", "task_run_id", "flow_run_id")}
            before |= {"at": event.occurred_at, "expires": data.get("expires")}
        return before or None
