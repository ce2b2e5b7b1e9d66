"""Cancelling runs: a request in the log, delivered to the process that has the run, acknowledged by each child.

Whoever wants a run to stop appends ``flow_run.cancel_requested``. The process that has the run looks for such requests
twice a second, and stops it: code in the main thread at once (by a signal of its own), a coroutine at its next await,
everything else at the next call of a task or flow, or while it waits. A run that no process has is cancelled directly.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from flightlog.engine.context import CURRENT, DEFERRED, STRUCK
from flightlog.engine.history import History, read_history
from flightlog.engine.outcomes import Terminated
from flightlog.engine.recovery import is_lost, mark_lost
from flightlog.engine.transitions import End, decide
from flightlog.errors import CannotCancel, LogError, RunCancelled, RunNotFound, TakenOver, VersionConflict
from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import CANCEL_REQUESTED, flow_run_of, flow_run_stream
from flightlog.ids import id_text, parse_id
from flightlog.masking import MASKER

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
    def open_for(
        self, progress: "Progress", loop_task: "asyncio.Task[Any] | None", after: int | None
    ) -> Iterator[None]:
        """Take requests for a run while this is open.

        Args:
            progress: the run.
            loop_task: what runs it in an event loop, if that is so.
            after: for a run that is gone on with, the version of its stream at that moment: a request may have come
                since.
        """
        delivery = _Delivery(progress, loop_task)
        with self._lock:
            if not self._runs:
                self._seen = self._log.head().position
            self._runs[progress.run.key] = delivery
        try:
            if after is not None:
                for event in self._log.read(progress.run.journal.stream, after):
                    if event.type == CANCEL_REQUESTED:
                        delivery.deliver(event, [delivery])
            yield
        finally:
            with self._lock:
                self._runs.pop(progress.run.key, None)
            delivery.close()

    def within(self, run: bytes) -> "list[Progress]":
        """Return the runs of this process that were called in a flow run, at whatever depth."""
        found = [delivery.progress for key, delivery in list(self._runs.items()) if key != run]
        return [progress for progress in found if _is_within(progress.context, run)]

    def look(self) -> None:
        """Deliver the requests that have come since the last time; remind those runs that go on all the same."""
        if not self._runs:
            return
        for delivery in list(self._runs.values()):
            delivery.remind()
        try:
            for event in self._log.read_all(self._seen, [CANCEL_REQUESTED]):
                self._seen = event.position
                run = flow_run_of(event.stream)
                found = None if run is None else self._runs.get(run)
                if found is not None:
                    found.deliver(event, list(self._runs.values()))
        except LogError:
            return  # it will be looked at again


class _Delivery:
    """How a request reaches a run."""

    def __init__(self, progress: "Progress", loop_task: "asyncio.Task[Any] | None") -> None:
        self.progress = progress
        self._loop_task = loop_task
        self._open = True
        in_main = threading.current_thread() is threading.main_thread()
        self._signals = in_main and loop_task is None and progress.context.parent is None and not progress.streams

    def deliver(self, event: "Event", others: "list[_Delivery]") -> None:
        """Stop the run, and wake up whatever waits in it and in its subflows; a second request changes nothing."""
        progress = self.progress
        if progress.cancelled is not None:
            return
        reason = event.data.get("reason")
        message = f"Cancelled by {event.actor}{f': {reason}' if reason else ''}"
        progress.cancelled = progress.context.stopped = RunCancelled(id_text(progress.run.key), message)
        for other in others:
            if _is_within(other.progress.context, progress.run.key):
                other.progress.context.wake.set()
        self._strike()

    def remind(self) -> None:
        """Strike once more: the first time the run may have been where it must not be interrupted."""
        if self.progress.cancelled is not None and self._signals:
            self._strike()

    def _strike(self) -> None:
        if self._loop_task is not None:
            with suppress(RuntimeError):  # the loop may be closed by then
                self._loop_task.get_loop().call_soon_threadsafe(self._strike_in_loop)
        elif self._signals and self._open and signal.getsignal(_SIGNAL) is _interrupt:
            _PENDING.append(self.progress)
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, _SIGNAL)

    def _strike_in_loop(self) -> None:
        """Cancel what runs the flow, if it still does: what comes after the flow is none of our business."""
        if self._loop_task is not None and self._open and self.progress.interruptible:
            self.progress.struck += 1
            self._loop_task.cancel()

    def close(self) -> None:
        """Strike no more."""
        self._open = False


def _is_within(context: Any, run: bytes) -> bool:
    """Tell whether code belongs to a flow run, at whatever depth."""
    while context is not None:
        if context.flow_context.flow_run.key == run:
            return True
        context = context.flow_context.parent
    return False


_PENDING: "list[Progress]" = []
_OURS = str(Path(__file__).parents[1])
_STOPPABLE = frozenset({
    ("bridge.py", "call"), ("bridge.py", "run_in_loop"), ("bridge.py", "_call_in_thread"), ("streams.py", "call"),
    ("clock.py", "sleep"), ("promises.py", "wait"), ("depth.py", "on_fresh_stack"), ("gathering.py", "__iter__"),
})  # fmt: skip
"""Where an interrupt may strike: in the user's code, and where we wait. In all else it waits for the next check."""
_REMIND_SECONDS = 0.02


