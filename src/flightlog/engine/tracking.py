"""Which run made a value: so that a call that is given the value is known to rest on that run."""

from collections import OrderedDict
from typing import Any

from flightlog.engine.states import MISSING

KEPT = 10_000
_FIRST_LEVEL = 1000


class Tracker:
    """Remembers the latest results of a flow run by their identity, and their first-level elements.

    It holds on to them (at most `KEPT`), since the identity of an object means nothing once it is gone.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[Any, bytes]] = OrderedDict()

    def add(self, value: Any, task_run_id: bytes) -> None:
        """Remember that a task run made a value."""
        self._put(value, task_run_id)
        if type(value) in (list, tuple, set) and len(value) <= _FIRST_LEVEL:
            for item in value:
                self._put(item, task_run_id)

    def _put(self, value: Any, task_run_id: bytes) -> None:
        if not trackable(value):
            return
        self._known[id(value)] = (value, task_run_id)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def find(self, value: Any) -> bytes | None:
        """Return the task run that made a value, or None."""
        entry = self._known.get(id(value))
        return entry[1] if entry is not None and entry[0] is value else None


def trackable(value: Any) -> bool:
    """Tell whether an object's identity says where it comes from: Python shares small ints and the like."""
    if value is MISSING or value is None or value is ... or value is NotImplemented or isinstance(value, bool):
        return False
    return not (type(value) is int and -5 <= value <= 256)
