"""How a flow run goes: from the call to its final state. One coroutine for sync and async."""

import copy
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from flightlog.clock import to_datetime
from flightlog.engine.abandoning import NOTICE_SECONDS, let_go
from flightlog.engine.arguments import are_plain
from flightlog.engine.bridge import SYNC, SyncWaits, Waits
from flightlog.engine.calls import Call, CallMemory, Past
from flightlog.engine.conclusions import conclude, spelled_out
from flightlog.engine.context import FlowRunContext, TaskRunContext, check
from flightlog.engine.digests import input_digest
from flightlog.engine.flow_calls import FlowCall, Progress, create
from flightlog.engine.flow_parts import join, rejoin
from flightlog.engine.history import FLOW, forget_from, read_history
from flightlog.engine.hooks import call_hooks
from flightlog.engine.iterators import listed
from flightlog.engine.outcomes import (
    abandoned_by,
    call_user,
    crash,
    crash_of,
    end_of,
    explained,
    unsuccessful,
    with_owners,
    worth_retrying,
)
from flightlog.engine.parameters import Refused, learn_secrets
from flightlog.engine.privacy import Personal, belongs
from flightlog.engine.recall import CannotRecall, check_new, prefetch, recalled
from flightlog.engine.run_logs import ENGINE, logged_prints, say
from flightlog.engine.runtime import Engine
from flightlog.engine.states import State, StateType, Suspended, Tally
from flightlog.engine.submissions import end_early, end_soon, wait_for_all
from flightlog.engine.task_calls import inputs_of
from flightlog.engine.task_runners import TaskRunner
from flightlog.engine.transitions import Cancel, Pause
from flightlog.engine.upstream import resolved
from flightlog.errors import (
    CallsDiffer,
    CancelledRun,
    CannotResume,
    LogError,
    ParameterTypeError,
    RunCancelled,
    RunNotFound,
    RunSuspended,
    TakenOver,
    UpstreamTaskError,
    VersionConflict,
)
from flightlog.events.store import Unit
from flightlog.later import asyncio

if TYPE_CHECKING:
    from flightlog.events.types import Cause


async def run_flow(waits: Waits, call: FlowCall) -> State[Any]:
    """Take a call to its final state and return that; the caller raises what is to be raised.

    Raises:
        UpstreamTaskError: what a subflow rests on did not complete.
        LogError, TakenOver: the log does not take the run's events, so the run cannot go on.
    """
    parent = call.caller.flow_context if call.caller is not None else None
    parameters = call.parameters
    if parent is not None:
        call.parameters = listed(call.parameters)
        call.inputs = inputs_of(parent, call.parameters, call.wait_for)
        call.inherit()
        parameters = await resolved(waits, call.parameters, None)
        call.inherit()  # what it rests on has ended by now
    call.digest = input_digest(_digest_key(call, parameters), parameters)
    if parent is None:
        call.engine.accompany()
        with call.engine.heart:
            state, _ = await _run(waits, call, parameters)
    elif parent.memory is None:
        state, _ = await _run(waits, call, parameters)
    else:
        state = await _remembered(waits, call, parameters, parent, parent.memory)
    if parent is not None and not isinstance(call.caller, TaskRunContext):
        parent.tally.add(state, next(parent.numbers))
    return state


def _digest_key(call: FlowCall, parameters: dict[str, Any]) -> bytes:
    if not Personal.used:
        return call.engine.key
    try:
        return call.engine.vault.digest_key(call.take_in(parameters))
    except ParameterTypeError:
        return call.engine.key  # the run is refused


async def _remembered(
    waits: Waits, call: FlowCall, parameters: dict[str, Any], parent: FlowRunContext, memory: CallMemory
) -> State[Any]:
    """Run a subflow of a flow that remembers calls: return what it ended in before, or go on with it, or start it."""
    function = FLOW + call.flow.key
    caller = call.caller.task_run.key if isinstance(call.caller, TaskRunContext) else None
    ended = None
    if memory.has_past:
        ended = await _repeat(waits, call, parent, memory, (caller, function))
    if ended is None:
        state, progress = await _run(waits, call, parameters)
        partial = call.flow.isgenerator and waits.partial
        ended = Call(progress.mirror, state, child=progress.run.key, part=progress.part, partial=partial)
    memory.add(caller, function, call.digest, ended)
    assert ended.state is not None
    return ended.state


