"""Transactions: tasks that count only together. If one fails, those that had completed are rolled back, the last first.

``with transaction():`` around calls of tasks makes each of them a part of it. What undoes a part is the task's own
knowledge: ``@task.on_rollback``. A part that was rolled back ends as RolledBack; it runs again when its run is resumed.

A call that is answered from what the run has on record is a part again, unless it has been committed: so a transaction
that was cut short by a crash is whole when its run is resumed. A value from the cache, or from the run that this one
was forked from, is no part: it belongs to whoever computed it.

That parts are committed, or rolled back, is put on record first; then their hooks are called.
"""

import copy
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from flightlog.engine.context import CURRENT, RunContext, current, is_within
from flightlog.engine.emitting import put_on_record
from flightlog.engine.runtime import current_engine
from flightlog.engine.transaction_parts import Part
from flightlog.errors import CallsDiffer, RunSuspended, TakenOver
from flightlog.events.model import NewEvent
from flightlog.events.types import TRANSACTION_COMMITTED, transaction_stream

if TYPE_CHECKING:
    from flightlog.engine.runs import FlowRun

_MISSING: Final = object()


class TransactionState(StrEnum):
    """How far a transaction has come."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


class CommitMode(StrEnum):
    """When a transaction commits."""

    EAGER = "EAGER"
    """At the end of its block."""
    LAZY = "LAZY"
    """With the transaction around it; at the end of its block if there is none."""
    OFF = "OFF"
    """Only when it is told to: by `commit`."""


class Transaction:
    """A transaction; made by `transaction`.

    Attributes:
        key: what it is known by once it has committed; None for nothing.
        commit_mode: when it commits.
        state: how far it has come.
        parent: the transaction around it, or None.
        context: the run that its block is in, or None.
    """

    def __init__(self, key: str | None, commit_mode: CommitMode, parent: "Transaction | None") -> None:
        self.key = key
        self.commit_mode = commit_mode
        self.state = TransactionState.PENDING
        self.parent = parent
        self.context = CURRENT.get()
        self._values: dict[str, Any] = {}
        self._parts: list[Part | Transaction] = []
        self._lock = threading.Lock()

    def set(self, name: str, value: Any) -> None:
        """Keep a copy of a value for the parts of the transaction, and for their hooks."""
        self._values[name] = copy.deepcopy(value)

    def get(self, name: str, default: Any = _MISSING) -> Any:
        """Return a copy of a value that was set here, or in a transaction around.

        Raises:
            ValueError: there is none of that name, and no default.
        """
        if name in self._values:
            return copy.deepcopy(self._values[name])
        if self.parent is not None:
            return self.parent.get(name, default)
        if default is _MISSING:
            raise ValueError(f"The transaction has no value {name!r}.")
        return default

    def is_active(self) -> bool:
        """Tell whether its block is going on."""
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        """Tell whether its block has ended well, and it waits for the transaction around it."""
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        """Tell whether it has committed; one with a key, perhaps in an earlier run: then the block can be skipped."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        """Tell whether it was rolled back."""
        return self.state is TransactionState.ROLLED_BACK

    def add(self, member: "Part | Transaction") -> None:
        """Take in a part, or a transaction inside; one that ends when this one is settled already, follows it."""
        with self._lock:
            if not self._is_settled():
                self._parts.append(member)
                return
        if isinstance(member, Transaction):
            member._settle(self.state)
        else:
            _settle([(self, part) for part in member.parts()], self.state)

    def commit(self) -> bool:
        """Commit all parts, in the order in which they came; tell whether that had to be done."""
        return self._settle(TransactionState.COMMITTED)

    def roll_back(self) -> bool:
        """Undo all parts, the last first; tell whether that had to be done."""
        return self._settle(TransactionState.ROLLED_BACK)

    rollback = roll_back

    def _is_settled(self) -> bool:
        return self.state in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)

    def _settle(self, state: TransactionState) -> bool:
        closed: list[Transaction] = []
        parts = self._close(state, closed)
        _settle(parts, state)
        for transaction in closed:
            if transaction.key is not None and state is TransactionState.COMMITTED:
                stream = transaction_stream(_digest(transaction.key))
                put_on_record(stream, TRANSACTION_COMMITTED, {"key": transaction.key})
        return bool(closed)

    def _close(self, state: TransactionState, closed: "list[Transaction]") -> "list[tuple[Transaction, Part]]":
        """Enter a final state, with all that was staged here; return the parts in order, each with its transaction."""
        with self._lock:
            if self._is_settled():
                return []
            self.state = state
        closed.append(self)
        found: list[tuple[Transaction, Part]] = []
        for member in self._parts:
            if isinstance(member, Transaction):
                found += member._close(state, closed)
            else:
                found += [(self, part) for part in member.parts()]
        return found

    def stage(self) -> None:
        """Wait for the transaction around this one."""
        self.state = TransactionState.STAGED
        if self.parent is not None:
            self.parent.add(self)

    def __repr__(self) -> str:
        return f"<Transaction {self.key or ''} {self.state.value}>"


def _settle(parts: list[tuple[Transaction, Part]], state: TransactionState) -> None:
    """Commit or roll back those of some parts that are neither yet."""
    if state is TransactionState.ROLLED_BACK:
        for transaction, part in reversed(parts):
            if part.claim():
                part.roll_back(transaction)
        return
    committed = [(transaction, part) for transaction, part in parts if part.claim()]
    _put_committed([part for _, part in committed])
    for transaction, part in committed:
        part.commit(transaction)


def _put_committed(parts: list[Part]) -> None:
    """Put on record which task runs are committed: should their flow run be gone on with, they stay so.

    Raises:
        TakenOver: somebody else has gone on with it; what becomes of them is his to decide.
    """
    by_run: dict[bytes, tuple[FlowRun, list[bytes]]] = {}
    for part in parts:
        if (place := part.place) is not None:
            by_run.setdefault(place[0].key, (place[0], []))[1].append(place[1])
    appends = []
    for run, keys in by_run.values():
        engine = run.journal.engine
        told = {"task_run_ids": keys}
        event = NewEvent(engine.ids.new(), TRANSACTION_COMMITTED, told, engine.clock.now(), run.cause)
        appends.append(run.journal.append([event]))
    if appends:
        engine.log.append_all(appends)


def roll_back_left(context: RunContext) -> None:
    """Roll back the transactions whose blocks go on in the code of a run that has ended: nobody waits for them."""
    for made in reversed(list(_OPEN)):
        if is_within(made.context, context):
            made.roll_back()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


TRANSACTION: ContextVar[Transaction | None] = ContextVar("flightlog_transaction", default=None)
_OPEN: dict[Transaction, None] = {}
"""The transactions whose blocks are going on in runs, in the order in which they were begun."""
_CUT_SHORT: Final = (TakenOver, RunSuspended, CallsDiffer)
"""After these a run is gone on with, by whoever does it, and its transactions with it."""


@contextmanager
def transaction(
    key: str | None = None,
    *,
    commit_mode: CommitMode | str | None = None,
    overwrite: bool = False,
) -> Iterator[Transaction]:
    """Have the tasks that are called in this block count only together.

    Args:
        key: what the transaction is known by: one that has committed before is committed from the start.
        commit_mode: when it commits; with the transaction around it by default, else at the end of the block.
        overwrite: whether one with a key that has committed before is to be gone through again.

    Yields:
        Transaction: to set and get values, and to ask how far it has come.

    Raises:
        RuntimeError: in a worker process.
        Exception: what the block raised, after what had completed was rolled back.
    """
    context = current()  # code whose run has ended begins none
    if context is not None and context.flow_context.relay is not None:
        raise RuntimeError(
            "A transaction cannot be opened in a worker process: it could not roll back the tasks that are called "
            "there. Open it in the flow, around the task."
        )
    parent = TRANSACTION.get()
    mode = CommitMode(commit_mode) if commit_mode else CommitMode.EAGER if parent is None else CommitMode.LAZY
    made = Transaction(key, mode, parent)
    made.state = TransactionState.ACTIVE
    if key is not None and not overwrite and _has_committed(key):
        made.state = TransactionState.COMMITTED
    token = TRANSACTION.set(made)
    if made.context is not None:
        _OPEN[made] = None
    try:
        yield made
    except _CUT_SHORT:
        raise
    except BaseException:
        made.roll_back()
        raise
    finally:
        _OPEN.pop(made, None)
        TRANSACTION.reset(token)
    if made.state is not TransactionState.ACTIVE:
        return
    if mode is CommitMode.OFF:
        made.roll_back()
    elif mode is CommitMode.LAZY and parent is not None:
        made.stage()
    else:
        made.commit()


def get_transaction() -> Transaction | None:
    """Return the transaction that this code is in, or None."""
    return TRANSACTION.get()


def _has_committed(key: str) -> bool:
    context = CURRENT.get()
    engine = current_engine() if context is None else context.flow_context.engine
    engine.log.flush()
    return next(engine.log.read(transaction_stream(_digest(key))), None) is not None


__all__ = [
    "TRANSACTION",
    "CommitMode",
    "Transaction",
    "TransactionState",
    "get_transaction",
    "roll_back_left",
    "transaction",
]
