"""A recorded run, read back: its calls and how far each came. What resume, restart, fork and flow retries rest on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flightlog.engine.transitions import Fact, Policy, RunState, evolve
from flightlog.errors import RunNotFound
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.types import (
    ANSWER_REFUSED,
    ANSWERED,
    FLOW_RUN,
    HOOK_ENDED,
    STATES,
    TASK_RUN,
    TERMINAL,
    TRANSACTION_COMMITTED,
    flow_run_stream,
)
from flightlog.garbage import no_collections
from flightlog.ids import id_text

FLOW = "flow:"
"""Put before the key of a flow that is called as a subflow, so that it is never taken for a task's."""
_SETTLED = ("Committed", "RolledBack")


@dataclass(slots=True)
class RecordedCall:
    """A call that a recorded flow run made: of a task, or of a subflow.

    Attributes:
        key: the task run's id, 16 bytes.
        name: the task run's name.
        task: the name of the task or subflow.
        function: what tells the function apart; begins with `FLOW` for a subflow.
        position: where in the log its creation stands.
        number: its place among the calls of the flow run.
        parent: the task run that made the call; None for the flow itself.
        child: the flow run that it stands for, if it is a subflow's.
        digest: of its arguments; None if they have none or it never started.
        type: the type of its state.
        state_name: the name of its state, where it is not its type's usual one.
        message: what the state says of itself.
        result: the reference to its value, or to the exception of a failed one.
        error: class and text of what went wrong.
        attempt: how many attempts have begun.
        cause: the id of its last event.
        forgotten: whether it is to run again, however it ended.
        rolled_back: whether it completed, and was undone.
        committed: whether a transaction that it was a part of has committed.
        hooks: how many of its hooks were called for the one or the other.
        partial: whether it is a generator's, which was left before its end.
        refused: whether it cannot start, since what it rests on did not complete.
        replaces: the earlier task run of the same call, if that was a subflow that failed.
        ended: the position of its latest end; 0 if it never ended.
        tags: its tags.
    """

    key: bytes
    name: str
    task: str
    function: str
    position: int
    number: int
    parent: bytes | None = None
    child: bytes | None = None
    digest: bytes | None = None
    type: str = "PENDING"
    state_name: str | None = None
    message: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    attempt: int = 0
    cause: bytes | None = None
    forgotten: bool = False
    replaces: bytes | None = None
    ended: int = 0
    tags: frozenset[str] = frozenset()
    rolled_back: bool = False
    committed: bool = False
    hooks: int = 0
    partial: bool = False
    refused: bool = False

    @property
    def completed(self) -> bool:
        """Whether it ended well, and is not to run again all the same."""
        return self.type == "COMPLETED" and not self.forgotten and not self.rolled_back

    def rules(self, policy: Policy) -> RunState:
        """Return what the transition rules need to know of it."""
        return RunState(TASK_RUN, policy, self.type, self.attempt, self.attempt)


@dataclass(slots=True)
class History:
    """A recorded flow run.

    Attributes:
        id: its id, 16 bytes.
        created: the payload of its first event.
        version: the version of its stream.
        epoch: the epoch of its stream's owner.
        rules: what the transition rules need to know of it.
        cause: the id of its own last event.
        last: its last event of its own.
        running: what names the process that has it: the payload of its latest start, or of its being gone on with.
        running_at: when that was recorded, in microseconds since 1970 (UTC).
        retried: the position at which its latest failed attempt ended; 0 if none did.
        pause: what its present pause says; None if it is not paused.
        answers: what somebody has answered, by pause.
        calls: its calls, in the order in which they were created.
        foreign: whether it is the history of another run, from which this one was forked.
        until: for a fork, the last position that counts.
    """

    id: bytes
    created: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    epoch: int = 0
    rules: RunState = field(default_factory=lambda: RunState(FLOW_RUN))
    cause: bytes | None = None
    last: Event | None = None
    running: dict[str, Any] | None = None
    running_at: int = 0
    retried: int = 0
    pause: dict[str, Any] | None = None
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: dict[bytes, RecordedCall] = field(default_factory=dict)
    foreign: bool = False
    until: int | None = None

    @property
    def text(self) -> str:
        """The run's id in its usual form."""
        return id_text(self.id)

    @property
    def name(self) -> str:
        """The run's name."""
        name: str = self.created["name"]
        return name

    def rules_with(self, policy: Policy) -> RunState:
        """Return what the transition rules need to know of it, with the retries that the code has now."""
        return RunState(FLOW_RUN, policy, self.rules.type, self.rules.attempt, self.rules.budget, self.rules.used)

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.rules.type in TERMINAL or (self.last is not None and self.last.type == f"{FLOW_RUN}.not_ready")

    @property
    def rolled_back(self) -> bool:
        """Whether it completed, and was undone with the transaction that it was called in."""
        return self.last is not None and self.last.type == f"{FLOW_RUN}.rolled_back"

    @property
    def suspended(self) -> bool:
        """Whether it waits for somebody, and no process has it meanwhile."""
        return self.pause is not None and self.pause.get("name") == "Suspended"

    def unfinished(self) -> list[RecordedCall]:
        """Return the calls that have begun and have not ended."""
        return [call for call in self.calls.values() if call.type not in TERMINAL and call.attempt]

    def unstarted(self) -> list[RecordedCall]:
        """Return the calls that have not begun, but for those that never will since what they rest on failed."""
        return [
            call for call in self.calls.values() if call.type not in TERMINAL and not (call.attempt or call.refused)
        ]


