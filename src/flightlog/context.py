"""The run that code belongs to, under the names that users know: ``from flightlog.context import get_run_context``."""

from flightlog.engine.context import FlowRunContext, TaskRunContext, get_run_context
from flightlog.engine.tags import tags

__all__ = ["FlowRunContext", "TaskRunContext", "get_run_context", "tags"]
