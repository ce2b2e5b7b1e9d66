"""Transactions: tasks that count only together. If one fails, those that had completed are rolled back, the last first.

``with transaction():`` around calls of tasks makes each of them a part of it. What undoes a part is the task's own
knowledge: ``@task.on_rollback``. A part that was rolled back ends as RolledBack; it runs again when its run is resumed.
"""

import copy
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from flightlog.engine.bridge import SYNC, run_sync
from flightlog.engine.context import CURRENT
from flightlog.engine.emitting import put_on_record
from flightlog.engine.runtime import current_engine
from flightlog.engine.transitions import RollBack
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import CACHE_DROPPED, TRANSACTION_COMMITTED, transaction_stream

if TYPE_CHECKING:
    from flightlog.engine.context import TaskRunContext
    from flightlog.engine.states import State

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


class _Part:
    """A task run of a transaction, completed and not yet committed."""

    def __init__(self, context: "TaskRunContext", state: "State[Any]", cache_stream: str | None) -> None:
        self._context = context
        self._state = state
        self._cache_stream = cache_stream

    def commit(self, transaction: "Transaction") -> None:
        self._call("on_commit", transaction)

    def roll_back(self, transaction: "Transaction") -> None:
        run, engine = self._context.task_run, self._context.flow_context.engine
        self._call("on_rollback", transaction)
        self._state.name = "RolledBack"
        event = run.record(RollBack())
        appends = [run.journal.append([event])]
        if self._cache_stream is not None:  # what was undone must not be had from the cache
            dropped = NewEvent(engine.ids.new(), CACHE_DROPPED, {"task_run_id": run.key}, engine.clock.now(), event.id)
            appends.append(Append(self._cache_stream, [dropped]))
        engine.log.enqueue(appends)
        run.tell(event)

    def _call(self, kind: str, transaction: "Transaction") -> None:
        from flightlog.engine.hooks import call_named_hooks

        context = self._context
        run_sync(call_named_hooks(SYNC, context, context.task_run, kind, self._state, {"transaction": transaction}))


class Transaction:
    """A transaction; made by `transaction`.

    Attributes:
        key: what it is known by once it has committed; None for nothing.
        commit_mode: when it commits.
        state: how far it has come.
        parent: the transaction around it, or None.
    """

    def __init__(self, key: str | None, commit_mode: CommitMode, parent: "Transaction | None") -> None:
        self.key = key
        self.commit_mode = commit_mode
        self.state = TransactionState.PENDING
        self.parent = parent
        self._values: dict[str, Any] = {}
        self._parts: list[_Part | Transaction] = []
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

    def add(self, context: "TaskRunContext", state: "State[Any]", cache_stream: str | None) -> None:
        """Take in a task run that has completed."""
        with self._lock:
            self._parts.append(_Part(context, state, cache_stream))

    def commit(self, _: "Transaction | None" = None) -> bool:
        """Commit all parts, in the order in which they came; tell whether that had to be done."""
        if self.state in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK):
            return False
        self.state = TransactionState.COMMITTED
        for part in self._parts:
            part.commit(self)
        if self.key is not None:
            put_on_record(transaction_stream(_digest(self.key)), TRANSACTION_COMMITTED, {"key": self.key})
        return True

    def roll_back(self, _: "Transaction | None" = None) -> bool:
        """Undo all parts, the last first; tell whether that had to be done."""
        if self.state in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK):
            return False
        self.state = TransactionState.ROLLED_BACK
        for part in reversed(self._parts):
            part.roll_back(self)
        return True

    rollback = roll_back

    def stage(self) -> None:
        """Wait for the transaction around this one."""
        self.state = TransactionState.STAGED
        if self.parent is not None:
            with self.parent._lock:
                self.parent._parts.append(self)

    def __repr__(self) -> str:
        return f"<Transaction {self.key or ''} {self.state.value}>"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


TRANSACTION: ContextVar[Transaction | None] = ContextVar("flightlog_transaction", default=None)


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
        Exception: what the block raised, after what had completed was rolled back.
    """
    parent = TRANSACTION.get()
    mode = CommitMode(commit_mode) if commit_mode else CommitMode.EAGER if parent is None else CommitMode.LAZY
    made = Transaction(key, mode, parent)
    made.state = TransactionState.ACTIVE
    if key is not None and not overwrite and _has_committed(key):
        made.state = TransactionState.COMMITTED
    token = TRANSACTION.set(made)
    try:
        yield made
    except BaseException:
        made.roll_back()
        raise
    finally:
        TRANSACTION.reset(token)
    if made.state is not TransactionState.ACTIVE:
        return
    if mode is CommitMode.OFF:
        made.roll_back()
    elif mode is CommitMode.LAZY and parent is not None:
        made.stage()
    else:
        made.commit()


def _has_committed(key: str) -> bool:
    context = CURRENT.get()
    engine = current_engine() if context is None else context.flow_context.engine
    engine.log.flush()
    return next(engine.log.read(transaction_stream(_digest(key))), None) is not None


__all__ = ["CommitMode", "Transaction", "TransactionState", "transaction"]