def read_history(log: Log, run: bytes, *, until: int | None = None) -> History:
    """Read a flow run back from its stream.

    Args:
        log: the log.
        run: the flow run's id, 16 bytes.
        until: the last position that counts; None for all.

    Raises:
        RunNotFound: there is no such run (or there was none at that position).
    """
    history = History(run, until=until)
    with no_collections():
        apply_all(history, log.read(flow_run_stream(id_text(run))), until)
    if not history.created:
        raise RunNotFound(
            f"There is no flow run {id_text(run)} in this log{'' if until is None else ' at that event'}."
        )
    return history


def apply_all(history: History, events: Iterable[Event], until: int | None) -> None:
    """Fold events of a flow run's stream into its history."""
    for event in events:
        if until is not None and event.position > until:
            return
        envelope = event.envelope
        history.version = envelope.version
        if envelope.epoch > history.epoch:
            history.epoch = envelope.epoch
        kind, _, suffix = envelope.type.partition(".")
        if suffix not in STATES:
            _apply_fact(history, event)
        elif kind == TASK_RUN:
            _apply_task(history, event, suffix)
        elif kind == FLOW_RUN:
            _apply_flow(history, event, suffix)


def _apply_fact(history: History, event: Event) -> None:
    """Take note of an event that is no change of a run's state, if it matters here."""
    if event.type == ANSWERED:
        history.answers[event.data["key"]] = event.data
    elif event.type == ANSWER_REFUSED:
        history.answers.pop(event.data["key"], None)
    elif event.type == TRANSACTION_COMMITTED:
        for key in event.data["task_run_ids"]:
            if (call := history.calls.get(key)) is not None:
                call.committed, call.hooks = True, 0
    elif event.type == HOOK_ENDED and event.data["state"] in _SETTLED:
        call = history.calls.get(event.data.get("task_run_id", b""))
        if call is not None:
            call.hooks += 1


def _apply_flow(history: History, event: Event, suffix: str) -> None:
    data = event.data
    if suffix == "created":
        history.created = data
        history.rules.policy = Policy(data.get("retries", 0))
    elif suffix == "running" or "pid" in data:
        history.running, history.running_at = data, event.recorded_at
    elif suffix == "awaiting_retry":
        history.retried = event.position
    history.pause = data if suffix == "paused" and "deadline" in data else None
    if (restart := data.get("restart")) is not None:
        _forget(history, restart)
    history.rules = evolve(history.rules, Fact(event.type, data))
    history.cause, history.last = event.id, event


def _apply_task(history: History, event: Event, suffix: str) -> None:
    data = event.data
    if suffix == "created":
        child = data.get("child_flow_run_id")
        history.calls[data["task_run_id"]] = RecordedCall(
            data["task_run_id"],
            data["name"],
            data["task"],
            data["key"] if child is None else FLOW + data["key"],
            event.position,
            len(history.calls),
            data.get("parent"),
            child,
            data.get("digest"),
            cause=event.id,
            replaces=data.get("replaces"),
            tags=frozenset(data.get("tags", ())),
        )
        return
    call = history.calls.get(data["task_run_id"])
    if call is None:
        return  # what a damaged or partial copy lacks cannot be matched; the call runs again
    call.type = STATES[suffix][0]
    call.cause = event.id
    call.state_name = data.get("name")
    call.rolled_back, call.refused = suffix == "rolled_back", suffix == "not_ready"
    if "tags" in data:
        call.tags = frozenset(data["tags"])
    if suffix == "rolled_back":
        call.hooks = 0
    if suffix == "running":
        call.forgotten = call.committed = False
        call.attempt = data.get("attempt", 1)
        call.digest = data.get("digest", call.digest)
    elif call.type in TERMINAL:
        call.ended = event.position
        call.digest = data.get("digest", call.digest)
        call.result, call.message, call.error = data.get("result"), data.get("message"), data.get("error")
        call.child = data.get("child_flow_run_id", call.child)
        call.partial = data.get("partial", False)


def forget_from(history: History, wanted: Callable[[RecordedCall], bool]) -> RecordedCall | None:
    """Have the first call that is wanted, and all that were created after it, run again; return that call."""
    first = next((call for call in history.calls.values() if wanted(call)), None)
    if first is not None:
        _forget(history, first.position)
    return first


def _forget(history: History, position: int) -> None:
    for call in history.calls.values():
        call.forgotten = call.forgotten or call.position >= position
