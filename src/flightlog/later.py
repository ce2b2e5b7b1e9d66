"""What takes long to import and many programs never use: it is loaded when it is first used.

`asyncio` takes, with what it imports itself, about half the time of ``from flightlog import flow, task``, and a sync
flow needs nothing of it. The engine takes it from here; types of it in annotations are quoted.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any


class _Later:
    """A module that is imported when something of it is first asked for."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self.__name__), attribute)
        setattr(self, attribute, value)  # it is found at once from now on
        return value


if TYPE_CHECKING:
    import asyncio
else:
    asyncio = _Later("asyncio")


def running_loop() -> "asyncio.AbstractEventLoop | None":
    """Return the event loop that runs in this thread; without `asyncio` there can be none."""
    if "asyncio" not in sys.modules:
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def is_cancellation(error: BaseException | None) -> bool:
    """Tell whether an exception is that by which `asyncio` cancels a task; without it nothing can be."""
    return "asyncio" in sys.modules and isinstance(error, asyncio.CancelledError)


__all__ = ["asyncio", "is_cancellation", "running_loop"]