async def _repeat(
    waits: Waits, call: FlowCall, parent: FlowRunContext, memory: CallMemory, place: tuple[bytes | None, str]
) -> Call | None:
    """Return the same call, made earlier, if its end counts; None if it has to run, or go on."""
    flow, engine = call.flow, call.engine
    earlier = memory.take(*place, call.digest)
    if earlier is None:
        alone = not parent.isasync and not parent.open_futures
        check_new(parent, memory, *place, alone=alone)
        memory.count("new")
        return None
    try:
        earlier = recalled(parent, earlier, flow)
    except CannotRecall:
        earlier.state = None
    call.mirror = earlier.run
    if earlier.counts and not await earlier.is_too_short(waits):
        memory.count("reused")
        child, part = _child_of(earlier), rejoin(call, earlier)
        return Call(earlier.run, earlier.state, child=child, part=part, partial=earlier.is_partial)
    memory.count("again")
    await waits.commit(engine.log, engine.log.enqueue([]))  # its end may still be in line
    call.past = _past_of(engine, memory.past, earlier)
    if call.past is None:
        call.mirror = None  # it never began
    elif call.past.history.rules.type == "FAILED" or call.past.history.foreign:
        # One that failed gets a run of its own (as in Prefect 2), with what completed in the failed one. So does one
        # that was taken over from another run, if more is wanted of it than it gave there.
        call.past.history.foreign = True
        call.replaces, call.mirror = None if call.mirror is None else call.mirror.key, None
    return None


def _past_of(engine: Engine, outer: Past | None, earlier: Call) -> Past | None:
    """Return what is recorded of a subflow that was called earlier; None if it never began.

    Args:
        engine: gives the log.
        outer: the past of the flow run that calls it; None if that is retried in this process.
        earlier: the call.
    """
    child = _child_of(earlier)
    if child is None:
        return None
    try:
        history = read_history(engine.log, child, until=None if outer is None else outer.history.until)
    except RunNotFound:
        return None  # up to the event at which the other run was forked, it had not begun
    past = Past(history, strict=False) if outer is None else outer.within(history)  # None: the same code, surely
    if earlier.recorded is not None and earlier.recorded.forgotten:
        forget_from(history, lambda _: True)
        past.restart = 0
    prefetch(engine.log, past)
    return past


def _child_of(call: Call) -> bytes | None:
    """Return the flow run of an earlier call of a subflow."""
    if call.child is not None:
        return call.child
    return None if call.recorded is None else call.recorded.child


async def _run(waits: Waits, call: FlowCall, parameters: dict[str, Any]) -> tuple[State[Any], Progress]:
    engine = call.engine
    parameters, refusal = _checked(call, parameters)
    if call.past is not None and (group := call.past.history.created.get("personal")) is not None:
        members = engine.vault.members(group)
        if not members <= call.subjects:
            call.personal = parameters.keys()  # the code of today marks less than it did
        call.subjects |= members
    progress = create(call, parameters)
    if call.subjects and call.flow.isgenerator and call.caller_run is not None:
        belongs(call.caller_run, call.subjects)  # its pieces come before its end
    if call.past is not None and not call.past.history.foreign:
        await _take_over(waits, call, progress)
    try:
        if refusal is not None:
            unit, state = _invalid(progress, refusal, hide=bool(call.personal))
        else:
            await resolved(waits, {}, call.wait_for)
            unit, state = await _listening(waits, progress, call.past)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the run has an end
        unit, state = await _broken_off(progress, error)
    finally:
        context = progress.context
        context.stopped = context.stopped or abandoned_by(context, "has ended", "cancelled")
    _settle_details(progress, state)
    if call.flow.hooks:
        await _commit_end(waits, engine, unit, state)
        # Being cancelled or interrupted, the loop would not let us wait.
        await _hooks(SYNC if state.is_crashed() else waits, progress, state)
        unit = engine.log.enqueue([])
    if call.caller is None:
        # Nothing leaves the process before what it rests on is committed.
        if call.past is not None:
            _sum_up(progress, call.past)
        engine.lines.put(progress.run.id)
        await _commit_end(waits, engine, unit, state)
    call.pass_on(progress, state)
    join(progress, state)
    return state, progress


