"""Variables: the present value of each. Kept in the commit: whether one may be set rests on it."""

from typing import Any

from flightlog.events.model import Event
from flightlog.events.types import VARIABLE_SET, VARIABLE_UNSET


class Variables:
    """Folds each variable's stream into its value: ``name``, ``value`` (JSON) and ``tags``."""

    name = "variables"
    version = 1
    types = frozenset({VARIABLE_SET, VARIABLE_UNSET})

    def apply(self, state: Any, event: Event, /) -> Any:
        """Return what a variable has come to after an event; None for nothing."""
        if event.type == VARIABLE_UNSET:
            return None
        return {"name": event.data["name"], "value": event.data["value"], "tags": event.data.get("tags") or []}
