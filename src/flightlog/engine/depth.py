"""How deep runs may be called in one another.

Each run that is called in another puts some ten frames of the engine on the stack, and Python allows a thousand. So a
call from half that depth on goes on with a fresh stack: in a thread of its own, or in a task of the event loop. The
engine then always has room to keep its books, and decorating a recursive function costs it no depth. Ten such stacks
are as much as a recursion may take; beyond, the user's call raises `RecursionError`, before anything is recorded of it.
"""

import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from flightlog.engine.context import CURRENT, RunContext
from flightlog.engine.promises import Promise
from flightlog.later import asyncio

if TYPE_CHECKING:
    from types import FrameType

T = TypeVar("T")
_DEEP = 500
"""With so many frames on it a stack is left for a fresh one."""
_TIMES = 10
_frame = sys._getframe


class _Here(threading.local):
    """This thread.

    Attributes:
        below: how many frames there are on the stacks that this one goes on from.
        in_pool: whether it is one of a task runner's.
    """

    below = 0
    in_pool = False


HERE = _Here()
_BELOW: ContextVar[int] = ContextVar("flightlog_below", default=0)
"""The same as `HERE.below`, for tasks of an event loop."""


def is_deep() -> bool:
    """Tell whether this stack is to be left for a fresh one."""
    try:
        _frame(_DEEP)
    except ValueError:
        return False
    return True


def check_room(name: str) -> None:
    """See that there is room for another call.

    Args:
        name: what is called, for people.

    Raises:
        RecursionError: there is none.
    """
    if is_deep():
        _check(HERE.below + _height(), name)


def _check(height: int, name: str = "") -> None:
    if height + _BELOW.get() > _TIMES * sys.getrecursionlimit():
        what = f"{name!r} was called inside {_runs()} runs" if name else "it goes through too many runs"
        raise RecursionError(
            f"maximum recursion depth exceeded: {what}, each called in the one before. See that the recursion ends; "
            "sys.setrecursionlimit() raises the limit."
        )


def _height() -> int:
    """Return how many frames are on this stack."""
    frame: FrameType | None = _frame(1)
    count = 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


def _runs() -> int:
    context: RunContext | None = CURRENT.get()
    count = 0
    while context is not None:
        context, count = context.parent, count + 1
    return count


def with_room(work: Callable[[], T]) -> T:
    """Do some work here, or on a fresh stack if this one is deep."""
    return on_fresh_stack(work) if is_deep() else work()


def on_fresh_stack(work: Callable[[], T]) -> T:
    """Do some work in a thread of its own while this one waits.

    Raises:
        RecursionError: this goes too deep, or no further thread can be started.
    """
    outcome: Promise[tuple[Any, BaseException | None]] = Promise()

    def run() -> None:
        try:
            outcome.set((work(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
            outcome.set((None, error))

    start_above(run, "flightlog-deep", daemon=None)
    try:
        outcome.wait()  # not Thread.join: once that was interrupted, Python takes the thread for ended
    except BaseException as interrupt:
        _stop(outcome, interrupt)
        raise
    value, error = outcome.value()
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def _stop(outcome: "Promise[Any]", interrupt: BaseException) -> None:
    """Let what goes on in another thread stop at its next call, and give it some time for that."""
    context = CURRENT.get()
    if context is not None and context.flow_context.relay is None:
        context.stopped = interrupt
        outcome.wait(context.flow_context.engine.settings.cancel_grace_seconds)


def start_above(work: Callable[[], object], name: str, *, daemon: bool | None = True) -> threading.Thread:
    """Start a thread that goes on from this one's stack, in a copy of its context.

    Args:
        work: what it does.
        name: its name.
        daemon: whether the process may end before it; None as it is with this thread.

    Raises:
        RecursionError: this goes too deep, or no further thread can be started.
    """
    below, in_pool = HERE.below + _height(), HERE.in_pool
    _check(below)

    def run() -> None:
        HERE.below, HERE.in_pool = below, in_pool
        work()

    thread = threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=daemon)
    try:
        thread.start()
    except RuntimeError:
        raise RecursionError("maximum recursion depth exceeded: no further thread can be started") from None
    return thread


def awaited_with_room(work: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Return what to await for some work: itself, or a task of its own if this stack is deep."""
    if not is_deep():
        return work
    context, height = copy_context(), _height()
    _check(HERE.below + height)
    context.run(_BELOW.set, _BELOW.get() + height)
    return asyncio.get_running_loop().create_task(work, context=context)


__all__ = ["HERE", "awaited_with_room", "check_room", "is_deep", "on_fresh_stack", "start_above", "with_room"]