async def _listening(waits: Waits, progress: Progress, past: Past | None) -> tuple[Unit, State[Any]]:
    """Make the attempts while requests to cancel the run are taken."""
    context = progress.context
    progress.streams = context.flow.isgenerator
    after = None if past is None or past.history.foreign else past.history.version
    loop_task = None
    if context.isasync and not isinstance(waits, SyncWaits):
        loop_task, progress.listens_in_loop = asyncio.current_task(), True
    with (
        context.engine.inbox.open_for(progress, loop_task, after),
        nullcontext() if context.task_runner.starts_slowly else context.task_runner.start(),
        logged_prints() if context.log_prints else nullcontext(),
    ):
        if not context.task_runner.starts_slowly:
            return await _attempts(waits, progress)
        async with _started(waits, context.task_runner):
            return await _attempts(waits, progress)


@asynccontextmanager
async def _started(waits: Waits, runner: TaskRunner) -> AsyncIterator[None]:
    """Start a task runner, and stop it, without blocking an event loop."""
    with ExitStack() as stack:
        begun, left = threading.Lock(), threading.Event()

        def begin() -> None:
            with begun:
                if not left.is_set():
                    stack.enter_context(runner.start())

        try:
            await waits.elsewhere(begin)
            yield
        finally:
            left.set()  # being cancelled, a loop does not wait until the thread is through
            await waits.elsewhere(partial(_closed, begun, stack))


def _closed(begun: threading.Lock, stack: ExitStack) -> None:
    with begun:
        stack.close()


async def _hooks(waits: Waits, progress: Progress, state: State[Any]) -> None:
    """Call the flow's hooks for a state."""
    context = progress.context
    await call_hooks(waits, context, progress.run, state, {"flow": context.flow, "flow_run": progress.run})


async def _broken_off(progress: Progress, error: BaseException) -> tuple[Unit, State[Any]]:
    """End a run that something came between: what it rests on, the log, another owner, an interrupt."""
    if isinstance(error, UpstreamTaskError):
        return progress.refuse(str(error))
    if isinstance(error, TakenOver):
        raise error
    if isinstance(error, LogError):
        _leave(progress, error)
        raise error
    if (request := _request(progress, error)) is not None:
        return await _cancel(SYNC, progress, request)
    if progress.run.is_final:
        await end_early(progress.context)
        raise error
    if isinstance(error, CallsDiffer):
        state: State[Any] = State(StateType.FAILED, "CallsDiffer", str(error), error)
        facts: dict[str, Any] = {"cause": "user_error"}
    else:
        state, facts = crash_of(progress.context, error)
    try:
        await _give_up(SYNC, progress, state, facts)
    except LogError as refusal:
        _leave(progress, refusal)
        raise
    unit, _ = progress.end(end_of(state, facts, 0, retriable=False), {})
    return unit, state


async def _give_up(waits: Waits, progress: Progress, state: State[Any], facts: dict[str, Any]) -> None:
    """End what an attempt has begun that timed out, crashed, or makes other calls than are recorded."""
    context = progress.context
    what = f"ended: {(state.message or state.name).rstrip('.')}"
    cause: Cause = "cancelled" if facts["cause"] == "user_error" else facts["cause"]
    stop = context.stopped = context.stopped or abandoned_by(context, what, cause)
    for inner in (progress, *context.engine.inbox.within(progress.run.key)):
        inner.context.wake.set()
    with suppress(KeyboardInterrupt, SystemExit):  # whoever interrupts once more does not want to wait
        await end_soon(waits, context, NOTICE_SECONDS)
    await let_go(waits, progress, stop)


