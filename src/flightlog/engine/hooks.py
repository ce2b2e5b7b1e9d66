"""State hooks: functions of the user's that are called when a run enters a state.

They look on. One that raises, hangs or is slow never changes a run: it is called after the state is committed, gets
the time that FLIGHTLOG_HOOKS_TIMEOUT_SECONDS says, in a thread of its own, and what came of it is on record.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flightlog.engine.bridge import TimedOut, Waits, is_async
from flightlog.engine.context import CURRENT, IN_HOOK, RunContext
from flightlog.engine.outcomes import Outcome, text_of
from flightlog.engine.run_logs import get_run_logger
from flightlog.events.model import NewEvent
from flightlog.events.subjects import guarded
from flightlog.events.types import HOOK_ENDED, TASK_RUN
from flightlog.masking import MASKER

if TYPE_CHECKING:
    from flightlog.engine.context import TaskRunContext
    from flightlog.engine.runs import Run
    from flightlog.engine.states import State

_HOOKS: Mapping[str, str] = {
    "RUNNING": "on_running",
    "COMPLETED": "on_completion",
    "FAILED": "on_failure",
    "CRASHED": "on_crashed",
    "CANCELLING": "on_cancellation",
}


async def call_hooks(
    waits: Waits, context: RunContext, run: "Run", state: "State[Any]", subject: Mapping[str, Any]
) -> None:
    """Call the hooks of a run for a state that it has entered, and put down what came of them.

    Args:
        waits: how to wait.
        context: the run's context: what hooks log belongs to the run.
        run: the run.
        state: the state that it has entered.
        subject: the first two arguments of the hooks: ``flow`` and ``flow_run``, or ``task`` and ``task_run``.
    """
    definition = next(iter(subject.values()))
    hooks = definition.hooks.get(_HOOKS.get(state.type.value, ""))
    if not hooks:
        return
    token, inside = CURRENT.set(context), IN_HOOK.set(context)
    try:
        for hook in list(hooks):
            # Each gets a state of its own: what it does to it changes nothing.
            await _call(waits, context, run, hook, state.name, {**subject, "state": copy.copy(state)})
    finally:
        IN_HOOK.reset(inside)
        CURRENT.reset(token)


async def call_settling_hooks(
    waits: Waits, context: "TaskRunContext", hooks: Sequence[Any], entered: str, arguments: dict[str, Any]
) -> None:
    """Call hooks for what became of a task run in its transaction.

    Args:
        waits: how to wait.
        context: the task run's.
        hooks: the hooks.
        entered: ``Committed`` or ``RolledBack``.
        arguments: what they get, by name.
    """
    token, inside = CURRENT.set(context), IN_HOOK.set(context)
    try:
        for hook in hooks:
            await _call(waits, context, context.task_run, hook, entered, arguments)
    finally:
        IN_HOOK.reset(inside)
        CURRENT.reset(token)


async def beside(waits: Waits, context: RunContext, function: Any, args: Sequence[Any]) -> Outcome:
    """Call a function of the user's that helps to decide on a run; it has as much time as a hook."""
    token, inside = CURRENT.set(context), IN_HOOK.set(context)
    limit = context.flow_context.engine.settings.hooks_timeout_seconds
    try:
        return await _outcome(waits, partial(function, *args), {}, limit)
    finally:
        IN_HOOK.reset(inside)
        CURRENT.reset(token)


async def _call(
    waits: Waits, context: RunContext, run: "Run", hook: Any, entered: str, arguments: dict[str, Any]
) -> None:
    engine, logger = run.journal.engine, get_run_logger(context)
    name = _name(hook)
    logger.info("Running hook %r in response to entering state %r", name, entered)
    began = engine.clock.now()
    outcome = await _outcome(waits, hook, arguments, engine.settings.hooks_timeout_seconds)
    told: dict[str, Any] = {"hook": name, "state": entered, "took": max(0, engine.clock.now() - began)}
    if run.kind == TASK_RUN:
        told["task_run_id"] = run.key
    if outcome.timed_out:
        told["problem"] = str(outcome.error)
        logger.error("Hook %r is left to itself: %s", name, outcome.error)
    elif outcome.error is not None:
        told["problem"] = MASKER.mask(f"{type(outcome.error).__name__}: {text_of(outcome.error)}")[:1000]
        logger.error("An error was encountered while running hook %r", name, exc_info=outcome.error)
    else:
        logger.info("Hook %r finished running successfully", name)
    if run.subjects:
        told = guarded(engine.vault, told, run.subjects)
    run.journal.put([NewEvent(engine.ids.new(), HOOK_ENDED, told, engine.clock.now(), run.cause)])


async def _outcome(waits: Waits, function: Any, arguments: dict[str, Any], limit: float) -> Outcome:
    try:
        call = _guarded(function, arguments)
    except Exception as error:  # noqa: BLE001 - the user's own object, looked at
        return Outcome(error=error)
    try:
        outcome: Outcome = await waits.aside(*call, limit)
    except TimedOut:
        return Outcome(error=TimeoutError(f"It did not end within {limit:g} seconds."), timed_out=True)
    return outcome


def _name(hook: Any) -> str:
    inner = hook.func if isinstance(hook, partial) else hook
    try:
        return str(getattr(inner, "__name__", type(inner).__name__))
    except Exception:  # noqa: BLE001 - the user's own object
        return type(inner).__name__


def _guarded(hook: Any, arguments: dict[str, Any]) -> tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]:
    """Return what to call, so that whatever the hook raises comes back as an outcome."""
    args, kwargs = _arguments(hook, arguments)
    if is_async(hook) or (isinstance(hook, partial) and is_async(hook.func)):

        async def call_async() -> Outcome:
            try:
                return Outcome(await hook(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the border between user code and ours
                return Outcome(error=error)

        return call_async, (), {}

    def call() -> Outcome:
        try:
            return Outcome(hook(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - the same
            return Outcome(error=error)

    return call, (), {}


def _arguments(hook: Any, arguments: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """Give the arguments by name where the hook has these names, else in their order."""
    try:
        parameters = inspect.signature(hook).parameters
    except Exception:  # noqa: BLE001 - the user's own object
        return tuple(arguments.values()), {}
    by_name = arguments.keys() <= parameters.keys() or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return ((), arguments) if by_name else (tuple(arguments.values()), {})
