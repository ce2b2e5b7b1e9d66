"""Cancelling runs: a request in the log, delivered to the process that has the run, acknowledged by each child.

Whoever wants a run to stop appends ``flow_run.cancel_requested``. The process that has the run looks for such requests
twice a second, and stops it: code in the main thread at once (by a signal of its own), a coroutine at its next await,
everything else at the next call of a task or flow, or while it waits. A run that no process has is cancelled directly.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from flightlog.engine.context import FlowRunContext
from flightlog.engine.history import History, read_history
from flightlog.engine.masking import MASKER
from flightlog.engine.recovery import is_lost, mark_lost
from flightlog.engine.transitions import End, decide
from flightlog.errors import CannotCancel, LogError, RunCancelled, RunNotFound, TakenOver, VersionConflict
from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import CANCEL_REQUESTED, flow_run_of, flow_run_stream
from flightlog.ids import id_text, parse_id

if TYPE_CHECKING:
    import asyncio

    from flightlog.engine.flow_calls import Progress
    from flightlog.engine.runtime import Engine
    from flightlog.events.model import Event

LOOK_SECONDS = 0.5
_SIGNAL = signal.SIGURG
"""Ignored by every process that does not ask for it: it may arrive when the run has just ended."""


class Inbox:
    """The runs that this process has, and the requests to cancel them that have come.

    Args:
        log: where requests are found.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._runs: dict[bytes, _Delivery] = {}
        self._seen = 0
        log.add_ticker(self.look, LOOK_SECONDS)

    @contextmanager
    def open_for(self, progress: "Progress", loop_task: "asyncio.Task[Any] | None") -> Iterator[None]:
        """Take requests for a run while this is open.

        Args:
            progress: the run.
            loop_task: what runs it in an event loop, if that is so.
        """
        key = progress.run.key
        with self._lock:
            if not self._runs:
                self._seen = self._log.head().position
            self._runs[key] = _Delivery(progress, loop_task, key)
        try:
            yield
        finally:
            with self._lock:
                self._runs.pop(key, None)

    def look(self) -> None:
        """Deliver the requests that have come since the last time."""
        if not self._runs:
            return
        try:
            for event in self._log.read_all(self._seen, [CANCEL_REQUESTED]):
                self._seen = event.position
                run = flow_run_of(event.stream)
                delivery = None if run is None else self._runs.get(run)
                if delivery is not None:
                    delivery.deliver(event, list(self._runs.values()))
        except LogError:
            return  # it will be looked at again


class _Delivery:
    """How a request reaches a run."""

    def __init__(self, progress: "Progress", loop_task: "asyncio.Task[Any] | None", key: bytes) -> None:
        self.progress = progress
        self.key = key
        self._loop_task = loop_task
        in_main = threading.current_thread() is threading.main_thread()
        self._signals = in_main and loop_task is None and progress.context.parent is None

    def deliver(self, event: "Event", others: "list[_Delivery]") -> None:
        """Stop the run, and wake up whatever waits in it and in its subflows."""
        reason = event.data.get("reason")
        message = f"Cancelled by {event.actor}{f': {reason}' if reason else ''}"
        error = RunCancelled(id_text(self.key), message)
        progress = self.progress
        progress.cancelled = progress.context.stopped = error
        for other in others:
            if _is_within(other.progress.context, progress.run.key):
                other.progress.context.wake.set()
        if self._loop_task is not None:
            self._loop_task.get_loop().call_soon_threadsafe(self._loop_task.cancel)
        elif self._signals and signal.getsignal(_SIGNAL) is _interrupt:
            _PENDING.append(progress)
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, _SIGNAL)


def _is_within(context: FlowRunContext, run: bytes) -> bool:
    above: Any = context
    while above is not None:
        if above.flow_context.flow_run.key == run:
            return True
        above = above.flow_context.parent
    return False


_PENDING: "list[Progress]" = []


def _interrupt(_: int, __: FrameType | None) -> None:
    """Stop the run that this thread is in, unless it is about to end anyway."""
    while _PENDING:
        progress = _PENDING.pop()
        if progress.cancelled is not None and progress.interruptible:
            raise progress.cancelled


@contextmanager
def interruptions() -> Iterator[None]:
    """While this is open in the main thread, a run in it can be stopped at any moment."""
    if signal.getsignal(_SIGNAL) is not signal.SIG_DFL:
        yield
        return
    signal.signal(_SIGNAL, _interrupt)
    try:
        yield
    finally:
        _PENDING.clear()
        signal.signal(_SIGNAL, signal.SIG_DFL)


def cancel_run(run: str, *, reason: str | None = None, actor: str = "engine", engine: "Engine | None" = None) -> str:
    """Ask for a flow run to be cancelled; a run that no process has is cancelled at once.

    Args:
        run: the flow run's id.
        reason: why, for those who look at the run later.
        actor: who asks for it.
        engine: the engine; this process's by default.

    Returns:
        str: ``requested`` if the run's process is to stop it; ``cancelled`` if that is done.

    Raises:
        RunNotFound: there is no such run.
        CannotCancel: it has ended.
    """
    from flightlog.engine.runtime import current_engine

    engine = engine or current_engine()
    try:
        key = parse_id(run)
    except ValueError:
        raise RunNotFound(f"{run!r} is no id of a flow run.") from None
    reason = None if reason is None else MASKER.mask(reason)
    while True:
        history = read_history(engine.log, key)
        if history.ended:
            raise CannotCancel(f"The run {history.name!r} has ended: it is {history.rules.type.capitalize()}.")
        if is_lost(engine.log, history):
            mark_lost(engine.log, [key], actor=actor, clock=engine.clock, ids=engine.ids)
            continue
        try:
            return _cancel(engine, history, reason, actor)
        except (VersionConflict, TakenOver):
            continue  # something has happened meanwhile: look again


def _cancel(engine: "Engine", history: History, reason: str | None, actor: str) -> str:
    told = {} if reason is None else {"reason": reason}
    if history.running is not None and not history.suspended:
        event = NewEvent(engine.ids.new(), CANCEL_REQUESTED, told, engine.clock.now(), history.cause, actor=actor)
        engine.log.append(flow_run_stream(history.text), [event])
        return "requested"
    message = f"Cancelled by {actor}{f': {reason}' if reason else ''}"
    fact = decide(history.rules, End("CANCELLED", {"message": message, "cause": "cancelled"}, retriable=False))
    event = NewEvent(engine.ids.new(), fact.type, fact.data, engine.clock.now(), history.cause, actor=actor)
    engine.log.append_all([Append(flow_run_stream(history.text), [event], history.version, history.epoch + 1)])
    return "cancelled"


__all__ = ["Inbox", "cancel_run", "interruptions"]