def may_strike(frame: FrameType | None) -> bool:
    """Tell whether code may be interrupted: the user's own, or ours where it waits; not ours where it keeps books."""
    while frame is not None and not frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return frame is None or (Path(frame.f_code.co_filename).name, frame.f_code.co_name) in _STOPPABLE


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Stop the run that this thread is in, if it can be stopped here; it is reminded otherwise."""
    here = may_strike(frame)
    if DEFERRED:
        if here:
            raise DEFERRED.pop()
        _remind_later()
    while _PENDING:
        progress = _PENDING.pop()
        stoppable = here and progress.interruptible and _is_within(CURRENT.get(), progress.run.key)
        if progress.cancelled is not None and stoppable:
            raise progress.cancelled


def _strike_or_defer(number: int, frame: FrameType | None) -> None:
    """Raise what a signal stands for: at once in the user's code and where we wait, else a moment later."""
    error = KeyboardInterrupt() if number == signal.SIGINT else Terminated(128 + number)
    STRUCK.append(error)
    if may_strike(frame) or DEFERRED:  # whoever asks twice means it
        DEFERRED.clear()
        raise error
    DEFERRED.append(error)
    _remind_later()


def _remind_later() -> None:
    """Have this thread asked again in a moment: by then it may wait, or be in the user's code."""
    main = threading.main_thread().ident

    def remind() -> None:
        if DEFERRED and main is not None:
            signal.pthread_kill(main, _SIGNAL)

    timer = threading.Timer(_REMIND_SECONDS, remind)
    timer.daemon = True
    timer.start()


_HANDLERS: tuple[tuple[signal.Signals, Any, Any], ...] = (
    (_SIGNAL, signal.SIG_DFL, _interrupt),
    (signal.SIGTERM, signal.SIG_DFL, _strike_or_defer),
    (signal.SIGINT, signal.default_int_handler, _strike_or_defer),
)


@contextmanager
def interruptions() -> Iterator[None]:
    """While this is open in the main thread, a run in it can be stopped: cancelled, terminated, interrupted.

    A signal that somebody else handles is left to him.
    """
    changed = []
    for number, usual, ours in _HANDLERS:
        if signal.getsignal(number) is usual:
            signal.signal(number, ours)
            changed.append((number, usual))
    try:
        yield
        if DEFERRED:
            raise DEFERRED.pop()
    finally:
        DEFERRED.clear()
        STRUCK.clear()
        _PENDING.clear()
        for number, usual in changed:
            signal.signal(number, usual)


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
        if history.rules.type == "CANCELLING":
            return "requested"
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
