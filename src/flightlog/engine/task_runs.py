"""How a task run goes: from the call to its final state. One coroutine for sync and async."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from types import MappingProxyType
from typing import Any

from flightlog.engine.bridge import Waits
from flightlog.engine.caching import Lookup, look_up, lookup_of
from flightlog.engine.calls import Call, CallMemory
from flightlog.engine.context import TaskRunContext, check
from flightlog.engine.hooks import beside, call_hooks
from flightlog.engine.keeping import kept, named, privately
from flightlog.engine.outcomes import (
    Outcome,
    call_user,
    crash,
    end_of,
    failure,
    unsuccessful,
    value_facts,
    with_owners,
    worth_retrying,
)
from flightlog.engine.parameters import learn_secrets
from flightlog.engine.privacy import belongs
from flightlog.engine.recall import CannotRecall, check_new, recalled
from flightlog.engine.results import PLAINLY, Keeping
from flightlog.engine.run_logs import get_run_logger, logged_prints
from flightlog.engine.runs import TaskRun
from flightlog.engine.slots import NoSlots, Slots
from flightlog.engine.states import State, StateType
from flightlog.engine.task_calls import TaskCall, create, digest_of, pass_on, tags_of
from flightlog.engine.tracking import Tracker
from flightlog.engine.transaction_parts import RecalledTask, SettledTask, TaskPart
from flightlog.engine.transactions import TRANSACTION
from flightlog.engine.transitions import End, Refuse, Rerun, Start, Wait
from flightlog.engine.upstream import resolved
from flightlog.errors import (
    CallsDiffer,
    ConcurrencySlotAcquisitionError,
    InvalidNameError,
    LogError,
    ParameterTypeError,
    TakenOver,
    UpstreamTaskError,
)
from flightlog.events.model import NewEvent
from flightlog.events.store import Unit

_AS_IT_IS = nullcontext()
_COMPLETED = "task_run.completed"
_NOT_KEPT = Keeping(persist=False)
_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})


async def run_task(waits: Waits, call: TaskCall) -> State[Any]:
    """Take a call to its final state and return that; the caller raises what is to be raised.

    Raises:
        LogError, TakenOver: the log does not take the run's events, so the run cannot go on.
    """
    try:
        state = await _resolve_and_run(waits, call)
    except (LogError, TakenOver, CallsDiffer):
        for append in call.given_back(ended=True):
            with suppress(LogError):
                call.flow.engine.log.enqueue([append])
        raise
    except BaseException as error:
        if call.run is not None and call.run.is_final:
            raise
        # An interrupt between two steps still ends in the log.
        state = _end(call, crash(error))
    flow = call.flow
    if call.parent is None:
        flow.tally.add(state, 0 if call.run is None else call.run.number)
    return state


async def _resolve_and_run(waits: Waits, call: TaskCall) -> State[Any]:
    flow, memory, task = call.flow, call.flow.memory, call.task
    try:
        parameters = await resolved(waits, call.parameters, call.wait_for)
    except UpstreamTaskError as error:
        return _refuse(call, error)
    except LogError:
        raise
    except Exception as error:  # noqa: BLE001 - an iterator among the arguments is the user's own code
        return failed(call, error)
    learn_secrets(parameters)
    try:
        digest = digest_of(call, parameters)
    except ParameterTypeError as error:
        return failed(call, error)
    parent = None if call.parent is None else call.parent.task_run.key
    state = None
    if memory is not None and call.run is None and memory.has_past:
        state = await _repeat(waits, call, memory, parent, digest, parameters)
    if state is None:
        state = await _run(waits, call, parameters, digest)
    if memory is not None:
        memory.add(parent, task.key, digest, Call(call.run, state, part=call.part, partial=call.partial))
    if state.type is StateType.COMPLETED and call.run is not None:
        flow.tracker.add(state.data, call.run.key)
    if call.run is not None and call.run.subjects:
        pass_on(call, call.run, state)
    return state


async def _run(waits: Waits, call: TaskCall, parameters: dict[str, Any], digest: bytes | None) -> State[Any]:
    """Take the value from the cache, or call the function."""
    run = call.run or create(call)
    cache = None
    if call.task.cache_policy is not None:
        cache = await _look_up(waits, call, run, parameters)
    if call.lookup is not None and call.lookup.hit:
        return _cached(call, run, call.lookup, digest)
    return await _attempts(waits, call, run, parameters, digest, cache)


async def _repeat(
    waits: Waits,
    call: TaskCall,
    memory: CallMemory,
    parent: bytes | None,
    digest: bytes | None,
    parameters: dict[str, Any],
) -> State[Any] | None:
    """Return the state that the same call ended in earlier; None if it has to run, for the first time or again."""
    earlier = memory.take(parent, call.task.key, digest)
    if earlier is None:
        alone = not call.flow.isasync and len(call.flow.open_futures) <= call.submitted
        check_new(call.flow, memory, parent, call.task.key, alone=alone)
        memory.count("new")
        return None
    tags = tags_of(call.task, call.flow)
    reason: str | None = None
    if digest is None and earlier.completed:
        reason = "The call runs again: its arguments cannot be compared with those that it had before."
    try:
        earlier = recalled(call.flow, earlier, call.task, tags)
    except CannotRecall as error:
        reason = f"The call runs again: {error}."
    call.run = earlier.run
    _take_back(call, earlier)
    if call.run is None and earlier.recorded is not None:
        memory.stand_for(create(call).key, earlier.recorded.key)
    if reason is None and earlier.counts:
        if not await earlier.is_too_short(waits):
            memory.count("reused")
            call.partial = earlier.is_partial
            _rejoin(call, earlier, parameters)
            return earlier.state
        reason = "The call runs again: more pieces are wanted than were taken of it."
    memory.count("again" if call.run is not None and call.run.run_count else "new")
    _undo(call, earlier, parameters)
    if call.run is not None:
        call.pending.append(rerun := call.run.record(Rerun(_rerun_facts(call.run, tags, reason))))
        call.run.tell(rerun)
    return None


def _take_back(call: TaskCall, earlier: Call) -> None:
    """Have a recorded run belong to whom it belonged."""
    if earlier.recorded is not None and (group := (earlier.recorded.result or {}).get("personal")) is not None:
        call.subjects |= call.flow.engine.vault.members(group)
    if call.run is not None and call.subjects:
        belongs(call.run, call.subjects)


def _rejoin(call: TaskCall, earlier: Call, parameters: dict[str, Any]) -> None:
    """Make a call that is answered from what is on record a part of its transaction again, unless it is committed."""
    call.part, transaction, state = earlier.part, TRANSACTION.get(), earlier.state
    if transaction is None or call.run is None or state is None or not state.is_completed():
        return
    recorded = earlier.recorded
    if call.part is None and recorded is not None and state.name != "Cached":
        context = _context(call, call.run, parameters)
        if not recorded.committed:
            call.part = RecalledTask(context, state, recorded.position)
        elif recorded.hooks < len(call.task.hooks.get("on_commit", ())):
            call.part = SettledTask(context, state, recorded.hooks)
    if call.part is not None:
        transaction.add(call.part)


def _undo(call: TaskCall, earlier: Call, parameters: dict[str, Any]) -> None:
    """Undo what a call did that was rolled back, if a crash came between, before it runs again."""
    recorded, run = earlier.recorded, call.run
    if recorded is None or run is None or not recorded.rolled_back:
        return
    if recorded.hooks < len(call.task.hooks.get("on_rollback", ())):
        state: State[Any] = State(StateType.COMPLETED, "RolledBack").of_run(run.flow_run_id, run.key)
        SettledTask(_context(call, run, parameters), state, recorded.hooks).undo(TRANSACTION.get())


def _context(call: TaskCall, run: TaskRun, parameters: dict[str, Any]) -> TaskRunContext:
    """Return the context of an attempt."""
    prints = call.flow.log_prints if call.task.log_prints is None else call.task.log_prints
    return TaskRunContext(call.flow, call.task, run, parameters, log_prints=prints, parent=call.parent)


def _rerun_facts(run: TaskRun, tags: frozenset[str], reason: str | None) -> dict[str, Any]:
    """Return what the log is told of a run that runs again: why, and its tags if they are other ones by now."""
    facts: dict[str, Any] = {} if reason is None else {"message": reason}
    if tags != run.tags:
        run.tags, facts["tags"] = tags, sorted(tags)
    return facts


async def _may_start(waits: Waits, call: TaskCall) -> None:
    """Let nothing start in a run that is being cancelled; wait while it is paused.

    Raises:
        RunCancelled: it is being cancelled.
    """
    check(call.parent or call.flow)
    while (paused := call.flow.paused) is not None:
        await waits.settled(paused, _nothing)
        check(call.parent or call.flow)


def _nothing() -> None:
    pass


async def _look_up(waits: Waits, call: TaskCall, run: TaskRun, parameters: dict[str, Any]) -> dict[str, Any]:
    """Find what the cache has for a call, and return what the log is told of that.

    What it is asked with is a context of its own: no attempt has begun.
    """
    if call.pending:
        run.journal.put(call.pending)
        call.pending = []
    context = TaskRunContext(call.flow, call.task, run, parameters, log_prints=False, parent=call.parent)
    keeping = call.task.keeping(call.flow.keeping)
    found = lookup_of(context, keeping)
    if isinstance(found, str):
        return {"uncached": found}
    call.lookup = found
    await look_up(waits, found, keeping)
    return found.facts


def _cached(call: TaskCall, run: TaskRun, lookup: Lookup, digest: bytes | None) -> State[Any]:
    """End a call whose value was in the cache, without calling the function."""
    state: State[Any] = State(StateType.COMPLETED, "Cached", None, lookup.value)
    state.of_run(run.flow_run_id, run.key)
    if (group := (lookup.reference or {}).get("personal")) is not None:
        belongs(run, call.flow.engine.vault.members(group))
    facts: dict[str, Any] = {"result": dict(lookup.reference or {}), "cache": lookup.facts}
    if digest is not None:
        facts["digest"] = digest
    event = run.record(end_of(state, facts, 0))
    run.journal.put([event])
    run.tell(event)
    return state


async def _acquired(waits: Waits, call: TaskCall, run: TaskRun) -> None:
    """Take a slot of each limited tag of a run; wait for it if need be.

    Raises:
        NoSlots: the limit of a tag is 0.
    """
    names = [f"tag:{tag}" for tag in sorted(run.tags)]
    who = {"flow_run_id": call.flow.flow_run.key, "task_run_id": run.key}

    def waiting(message: str) -> Unit:
        events = [*call.pending, run.record(Wait({"name": "AwaitingConcurrencySlot", "message": message}))]
        call.pending = []
        return run.journal.put(events)

    call.slots = Slots(call.flow.engine, names, run=who, wake=call.flow.wake)
    await call.slots.acquire(waits, waiting=waiting)


async def _attempts(
    waits: Waits,
    call: TaskCall,
    run: TaskRun,
    parameters: dict[str, Any],
    digest: bytes | None,
    cache: dict[str, Any] | None,
) -> State[Any]:
    """Call the function until it succeeds or its retries are used up."""
    task, flow = call.task, call.flow
    engine, journal = flow.engine, run.journal
    arguments = task.signature.call_with(parameters)
    prints = flow.log_prints if task.log_prints is None else task.log_prints
    facts: dict[str, Any] = {} if digest is None or run.run_count else {"digest": digest}
    if cache is not None:
        facts["cache"] = cache
    with logged_prints() if prints else _AS_IT_IS:
        while True:
            await _may_start(waits, call)
            if run.tags:
                try:
                    await _acquired(waits, call, run)
                except NoSlots as error:
                    return _end(call, (State(StateType.CANCELLED, message=str(error)), {"cause": "cancelled"}))
                except ConcurrencySlotAcquisitionError as error:
                    return _end(call, failure(error, "Task run encountered an exception"))
            call.pending.append(run.record(Start(facts)))
            unit = journal.put(call.pending)
            call.pending, facts = [], {}
            # Write-ahead: that the body starts is committed before it does.
            await waits.commit(engine.log, unit)
            # One for each attempt: code of one that timed out must not go on in the next one's name.
            context = TaskRunContext(flow, task, run, parameters, log_prints=prints, parent=call.parent)
            if task.hooks and run.run_count == 1:
                running: State[Any] = State(StateType.RUNNING).of_run(run.flow_run_id, run.key)
                await call_hooks(waits, context, run, running, {"task": task, "task_run": run})
            outcome, keeping = await _called(waits, call, context, arguments)
            state, end, blobs = await _conclude(waits, call, context, outcome, keeping)
            event = run.record(end)
            due = event.data.get("scheduled")
            unit = journal.put([event], blobs)
            _give_back(call, event, blobs)
            run.tell(event)
            if due is None:
                if (part_of := TRANSACTION.get()) is not None and state.type is StateType.COMPLETED:
                    call.part = TaskPart(context, state, None if call.lookup is None else call.lookup.stream)
                    part_of.add(call.part)
                if task.hooks:
                    await waits.commit(engine.log, unit)
                    await call_hooks(waits, context, run, state, {"task": task, "task_run": run})
                return state
            await waits.sleep(engine.clock, max(0.0, (due - engine.clock.now()) / 1e6), flow.wake)


async def _called(
    waits: Waits, call: TaskCall, context: TaskRunContext, arguments: tuple[tuple[Any, ...], dict[str, Any]]
) -> tuple[Outcome, Keeping]:
    """Call the function; return what came of it, and how its value is kept."""
    task = call.task
    try:
        keeping = _keeping(call, context)
    except InvalidNameError as error:
        return Outcome(error=error), call.flow.keeping
    outcome = await call_user(waits, context, task.function, arguments, task.timeout_seconds)
    return with_owners(outcome, task, context.task_run, context.parameters), keeping


async def _conclude(
    waits: Waits, call: TaskCall, context: TaskRunContext, outcome: Outcome, keeping: Keeping
) -> tuple[State[Any], End, Any]:
    """Return the state that an attempt leads to, the command that says so, and the blobs that go with it."""
    found = unsuccessful(context, outcome, "Task", call.task.timeout_seconds)
    if found is None:
        state = _returned_state(outcome.value)
        told: dict[str, Any] = {"cause": "user_error"} if state.type is StateType.FAILED else {}
    else:
        state, told = found
    state.of_run(context.task_run.flow_run_id, context.task_run.key)
    if state.type is StateType.COMPLETED:
        told, blobs = await kept(waits, call.flow.engine, state, privately(keeping, context.task_run))
        if call.task.isgenerator and waits.partial:
            call.partial = told["partial"] = True
        if call.lookup is not None:
            told |= call.lookup.told(told["result"])
        if state.load is not None:
            state.load = partial(_tracked, state.load, call.flow.tracker, context.task_run.key)
        return state, end_of(state, told, 0), blobs
    return state, *await _unsuccessful_end(waits, call, context, state, told)


def _tracked(load: Callable[[], Any], tracker: Tracker, task_run: bytes) -> Any:
    """Load a value, and remember where it comes from."""
    value = load()
    tracker.add(value, task_run)
    return value


def _give_back(call: TaskCall, event: NewEvent, blobs: Mapping[bytes, bytes]) -> None:
    """Put in line what goes with the end of an attempt: its value into the cache, and what it holds to the others.

    In units of their own: should one be refused (its claim has passed to somebody else), the end is not.
    """
    if call.lookup is None and call.slots is None:
        return
    log = call.flow.engine.log
    whole = event.type == _COMPLETED and not call.partial
    if call.lookup is not None and whole and (stored := call.lookup.stored(event.data["result"])):
        call.lookup.in_line(log.enqueue(stored), blobs)
    for append in call.given_back(ended="scheduled" not in event.data):
        log.enqueue([append])


def _keeping(call: TaskCall, context: TaskRunContext) -> Keeping:
    """Return how the value of a task run is kept."""
    task, flow = call.task, call.flow
    found = task.keeping(flow.keeping)
    if task.result_storage_key is None:
        return found
    return named(found, flow.engine.settings.home, task.result_storage_key, context)


async def _unsuccessful_end(
    waits: Waits, call: TaskCall, context: TaskRunContext, state: State[Any], facts: dict[str, Any]
) -> tuple[End, Any]:
    """Return the command that ends an attempt which did not complete, and the blobs that go with it."""
    task, run, engine = call.task, context.task_run, call.flow.engine
    retriable = run.will_retry(state.type, facts.get("cause")) and worth_retrying(state)
    if retriable and task.retry_condition_fn is not None:
        retriable = await _condition_holds(waits, context, state)
    blobs: Any = _NOTHING
    if state.type is StateType.FAILED and not retriable:
        # Exceptions are for resuming only: they go the usual way, whatever is said of values.
        keeping = privately(PLAINLY if task.persist_result is not False else _NOT_KEPT, run)
        result, blobs = value_facts(engine.key, state.data, keeping)
        facts = {**facts, **result}
    end = end_of(state, facts, engine.clock.now(), retriable=retriable)  # when its retry is due depends on the time
    if retriable and task.retry_jitter_factor:
        spread = min(1.0, task.retry_jitter_factor)
        end.stretch = 1 + spread * (2 * engine.ids.chance() - 1)
    return end, blobs


async def _condition_holds(waits: Waits, context: TaskRunContext, state: State[Any]) -> bool:
    """Ask the task's own function whether a failure is worth another attempt; one that raises says no."""
    condition, arguments = context.task.retry_condition_fn, (context.task, context.task_run, state)
    outcome = await beside(waits, context, condition, arguments)
    if outcome.error is not None:
        get_run_logger(context).error(
            "The retry condition %r failed; the run is not tried again.",
            getattr(condition, "__name__", condition),
            exc_info=outcome.error,
        )
    return outcome.error is None and bool(outcome.value)


