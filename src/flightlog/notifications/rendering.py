"""From a draft to the message that goes out: a run's facts are read from the log, up to the event that it is about."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.narration import state_of
from flightlog.events.types import STATES, TASK_RUN, flow_run_stream
from flightlog.notifications.decisions import Draft
from flightlog.notifications.notifier import Entry, Message, RunFacts
from flightlog.notifications.rules import Rule
from flightlog.notifications.state import Incident, Occurrence
from flightlog.notifications.templates import Rendered, render
from flightlog.notifications.wording import cleaned

_LONGEST_STREAM: Final = 20_000
"""Of a run with more events, the task runs are not counted: it would hold the message up."""
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')


def message_of(draft: Draft, rule: Rule, log: Log) -> tuple[Message, Rendered]:
    """Return the message that a draft stands for, and its texts.

    Args:
        draft: the draft.
        rule: its rule.
        log: where the run is read.
    """
    plain: Message = cleaned(_plain(draft, rule, log))
    rendered = render(plain, subject=rule.subject, body=rule.body)
    return replace(plain, subject=rendered.subject, body=rendered.body), rendered


def _plain(draft: Draft, rule: Rule, log: Log) -> Message:
    incident = draft.incident
    common: dict[str, Any] = {
        "key": draft.key,
        "kind": draft.kind,
        "rule": draft.rule,
        "severity": rule.severity,
        "subject": "",
        "body": "",
        "at": draft.at,
        "position": draft.cause.position,
        "facts": (("Note", draft.note),) if draft.note else (),
    }
    if incident is None:
        entries = tuple(_digested(entry) for entry in draft.entries)
        return Message(
            incident="", count=len(entries) + draft.left_out, entries=entries, left_out=draft.left_out, **common
        )
    cause = incident.latest
    return Message(
        incident=incident.id,
        count=incident.count,
        opened_at=incident.opened_at,
        run=_run_facts(draft, cause, log) if cause.run else None,
        entries=tuple(Entry(one.at, one.text, one.run_name or None, one.state_type) for one in incident.entries),
        left_out=max(0, incident.count - len(incident.entries)),
        commands=tuple(_commands(draft, incident)),
        group=incident.group,
        **common,
    )


def _digested(entry: Mapping[str, Any]) -> Entry:
    kind = "" if entry["kind"] == "opened" else f"{entry['kind']}: "
    return Entry(entry["at"], f"{kind}{entry['text']}", entry["run"] or None, entry["state_type"])


def _commands(draft: Draft, incident: Incident) -> list[str]:
    run = incident.latest.run[:8]
    commands = []
    if run and draft.kind != "resolved":
        commands += [f"flightlog runs show {run}", f"flightlog runs logs {run}"]
        if incident.latest.state_type in ("FAILED", "CRASHED"):
            commands.append(f"flightlog runs resume {run}")
    if draft.kind in ("opened", "escalated"):
        commands.append(f"flightlog notify ack {incident.id[:8]}")
    return commands


def _run_facts(draft: Draft, cause: Occurrence, log: Log) -> RunFacts:
    event = log.event(bytes.fromhex(cause.event)) if cause.event else None
    data = {} if event is None else event.data
    history = _history(log, cause)
    created = history[0].data if history else {}
    failed = _failed_task(history) if not cause.task else None
    error = data.get("error") or (failed or {}).get("error") or {}
    return RunFacts(
        id=cause.run,
        name=cause.run_name,
        flow=cause.flow,
        state_type=cause.state_type,
        state_name=cause.state_name,
        message=data.get("message"),
        error=f"{error['type']}: {error['message']}" if error else cause.error or None,
        where=_where(error.get("traceback")),
        task=cause.task or (failed or {}).get("task"),
        attempt=cause.attempt if failed is None else failed.get("attempt", 1),
        attempts=1 + (failed or created).get("retries", 0),
        took=cause.took,
        usual=draft.usual,
        tasks=_counts(history),
        earlier=draft.ends,
        tags=tuple(cause.tags),
    )


def _history(log: Log, cause: Occurrence) -> list[Event]:
    """Return the events of a run up to the one that a message is about; only the first of a very long one."""
    events: list[Event] = []
    for event in log.read(flow_run_stream(cause.run)):
        if event.position > cause.position:
            break
        events.append(event)
        if len(events) >= _LONGEST_STREAM:
            return events[:1]
    return events


def _failed_task(history: list[Event]) -> dict[str, Any] | None:
    """Return what is known of the last task run that failed, if it was that which made the run fail."""
    created = {event.data["task_run_id"]: event.data for event in history if event.type == "task_run.created"}
    for event in reversed(history):
        if event.type in ("task_run.failed", "task_run.crashed"):
            data = event.data
            return {**created.get(data["task_run_id"], {}), **data}
    return None


def _counts(history: list[Event]) -> dict[str, int]:
    """Return how many task runs are in each state."""
    states: dict[bytes, str] = {}
    for event in history:
        kind, _, suffix = event.type.partition(".")
        if kind == TASK_RUN and suffix in STATES:
            states[event.data["task_run_id"]] = state_of(event.type, event.data)[0]
    return dict(sorted(Counter(states.values()).items()))


def _where(trace: str | None) -> str | None:
    """Return the last line of the user's that a traceback shows."""
    frames = _FRAME.findall(trace or "")
    if not frames:
        return None
    path, line = frames[-1]
    return f"{'/'.join(path.rsplit('/', 2)[-2:])}:{line}"
