"""Flightlog on Ray: ``@flow(task_runner=RayTaskRunner())``."""

from flightlog_ray.options import remote_options
from flightlog_ray.task_runners import RayTaskRunner

__version__ = "0.1.0"
__all__ = ["RayTaskRunner", "remote_options"]
