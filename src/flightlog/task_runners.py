"""Task runners, under the names that users know: ``from flightlog.task_runners import SequentialTaskRunner``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flightlog.engine.task_runners import (
    ConcurrentTaskRunner,
    SequentialTaskRunner,
    TaskRunner,
    ThreadPoolTaskRunner,
)

if TYPE_CHECKING:
    from flightlog.engine.processes import ProcessPoolTaskRunner

__all__ = [
    "ConcurrentTaskRunner",
    "ProcessPoolTaskRunner",
    "SequentialTaskRunner",
    "TaskRunner",
    "ThreadPoolTaskRunner",
]


def __getattr__(name: str) -> Any:
    if name == "ProcessPoolTaskRunner":  # it brings multiprocessing, which most flows need not
        return import_module("flightlog.engine.processes").ProcessPoolTaskRunner
    raise AttributeError(f"module 'flightlog.task_runners' has no attribute {name!r}")
