"""Notifications: rules that fold events into incidents, and messages about them that go out and are accounted for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightlog.notifications.notifier import DeliveryError, Entry, Message, Notifier, Receipt, RunFacts, masked

__all__ = ["DeliveryError", "Entry", "Message", "Notifier", "Receipt", "RunFacts", "masked"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("flightlog.notifications.notifier"), name)
    raise AttributeError(f"module 'flightlog.notifications' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
