"""For tests, yours and ours: a log in memory, a clock that does not wait, suites for stores, runners and notifiers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightlog.testing.clocks import VirtualClock
    from flightlog.testing.engines import memory_engine
    from flightlog.testing.harness import FlowTest, disable_run_logger, flightlog_test_harness
    from flightlog.testing.log_contract import LogContract
    from flightlog.testing.notifier_contract import NotifierContract
    from flightlog.testing.runner_contract import RunnerContract
    from flightlog.testing.worker_contract import WorkerContract

_HOMES = {
    "FlowTest": "flightlog.testing.harness",
    "LogContract": "flightlog.testing.log_contract",
    "NotifierContract": "flightlog.testing.notifier_contract",
    "RunnerContract": "flightlog.testing.runner_contract",
    "VirtualClock": "flightlog.testing.clocks",
    "WorkerContract": "flightlog.testing.worker_contract",
    "disable_run_logger": "flightlog.testing.harness",
    "flightlog_test_harness": "flightlog.testing.harness",
    "memory_engine": "flightlog.testing.engines",
}

__all__ = [
    "FlowTest",
    "LogContract",
    "NotifierContract",
    "RunnerContract",
    "VirtualClock",
    "WorkerContract",
    "disable_run_logger",
    "flightlog_test_harness",
    "memory_engine",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'flightlog.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
