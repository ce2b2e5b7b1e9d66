"""Flightlog: air traffic control for dataflows, with a flight recorder at its heart.

The names in `__all__` are the public ones. They are looked up at first use, so that importing the package
costs next to nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flightlog.version import __version__

if TYPE_CHECKING:
    from flightlog.engine.annotations import allow_failure, quote, unmapped
    from flightlog.engine.cancelling import cancel_run
    from flightlog.engine.context import get_run_context
    from flightlog.engine.custom_events import emit_event
    from flightlog.engine.flows import Flow, flow
    from flightlog.engine.futures import Future
    from flightlog.engine.pausing import pause_flow_run, resume_flow_run, suspend_flow_run
    from flightlog.engine.resuming import fork_run, restart_run, resume_run
    from flightlog.engine.run_logs import get_run_logger
    from flightlog.engine.states import State
    from flightlog.engine.tags import tags
    from flightlog.engine.tasks import Task, task

_HOMES = {
    "Flow": "flightlog.engine.flows",
    "Future": "flightlog.engine.futures",
    "State": "flightlog.engine.states",
    "Task": "flightlog.engine.tasks",
    "allow_failure": "flightlog.engine.annotations",
    "emit_event": "flightlog.engine.custom_events",
    "cancel_run": "flightlog.engine.cancelling",
    "flow": "flightlog.engine.flows",
    "fork_run": "flightlog.engine.resuming",
    "get_run_context": "flightlog.engine.context",
    "get_run_logger": "flightlog.engine.run_logs",
    "pause_flow_run": "flightlog.engine.pausing",
    "quote": "flightlog.engine.annotations",
    "restart_run": "flightlog.engine.resuming",
    "suspend_flow_run": "flightlog.engine.pausing",
    "tags": "flightlog.engine.tags",
    "resume_flow_run": "flightlog.engine.pausing",
    "resume_run": "flightlog.engine.resuming",
    "task": "flightlog.engine.tasks",
    "unmapped": "flightlog.engine.annotations",
}

__all__ = [
    "Flow",
    "Future",
    "State",
    "Task",
    "__version__",
    "allow_failure",
    "cancel_run",
    "emit_event",
    "flow",
    "fork_run",
    "get_run_context",
    "get_run_logger",
    "pause_flow_run",
    "quote",
    "restart_run",
    "resume_flow_run",
    "resume_run",
    "suspend_flow_run",
    "tags",
    "task",
    "unmapped",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'flightlog' has no attribute {name!r}")
    from importlib.util import find_spec

    if find_spec(f"flightlog.{name}") is not None:
        return import_module(f"flightlog.{name}")  # as if all submodules had been imported: flightlog.states.Completed
    # For `from flightlog import name` Python asks with hasattr, and would tell of an AttributeError in its own words.
    imported = sys._getframe(1).f_code.co_name == "_handle_fromlist"
    text = import_module("flightlog.missing").why_missing(name, __all__, everywhere=imported)
    raise (ImportError if imported else AttributeError)(text)


def __dir__() -> list[str]:
    return __all__
