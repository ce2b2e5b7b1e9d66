"""States: what a run is in, and what its value is once it has ended."""

from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import itemgetter
from typing import Any, Generic, TypeVar, overload
from uuid import UUID

from flightlog.clock import SystemClock, to_datetime
from flightlog.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PausedRun,
    UnfinishedRun,
    UnsuccessfulRun,
)
from flightlog.events.narration import state_text
from flightlog.ids import RandomIds, id_text
from flightlog.later import running_loop

R = TypeVar("R")
_CLOCK = SystemClock()


class StateType(StrEnum):
    """The types of states. A state's name says more; its type says what the rules make of it."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


DEFAULT_NAMES = {type_: type_.value.capitalize() for type_ in StateType}
"""What a state is called unless somebody gives it another name."""
_FINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})
_NO_VALUE: dict[StateType, type[UnsuccessfulRun]] = {
    StateType.FAILED: FailedRun,
    StateType.CRASHED: CrashedRun,
    StateType.CANCELLED: CancelledRun,
}


class _Missing:
    """Stands for a value that is not held in memory."""

    def __repr__(self) -> str:
        return "<not in memory>"


MISSING = _Missing()


class StateDetails:
    """Which run a state belongs to, and when it is due.

    Attributes:
        flow_run_id: the flow run, or None for a state made by hand.
        task_run_id: the task run, or None.
        child_flow_run_id: the flow run that the task run stands for, or None.
        scheduled_time: when a SCHEDULED state is due (aware, UTC), or None.
        pause_timeout: until when a PAUSED state may be answered (aware, UTC), or None.
        pause_key: what tells the pause from others of the run, or None.
        pause_reschedule: whether the run holds no process while it is paused.
    """

    __slots__ = (
        "child_flow_run_id",
        "flow_run_id",
        "pause_key",
        "pause_reschedule",
        "pause_timeout",
        "scheduled_time",
        "task_run_id",
    )

    def __init__(
        self,
        flow_run_id: str | None = None,
        task_run_id: str | None = None,
        child_flow_run_id: str | None = None,
        scheduled_time: datetime | None = None,
        pause_timeout: datetime | None = None,
        pause_key: str | None = None,
        pause_reschedule: bool = False,
    ) -> None:
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.child_flow_run_id = child_flow_run_id
        self.scheduled_time = scheduled_time
        self.pause_timeout = pause_timeout
        self.pause_key = pause_key
        self.pause_reschedule = pause_reschedule

    def __repr__(self) -> str:
        given = {name: value for name in self.__slots__ if (value := getattr(self, name)) not in (None, False)}
        return f"StateDetails({', '.join(f'{name}={value!r}' for name, value in given.items())})"


class State(Generic[R]):
    """The state of a run.

    Args:
        type: the state's type.
        name: its name; the type's by default (``Completed``).
        message: what it says of itself.
        data: the run's value; the exception of a run that failed.
        state_details: which run it belongs to.
        timestamp: when it was entered; now by default.
        states: the states that decided this one, where it was decided by the runs inside.
    """

    __slots__ = ("_details", "_id", "_run", "_timestamp", "data", "load", "message", "name", "states", "type")

    def __init__(
        self,
        type: StateType | str,  # noqa: A002 - the name that users know
        name: str | None = None,
        message: str | None = None,
        data: Any = None,
        state_details: StateDetails | None = None,
        timestamp: datetime | None = None,
        states: Sequence["State[Any]"] = (),
    ) -> None:
        self.type = type if isinstance(type, StateType) else StateType(type)
        self.name = name or DEFAULT_NAMES[self.type]
        self.message = message
        self.data = data
        self.states = states
        self.load: Callable[[], Any] | None = None
        # Made when they are asked for: of most states they never are.
        self._details = state_details
        self._run: tuple[str, bytes | None, str | None] | None = None
        self._id: UUID | None = None
        if self.type is StateType.SCHEDULED and self.state_details.scheduled_time is None:
            self.state_details.scheduled_time = datetime.now(UTC)
        self._timestamp: datetime | int = _CLOCK.now() if timestamp is None else timestamp

    @property
    def state_details(self) -> StateDetails:
        """Which run it belongs to."""
        if self._details is None:
            self._details = StateDetails()
        if self._run is not None:
            (flow_run_id, task_run_id, child_flow_run_id), self._run = self._run, None
            self._details = copy(self._details)  # the same may have been given to other states
            self._details.flow_run_id, self._details.child_flow_run_id = flow_run_id, child_flow_run_id
            self._details.task_run_id = None if task_run_id is None else id_text(task_run_id)
        return self._details

    @state_details.setter
    def state_details(self, details: StateDetails) -> None:
        self._details, self._run = details, None

    def of_run(
        self, flow_run_id: str, task_run_id: bytes | None = None, child_flow_run_id: str | None = None
    ) -> "State[R]":
        """Note which run it belongs to, and return it."""
        self._run = (flow_run_id, task_run_id, child_flow_run_id)
        return self

    @property
    def id(self) -> UUID:
        """The state's own id."""
        if self._id is None:
            self._id = UUID(bytes=RandomIds().new())
        return self._id

    @property
    def timestamp(self) -> datetime:
        """When the state was entered, in UTC."""
        if isinstance(self._timestamp, int):
            self._timestamp = to_datetime(self._timestamp)
        return self._timestamp

    def is_scheduled(self) -> bool:
        """Tell whether the run waits for its time."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Tell whether the run is about to start, or cannot."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Tell whether the run is under way."""
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        """Tell whether the run ended well."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Tell whether the run failed (or timed out)."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Tell whether the run was ended from outside its code."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Tell whether the run was cancelled."""
        return self.type is StateType.CANCELLED

    def is_cancelling(self) -> bool:
        """Tell whether the run is being cancelled."""
        return self.type is StateType.CANCELLING

    def is_paused(self) -> bool:
        """Tell whether the run is paused."""
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Tell whether the run has ended."""
        return self.type in _FINAL

    @overload
    def result(self, raise_on_failure: bool = True, fetch: None = None) -> R: ...
    @overload
    def result(self, raise_on_failure: bool = True, *, fetch: bool) -> Any: ...

    def result(self, raise_on_failure: bool = True, fetch: bool | None = None) -> Any:
        """Return the run's value.

        Args:
            raise_on_failure: whether to raise the exception of a run that did not end well; else return it.
            fetch: True in async code for an awaitable of the value, as async code of Prefect 2 asks for it.

        Raises:
            Exception: the run's own, if it failed, crashed or was cancelled.
            FailedRun, CrashedRun, CancelledRun: it did so without an exception.
            UnfinishedRun, PausedRun: it has not ended.
            MissingResult: it completed, but its value is neither held nor recorded, or is gone.
            CorruptResult: its value is not what was recorded.
        """
        if fetch and running_loop() is not None:
            return self.aresult(raise_on_failure)
        if self.type is StateType.COMPLETED:
            if self.data is MISSING:
                if self.load is not None:
                    return self.load()
                raise MissingResult(f"The value of the state {self} is not held in memory, and was not recorded.")
            return self.data
        if self.type not in _FINAL:
            if self.is_paused():  # whose message is for people, and has several lines
                raise PausedRun(f"The run is {self.name}, so it has no value yet. {self.message or ''}".rstrip())
            raise UnfinishedRun(f"The run is in state {self}, so it has no value yet.")
        failure = self._failure()
        if raise_on_failure:
            raise failure
        return failure if self.data is None else self.data

    async def aresult(self, raise_on_failure: bool = True) -> R:
        """Return what `result` does, for async code of Prefect 3."""
        return self.result(raise_on_failure)

    def _failure(self) -> BaseException:
        if isinstance(self.data, BaseException):
            return self.data
        inner = self.states
        if isinstance(self.data, State):
            inner = [self.data]
        elif isinstance(self.data, (list, tuple, set)) and all(isinstance(item, State) for item in self.data):
            inner = list(self.data)
        for state in inner:
            if state.type in _NO_VALUE:
                return state._failure()
        if inner and not isinstance(self.data, str):
            return _NO_VALUE[self.type](self.message or str(self))
        text = self.data if isinstance(self.data, str) else self.message
        return _NO_VALUE[self.type](text or f"The run ended in state {self}.")

    def __str__(self) -> str:
        return state_text(self.type.value, self.name, self.message)

    def __repr__(self) -> str:
        return f"{self.name}(message={self.message!r}, type={self.type.value}, result={self.data!r})"


def _state(type_: StateType, name: str | None = None) -> Any:
    def make(
        *,
        message: str | None = None,
        name: str | None = name,
        data: Any = None,
        state_details: StateDetails | None = None,
    ) -> State[Any]:
        return State(type_, name, message, data, state_details)

    make.__name__ = make.__qualname__ = name or type_.value.capitalize()
    make.__doc__ = f"Return a state of type {type_.value}."
    return make


Pending = _state(StateType.PENDING)
Running = _state(StateType.RUNNING)
Completed = _state(StateType.COMPLETED)
Failed = _state(StateType.FAILED)
Crashed = _state(StateType.CRASHED)
Cancelled = _state(StateType.CANCELLED)
Cancelling = _state(StateType.CANCELLING)
Retrying = _state(StateType.RUNNING, "Retrying")


def Scheduled(  # noqa: N802 - named as the states are
    scheduled_time: datetime | None = None, *, name: str = "Scheduled", message: str | None = None
) -> State[Any]:
    """Return a state of type SCHEDULED, due at `scheduled_time` (now by default). A time without a zone is local."""
    due = (scheduled_time or datetime.now(UTC)).astimezone(UTC)
    return State(StateType.SCHEDULED, name, message, None, StateDetails(scheduled_time=due))


def AwaitingRetry(  # noqa: N802 - named as the states are
    scheduled_time: datetime | None = None, *, message: str | None = None
) -> State[Any]:
    """Return the state of a run that will be tried again at `scheduled_time`."""
    return Scheduled(scheduled_time, name="AwaitingRetry", message=message)


def Paused(  # noqa: N802 - named as the states are
    *,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    reschedule: bool = False,
    pause_key: str | None = None,
    message: str | None = None,
) -> State[Any]:
    """Return the state of a run that waits for somebody.

    Args:
        timeout_seconds: how long it waits.
        pause_expiration_time: until when it waits. A time without a zone is local.
        reschedule: whether it holds no process meanwhile.
        pause_key: what tells this pause from others of the run.
        message: what the state says of itself.

    Raises:
        ValueError: both times are given.
    """
    until = None if pause_expiration_time is None else pause_expiration_time.astimezone(UTC)
    if timeout_seconds is not None:
        if until is not None:
            raise ValueError("Give `timeout_seconds` or `pause_expiration_time`, not both.")
        until = datetime.now(UTC) + timedelta(seconds=timeout_seconds)
    details = StateDetails(pause_timeout=until, pause_key=pause_key, pause_reschedule=reschedule)
    return State(StateType.PAUSED, None, message, None, details)


def Late(  # noqa: N802 - named as the states are
    scheduled_time: datetime | None = None, *, message: str | None = None
) -> State[Any]:
    """Return the state of a run that is overdue."""
    return Scheduled(scheduled_time, name="Late", message=message)


def Suspended(  # noqa: N802 - named as the states are
    *,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    pause_key: str | None = None,
    message: str | None = None,
) -> State[Any]:
    """Return the state of a run that waits for somebody, and holds no process meanwhile. See `Paused`."""
    state = Paused(
        timeout_seconds=timeout_seconds,
        pause_expiration_time=pause_expiration_time,
        reschedule=True,
        pause_key=pause_key,
        message=message,
    )
    state.name = "Suspended"
    return state


class Tally:
    """Counts the states that decide on a flow's own, and keeps the latest of them.

    Args:
        keep: how many completed states are kept, so that memory stays flat; all others are kept.
    """

    def __init__(self, keep: int = 10_000) -> None:
        self._completed: deque[tuple[int, State[Any]]] = deque(maxlen=keep)
        self._others: list[tuple[int, State[Any]]] = []
        self._counts: dict[StateType, int] = {}
        self._total = 0

    def add(self, state: State[Any], number: int = 0) -> None:
        """Count a state in; `number` gives its place among the kept ones."""
        self._counts[state.type] = self._counts.get(state.type, 0) + 1
        self._total += 1
        (self._completed if state.type is StateType.COMPLETED else self._others).append((number, state))

    @property
    def states(self) -> list[State[Any]]:
        """The states that are kept, by their numbers."""
        return [state for _, state in sorted([*self._completed, *self._others], key=itemgetter(0))]

    def __bool__(self) -> bool:
        return self._total > 0

    def count(self, *types: StateType) -> int:
        """Return how many states had one of these types."""
        return sum(self._counts.get(type_, 0) for type_ in types)

    def aggregate(self) -> State[Any]:
        """Return the one state that the counted ones amount to, with them on it."""
        total = self._total
        final = self.count(*_FINAL)
        failed = self.count(StateType.FAILED, StateType.CRASHED)
        if self.count(StateType.COMPLETED) == total:
            return State(StateType.COMPLETED, message="All states completed.", states=self.states)
        if cancelled := self.count(StateType.CANCELLED):
            return State(StateType.CANCELLED, message=f"{cancelled}/{total} states cancelled.", states=self.states)
        if paused := self.count(StateType.PAUSED):
            return State(StateType.PAUSED, message=f"{paused}/{total} states paused.", states=self.states)
        if failed:
            message = f"{failed}/{total} states failed."
        elif final < total:
            message = f"{total - final}/{total} states are not final."
        else:
            message = f"Given states: {', '.join(f'{n} {t.value}' for t, n in self._counts.items())}"
        return State(StateType.FAILED, message=message, states=self.states)
