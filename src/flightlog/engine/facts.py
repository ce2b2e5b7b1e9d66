"""Facts about the run that code belongs to, looked up when they are asked for. See `flightlog.runtime`."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from flightlog.clock import to_datetime
from flightlog.engine.context import FlowRunContext, TaskRunContext
from flightlog.settings import runtime_override

_Fact = tuple[Callable[[Any], Any], Callable[[], Any]]


class _Facts:
    """The facts of one subject, each looked up when it is asked for."""

    def __init__(self, name: str, context: Callable[[], Any], facts: Mapping[str, _Fact]) -> None:
        self._name = name
        self._context = context
        self._facts = facts

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._facts:
            raise AttributeError(f"flightlog.runtime.{self._name} has no {name!r}; it has {', '.join(self._facts)}.")
        look, otherwise = self._facts[name]
        context = self._context()
        value = otherwise() if context is None else look(context)
        given = runtime_override(self._name, name)
        return value if given is None else _cast(given, value)

    def __reduce__(self) -> str:
        """Travel by name: what it tells depends on where it is asked."""
        return self._name

    def __dir__(self) -> list[str]:
        return list(self._facts)

    def __repr__(self) -> str:
        return f"<flightlog.runtime.{self._name}>"


def _cast(text: str, value: Any) -> Any:
    """Return a text as what the fact usually is; as it stands if it cannot be that."""
    casts: dict[type, Callable[[str], Any]] = {
        datetime: _moment,
        int: int,
        list: lambda given: [part.strip() for part in given.split(",") if part.strip()],
        dict: json.loads,
    }
    try:
        return casts.get(type(value), str)(text)
    except ValueError:
        return text


def _moment(text: str) -> datetime:
    """Return a time; one without a zone is in UTC."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _nothing() -> None:
    return None


def _now() -> datetime:
    return datetime.now(UTC)


def _parent_of(context: FlowRunContext) -> str | None:
    return None if context.parent is None else context.parent.flow_context.flow_run.id


_NONE: _Fact = (lambda _: None, _nothing)

flow_run: Any = _Facts(
    "flow_run",
    FlowRunContext.get,
    {
        "id": (lambda context: context.flow_run.id, _nothing),
        "name": (lambda context: context.flow_run.name, _nothing),
        "tags": (lambda context: sorted(context.tags), list),
        "parameters": (lambda context: dict(context.parameters), dict),
        "run_count": (lambda context: context.flow_run.run_count, int),
        "flow_name": (lambda context: context.flow.name, _nothing),
        "flow_version": (lambda context: context.flow.version, _nothing),
        "scheduled_start_time": (lambda context: to_datetime(context.created), _now),
        "start_time": (lambda context: to_datetime(context.created), _nothing),
        "parent_flow_run_id": (_parent_of, _nothing),
        "parent_deployment_id": _NONE,
        "api_url": _NONE,
        "ui_url": _NONE,
    },
)
"""The flow run: id, name, tags, parameters, run_count, flow_name, flow_version, and more."""

task_run: Any = _Facts(
    "task_run",
    TaskRunContext.get,
    {
        "id": (lambda context: context.task_run.id, _nothing),
        "name": (lambda context: context.task_run.name, _nothing),
        "tags": (lambda context: sorted(context.task_run.tags), list),
        "parameters": (lambda context: dict(context.parameters), dict),
        "run_count": (lambda context: context.task_run.run_count, int),
        "task_name": (lambda context: context.task.name, _nothing),
    },
)
"""The task run: id, name, tags, parameters, run_count, task_name."""

deployment: Any = _Facts(
    "deployment",
    _nothing,
    {
        "id": _NONE,
        "name": _NONE,
        "version": _NONE,
        "flow_run_id": _NONE,
        "parameters": (lambda _: {}, dict),
    },
)
"""The deployment that a run comes from; there is none as yet."""

__all__ = ["deployment", "flow_run", "task_run"]
