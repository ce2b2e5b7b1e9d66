"""The rules by which runs change state. Pure: a state and a command give facts; facts give the next state.

Flow runs and task runs, sync and async, obey the same rules. Nothing here waits, calls a clock or writes;
the engine records the facts, and only then acts on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from flightlog.events.types import FLOW_RUN, STATES, TASK_RUN, TERMINAL

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class Policy(NamedTuple):
    """How often a failed attempt may be tried again, and when.

    Attributes:
        retries: how often in all.
        delays: seconds to wait before each retry; the last one goes for all that follow.
        budgets: how often by the cause class of what went wrong; nothing if any cause counts against `retries`.
    """

    retries: int = 0
    delays: tuple[float, ...] = (0.0,)
    budgets: Mapping[str, int] = _NOTHING


ONCE: Final = Policy()
"""Not tried again."""


@dataclass(slots=True)
class RunState:
    """What the rules need to know of a run. Treat it as immutable.

    Attributes:
        kind: ``flow_run`` or ``task_run``.
        policy: how often a failed attempt may be tried again, and when.
        type: the type of the present state; empty before the run is created.
        attempt: how many attempts have begun.
        budget: how many attempts may begin in all.
        used: how many retries each cause class has taken, where there are budgets for them.
    """

    kind: str
    policy: Policy = ONCE
    type: str = ""
    attempt: int = 0
    budget: int = 1
    used: Mapping[str, int] = field(default_factory=lambda: _NOTHING)

    def will_retry(self, type_: str, cause: str | None) -> bool:
        """Tell whether another attempt follows if the present one ends so."""
        if self.type not in ("RUNNING", "PAUSED") or self.attempt >= self.budget:
            return False
        budgets = self.policy.budgets
        if not budgets:
            return type_ == "FAILED"
        return (type_ == "FAILED" or (type_ == "CRASHED" and cause in _FROM_OUTSIDE)) and (
            self.used.get(cause or "", 0) < budgets.get(cause or "", 0)
        )


class Fact(NamedTuple):
    """What is to be recorded: an event's type and payload."""

    type: str
    data: dict[str, Any]


@dataclass(slots=True)
class _Told:
    """A command that is told by `facts` alone. One class is made, and each such command is a name for it."""

    facts: dict[str, Any] = field(default_factory=dict)


class Create(_Told):
    """The run was asked for. `facts`: what is known of it."""

    __slots__ = ()


class Start(_Told):
    """The run is about to call its function. `facts`: what is known only now."""

    __slots__ = ()


@dataclass(slots=True)
class End:
    """The function ended, or will never be called.

    Attributes:
        type: the type of the state that the run ends in.
        facts: message, name, result, error, cause.
        now: the present, in microseconds since 1970 (UTC): retries are due from here on.
        retriable: whether another attempt could change anything.
        stretch: what the delay before the next attempt is multiplied with.
    """

    type: str
    facts: dict[str, Any]
    now: int = 0
    retriable: bool = True
    stretch: float = 1.0


class Refuse(_Told):
    """The run cannot start: what it rests on did not complete. `facts`: message."""

    __slots__ = ()


class Wait(_Told):
    """The run cannot start yet: it waits for what somebody else holds. `facts`: name and message."""

    __slots__ = ()


class Pause(_Told):
    """The run waits for somebody. `facts`: key, deadline, what is asked."""

    __slots__ = ()


class Continue(_Told):
    """A paused run goes on in the same attempt. `facts`: message."""

    __slots__ = ()


class Cancel(_Told):
    """A request to cancel has reached the run. `facts`: message."""

    __slots__ = ()


class RollBack(_Told):
    """The run had completed, in a transaction that failed. `facts`: message."""

    __slots__ = ()


class Rerun(_Told):
    """A run that ended is to run once more, with a fresh budget: its flow is retried or resumed. `facts`: message."""

    __slots__ = ()


