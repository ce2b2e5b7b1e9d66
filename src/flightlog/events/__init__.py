"""Facts, and the log that keeps them.

``opening`` gives a `Log`, ``model`` has `NewEvent` and `Event`, ``types`` names our event types, and ``vocabulary``
has a pydantic model for the payload of each.

`emit_event`, which users of Prefect import from here, is the engine's, on a higher floor: it is looked up when somebody
asks for it, and nothing in this room does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    emit_event: Callable[..., Any]


def __getattr__(name: str) -> Any:
    if name == "emit_event":
        return import_module("flightlog.engine.custom_events").emit_event
    raise AttributeError(f"module 'flightlog.events' has no attribute {name!r}")