async def _wait_for_all(waits: Waits, progress: Progress) -> None:
    """Wait for what an attempt has submitted; let go of what a task has left behind that timed out, or the like."""
    context = progress.context
    await wait_for_all(waits, context)
    if context.left_behind is not None:
        await let_go(waits, progress, context.left_behind)


def _leave(progress: Progress, error: LogError) -> None:
    """Put in line that a run is left because the log does not take its events; that is recorded once it does again."""
    if not progress.run.is_final:
        state, facts = crash(error)
        with suppress(LogError):
            progress.end(end_of(state, facts, 0, retriable=False), {})


def _checked(call: FlowCall, parameters: dict[str, Any]) -> tuple[dict[str, Any], ParameterTypeError | None]:
    """Return the parameters as the function gets them, and why they do not fit, if they do not."""
    learn_secrets(parameters)
    try:
        if call.flow.should_validate_parameters:
            parameters = call.flow.validate(parameters)
            learn_secrets(parameters)  # what was given as text may be a secret by its annotation
        if Personal.used:
            call.take_in(parameters)
    except ParameterTypeError as error:
        if Personal.used and (call.flow.marks is not None or not are_plain(parameters.values())):
            call.personal = parameters.keys()  # what the message says of them may be personal
        return {name: Refused(value) for name, value in parameters.items()}, error
    return parameters, None


def _sum_up(progress: Progress, past: Past) -> None:
    """Tell what going on has cost: which calls ran, and which recorded ones nobody asked for."""
    if not ENGINE.isEnabledFor(20):
        return
    counts = past.counts
    told = f"{counts['reused']} calls returned what is recorded, {counts['again']} ran again, {counts['new']} are new."
    say(ENGINE, 20, f"Flow run {progress.run.name!r}: {told}", {})
    memory = progress.context.memory
    missed = memory.missed() if memory is not None and memory.past is past else []
    if missed:
        names = ", ".join(call.name for call in missed[:5])
        say(ENGINE, 30, f"{len(missed)} recorded calls were not asked for again: {names}.", {})


async def _take_over(waits: Waits, call: FlowCall, progress: Progress) -> None:
    """Make a recorded run this process's own: one winner, and whoever had it before is refused from now on."""
    past = call.past
    assert past is not None
    unit = progress.take_over(past, call.actor)
    try:
        await waits.commit(call.engine.log, unit)
    except VersionConflict:
        raise CannotResume(
            f"The run {past.history.name!r} was changed by somebody else just now; look at it again."
        ) from None


async def _commit_end(waits: Waits, engine: Engine, unit: Unit, state: State[Any]) -> None:
    if state.type is StateType.CRASHED:
        engine.log.commit(unit)  # being cancelled or interrupted, the loop would not let us wait
    else:
        await waits.commit(engine.log, unit)


def _invalid(progress: Progress, error: ParameterTypeError, *, hide: bool) -> tuple[Unit, State[Any]]:
    """End a run whose parameters do not fit: it never started."""
    state: State[Any] = State(StateType.FAILED, None, str(error), error)
    told = str(error)
    if hide and not progress.run.subjects:
        told = f"{told.splitlines()[0]} what does not fit is not recorded, as it may be personal."
    facts = {"cause": "user_error", "message": told, "error": {"type": "ParameterTypeError", "message": told}}
    unit, _ = progress.end(end_of(state, facts, 0, retriable=False), {})
    return unit, state


