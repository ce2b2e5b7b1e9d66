"""The engine of this process, as plug-ins see it: the engine lives above them, and says here how it is had."""

from collections.abc import Callable
from typing import Any, Protocol

from flightlog.clock import Clock
from flightlog.errors import MissingContextError
from flightlog.events.inline import Kept
from flightlog.events.log import Log
from flightlog.ids import Ids
from flightlog.settings import Settings


class EnginePort(Protocol):
    """What plug-ins may have of an engine.

    Attributes:
        log: where events go.
        settings: the settings.
        clock: time.
        ids: identity and chance.
    """

    log: Log
    settings: Settings
    clock: Clock
    ids: Ids

    def kept(self, projection: str, stream: str) -> Kept:
        """Return what a stream has come to for an inline projection."""
        ...

    def kept_states(self, projection: str) -> dict[str, Any]:
        """Return what all streams have come to for an inline projection, by stream."""
        ...


_opener: Callable[[], EnginePort] | None = None


def provide(opener: Callable[[], EnginePort]) -> None:
    """Say how the engine of this process is had."""
    global _opener  # noqa: PLW0603 - one engine for the process
    _opener = opener


def current() -> EnginePort:
    """Return the engine of this process; it is opened at the first call.

    Raises:
        MissingContextError: there is none, since nothing that runs flows was imported.
    """
    if _opener is None:
        raise MissingContextError("There is no engine in this process yet: import flightlog.blocks first.")
    return _opener()