Command = Create | Start | End | Refuse | Wait | Pause | Continue | Cancel | RollBack | Rerun

_SUFFIX: Final = {
    state: suffix
    for suffix, (state, name) in STATES.items()
    if name.upper() == state and suffix not in ("created", "resumed")
}
_REACHED: Final = {
    f"{kind}.{suffix}": (suffix, state) for kind in (FLOW_RUN, TASK_RUN) for suffix, (state, _) in STATES.items()
}
_STARTABLE: Final = frozenset({"PENDING", "SCHEDULED"})
_FROM_OUTSIDE: Final = frozenset({"lost_worker", "out_of_memory", "infrastructure"})


class InvalidTransition(AssertionError):
    """The engine asked for a transition that the rules do not know: a mistake of ours, not of a user."""


_PLAIN: Final[dict[type, tuple[frozenset[str], str]]] = {
    Refuse: (_STARTABLE, "not_ready"),
    Wait: (_STARTABLE, "pending"),
    Pause: (frozenset({"RUNNING"}), "paused"),
    Continue: (frozenset({"PAUSED"}), "resumed"),
    RollBack: (frozenset({"COMPLETED"}), "rolled_back"),
    Cancel: (frozenset({"PENDING", "SCHEDULED", "RUNNING", "PAUSED"}), "cancelling"),
}
"""Commands that only need to come at the right time: from which states, and what they lead to."""


def decide(run: RunState, command: Command) -> Fact:
    """Return the fact that a command leads to.

    Raises:
        InvalidTransition: the command cannot follow on that state.
    """
    match command:
        case Create(facts) if run.type == "":
            return Fact(f"{run.kind}.created", facts)
        case Start(facts) if run.type in _STARTABLE:
            return Fact(f"{run.kind}.running", {**facts, "attempt": run.attempt + 1} if run.attempt else facts)
        case End() if run.type not in TERMINAL and run.type != "":
            return _ended(run, command)
        case Rerun(facts) if run.type != "RUNNING":
            return Fact(f"{run.kind}.scheduled", {"name": "AwaitingRerun", **facts})
        case Refuse(facts) | Wait(facts) | Pause(facts) | Continue(facts) | Cancel(facts) | RollBack(facts):
            types, suffix = _PLAIN[type(command)]
            if run.type in types:
                return Fact(f"{run.kind}.{suffix}", facts)
    raise InvalidTransition(f"{command!r} cannot follow on {run!r}")


def _ended(run: RunState, end: End) -> Fact:
    """Return the fact that an attempt ended, and with it the run, unless another attempt follows."""
    facts = end.facts if run.attempt == 1 else {**end.facts, "attempt": run.attempt}
    if end.type == "COMPLETED" or not end.retriable or not run.will_retry(end.type, facts.get("cause")):
        return Fact(f"{run.kind}.{_SUFFIX[end.type]}", facts)
    delays = run.policy.delays
    retry = run.attempt - (run.budget - 1 - run.policy.retries)
    delay = end.stretch * delays[min(retry, len(delays)) - 1] if delays else 0.0
    # The attempt may have timed out; the run, though, awaits its retry.
    facts = {name: value for name, value in facts.items() if name != "name"}
    return Fact(f"{run.kind}.awaiting_retry", {**facts, "scheduled": end.now + round(delay * 1e6)})


def evolve(run: RunState, fact: Fact) -> RunState:
    """Return the state of a run after a fact."""
    suffix, type_ = _REACHED[fact.type]
    attempt, budget, used = run.attempt, run.budget, run.used
    if suffix == "created":
        budget = 1 + run.policy.retries
    elif suffix == "running":
        attempt += 1
    elif suffix == "scheduled":
        budget, used = attempt + 1 + run.policy.retries, _NOTHING
    elif suffix == "awaiting_retry" and (cause := fact.data.get("cause")) is not None:
        used = {**used, cause: used.get(cause, 0) + 1}
    return RunState(run.kind, run.policy, type_, attempt, budget, used)
