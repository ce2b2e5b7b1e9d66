"""What belongs to tasks, under the names that users know: ``from flightlog.tasks import exponential_backoff``."""

from flightlog.engine.cache_policies import task_input_hash
from flightlog.engine.options import exponential_backoff
from flightlog.engine.tasks import Task, task

__all__ = ["Task", "exponential_backoff", "task", "task_input_hash"]
