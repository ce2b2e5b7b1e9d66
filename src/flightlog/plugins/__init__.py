"""Plug-ins: hooks, discovery, isolation. What a plug-in needs is exported here."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightlog.plugins.event_types import learn_event_types
    from flightlog.plugins.hooks import hookimpl
    from flightlog.plugins.host import settings_of
    from flightlog.plugins.offers import EventType, PluginSetting, Service, StateChange, Surroundings

_HOMES = {
    "EventType": "flightlog.plugins.offers",
    "PluginSetting": "flightlog.plugins.offers",
    "Service": "flightlog.plugins.offers",
    "StateChange": "flightlog.plugins.offers",
    "Surroundings": "flightlog.plugins.offers",
    "hookimpl": "flightlog.plugins.hooks",
    "learn_event_types": "flightlog.plugins.event_types",
    "settings_of": "flightlog.plugins.host",
}

__all__ = [
    "EventType",
    "PluginSetting",
    "Service",
    "StateChange",
    "Surroundings",
    "hookimpl",
    "learn_event_types",
    "settings_of",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'flightlog.plugins' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
