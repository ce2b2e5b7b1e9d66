"""What came of calling a user's function, and what the log is told of it."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flightlog.engine import results
from flightlog.engine.bridge import Stopped, SyncWaits, TimedOut, Waits, out_of_time
from flightlog.engine.context import CURRENT, STRUCK, Abandoned, FlowRunContext, stop_of
from flightlog.engine.privacy import Personal, learn_owners
from flightlog.engine.states import DEFAULT_NAMES, State, StateType
from flightlog.engine.transitions import End
from flightlog.errors import CallsDiffer, LogError, LostWorker, ParameterTypeError, RunCancelled, TakenOver
from flightlog.later import is_cancellation
from flightlog.masking import MASKER

if TYPE_CHECKING:
    from flightlog.engine.context import RunContext, TaskRunContext
    from flightlog.engine.runs import Run
    from flightlog.events.types import Cause

_OURS = str(Path(__file__).parent)
_MAX_MESSAGE = 1000
_MOST_FRAMES, _FIRST_FRAMES, _LAST_FRAMES = 1000, 20, 80
FROM_WORKER = "_flightlog_traceback"
"""The attribute of an exception from a worker process that says where it was raised there."""


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM)."""


@dataclass(slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        value: what the function returned.
        error: what it raised; None if it returned.
        timed_out: it did not end within its time.
    """

    value: Any = None
    error: BaseException | None = None
    timed_out: bool = False


async def call_user(
    waits: Waits,
    context: "FlowRunContext | TaskRunContext",
    function: Callable[..., Any],
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    timeout: float | None,
) -> Outcome:
    """Call a user's function inside its run's context; whatever it raises becomes the outcome."""
    token = CURRENT.set(context)
    try:
        return Outcome(await waits.call(function, arguments[0], arguments[1], timeout, isasync=context.isasync))
    except (TakenOver, CallsDiffer, LogError):
        raise
    except TimedOut:
        _leave(waits, context, too_late(context))
        return Outcome(timed_out=True)
    except Stopped as stopped:
        return Outcome(error=stopped.error)
    except BaseException as error:  # noqa: BLE001 - the border between user code and ours
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and (timeout is not None or context.isasync):
            _leave(waits, context, abandoned_by(context, "was interrupted", "cancelled"))
        return Outcome(error=error)
    finally:
        CURRENT.reset(token)


def with_owners(outcome: Outcome, definition: Any, run: "Run", parameters: Mapping[str, Any]) -> Outcome:
    """Return an outcome, and have its run belong to those whose personal values it has; an error if that is unknown.

    Args:
        outcome: how the call ended.
        definition: the flow or task.
        run: its run.
        parameters: what it was given, by name.
    """
    if not Personal.used or outcome.value is None:
        return outcome
    value = outcome.value.data if isinstance(outcome.value, State) else outcome.value
    try:
        learn_owners(definition, run, parameters, value)
    except ParameterTypeError as error:
        return Outcome(error=error)
    return outcome


def _leave(waits: Waits, context: "FlowRunContext | TaskRunContext", stop: Abandoned) -> None:
    """Stop the code of a run that nobody waits for any more, which may go on in a thread, or loop, of its own."""
    context.stopped = context.stopped or stop
    if isinstance(waits, SyncWaits):
        context.flow_context.left_behind = stop


def abandoned_by(context: "RunContext", what: str, cause: "Cause") -> Abandoned:
    """Return what stops code that goes on though its run, or one that it was called in, has ended.

    Args:
        context: the run that has ended.
        what: what became of it, in words.
        cause: the class of that.
    """
    is_flow = isinstance(context, FlowRunContext)
    run: Any = context.flow_context.flow_run if is_flow else context.task_run  # type: ignore[attr-defined]
    return Abandoned(f"Abandoned: the {'flow' if is_flow else 'task'} run {run.name!r} {what}.", cause)


def too_late(context: "RunContext") -> Abandoned:
    """Return what stops code that goes on though the time of its run, or of one that it was called in, is over."""
    return abandoned_by(context, "exceeded its time limit", "timed_out")


def explained(context: "RunContext", error: BaseException) -> BaseException:
    """Return what ended an attempt: what stopped its run, if the error comes of that, else the error itself."""
    cancelled, stop = is_cancellation(error), stop_of(context)
    if cancelled and stop is None and (late := out_of_time(context)) is not None:
        stop = too_late(late)
    return stop if stop is not None and (cancelled or _comes_of(error, stop)) else error


def _comes_of(error: BaseException | None, stop: BaseException) -> bool:
    """Tell whether an exception is another one, or was raised for it or while it was handled."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is stop:
            return True
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return False


def interrupt_of(state: State[Any]) -> BaseException | None:
    """Return what must be raised again whatever the caller asked for: an interrupt, an exit, a cancellation."""
    broken_off = state.type in _BROKEN_OFF and isinstance(state.data, BaseException)
    return state.data if broken_off and not isinstance(state.data, Exception) else None


_BROKEN_OFF = frozenset({StateType.CRASHED, StateType.CANCELLED, StateType.PAUSED})
_CRASHES: tuple[tuple[type[BaseException], str, str], ...] = (
    (KeyboardInterrupt, "Execution was aborted by an interrupt signal.", "cancelled"),
    (Terminated, "Execution was aborted by a termination signal.", "cancelled"),
    (SystemExit, "Execution was aborted by Python system exit call.", "user_error"),
)


def crash(error: BaseException) -> tuple[State[Any], dict[str, Any]]:
    """Return the state that an interruption leads to, and what the log is told."""
    if isinstance(error, RunCancelled):
        told = MASKER.mask(str(error))
        return State(StateType.CANCELLED, None, told, error), {"message": told, "cause": "cancelled"}
    if isinstance(error, Abandoned):
        return State(StateType.CRASHED, None, str(error), error), {"message": str(error), "cause": error.cause}
    unexpected = f"Execution was interrupted by an unexpected exception: {type(error).__name__}: {text_of(error)}"
    struck = STRUCK[-1] if STRUCK and is_cancellation(error) else error
    known = [(message, cause) for kind, message, cause in _CRASHES if isinstance(struck, kind)]
    if is_cancellation(struck):
        known.append(("Execution was cancelled by the runtime environment.", "cancelled"))
    message, cause = known[0] if known else (_shortened(MASKER.mask(unexpected)), "infrastructure")
    state: State[Any] = State(StateType.CRASHED, None, message, error)
    return state, {"message": message, "error": error_facts(error), "cause": cause}


def failure(error: Exception, prefix: str) -> tuple[State[Any], dict[str, Any]]:
    """Return the state that an exception leads to, and what the log is told."""
    message = _shortened(MASKER.mask(f"{prefix} {type(error).__name__}: {text_of(error)}"))
    cause = "out_of_memory" if isinstance(error, MemoryError) else "user_error"
    return State(StateType.FAILED, None, message, error), {
        "message": message,
        "error": error_facts(error),
        "cause": cause,
    }


def time_out(kind: str, seconds: float | None) -> tuple[State[Any], dict[str, Any]]:
    """Return the state of a run whose time is over, and what the log is told."""
    message = f"{kind} run exceeded timeout of {seconds} seconds"
    state: State[Any] = State(StateType.FAILED, "TimedOut", message, TimeoutError(message))
    return state, {"name": "TimedOut", "message": message, "cause": "timed_out"}


def crash_of(context: "RunContext", error: BaseException) -> tuple[State[Any], dict[str, Any]]:
    """Return the state that an interruption of a run leads to, and what the log is told: what it came of."""
    told = explained(context, error)
    state, facts = crash(told)
    if isinstance(told, Abandoned) and is_cancellation(error):
        state.data = error  # whoever cancelled the coroutine waits for just that
    return state, facts


def unsuccessful(
    context: "RunContext", outcome: Outcome, kind: str, timeout: float | None
) -> tuple[State[Any], dict[str, Any]] | None:
    """Return state and facts of an outcome that is no value; None if there is one.

    Args:
        context: the run.
        outcome: how the call ended.
        kind: ``Flow`` or ``Task``.
        timeout: the time limit, in seconds.
    """
    if outcome.timed_out:
        return time_out(kind, timeout)
    if outcome.error is None:
        return None
    if isinstance(outcome.error, LostWorker):
        message = str(outcome.error)
        return State(StateType.CRASHED, None, message, outcome.error), {"message": message, "cause": "lost_worker"}
    if isinstance(error := explained(context, outcome.error), Exception):
        return failure(error, f"{kind} run encountered an exception{'.' if kind == 'Flow' else ''}")
    return crash_of(context, outcome.error)


def worth_retrying(state: State[Any]) -> bool:
    """Tell whether another attempt may end otherwise; where runs are called too deep each level would have as many."""
    return not isinstance(state.data, RecursionError)


def end_of(state: State[Any], facts: Mapping[str, Any], now: int, *, retriable: bool = True) -> End:
    """Return the command that ends a run in a state."""
    told = dict(facts)
    if state.name != DEFAULT_NAMES[state.type]:
        told.setdefault("name", state.name)
    if state.message is not None:
        told.setdefault("message", MASKER.mask(state.message))
    return End(state.type, told, now, retriable)


def value_facts(key: bytes, value: Any, keeping: results.Keeping) -> tuple[dict[str, Any], Any]:
    """Return what the log is told of a value, and the blobs that go with it."""
    reference, blobs = results.record(key, value, keeping)
    return {"result": reference}, blobs


def text_of(error: BaseException) -> str:
    """Return what an exception says, or that it cannot."""
    try:
        return str(error)
    except Exception as inner:  # noqa: BLE001 - the user's own __str__
        return f"<its text cannot be shown: {type(inner).__name__}>"


def error_facts(error: BaseException) -> dict[str, Any]:
    """Return what the log is told of an exception: class, text, traceback without our own frames."""
    return {
        "type": type(error).__name__,
        "message": MASKER.mask(text_of(error)),
        "traceback": MASKER.mask(getattr(error, FROM_WORKER, None) or traceback_of(error)),
    }


def traceback_of(error: BaseException) -> str:
    """Return where an exception was raised, without our own frames."""
    trace, left_out = _users_part(error.__traceback__)
    told = traceback.TracebackException(type(error), error, trace, limit=-_MOST_FRAMES)
    _without_ours(told)
    if left_out:
        told.stack.insert(_FIRST_FRAMES, traceback.FrameSummary(f"<{left_out} more calls>", 0, "...", line=""))
    return "".join(told.format())


def _users_part(trace: TracebackType | None) -> tuple[TracebackType | None, int]:
    """Return a traceback without our own frames, and how many of the others are left out of its middle.

    Where runs are nested deep there are thousands of them, and each run tells of those below.
    """
    users = []
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_OURS):
            users.append(trace)
        trace = trace.tb_next
    left_out = max(0, len(users) - _FIRST_FRAMES - _LAST_FRAMES)
    if left_out:
        users = users[:_FIRST_FRAMES] + users[-_LAST_FRAMES:]
    part = None
    for found in reversed(users):
        part = TracebackType(part, found.tb_frame, found.tb_lasti, found.tb_lineno)
    return part, left_out


def _without_ours(told: traceback.TracebackException | None) -> None:
    """Leave our own frames out of a traceback, and of those of what caused it."""
    while told is not None:
        told.stack = traceback.StackSummary.from_list([f for f in told.stack if not f.filename.startswith(_OURS)])
        for inner in told.exceptions or ():
            _without_ours(inner)
        told = told.__cause__ or told.__context__


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + " ..."
