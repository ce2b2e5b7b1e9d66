"""The ledger: what became of every message, and of every incident, by the log."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.types import (
    INCIDENT_ACKNOWLEDGED,
    INCIDENT_OPENED,
    INCIDENT_RESOLVED,
    INCIDENT_UPDATED,
    NOTIFICATION_ATTEMPTED,
    NOTIFICATION_DEAD,
    NOTIFICATION_DELIVERED,
    NOTIFICATION_FAILED,
    NOTIFICATION_QUEUED,
    NOTIFICATION_RETRIED,
    NOTIFICATION_WITHHELD,
)
from flightlog.notifications.notifier import Message
from flightlog.notifications.recording import MESSAGES

_OF_MESSAGES: Final = (
    NOTIFICATION_QUEUED,
    NOTIFICATION_ATTEMPTED,
    NOTIFICATION_DELIVERED,
    NOTIFICATION_FAILED,
    NOTIFICATION_DEAD,
    NOTIFICATION_RETRIED,
)
_OF_INCIDENTS: Final = (INCIDENT_OPENED, INCIDENT_UPDATED, INCIDENT_RESOLVED, INCIDENT_ACKNOWLEDGED)
DECISIONS: Final = (INCIDENT_OPENED, INCIDENT_UPDATED, INCIDENT_RESOLVED, NOTIFICATION_WITHHELD, NOTIFICATION_QUEUED)


@dataclass(slots=True)
class Entry:
    """What became of a message.

    Attributes:
        key: its idempotency key.
        rule, channel, kind, incident: what it is about.
        message: the message.
        due: when it was due, in microseconds since 1970 (UTC).
        status: ``queued``, ``sending``, ``waiting`` (for another attempt), ``delivered`` or ``dead``.
        attempts: how often it was tried.
        problem: what went wrong last.
        next_attempt: when the next attempt is due; None if there is none.
        delivered_at: when the channel took it.
        receipt: what the channel said of it.
        run: the flow run, 16 bytes, that it is about; None for none.
        events: what happened to it, oldest first.
    """

    key: str
    rule: str
    channel: str
    kind: str
    incident: str
    message: Message
    due: int
    run: bytes | None = None
    status: str = "queued"
    attempts: int = 0
    problem: str | None = None
    next_attempt: int | None = None
    delivered_at: int | None = None
    receipt: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class IncidentView:
    """An incident, by the log.

    Attributes:
        id: its id.
        rule: its rule.
        group: what its events have in common.
        opened_at: when it began, in microseconds since 1970 (UTC).
        text: what happened last.
        count: how many events it has.
        resolved_at: when it ended; None while it goes on.
        acknowledged_by: who looks after it; None for nobody.
        run: the flow run, 16 bytes, that it began with.
    """

    id: str
    rule: str
    group: str
    opened_at: int
    text: str
    count: int = 1
    resolved_at: int | None = None
    acknowledged_by: str | None = None
    run: bytes | None = None


def entries(log: Log) -> list[Entry]:
    """Return what became of every message, in the order in which they were due."""
    found: dict[str, Entry] = {}
    for event in log.read_all(types=_OF_MESSAGES):
        _apply(found, event)
    return sorted(found.values(), key=lambda entry: entry.due)


def _apply(found: dict[str, Entry], event: Event) -> None:
    data, key = event.data, event.stream.partition("/")[2]
    if event.type == NOTIFICATION_QUEUED and key not in found:
        message = MESSAGES.validate_json(data["message"])
        found[key] = Entry(
            key, data["rule"], data["channel"], data["kind"], data.get("incident") or "", message, data["due"],
            data.get("flow_run_id"),
        )  # fmt: skip
    entry = found.get(key)
    if entry is None:
        return
    entry.events.append(event)
    if event.type == NOTIFICATION_ATTEMPTED:
        entry.status, entry.attempts = "sending", data["attempt"]
    elif event.type == NOTIFICATION_DELIVERED:
        entry.status, entry.delivered_at = "delivered", event.recorded_at
        entry.problem, entry.next_attempt, entry.receipt = None, None, data.get("receipt", {})
    elif event.type == NOTIFICATION_FAILED:
        entry.status, entry.problem, entry.next_attempt = "waiting", data["problem"], data["retry_at"]
    elif event.type == NOTIFICATION_DEAD:
        entry.status, entry.problem, entry.next_attempt = "dead", data["problem"], None
    elif event.type == NOTIFICATION_RETRIED:
        entry.status, entry.attempts = "queued", 0


def incidents(log: Log) -> list[IncidentView]:
    """Return every incident, in the order in which they began."""
    found: dict[str, IncidentView] = {}
    for event in log.read_all(types=_OF_INCIDENTS):
        data = event.data
        known = found.get(data["incident"])
        if event.type == INCIDENT_OPENED:
            found[data["incident"]] = IncidentView(
                data["incident"], data["rule"], data["group"], data["at"], data["text"], run=data.get("flow_run_id")
            )
        elif known is not None:
            _change(known, event, data)
    return list(found.values())


def _change(incident: IncidentView, event: Event, data: dict[str, Any]) -> None:
    if event.type == INCIDENT_UPDATED:
        incident.count, incident.text = data["count"], data["text"]
    elif event.type == INCIDENT_RESOLVED:
        incident.resolved_at = data["at"]
    else:
        incident.acknowledged_by = event.actor


def decisions_on(log: Log, run: bytes) -> Iterator[Event]:
    """Yield the decisions that are on record about a flow run, in order."""
    for event in log.read_all(types=DECISIONS):
        if event.data.get("flow_run_id") == run:
            yield event


def decisions_of(log: Log, incident: str) -> Iterator[Event]:
    """Yield the decisions that are on record about an incident, in order."""
    for event in log.read_all(types=(*DECISIONS, INCIDENT_ACKNOWLEDGED)):
        if event.data.get("incident") == incident:
            yield event


def find(known: Iterable[str], wanted: str) -> list[str]:
    """Return the ids that begin with what somebody typed."""
    return [one for one in known if one.startswith(wanted.lower())]
