"""Erasing a subject: its key is destroyed, which is put on record; no event changes, so every proof still holds."""

from collections.abc import Iterator
from typing import NamedTuple

from flightlog.clock import Clock, SystemClock
from flightlog.events.codec import spilled_digests
from flightlog.events.log import Log
from flightlog.events.model import Event, NewEvent
from flightlog.events.subjects import Vault, groups_in
from flightlog.events.types import SUBJECT_ERASED, subject_stream
from flightlog.ids import Ids, RandomIds


class Erasure(NamedTuple):
    """What an erasure has come to.

    Attributes:
        events: those that hold something of the subject.
        destroyed: whether there was a key to destroy.
        before: whether an earlier erasure is on record.
    """

    events: list[Event]
    destroyed: bool
    before: bool


def touched(log: Log, vault: Vault, subject: bytes) -> Iterator[Event]:
    """Yield the events that hold something of a subject, oldest first."""
    for event in log.read_all():
        raw = event.envelope.data
        if b"personal" not in raw and not spilled_digests(raw):
            continue
        if any(subject in vault.members(group) for group in groups_in(event.data)):
            yield event


def erase(
    log: Log, vault: Vault, subject: bytes, actor: str, *, clock: Clock | None = None, ids: Ids | None = None
) -> Erasure:
    """Destroy a subject's key, and put that on record. Cut short, and done again, it goes on where it was.

    Args:
        log: the log.
        vault: has the keys.
        subject: the digest of the subject's name.
        actor: who asks for it.
        clock: tells the time.
        ids: gives the event its id.

    Raises:
        LogKeyError: the key cannot be destroyed.
        LogWriteError: it is destroyed, and that cannot be recorded.
    """
    stream = subject_stream(subject)
    destroyed = vault.destroy(subject)
    events = list(touched(log, vault, subject))
    before = next(iter(log.read(stream)), None) is not None
    if destroyed or (events and not before):
        event = NewEvent(
            (ids or RandomIds()).new(),
            SUBJECT_ERASED,
            {"events": len(events)},
            (clock or SystemClock()).now(),
            actor=actor,
        )
        log.append(stream, [event])
    return Erasure(events, destroyed, before)
