"""Flows as parts of transactions: a flow that completed in one is undone with all that it did, or stays with it.

The tasks that a flow calls are parts by themselves. That it was rolled back is put on record of the flow as well: its
value counts no more, and it is gone through again when the run that called it is gone on with.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flightlog.engine.calls import Call, Past
from flightlog.engine.context import FlowRunContext, TaskRunContext
from flightlog.engine.definitions import known
from flightlog.engine.flow_calls import FlowCall, Progress, create
from flightlog.engine.history import FLOW, RecordedCall, read_history
from flightlog.engine.recall import recorded_run
from flightlog.engine.run_logs import get_run_logger
from flightlog.engine.states import State, StateType
from flightlog.engine.transaction_parts import Part, RecalledTask, SettledTask
from flightlog.engine.transactions import TRANSACTION

if TYPE_CHECKING:
    from flightlog.engine.runs import FlowRun, TaskRun
    from flightlog.engine.transactions import Transaction


class FlowPart(Part):
    """A flow run that has completed; the tasks that it called are parts of their own, before it.

    Args:
        progress: the flow run.
        state: what it ended in.
    """

    def __init__(self, progress: Progress, state: State[Any]) -> None:
        super().__init__()
        self._progress = progress
        self._state = state

    @property
    def place(self) -> "tuple[FlowRun, bytes] | None":
        """The flow run that it was called in, and the task run that stands for it there; None for an outermost one."""
        parent, mirror = self._progress.context.parent, self._progress.mirror
        return None if parent is None or mirror is None else (parent.flow_context.flow_run, mirror.key)

    def commit(self, transaction: "Transaction") -> None:
        """Flows have no hooks for that."""

    def roll_back(self, transaction: "Transaction") -> None:
        """Put on record that it is rolled back."""
        self._progress.roll_back()
        self._state.name = "RolledBack"


class RecalledFlow(Part):
    """A subflow that ended before the run was gone on with: what it consists of, only the log knows.

    Args:
        call: the call that is answered from what is on record.
        mirror: the task run that stands for it.
        state: what it ended in.
        recorded: what is on record of it.
    """

    def __init__(self, call: FlowCall, mirror: "TaskRun", state: State[Any], recorded: RecordedCall) -> None:
        super().__init__()
        self._call = call
        self._mirror = mirror
        self._state = state
        self._recorded = recorded

    def parts(self) -> Sequence[Part]:
        """Return the task runs that it consists of and, unless it failed or is committed, itself; once."""
        child = self._recorded.child
        if child is None or not self.claim():
            return ()
        history = read_history(self._call.engine.log, child)
        call = replace(self._call, past=Past(history, strict=False), mirror=self._mirror)
        progress = create(call, call.parameters)
        found: list[Part] = []
        for recorded in sorted(history.calls.values(), key=lambda one: one.ended):
            if recorded.completed and recorded.state_name != "Cached":
                found += _parts(progress.context, recorded)
        if self._state.is_completed() and not self._recorded.committed:
            found.append(FlowPart(progress, self._state))
        return found

    def commit(self, transaction: "Transaction") -> None:
        """Its parts are committed."""

    def roll_back(self, transaction: "Transaction") -> None:
        """Its parts are rolled back."""


def _parts(flow: FlowRunContext, recorded: RecordedCall) -> Sequence[Part]:
    """Return what a call of a recorded subflow is to the transaction that the subflow was called in."""
    definition: Any = known(recorded.function.removeprefix(FLOW), recorded.task)
    if definition is None:
        get_run_logger(flow).error(
            "The transaction cannot call the hooks of %r: there is no %r in this process.", recorded.name, recorded.task
        )
        return ()
    run = recorded_run(flow.flow_run.journal, recorded)
    state: State[Any] = State(StateType.COMPLETED, recorded.state_name).of_run(run.flow_run_id, run.key)
    if recorded.child is not None:
        call = FlowCall(definition, flow.engine, flow, {}, None)
        return RecalledFlow(call, run, state, recorded).parts()
    context = TaskRunContext(flow, definition, run, {}, log_prints=flow.log_prints)
    if not recorded.committed:
        return (RecalledTask(context, state, recorded.position),)
    return (SettledTask(context, state, recorded.hooks),)


def join(progress: Progress, state: State[Any]) -> None:
    """Make a flow run that has ended a part of the transaction that it was called in, if it was and has completed."""
    transaction = TRANSACTION.get()
    if transaction is not None and state.is_completed():
        progress.part = FlowPart(progress, state)
        transaction.add(progress.part)


def rejoin(call: FlowCall, earlier: Call) -> Part | None:
    """Make a subflow that is answered from what is on record a part of its transaction again, and return that."""
    transaction, part, recorded = TRANSACTION.get(), earlier.part, earlier.recorded
    if transaction is None:
        return part
    if part is None and recorded is not None and earlier.run is not None and earlier.state is not None:
        part = None if earlier.state.name == "Cached" else RecalledFlow(call, earlier.run, earlier.state, recorded)
    if part is not None:
        transaction.add(part)
    return part


__all__ = ["join", "rejoin"]
