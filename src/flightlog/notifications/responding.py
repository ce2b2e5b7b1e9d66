"""What people do about incidents and messages: look after one, be told nothing for a time, have one sent again."""

from collections.abc import Iterable
from typing import Any

from flightlog.clock import Clock
from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import (
    INCIDENT_ACKNOWLEDGED,
    NOTIFICATION_RETRIED,
    SILENCE_ADDED,
    SILENCE_ENDED,
    incident_stream,
    notification_stream,
    silence_stream,
)
from flightlog.ids import Ids, id_text
from flightlog.notifications.rules import Silence
from flightlog.projections.inline import INLINE


class Responder:
    """Puts on record what somebody does.

    Args:
        log: the log.
        clock: time.
        ids: identity.
        actor: who does so.
    """

    def __init__(self, log: Log, clock: Clock, ids: Ids, actor: str = "engine") -> None:
        self._log = log
        self._clock = clock
        self._ids = ids
        self._actor = actor

    def acknowledge(self, incident: str, comment: str = "") -> None:
        """Say that somebody looks after an incident: nobody else is told of it any more.

        Args:
            incident: its whole id.
            comment: what is done about it.
        """
        self._put(incident_stream(incident), INCIDENT_ACKNOWLEDGED, {"incident": incident, "comment": comment})

    def silence(self, span: int, about: Silence) -> tuple[str, int]:
        """Have nobody told of some incidents for a time; what still goes on then is told afterwards.

        Args:
            span: how long, in microseconds.
            about: which incidents.

        Returns:
            The silence's id, and when it ends, in microseconds since 1970 (UTC).
        """
        identifier, until = id_text(self._ids.new()), self._clock.now() + span
        facts = about.model_dump(mode="json")
        self._put(silence_stream(identifier), SILENCE_ADDED, {"silence": identifier, "until": until, **facts})
        return identifier, until

    def end_silences(self) -> int:
        """End all silences at once; return how many that were."""
        known: dict[str, int] = {}
        for event in self._log.read_all(types=[SILENCE_ADDED, SILENCE_ENDED]):
            if event.type == SILENCE_ADDED:
                known[event.data["silence"]] = event.data["until"]
            else:
                known.pop(event.data["silence"], None)
        now = self._clock.now()
        going_on = [identifier for identifier, until in known.items() if until > now]
        for identifier in going_on:
            self._put(silence_stream(identifier), SILENCE_ENDED, {"silence": identifier})
        return len(going_on)

    def retry(self, messages: Iterable[str]) -> None:
        """Queue messages again that were given up.

        Args:
            messages: their whole keys.
        """
        self._log.keep(INLINE)
        for key in messages:
            self._put(notification_stream(key), NOTIFICATION_RETRIED, {"notification": key})

    def _put(self, stream: str, type_: str, facts: dict[str, Any]) -> None:
        event = NewEvent(self._ids.new(), type_, facts, self._clock.now(), actor=self._actor)
        self._log.append_all([Append(stream, [event])])
