"""For tests, yours and ours: a log in memory, a clock that does not wait, suites for all that plug-ins bring."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flightlog.testing.clocks import VirtualClock
    from flightlog.testing.engines import memory_engine
    from flightlog.testing.harness import FlowTest, disable_run_logger, flightlog_test_harness
    from flightlog.testing.log_contract import LogContract
    from flightlog.testing.notifier_contract import NotifierContract
    from flightlog.testing.plugin_contract import PluginContract
    from flightlog.testing.projection_contract import ProjectionContract
    from flightlog.testing.replaying import RUNS, not_recorded, pickled, replayed
    from flightlog.testing.runner_contract import RunnerContract
    from flightlog.testing.serializer_contract import SerializerContract
    from flightlog.testing.storage_contract import StorageContract
    from flightlog.testing.worker_contract import WorkerContract

_HOMES = {
    "FlowTest": "flightlog.testing.harness",
    "LogContract": "flightlog.testing.log_contract",
    "NotifierContract": "flightlog.testing.notifier_contract",
    "PluginContract": "flightlog.testing.plugin_contract",
    "ProjectionContract": "flightlog.testing.projection_contract",
    "RUNS": "flightlog.testing.replaying",
    "RunnerContract": "flightlog.testing.runner_contract",
    "SerializerContract": "flightlog.testing.serializer_contract",
    "StorageContract": "flightlog.testing.storage_contract",
    "VirtualClock": "flightlog.testing.clocks",
    "WorkerContract": "flightlog.testing.worker_contract",
    "disable_run_logger": "flightlog.testing.harness",
    "flightlog_test_harness": "flightlog.testing.harness",
    "memory_engine": "flightlog.testing.engines",
    "not_recorded": "flightlog.testing.replaying",
    "pickled": "flightlog.testing.replaying",
    "replayed": "flightlog.testing.replaying",
}

__all__ = [
    "RUNS",
    "FlowTest",
    "LogContract",
    "NotifierContract",
    "PluginContract",
    "ProjectionContract",
    "RunnerContract",
    "SerializerContract",
    "StorageContract",
    "VirtualClock",
    "WorkerContract",
    "disable_run_logger",
    "flightlog_test_harness",
    "memory_engine",
    "not_recorded",
    "pickled",
    "replayed",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'flightlog.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
