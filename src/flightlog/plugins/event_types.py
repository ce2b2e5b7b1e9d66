"""Event types of plug-ins: their shapes, and what lifts their older ones when the log is read."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from flightlog.events import upcasting
from flightlog.events.upcasting import Upcaster
from flightlog.plugins.host import Host, current_host
from flightlog.plugins.plugin import Plugin

_HOOK: Final = "register_event_types"


def learn_event_types(host: Host | None = None) -> None:
    """Know the event types of all plug-ins; what is wrong with one is put on record, and it stays opaque.

    The command line does so whenever it reads a log. A program of one's own that does calls it first.

    Args:
        host: the plug-ins; the process's own by default.
    """
    host = host or current_host()
    for plugin, types in host.all(_HOOK):
        try:
            _learn(host, plugin, types)
        except Exception as error:  # noqa: BLE001 - what a plug-in has returned may be anything
            host.complain(plugin, _HOOK, f"{type(error).__name__}: {error}")


def _learn(host: Host, plugin: Plugin, types: Iterable[Any]) -> None:
    from flightlog.events import vocabulary

    for one in types:
        if not plugin.owns(one.name):
            raise ValueError(f"the event type {one.name!r} does not begin with the plug-in's name, {plugin.name!r}")
        vocabulary.learn(one.name, one.schema, one.model)
        for schema, function in one.upcasters.items():
            upcasting.learn(one.name, schema, _Guarded(function, host, plugin))


@dataclass(frozen=True)
class _Guarded:
    """An upcaster of a plug-in. Should it raise, the payload stays as it is: to read a log is never an error."""

    function: Upcaster
    host: Host = field(compare=False)
    plugin: Plugin = field(compare=False)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.function(dict(data))
        except Exception as error:  # noqa: BLE001 - the border between a plug-in and us
            self.host.complain(self.plugin, _HOOK, f"an upcaster: {type(error).__name__}: {error}")
            return data
