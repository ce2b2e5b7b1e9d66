"""Blocks: the present content of each, secrets encrypted. Kept in the commit: whether a name is taken rests on it."""

from typing import Any

from flightlog.events.model import Event
from flightlog.events.types import BLOCK_DELETED, BLOCK_KEY_CHANGED, BLOCK_REENCRYPTED, BLOCK_SAVED


class Blocks:
    """Folds each block's stream into what it was saved with last, and the key's stream into the key's id."""

    name = "blocks"
    version = 1
    types = frozenset({BLOCK_SAVED, BLOCK_REENCRYPTED, BLOCK_DELETED, BLOCK_KEY_CHANGED})

    def apply(self, state: Any, event: Event, /) -> Any:
        """Return what a block has come to after an event; None for nothing."""
        if event.type == BLOCK_DELETED:
            return None
        if event.type == BLOCK_REENCRYPTED:
            changed = {name: event.data[name] for name in ("secrets", "key_id")}
            return None if state is None else {**state, **changed}
        if event.type == BLOCK_SAVED:
            return {**event.data, "saved_at": event.occurred_at}
        return dict(event.data)
