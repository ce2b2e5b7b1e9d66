"""Loggers, under the longer name that they have in Prefect: ``from flightlog.logging.loggers import get_logger``."""

from flightlog.logging import disable_run_logger, flow_run_logger, get_logger, get_run_logger, task_run_logger

__all__ = ["disable_run_logger", "flow_run_logger", "get_logger", "get_run_logger", "task_run_logger"]