async def _attempts(waits: Waits, progress: Progress) -> tuple[Unit, State[Any]]:
    """Call the function until it succeeds or its retries are used up."""
    context, flow = progress.context, progress.context.flow
    engine = context.engine
    arguments = flow.signature.call_with(context.parameters)
    while True:
        unit = progress.start()
        await waits.commit(engine.log, unit)
        if flow.hooks and context.flow_run.run_count == 1:
            await _hooks(waits, progress, State(StateType.RUNNING).of_run(context.flow_run.id))
        outcome = await call_user(waits, context, flow.function, arguments, flow.timeout_seconds)
        outcome = with_owners(spelled_out(context, outcome), flow, context.flow_run, context.parameters)
        if isinstance(outcome.error, RunSuspended):
            return await _suspend(waits, progress, outcome.error)
        if (request := _request(progress, outcome.error)) is not None:
            return await _cancel(waits, progress, request)
        found = unsuccessful(context, outcome, "Flow", flow.timeout_seconds)
        if found is not None and (outcome.timed_out or found[0].is_crashed()):
            await _give_up(waits if outcome.timed_out else SYNC, progress, *found)
        else:
            await _wait_for_all(waits, progress)
        if progress.cancelled is not None and found is not None:
            return await _cancel(waits, progress, progress.cancelled)
        progress.interruptible = False
        state, facts, blobs = await conclude(waits, context, found, outcome.value)
        end = end_of(state, facts, engine.clock.now(), retriable=worth_retrying(state))
        unit, event = progress.end(end, blobs)
        if (due := event.data.get("scheduled")) is None:
            return unit, state
        context = progress.context = _next_attempt(context)
        if progress.cancelled is not None:
            return await _cancel(waits, progress, progress.cancelled)
        progress.interruptible = True
        await waits.sleep(engine.clock, max(0.0, (due - engine.clock.now()) / 1e6), context.wake)
        check(context)


def _request(progress: Progress, error: BaseException | None) -> RunCancelled | None:
    """Return the request to cancel that an exception stands for; None if it is about something else."""
    own = progress.cancelled
    loop_task = asyncio.current_task() if progress.listens_in_loop and progress.struck else None
    while loop_task is not None and progress.struck:
        progress.struck -= 1  # others may have cancelled it besides
        loop_task.uncancel()
    if own is not None and error is not None:
        return own  # whatever the code has made of it
    told = None if error is None else explained(progress.context, error)
    return told if isinstance(told, RunCancelled) else None


async def _cancel(waits: Waits, progress: Progress, request: RunCancelled) -> tuple[Unit, State[Any]]:
    """End a run that somebody has cancelled, and all that it has begun; put down that the request has come first."""
    progress.interruptible = False
    context = progress.context
    context.stopped = request
    message = str(request)
    if not progress.run.is_cancelling:
        await waits.commit(context.engine.log, progress.change(Cancel({"message": message})))
        await _hooks(waits, progress, State(StateType.CANCELLING, None, message).of_run(context.flow_run.id))
    await end_soon(waits, context, context.engine.settings.cancel_grace_seconds)
    await let_go(waits, progress, request)
    own = request.run_id == context.flow_run.id
    state: State[Any] = State(StateType.CANCELLED, None, message, CancelledRun(message) if own else request)
    unit, _ = progress.end(end_of(state, {"cause": "cancelled"}, 0, retriable=False), {})
    return unit, state


async def _suspend(waits: Waits, progress: Progress, suspension: RunSuspended) -> tuple[Unit, State[Any]]:
    """Let go of a run until somebody resumes it; what it has begun ends first."""
    await _wait_for_all(waits, progress)
    if progress.cancelled is not None:
        return await _cancel(waits, progress, progress.cancelled)
    progress.interruptible = False
    facts = suspension.facts
    unit = progress.change(Pause(facts))
    until = to_datetime(facts["deadline"])
    return unit, Suspended(pause_expiration_time=until, pause_key=facts["key"], message=facts["message"])


def _next_attempt(context: FlowRunContext) -> FlowRunContext:
    """Return the context of another attempt: code of one that timed out must not go on in its name."""
    following = copy.copy(context)
    context.stopped = context.stopped or abandoned_by(context, "is tried again", "cancelled")
    following.stopped = following.left_behind = None
    following.wake = threading.Event()
    following.pauses = count(1)
    following.tally = Tally()
    following.open_futures = set()
    assert following.memory is not None
    following.memory.begin_attempt()
    return following


def _settle_details(progress: Progress, state: State[Any]) -> None:
    mirror = progress.mirror
    own = progress.run
    state.of_run(own.id, None if mirror is None else mirror.key, None if mirror is None else own.id)
