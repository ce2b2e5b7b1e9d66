"""What goes wrong with plug-ins, put on record."""

import hashlib
from contextlib import suppress
from typing import Final

from flightlog.errors import LogError
from flightlog.events.model import Append, Event, NewEvent
from flightlog.events.types import (
    PLUGIN_FAILED,
    PLUGIN_LAGGED,
    PLUGIN_SKIPPED,
    PLUGIN_SWITCHED_OFF,
    plugin_stream,
)
from flightlog.plugins.offers import Surroundings
from flightlog.plugins.plugin import Plugin, Problem

_QUIET_MICROSECONDS: Final = 60_000_000
_TYPES: Final = {
    "skipped": PLUGIN_SKIPPED,
    "failed": PLUGIN_FAILED,
    "lagged": PLUGIN_LAGGED,
    "switched_off": PLUGIN_SWITCHED_OFF,
}
ABOUT_PLUGINS: Final = frozenset(_TYPES.values())
"""The types of the events that are about plug-ins."""


def is_about(plugin: Plugin, event: Event) -> bool:
    """Tell whether an event is about a plug-in: it is not told of its own failures, or it would fail for ever."""
    return event.type in ABOUT_PLUGINS and event.stream == plugin_stream(plugin.name)


class Record:
    """Puts on record what goes wrong with plug-ins; of many failures in a short time, one.

    Args:
        surroundings: the log, time and identity.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._s = surroundings
        self._last: dict[tuple[str, str, str], int] = {}

    def put(self, problem: Problem) -> None:
        """Put a problem in line for the log, unless its like was there lately."""
        now = self._s.clock.now()
        place = (problem.plugin.name, problem.hook, problem.kind)
        if now - self._last.get(place, -_QUIET_MICROSECONDS) < _QUIET_MICROSECONDS:
            return
        self._last[place] = now
        payload = self._payload(problem)
        event = NewEvent(self._id(problem, payload), _TYPES[problem.kind], payload, now)
        with suppress(LogError):
            self._s.log.enqueue([Append(plugin_stream(problem.plugin.name), [event])])

    def _id(self, problem: Problem, payload: dict[str, object]) -> bytes:
        """Return the event's id: the same for the same reason to skip a plug-in, so that this is there once."""
        if problem.kind != "skipped":
            return self._s.ids.new()
        told = "\0".join(str(payload.get(name)) for name in ("plugin", "version", "problem"))
        return hashlib.blake2b(told.encode("utf-8", "backslashreplace"), digest_size=16).digest()

    def _payload(self, problem: Problem) -> dict[str, object]:
        plugin = problem.plugin
        told: dict[str, object] = {"plugin": plugin.name, "problem": self._s.mask(problem.text)[:1000]}
        if plugin.manifest.version:
            told["version"] = plugin.manifest.version
        if problem.kind != "skipped":
            told |= {"hook": problem.hook, "took": round(problem.took * 1e6)}
        if problem.kind in ("failed", "switched_off"):
            told["failures"] = plugin.failures[problem.hook]
        return told
