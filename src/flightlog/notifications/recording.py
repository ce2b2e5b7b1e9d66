"""From decisions to events: what the fold decides is put on record, the same again if it is decided again."""

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Final

from pydantic import TypeAdapter

from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import (
    INCIDENT_OPENED,
    INCIDENT_RESOLVED,
    INCIDENT_UPDATED,
    NOTIFICATION_QUEUED,
    NOTIFICATION_WITHHELD,
    incident_stream,
    notification_stream,
    withheld_stream,
)
from flightlog.ids import parse_id
from flightlog.notifications.decisions import Decision, Draft, IncidentChanged, Withheld
from flightlog.notifications.notifier import Message
from flightlog.notifications.rendering import message_of
from flightlog.notifications.rules import Rule
from flightlog.notifications.state import Occurrence

ACTOR: Final = "rules"
MESSAGES: Final = TypeAdapter(Message)
_CHANGES: Final = {"opened": INCIDENT_OPENED, "updated": INCIDENT_UPDATED, "resolved": INCIDENT_RESOLVED}


def appends_of(
    decisions: Iterable[Decision], rule_of: Callable[[str], Rule], log: Log, mask: Callable[[str], str] = str
) -> list[Append]:
    """Return what puts decisions on record.

    Their events' ids follow from what they say, so that a decision that was put on record already, by a process that
    died before it could note how far it had come, is not put there twice; nor is one that says what another one says.

    Args:
        decisions: the decisions, in order.
        rule_of: finds a rule by its name.
        log: where runs are read that messages are about.
        mask: replaces known secrets.
    """
    found = (_append(decision, rule_of, log, mask) for decision in decisions)
    return list({append.events[0].id: append for append in found}.values())


def _append(decision: Decision, rule_of: Callable[[str], Rule], log: Log, mask: Callable[[str], str]) -> Append:
    told: tuple[Any, ...] = ()
    match decision:
        case IncidentChanged():
            facts = _facts(decision.cause, decision.rule, decision.group, decision.reason, decision.at)
            facts |= {"incident": decision.incident, "count": decision.count}
            stream, type_ = incident_stream(decision.incident), _CHANGES[decision.what]
            told = (decision.count, decision.cause.event)
        case Withheld():
            facts = _facts(decision.cause, decision.rule, decision.group, decision.text, decision.at)
            facts |= {"why": decision.reason}
            if decision.incident:
                facts["incident"] = decision.incident
            stream = incident_stream(decision.incident) if decision.incident else withheld_stream(decision.rule)
            type_, told = NOTIFICATION_WITHHELD, (decision.cause.event, decision.group, decision.reason, decision.text)
        case Draft():
            facts = _queued(decision, rule_of(decision.rule), log, mask)
            stream, type_ = notification_stream(decision.key), NOTIFICATION_QUEUED
    identifier = event_id(decision.at, stream, type_, *told)
    follows = bytes.fromhex(decision.cause.event) if decision.cause.event else None
    return Append(stream, [NewEvent(identifier, type_, facts, decision.at, follows, actor=ACTOR)])


def _facts(cause: Occurrence, rule: str, group: str, reason: str, at: int) -> dict[str, Any]:
    facts = {"rule": rule, "group": group, "reason": reason, "text": cause.text, "at": at, "position": cause.position}
    return facts | _run(cause)


def _run(cause: Occurrence) -> dict[str, Any]:
    return {"flow_run_id": parse_id(cause.run)} if cause.run else {}


def _queued(draft: Draft, rule: Rule, log: Log, mask: Callable[[str], str]) -> dict[str, Any]:
    message, rendered = message_of(draft, rule, log)
    facts: dict[str, Any] = {
        "notification": draft.key,
        "channel": draft.channel,
        "kind": draft.kind,
        "rule": draft.rule,
        "message": mask(MESSAGES.dump_json(message).decode()),
        "due": draft.at,
        **_run(draft.cause),
    }
    if draft.incident is not None:
        facts["incident"] = draft.incident.id
    if draft.first:
        facts["first"] = draft.first
    if rendered.problem:
        facts["problem"] = rendered.problem
    return facts


def event_id(at: int, *parts: Any) -> bytes:
    """Return an id that follows from a time and what an event says: a UUID of version 7 (RFC 9562, section 5.7).

    Args:
        at: the time, in microseconds since 1970 (UTC).
        parts: what tells it from others of the same time.
    """
    digest = int.from_bytes(sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()[:10], "big")
    head = (at // 1000) << 80 | 7 << 76 | (digest >> 62 & 0xFFF) << 64
    return (head | 2 << 62 | digest & ((1 << 62) - 1)).to_bytes(16, "big")
