"""What a transaction consists of: task runs that have completed, and how one of them is committed or rolled back.

That is put on record first, and then its hooks are called. Those that a crash keeps from being called are called when
the run is gone on with.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from flightlog.engine.bridge import SYNC, run_sync
from flightlog.engine.transitions import RollBack
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import CACHE_DROPPED, CACHE_STORED

if TYPE_CHECKING:
    from flightlog.engine.context import TaskRunContext
    from flightlog.engine.runs import FlowRun
    from flightlog.engine.states import State
    from flightlog.engine.transactions import Transaction

_ENTERED: Final = {"on_commit": "Committed", "on_rollback": "RolledBack"}
"""What a task run has become when its hooks of a kind are called."""


class Part(ABC):
    """A part of a transaction; it is committed or rolled back once."""

    def __init__(self) -> None:
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Tell, once, that nobody has committed it or rolled it back."""
        return self._claim.acquire(blocking=False)

    @property
    def place(self) -> "tuple[FlowRun, bytes] | None":
        """Where it is to be put on record that it is committed: its flow run, and the task run's id, 16 bytes."""
        return None

    def parts(self) -> "Sequence[Part]":
        """Return what it consists of itself."""
        return (self,)

    @abstractmethod
    def commit(self, transaction: "Transaction") -> None:
        """Call the hooks for its having been committed."""

    @abstractmethod
    def roll_back(self, transaction: "Transaction") -> None:
        """Put on record that it is rolled back, and then undo it."""


class TaskPart(Part):
    """A task run that has completed.

    Args:
        context: the task run's.
        state: what it ended in.
        cache_stream: the stream of the cache key that has its value, if one has.
    """

    def __init__(self, context: "TaskRunContext", state: "State[Any]", cache_stream: str | None = None) -> None:
        super().__init__()
        self._context = context
        self._state = state
        self._cache_stream = cache_stream

    @property
    def place(self) -> "tuple[FlowRun, bytes] | None":
        """Its flow run, and its id."""
        return self._context.flow_context.flow_run, self._context.task_run.key

    def commit(self, transaction: "Transaction") -> None:
        """Call the hooks for its having been committed."""
        self._call("on_commit", transaction)

    def roll_back(self, transaction: "Transaction") -> None:
        """Put on record that it is rolled back, and then undo it."""
        run, journal = self._context.task_run, self._context.flow_context.flow_run.journal
        engine, run.journal = journal.engine, journal
        event = run.record(RollBack())
        appends = [journal.append([event])]
        if (stream := self._cached_in()) is not None:  # what was undone must not be had from the cache
            dropped = NewEvent(engine.ids.new(), CACHE_DROPPED, {"task_run_id": run.key}, engine.clock.now(), event.id)
            appends.append(Append(stream, [dropped]))
        engine.log.append_all(appends)
        self._state.name = "RolledBack"
        run.tell(event)
        self._call("on_rollback", transaction)

    def _cached_in(self) -> str | None:
        return self._cache_stream

    def _call(self, kind: str, transaction: "Transaction | None", called: int = 0) -> None:
        """Call the hooks of a kind, but for the first ones that were called earlier."""
        from flightlog.engine.hooks import call_settling_hooks

        context, arguments = self._context, {"transaction": transaction}
        context.task_run.journal = context.flow_context.flow_run.journal
        hooks = list(context.task.hooks.get(kind, ()))[called:]
        run_sync(call_settling_hooks(SYNC, context, hooks, _ENTERED[kind], arguments))


class RecalledTask(TaskPart):
    """A task run that completed before the run was gone on with.

    Args:
        context: the task run's.
        state: what it ended in.
        position: where in the log its creation stands.
    """

    def __init__(self, context: "TaskRunContext", state: "State[Any]", position: int) -> None:
        super().__init__(context, state)
        self._position = position

    def _cached_in(self) -> str | None:
        """Return the stream of the cache key that has its value: as it was then, whatever its key would be now."""
        run, found = self._context.task_run, None
        if self._context.task.cache_policy is not None:
            for event in run.journal.engine.log.read_all(self._position, [CACHE_STORED]):
                found = event.stream if event.data["task_run_id"] == run.key else found
        return found


class SettledTask(TaskPart):
    """A task run that was committed or rolled back before a crash, which kept some of its hooks from being called.

    Args:
        context: the task run's.
        state: what it ended in.
        called: how many of its hooks were called.
    """

    def __init__(self, context: "TaskRunContext", state: "State[Any]", called: int) -> None:
        super().__init__(context, state)
        self._called = called

    @property
    def place(self) -> None:
        """It is on record already."""
        return

    def commit(self, transaction: "Transaction") -> None:
        """Call the other hooks for its having been committed."""
        self._call("on_commit", transaction, self._called)

    roll_back = commit  # whatever becomes of the block this time

    def undo(self, transaction: "Transaction | None") -> None:
        """Call the other hooks for its having been rolled back."""
        self._call("on_rollback", transaction, self._called)


__all__ = ["Part", "RecalledTask", "SettledTask", "TaskPart"]
