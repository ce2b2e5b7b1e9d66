"""Event types of plug-ins: their shapes, and what lifts their older ones when the log is read."""

from collections.abc import Iterable
from typing import Any

from flightlog.events import upcasting
from flightlog.plugins.host import Host, Plugin

_HOOK = "register_event_types"


def learn_event_types(host: Host) -> None:
    """Know the event types of all plug-ins; what is wrong with one is put on record, and it stays opaque.

    Args:
        host: the plug-ins.
    """
    for plugin, types in host.all(_HOOK):
        try:
            _learn(plugin, types)
        except Exception as error:  # noqa: BLE001 - what a plug-in has returned may be anything
            host.complain(plugin, _HOOK, f"{type(error).__name__}: {error}")


def _learn(plugin: Plugin, types: Iterable[Any]) -> None:
    from flightlog.events import vocabulary

    for one in types:
        if not one.name.replace("_", "-").startswith(plugin.name):
            raise ValueError(f"the event type {one.name!r} does not begin with the plug-in's name, {plugin.name!r}")
        vocabulary.learn(one.name, one.schema, one.model)
        for schema, function in one.upcasters.items():
            upcasting.learn(one.name, schema, function)
