"""Loggers, under the names that users know: ``from flightlog.logging import get_run_logger, disable_run_logger``."""

from flightlog.engine.run_logs import flow_run_logger, get_logger, get_run_logger, task_run_logger
from flightlog.engine.run_logs import recording_disabled as disable_run_logger

__all__ = ["disable_run_logger", "flow_run_logger", "get_logger", "get_run_logger", "task_run_logger"]
