"""What a state change says as a log line.

These lines are not stored: the events that they tell of are. The console shows them as they happen, and
the logs projection tells them again, in the same words, from the same functions.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flightlog.events.types import STATES, TERMINAL

INFO, ERROR = 20, 40
NO_ICON = "?"
ICONS = {
    "COMPLETED": "✓",
    "FAILED": "✕",
    "CRASHED": "!",
    "CANCELLED": "⊘",
    "CANCELLING": "⊘",
    "RUNNING": "▶",
    "SCHEDULED": "↻",
    "PAUSED": "‖",
    "PENDING": "◷",
}
"""What stands for a state type, before its name: the same sign everywhere."""

_SAID = {
    "paused": "Paused: it waits to be resumed.",
    "resumed": "Resumed.",
    "cancelling": "Asked to stop.",
    "pending": "Waits.",
}


class Line(NamedTuple):
    """A line: its level, its text, and whether the flow run says it rather than the run itself."""

    level: int
    text: str
    by_flow: bool = False


def state_text(type_: str, name: str, message: str | None) -> str:
    """Return a state as people read it: ``Completed()``, ``TimedOut('...', type=FAILED)``."""
    parts = [repr(message)] if message else []
    if name.upper() != type_:
        parts.append(f"type={type_}")
    return f"{name}({', '.join(parts)})"


def state_of(type_: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """Return the state type and name that an event leads to.

    Args:
        type_: the event's type, such as ``task_run.completed``.
        data: its payload.
    """
    suffix = type_.partition(".")[2]
    state, name = STATES[suffix]
    if suffix == "running" and data.get("attempt", 1) > 1:
        name = "Retrying"
    # The name on `created` is the run's own, not the state's.
    return state, name if suffix == "created" else data.get("name") or name


def created_line(data: Mapping[str, Any]) -> Line:
    """Return the line that the creation of a task run is worth, which its flow run says."""
    return Line(INFO, f"Created task run {data['name']!r} for task {data['task']!r}", True)


def narrate(  # noqa: C901 - one case after the other
    type_: str, data: Mapping[str, Any], kind: str
) -> Iterator[Line]:
    """Yield the lines that an event of a run is worth.

    Args:
        type_: the event's type.
        data: its payload.
        kind: ``flow_run`` or ``task_run``, which also begins `type_`.
    """
    suffix = type_.partition(".")[2]
    if suffix == "created":
        if kind == "flow_run":
            if runner := data.get("task_runner"):
                yield Line(INFO, f"Using task runner {runner!r}")
        elif child := data.get("child_flow_run_name"):
            yield Line(INFO, f"Created subflow run {child!r} for flow {data['task']!r}", by_flow=True)
        else:
            yield created_line(data)
        return
    if "child_flow_run_id" in data:
        return  # the subflow's own run says it
    state, name = state_of(type_, data)
    if suffix in _SAID:
        message = data.get("message")
        yield Line(INFO, f"{name}. {message}" if message and suffix == "paused" else message or _SAID[suffix])
        return
    if suffix == "scheduled" and (message := data.get("message")):
        yield Line(INFO, message)
    if suffix not in ("awaiting_retry",) and state not in TERMINAL:
        return
    error = data.get("error")
    if state == "CRASHED":
        yield Line(ERROR, f"Crash detected! {data.get('message')}")
    elif error and error.get("traceback"):
        yield Line(ERROR, "Encountered exception during execution:\n" + error["traceback"].rstrip("\n"))
    if suffix == "awaiting_retry":
        yield Line(
            INFO,
            "Received non-final state 'AwaitingRetry' when proposing final state 'Failed' "
            "and will attempt to run again...",
        )
    else:
        level = INFO if state == "COMPLETED" else ERROR
        yield Line(level, f"Finished in state {state_text(state, name, data.get('message'))}")
