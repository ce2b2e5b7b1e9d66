"""Flows and tasks: pure decisions, runners, results, and one bridge where sync meets async.

Users of early Prefect 2 import what pauses flow runs from here; it is looked up when somebody asks for it.
"""

from importlib import import_module
from typing import Any

_PAUSING = frozenset({"pause_flow_run", "resume_flow_run", "suspend_flow_run"})


def __getattr__(name: str) -> Any:
    if name in _PAUSING:
        return getattr(import_module("flightlog.engine.pausing"), name)
    raise AttributeError(f"module 'flightlog.engine' has no attribute {name!r}")
