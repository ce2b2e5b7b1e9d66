"""For tests, yours and ours: a log in memory, a clock that does not wait, suites that a store has to pass."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightlog.testing.clocks import VirtualClock
    from flightlog.testing.engines import memory_engine
    from flightlog.testing.log_contract import LogContract

_HOMES = {
    "LogContract": "flightlog.testing.log_contract",
    "VirtualClock": "flightlog.testing.clocks",
    "memory_engine": "flightlog.testing.engines",
}

__all__ = ["LogContract", "VirtualClock", "memory_engine"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'flightlog.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
