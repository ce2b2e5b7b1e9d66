"""A run on its way: its identity, its state by the rules, and the events it leaves in the log."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flightlog.engine.transitions import Command, Policy, RunState, decide, evolve
from flightlog.errors import TakenOver
from flightlog.events.model import Append, NewEvent
from flightlog.events.store import Unit
from flightlog.events.subjects import NOBODY, Subjects, guarded
from flightlog.events.types import FLOW_RUN, TASK_RUN, TERMINAL, flow_run_stream
from flightlog.ids import id_text, parse_id

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine


class Journal:
    """The one way in which a flow run and its task runs reach the log.

    Args:
        engine: gives log, clock and ids.
        flow_run_id: the flow run, 16 bytes.
        epoch: the owner's epoch; a late write under an old one is refused.

    Attributes:
        closed: whether nothing is taken any more, because what goes on is to leave no further trace.
    """

    __slots__ = ("closed", "engine", "epoch", "flow_run_id", "flow_run_name", "stream")

    def __init__(self, engine: "Engine", flow_run_id: bytes, flow_run_name: str, epoch: int = 1) -> None:
        self.engine = engine
        self.flow_run_id = id_text(flow_run_id)
        self.flow_run_name = flow_run_name
        self.stream = flow_run_stream(self.flow_run_id)
        self.epoch = epoch
        self.closed = False

    def append(self, events: Sequence[NewEvent], blobs: Mapping[bytes, bytes] = {}) -> Append:
        """Return an append of events to the flow run's stream.

        Raises:
            TakenOver: the journal is closed.
        """
        if self.closed:
            raise self._refusal()
        return Append(self.stream, events, None, self.epoch, blobs)

    def put(self, events: Sequence[NewEvent], blobs: Mapping[bytes, bytes] = {}) -> Unit:
        """Put events in line for the next commit.

        Raises:
            TakenOver: the journal is closed.
        """
        if self.closed:
            raise self._refusal()
        return self.engine.log.enqueue([Append(self.stream, events, None, self.epoch, blobs)])

    def _refusal(self) -> TakenOver:
        return TakenOver(self.stream, self.epoch, self.epoch + 1)

    def following(self) -> "Journal":
        """Return the journal of the run's next epoch."""
        return Journal(self.engine, parse_id(self.flow_run_id), self.flow_run_name, self.epoch + 1)


class Run:
    """What flow runs and task runs have in common.

    Attributes:
        subjects: those whose personal values its code may know: what it leaves in the log is encrypted for them.
    """

    __slots__ = ("_rules", "cause", "journal", "key", "name", "subjects")
    kind = ""

    def __init__(self, journal: Journal, key: bytes, name: str, *, policy: Policy, cause: bytes | None) -> None:
        self.journal = journal
        self.key = key
        self.name = name
        self.cause = cause
        self.subjects: Subjects = NOBODY
        self._rules = RunState(self.kind, policy)

    @property
    def id(self) -> str:
        """The run's id in its usual form."""
        return id_text(self.key)

    @property
    def flow_run_id(self) -> str:
        """The id of the flow run that it is or belongs to."""
        return self.journal.flow_run_id

    @property
    def policy(self) -> Policy:
        """How often a failed attempt is tried again, and when."""
        return self._rules.policy

    @property
    def personal(self) -> bool:
        """Whether its code may know personal values."""
        return bool(self.subjects)

    @property
    def run_count(self) -> int:
        """How many attempts have begun."""
        return self._rules.attempt

    @property
    def is_cancelling(self) -> bool:
        """Whether a request to cancel it is on record."""
        return self._rules.type == "CANCELLING"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self._rules.type in TERMINAL

    def will_retry(self, type_: str, cause: str | None) -> bool:
        """Tell whether another attempt follows if the present one ends so."""
        return self._rules.will_retry(type_, cause)

    def restore(self, rules: RunState) -> None:
        """Take the state that is recorded of the run."""
        self._rules = rules

    def record(self, command: Command, actor: str = "engine") -> NewEvent:
        """Decide on a command, take the run on, and return the event that says so, still to be appended.

        Append it at once, and only then `tell` it: an interrupt may strike while the console is written.
        """
        fact = decide(self._rules, command)
        self._rules = evolve(self._rules, fact)
        engine = self.journal.engine
        data = fact.data if self.kind == FLOW_RUN else {"task_run_id": self.key, **fact.data}
        if self.subjects:
            data = guarded(engine.vault, data, self.subjects)
        event = NewEvent(engine.ids.new(), fact.type, data, engine.clock.now(), self.cause, actor=actor)
        self.cause = event.id
        return event

    def tell(self, event: NewEvent) -> None:
        """Show on the console what an event of this run says."""
        self.journal.engine.tell(self, event)

    if not TYPE_CHECKING:  # a type checker is to find wrong names by itself

        def __getattr__(self, name: str) -> Any:
            own = (
                "id",
                "name",
                "run_count",
                "flow_run_id",
                *(slot for slot in type(self).__slots__ if slot != "number"),
            )
            raise AttributeError(f"A {type(self).__name__} has no {name!r}; it has {', '.join(own)}.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.id}>"


class FlowRun(Run):
    """A run of a flow.

    Attributes:
        parameters: what the function is given, by name.
        tags: its tags.
    """

    __slots__ = ("parameters", "tags")
    kind = FLOW_RUN
    parameters: Mapping[str, Any]
    tags: frozenset[str]


class TaskRun(Run):
    """A run of a task.

    Attributes:
        task_name: the task's name.
        number: its place among the runs that its flow run made.
        tags: its tags.
    """

    __slots__ = ("number", "tags", "task_name")
    kind = TASK_RUN

    def __init__(
        self,
        journal: Journal,
        key: bytes,
        name: str,
        *,
        task_name: str,
        number: int,
        policy: Policy,
        cause: bytes | None,
    ) -> None:
        super().__init__(journal, key, name, policy=policy, cause=cause)
        self.task_name = task_name
        self.number = number
        self.tags: frozenset[str] = frozenset()
