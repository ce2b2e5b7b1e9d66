"""What the fold of rules remembers: plain values, so that it can be put aside and taken up again.

All of it follows from the log; what is put aside (`Memory.packed`) only saves folding from the beginning.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Final

from flightlog.events import codec
from flightlog.events.types import flow_run_stream
from flightlog.ids import id_text

VERSION: Final = 2
"""Raised when what is remembered, or the fold, changes: then it is folded anew."""
LATEST: Final = 7
"""How many ends of a flow's runs messages show."""
DURATIONS: Final = 100
"""Over how many of a flow's completed runs percentiles are taken."""
_FEWEST: Final = 5
"""From so many completed runs on there are percentiles."""
ENTRIES: Final = 5
"""How many of an incident's latest events messages show."""


@dataclass(slots=True)
class Occurrence:
    """Something that a rule matched.

    Attributes:
        at: when it was recorded, in microseconds since 1970 (UTC).
        position: the event's position; that of the event before, for what happens by the clock.
        event: the event's id in hexadecimal; empty for what happens by the clock.
        type: the event's type.
        text: what happened, one line.
        stream: the event's stream.
        flow: the flow's name; empty where there is none.
        run: the flow run's id; empty where there is none.
        run_name: its name.
        task: the task's name; empty for a flow run.
        tags: the run's tags.
        state_name: the state's name.
        state_type: the state's type.
        error: the exception's class and message.
        attempt: which attempt it was.
        took: how long the run has taken, in microseconds; None if that is not known.
        deployment: the deployment that the run comes from; empty if it comes from none.
    """

    at: int
    position: int
    event: str
    type: str
    text: str
    stream: str = ""
    flow: str = ""
    run: str = ""
    run_name: str = ""
    task: str = ""
    tags: list[str] = field(default_factory=list)
    state_name: str = ""
    state_type: str = ""
    error: str = ""
    attempt: int = 0
    took: int | None = None
    deployment: str = ""


@dataclass(slots=True)
class Held:
    """A match that waits: for its run's retries, its parent's end, or a span of time."""

    rule: str
    occurrence: Occurrence
    why: str


@dataclass(slots=True)
class RunMemory:
    """A flow run that is going on."""

    flow: str
    name: str
    tags: list[str]
    parent: str = ""
    created_at: int = 0
    started_at: int = 0
    retried_at: int = 0
    held: list[Held] = field(default_factory=list)
    deployment: str = ""

    @classmethod
    def of(cls, created: Mapping[str, Any], at: int) -> "RunMemory | None":
        """Return what is known of a run by the payload of the event that created it; None if that is not one."""
        if "flow" not in created:
            return None
        parent = created.get("parent_flow_run_id")
        stream = flow_run_stream(id_text(parent)) if parent else ""
        tags, deployment = list(created.get("tags") or ()), created.get("deployment") or ""
        return cls(created["flow"], created["name"], tags, stream, at, deployment=deployment)


@dataclass(slots=True)
class FlowMemory:
    """What is remembered of a flow: how its latest runs ended, and how long the completed ones took."""

    ends: list[str] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    completed_at: int = 0

    def percentile(self, wanted: int) -> int | None:
        """Return a percentile of the durations, in microseconds; None if too few are known."""
        known = sorted(self.durations)
        return known[min(len(known) - 1, len(known) * wanted // 100)] if len(known) >= _FEWEST else None


@dataclass(slots=True)
class Group:
    """Where a rule stands with one group of events."""

    key: str
    flow: str = ""
    run: str = ""
    times: list[int] = field(default_factory=list)
    streak: int = 0
    failed: bool = False
    held: list[Held] = field(default_factory=list)
    incident: str = ""
    changes: list[int] = field(default_factory=list)
    flapping: bool = False
    armed: int = 0


@dataclass(slots=True)
class Incident:
    """An incident that is going on."""

    id: str
    rule: str
    group: str
    opened_at: int
    position: int
    first: Occurrence
    latest: Occurrence
    count: int = 1
    acknowledged: bool = False
    told: dict[str, str] = field(default_factory=dict)
    """By channel, the key of the first message."""
    messages: int = 0
    waiting: str = ""
    """Why its first message has not gone out, where that is for a time only."""
    updated_at: int = 0
    update_due: bool = False
    entries: list[Occurrence] = field(default_factory=list)

    @classmethod
    def begin(cls, rule: str, group: str, occurrence: Occurrence, at: int) -> "Incident":
        """Return an incident that begins; its id follows from what began it."""
        source = f"{rule}\0{group}\0{occurrence.event or at}"
        identifier = sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return cls(identifier, rule, group, at, occurrence.position, occurrence, occurrence, entries=[occurrence])


@dataclass(slots=True)
class Memory:
    """All that the fold remembers.

    Attributes:
        position: the last position that was folded.
        now: up to which time timers have fired, in microseconds since 1970 (UTC).
        timers: what is due later: when, a number that keeps the order, and what.
    """

    position: int = 0
    now: int = 0
    rules: dict[str, str] = field(default_factory=dict)
    channels: dict[str, str] = field(default_factory=dict)
    routes: str = "[]"
    silences: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, RunMemory] = field(default_factory=dict)
    flows: dict[str, FlowMemory] = field(default_factory=dict)
    groups: dict[str, dict[str, Group]] = field(default_factory=dict)
    incidents: dict[str, Incident] = field(default_factory=dict)
    timers: list[list[Any]] = field(default_factory=list)
    numbered: int = 0
    digests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=dict)
    overflow: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def packed(self) -> bytes:
        """Return all of it as bytes."""
        return codec.pack(asdict(self))

    @classmethod
    def unpacked(cls, content: bytes) -> "Memory":
        """Return what `packed` made bytes of."""
        plain = codec.unpack(content)
        plain["runs"] = {key: _run(value) for key, value in plain["runs"].items()}
        plain["flows"] = {key: FlowMemory(**value) for key, value in plain["flows"].items()}
        plain["groups"] = {
            rule: {key: _group(value) for key, value in groups.items()} for rule, groups in plain["groups"].items()
        }
        plain["incidents"] = {key: _incident(value) for key, value in plain["incidents"].items()}
        return cls(**plain)


def _held(value: dict[str, Any]) -> Held:
    return Held(value["rule"], Occurrence(**value["occurrence"]), value["why"])


def _run(value: dict[str, Any]) -> RunMemory:
    return RunMemory(**{**value, "held": [_held(one) for one in value["held"]]})


def _group(value: dict[str, Any]) -> Group:
    return Group(**{**value, "held": [_held(one) for one in value["held"]]})


def _incident(value: dict[str, Any]) -> Incident:
    occurrences = {name: Occurrence(**value[name]) for name in ("first", "latest")}
    return Incident(**{**value, **occurrences, "entries": [Occurrence(**one) for one in value["entries"]]})
