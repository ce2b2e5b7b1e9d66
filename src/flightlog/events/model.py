"""The envelope of an event: before it is recorded (`NewEvent`) and after (`Event`)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flightlog.events import codec, upcasting
from flightlog.events.codec import Envelope

ANY = None
"""As an `expected_version`: whatever version the stream has."""


@dataclass(slots=True)
class NewEvent:
    """A fact that is to be recorded. Treat it as immutable.

    Attributes:
        id: a UUIDv7, 16 bytes; appending the same id again changes nothing.
        type: a subject and a past participle, such as ``task_run.completed``.
        data: what is known of it: None, bool, int, float, str, bytes, lists and dicts of these.
        occurred_at: when, by the producer's clock, in microseconds since 1970 (UTC).
        follows: the id of the event that caused it, or None.
        schema: the version of the shape of `data`.
        actor: who brought it about: ``engine``, ``worker``, ``scheduler``, or a person (``cli:ann``).
    """

    id: bytes
    type: str
    data: Mapping[str, Any]
    occurred_at: int
    follows: bytes | None = None
    schema: int = 1
    actor: str = "engine"


@dataclass(slots=True)
class Append:
    """Events for one stream, in order, with the conditions under which they may be appended.

    Attributes:
        stream: the stream's name, such as ``flow-run/<id>``.
        events: the events, oldest first.
        expected_version: the version that the stream must have (0: it must be new); `ANY` for no condition.
        epoch: the writer's epoch. A lower one than the stream's is refused with `TakenOver`, a higher one
            takes the stream over. None makes no claim.
        blobs: contents to be stored in the same commit, by their SHA-256.
    """

    stream: str
    events: Sequence[NewEvent]
    expected_version: int | None = ANY
    epoch: int | None = None
    blobs: Mapping[bytes, bytes] = field(default_factory=dict)


class Event:
    """A recorded event. The record is what was stored and hashed; all else is decoded from it on demand.

    Attributes:
        position: its place in the log: 1, 2, 3 ... without gaps.
        recorded_at: when the log took it, in microseconds since 1970 (UTC); never decreasing.
        record: the stored bytes.
    """

    __slots__ = ("_data", "_envelope", "_fetch", "_type", "position", "record", "recorded_at")

    def __init__(
        self,
        position: int,
        recorded_at: int,
        record: bytes,
        fetch: Callable[[bytes], bytes],
        type_: str | None = None,
    ) -> None:
        self.position = position
        self.recorded_at = recorded_at
        self.record = record
        self._fetch = fetch
        self._type = type_
        self._envelope: Envelope | None = None
        self._data: dict[str, Any] | None = None

    @property
    def envelope(self) -> Envelope:
        """All fields of the record but its payload, decoded."""
        if self._envelope is None:
            self._envelope = codec.decode(self.record)
        return self._envelope

    @property
    def stream(self) -> str:
        """The name of the stream that holds it."""
        return self.envelope.stream

    @property
    def version(self) -> int:
        """Its place in the stream, from 1 on without gaps."""
        return self.envelope.version

    @property
    def id(self) -> bytes:
        """The event's id, 16 bytes."""
        return self.envelope.event_id

    @property
    def type(self) -> str:
        """The event's type, such as ``task_run.completed``."""
        return self._type or self.envelope.type

    @property
    def occurred_at(self) -> int:
        """When, by the producer's clock, in microseconds since 1970 (UTC)."""
        return self.envelope.occurred_at

    @property
    def actor(self) -> str:
        """Who brought it about."""
        return self.envelope.actor

    @property
    def follows(self) -> bytes | None:
        """The id of the event that caused it, or None."""
        return self.envelope.follows

    @property
    def epoch(self) -> int:
        """The epoch of the stream's owner when the event was appended; 0 where nobody claims it."""
        return self.envelope.epoch

    @property
    def hash(self) -> bytes:
        """The SHA-256 of the record, which the next event of the stream carries."""
        return hashlib.sha256(self.record).digest()

    @property
    def data(self) -> dict[str, Any]:
        """The payload in the shape of the newest schema version, with parts that were spilled put back.

        Raises:
            LogCorrupt: a spilled part is missing.
        """
        if self._data is None:
            stored = codec.decode_data(self.envelope.data, self._fetch)
            self._data = upcasting.lift(self.type, self.envelope.schema, stored)
        return self._data

    def __repr__(self) -> str:
        return f"<Event {self.position} {self.type} {self.stream}@{self.version}>"