def _returned_state(value: Any) -> State[Any]:
    """Return the state that a function's value means: itself if it is one, else Completed with the value."""
    if isinstance(value, State):
        return State(value.type, value.name, value.message, value.data)
    return State(StateType.COMPLETED, None, None, value)


def _refuse(call: TaskCall, error: UpstreamTaskError) -> State[Any]:
    """End a call that cannot start."""
    run = call.run or _unstarted(call) or create(call)
    event = run.record(Refuse({"message": str(error)}))
    run.journal.put([*call.pending, event])
    call.pending = []
    return State(StateType.PENDING, "NotReady", str(error)).of_run(run.flow_run_id, run.key)


def _unstarted(call: TaskCall) -> TaskRun | None:
    """Return the task run of an earlier call that could not start either."""
    memory = call.flow.memory
    if memory is None or not memory.has_past:
        return None
    parent = None if call.parent is None else call.parent.task_run.key
    earlier = memory.take_unstarted(parent, call.task.key)
    return None if earlier is None else recalled(call.flow, earlier, call.task).run


def _end(call: TaskCall, found: tuple[State[Any], dict[str, Any]]) -> State[Any]:
    """End a run that was interrupted outside its function."""
    state, facts = found
    run = call.run or create(call)
    state.of_run(run.flow_run_id, run.key)
    event = run.record(end_of(state, facts, 0, retriable=False))
    try:
        run.journal.put([*call.pending, event])
    finally:
        for append in call.given_back(ended=True):
            run.journal.engine.log.enqueue([append])
    call.pending = []
    run.tell(event)
    return state


def interrupted(call: TaskCall, error: BaseException) -> State[Any]:
    """End a call that could not be started."""
    return failed(call, error) if isinstance(error, RecursionError) else _end(call, crash(error))


def failed(call: TaskCall, error: Exception) -> State[Any]:
    """End a call that the user's code keeps from starting."""
    return _end(call, failure(error, "Task run encountered an exception"))


def cancelled(call: TaskCall) -> State[Any]:
    """End a call whose flow ended before it could start."""
    state: State[Any] = State(StateType.CANCELLED, message="The flow run ended before this task run could start.")
    return _end(call, (state, {"cause": "cancelled"}))
