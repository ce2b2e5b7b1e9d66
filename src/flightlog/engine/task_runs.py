"""How a task run goes: from the call to its final state. One coroutine for sync and async."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flightlog.engine.arguments import sources
from flightlog.engine.bridge import Waits
from flightlog.engine.calls import Call, CallMemory
from flightlog.engine.context import TAGS, FlowRunContext, RunContext, TaskRunContext
from flightlog.engine.digests import input_digest
from flightlog.engine.hooks import beside, call_hooks
from flightlog.engine.keeping import kept, named
from flightlog.engine.names import run_name
from flightlog.engine.outcomes import (
    Outcome,
    call_user,
    crash,
    end_of,
    unsuccessful,
    value_facts,
)
from flightlog.engine.parameters import learn_secrets
from flightlog.engine.recall import CannotRecall, check_new, recalled
from flightlog.engine.results import PLAINLY, Keeping
from flightlog.engine.run_logs import get_run_logger, logged_prints
from flightlog.engine.runs import TaskRun
from flightlog.engine.states import State, StateType
from flightlog.engine.transitions import Create, End, Policy, Refuse, Rerun, Start
from flightlog.engine.upstream import resolved
from flightlog.errors import CallsDiffer, LogError, TakenOver, UpstreamTaskError
from flightlog.events.model import NewEvent

if TYPE_CHECKING:
    from flightlog.engine.tasks import Task

_WAIT_FOR = "wait_for"
_AS_IT_IS = nullcontext()
_NOT_KEPT = Keeping(persist=False)
_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})


@dataclass(slots=True)
class TaskCall:
    """A call of a task, on its way to being a task run.

    Attributes:
        task: the task.
        flow: the flow run that it is made in.
        parent: the task run that it is made in, if it is made in one.
        parameters: the arguments by parameter; futures and states still in them.
        wait_for: runs to wait for, besides.
        run: the task run; None until it is created.
        pending: events of the run that are not in line yet.
        submitted: whether it was submitted, so that the flow goes on meanwhile.
    """

    task: "Task[Any, Any]"
    flow: FlowRunContext
    parent: TaskRunContext | None
    parameters: dict[str, Any]
    wait_for: Iterable[Any] | None
    run: TaskRun | None = None
    pending: list[NewEvent] = field(default_factory=list)
    submitted: bool = False


def new_call(
    task: "Task[Any, Any]", context: RunContext, parameters: dict[str, Any], wait_for: Iterable[Any] | None
) -> TaskCall:
    """Return a call; its run is created at once, unless an earlier attempt of the flow may have it already."""
    flow = context.flow_context
    parent = context if isinstance(context, TaskRunContext) else None
    call = TaskCall(task, flow, parent, parameters, None if wait_for is None else list(_each(wait_for)))
    if flow.memory is None or not flow.memory.has_past:
        create(call)
    return call


def _each(wait_for: Any) -> Iterable[Any]:
    return wait_for if isinstance(wait_for, Iterable) and not isinstance(wait_for, (str, bytes)) else [wait_for]


def create(call: TaskCall) -> TaskRun:
    """Create the task run of a call."""
    task, flow = call.task, call.flow
    counter = flow.counters.get(task.key)
    if counter is None:
        counter = flow.counters.setdefault(task.key, count())
    name = run_name(task.task_run_name, call.parameters) or f"{task.name}-{task.key_hash}-{next(counter)}"
    facts: dict[str, Any] = {"task": task.name, "key": task.key, "name": name}
    if call.parent is not None:
        facts["parent"] = call.parent.task_run.key
    if inputs := inputs_of(flow, call.parameters, call.wait_for):
        facts["inputs"] = inputs
    policy = task.policy(flow.engine.task_policy)
    if policy.retries:
        facts["retries"] = policy.retries
    if tags := task.tags | TAGS.get() | flow.tags:
        facts["tags"] = sorted(tags)
    call.run = new_task_run(flow, call.parent, name, task.name, policy)
    call.run.tags = tags
    call.pending.append(created := call.run.record(Create(facts)))
    call.run.tell(created)
    return call.run


def new_task_run(
    flow: FlowRunContext,
    parent: TaskRunContext | None,
    name: str,
    task_name: str,
    policy: Policy,
) -> TaskRun:
    """Return a task run of a flow run, caused by whoever made the call."""
    journal = flow.flow_run.journal
    cause = (flow.flow_run if parent is None else parent.task_run).cause
    return TaskRun(
        journal,
        journal.engine.ids.new(),
        name,
        task_name=task_name,
        number=next(flow.numbers),
        policy=policy,
        cause=cause,
    )


def inputs_of(
    flow: FlowRunContext, parameters: Mapping[str, Any], wait_for: Iterable[Any] | None
) -> dict[str, list[bytes]]:
    """Return which task runs of a flow run each argument comes from."""
    tracker = flow.tracker
    inputs = {name: runs for name, value in parameters.items() if (runs := sources(value, tracker))}
    if wait_for and (runs := sources(wait_for, tracker)):
        inputs[_WAIT_FOR] = runs
    return inputs


async def run_task(waits: Waits, call: TaskCall) -> State[Any]:
    """Take a call to its final state and return that; the caller raises what is to be raised.

    Raises:
        LogError, TakenOver: the log does not take the run's events, so the run cannot go on.
    """
    try:
        state = await _resolve_and_run(waits, call)
    except (LogError, TakenOver, CallsDiffer):
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
    flow, memory = call.flow, call.flow.memory
    engine = flow.engine
    try:
        parameters = await resolved(waits, call.parameters, call.wait_for)
    except UpstreamTaskError as error:
        return _refuse(call, error)
    learn_secrets(parameters)
    digest = input_digest(engine.key, parameters)
    if memory is not None:
        parent = None if call.parent is None else call.parent.task_run.key
        state = _repeat(call, memory, parent, digest) if call.run is None and memory.has_past else None
        if state is not None:
            memory.add(parent, call.task.key, digest, Call(call.run, state))
            if state.type is StateType.COMPLETED and call.run is not None:
                flow.tracker.add(state.data, call.run.key)
            return state
    run = call.run or create(call)
    state = await _attempts(waits, call, run, parameters, digest)
    if memory is not None:
        memory.add(parent, call.task.key, digest, Call(run, state))
    if state.type is StateType.COMPLETED:
        flow.tracker.add(state.data, run.key)
    return state


def _repeat(call: TaskCall, memory: CallMemory, parent: bytes | None, digest: bytes | None) -> State[Any] | None:
    """Return the state that the same call ended in earlier; None if it has to run, for the first time or again."""
    earlier = memory.take(parent, call.task.key, digest)
    if earlier is None:
        alone = not call.flow.isasync and len(call.flow.open_futures) <= call.submitted
        check_new(call.flow, memory, parent, call.task.key, alone=alone)
        memory.count("new")
        return None
    reason: str | None = None
    if digest is None and earlier.completed:
        reason = "The call runs again: its arguments cannot be compared with those that it had before."
    try:
        earlier = recalled(call.flow, earlier, call.task)
    except CannotRecall as error:
        reason = f"The call runs again: {error}."
    call.run, state = earlier.run, earlier.state
    if call.run is None and earlier.recorded is not None:
        memory.stand_for(create(call).key, earlier.recorded.key)
    if reason is None and state is not None and (state.is_completed() or earlier.recorded is not None):
        memory.count("reused")
        return state
    memory.count("again" if call.run is not None and call.run.run_count else "new")
    if call.run is not None:
        call.pending.append(rerun := call.run.record(Rerun({"message": reason} if reason else {})))
        call.run.tell(rerun)
    return None


async def _attempts(
    waits: Waits, call: TaskCall, run: TaskRun, parameters: dict[str, Any], digest: bytes | None
) -> State[Any]:
    """Call the function until it succeeds or its retries are used up."""
    task, flow = call.task, call.flow
    engine, journal = flow.engine, run.journal
    arguments = task.signature.call_with(parameters)
    prints = flow.log_prints if task.log_prints is None else task.log_prints
    facts: dict[str, Any] = {} if digest is None or run.run_count else {"digest": digest}
    with logged_prints() if prints else _AS_IT_IS:
        while True:
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
            outcome = await call_user(waits, context, task.function, arguments, task.timeout_seconds)
            state, told = _concluded(call, outcome)
            if state.type is StateType.COMPLETED:
                told, blobs = await kept(waits, engine, state, _keeping(call, context))
                end = end_of(state, told, 0)
            else:
                end, blobs = await _unsuccessful_end(waits, call, context, state, told)
            event = run.record(end)
            unit = journal.put([event], blobs)
            run.tell(event)
            if (due := event.data.get("scheduled")) is None:
                if task.hooks:
                    await waits.commit(engine.log, unit)
                    await call_hooks(waits, context, run, state, {"task": task, "task_run": run})
                return state
            await waits.sleep(engine.clock, max(0.0, (due - engine.clock.now()) / 1e6))


def _concluded(call: TaskCall, outcome: Outcome) -> tuple[State[Any], dict[str, Any]]:
    """Return the state that an attempt leads to, and what the log is told of it."""
    found = unsuccessful(outcome, "Task", call.task.timeout_seconds)
    if found is None:
        state = _returned_state(outcome.value)
        found = state, {"cause": "user_error"} if state.type is StateType.FAILED else {}
    assert call.run is not None
    found[0].of_run(call.run.flow_run_id, call.run.key)
    return found


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
    retriable = run.will_retry(state.type, facts.get("cause"))
    if retriable and task.retry_condition_fn is not None:
        retriable = await _condition_holds(waits, context, state)
    blobs: Any = _NOTHING
    if state.type is StateType.FAILED and not retriable:
        # Exceptions are for resuming only: they go the usual way, whatever is said of values.
        result, blobs = value_facts(engine.key, state.data, PLAINLY if task.persist_result is not False else _NOT_KEPT)
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
    run.journal.put([*call.pending, event])
    call.pending = []
    run.tell(event)
    return state


def interrupted(call: TaskCall, error: BaseException) -> State[Any]:
    """End a call that could not be started."""
    return _end(call, crash(error))


def cancelled(call: TaskCall) -> State[Any]:
    """End a call whose flow ended before it could start."""
    state: State[Any] = State(StateType.CANCELLED, message="The flow run ended before this task run could start.")
    return _end(call, (state, {"cause": "cancelled"}))
