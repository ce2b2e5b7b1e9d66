"""Events of the user's own: facts about resources, in the same log as everything else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from flightlog.clock import SystemClock, to_datetime
from flightlog.engine.context import CURRENT
from flightlog.engine.emitting import put_on_record
from flightlog.engine.runtime import current_engine
from flightlog.events.types import EVENT_EMITTED, emitted_stream
from flightlog.ids import RandomIds, parse_id
from flightlog.masking import MASKER

RESOURCE_ID = "flightlog.resource.id"
_OTHER_ID = "prefect.resource.id"
_TIGHT = timedelta(minutes=5)
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class EmittedEvent:
    """An event of the user's own.

    Attributes:
        id: its id.
        event: what happened, such as ``file.arrived``.
        resource: what it happened to, by label.
        occurred: when, in UTC.
        follows: the event that caused it, or None.
    """

    id: UUID
    event: str
    resource: Mapping[str, str]
    occurred: datetime
    follows: UUID | None = None


def emit_event(
    event: str,
    resource: Mapping[str, str],
    occurred: datetime | None = None,
    related: Sequence[Mapping[str, str]] | None = None,
    payload: Mapping[str, Any] | None = None,
    id: UUID | None = None,  # noqa: A002 - the name that users know
    follows: EmittedEvent | None = None,
) -> EmittedEvent:
    """Put on record that something happened to something.

    Args:
        event: what happened, such as ``file.arrived``.
        resource: what it happened to: labels, ``flightlog.resource.id`` among them.
        occurred: when; now by default. A time without a zone is local.
        related: other things that have to do with it, by label.
        payload: what else is known: anything that JSON has; secrets masked.
        id: the event's id; the same id again changes nothing.
        follows: the event that caused it; it counts only if it was less than five minutes before.

    Raises:
        ValueError: the resource has no id, or the event no name.
    """
    name = resource.get(RESOURCE_ID) or resource.get(_OTHER_ID)
    if not name:
        raise ValueError(f"The resource of an event needs a {RESOURCE_ID!r}: what it happened to.")
    if not event or len(event) > _LONGEST:
        raise ValueError(f"An event's name has 1 to {_LONGEST} characters.")
    when = (occurred or to_datetime(_now())).astimezone(UTC)
    identifier = id or UUID(bytes=RandomIds().new())
    before = follows if follows is not None and abs(when - follows.occurred) < _TIGHT else None
    told: dict[str, Any] = {
        "id": parse_id(str(identifier)),
        "event": event,
        "resource": {str(label): str(value) for label, value in resource.items()},
    }
    if related:
        told["related"] = [{str(label): str(value) for label, value in other.items()} for other in related]
    if payload is not None:
        told["payload"] = MASKER.mask(json.dumps(payload, default=str))
    if before is not None:
        told["caused_by"] = parse_id(str(before.id))
    put_on_record(emitted_stream(name), EVENT_EMITTED, told, occurred_at=round(when.timestamp() * 1e6))
    return EmittedEvent(identifier, event, dict(resource), when, None if before is None else before.id)


def _now() -> int:
    context = CURRENT.get()
    if context is None:
        return current_engine().clock.now()
    return SystemClock().now() if context.flow_context.relay is not None else context.flow_context.engine.clock.now()


__all__ = ["EmittedEvent", "emit_event"]
