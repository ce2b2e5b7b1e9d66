"""Task runners, under the name that users know: ``from flightlog.task_runners import SequentialTaskRunner``."""

from flightlog.engine.task_runners import (
    ConcurrentTaskRunner,
    SequentialTaskRunner,
    TaskRunner,
    ThreadPoolTaskRunner,
)

__all__ = ["ConcurrentTaskRunner", "SequentialTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"]
