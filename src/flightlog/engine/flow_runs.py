"""How a flow run goes: from the call to its final state. One coroutine for sync and async."""

import copy
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightlog.engine import provenance
from flightlog.engine.arguments import Found, look, replace
from flightlog.engine.bridge import Waits
from flightlog.engine.calls import Call, CallMemory
from flightlog.engine.context import CURRENT, FlowRunContext, RunContext, TaskRunContext
from flightlog.engine.digests import input_digest
from flightlog.engine.futures import BaseFuture
from flightlog.engine.names import entrypoint, run_name, source_file
from flightlog.engine.outcomes import call_user, crash, end_of, unsuccessful, value_facts
from flightlog.engine.parameters import Refused, learn_secrets, recorded
from flightlog.engine.results import blob_of
from flightlog.engine.run_logs import ENGINE, logged_prints, say
from flightlog.engine.runs import FlowRun, Journal, TaskRun
from flightlog.engine.runtime import Engine
from flightlog.engine.states import State, StateType, Tally, run_details
from flightlog.engine.submissions import end_early, wait_for_all
from flightlog.engine.task_runs import inputs_of, new_task_run
from flightlog.engine.tracking import Tracker
from flightlog.engine.transitions import Create, End, Refuse, Start
from flightlog.engine.upstream import resolved, settled_state, value_of
from flightlog.errors import LogError, ParameterTypeError, TakenOver, UpstreamTaskError
from flightlog.events.model import Append, NewEvent
from flightlog.events.store import Unit

if TYPE_CHECKING:
    from flightlog.engine.flows import Flow


@dataclass(slots=True)
class FlowCall:
    """A call of a flow, on its way to being a flow run.

    Attributes:
        flow: the flow.
        engine: gives log, clock and ids.
        caller: the run that it is made in; None for an outermost flow.
        parameters: the arguments by parameter; futures and states still in them.
        wait_for: runs to wait for, besides.
        inputs: which task runs each argument comes from.
    """

    flow: "Flow[Any, Any]"
    engine: Engine
    caller: RunContext | None
    parameters: dict[str, Any]
    wait_for: Iterable[Any] | None
    inputs: dict[str, list[bytes]] = field(default_factory=dict)


class _Progress:
    """A flow run and the task run that stands for it in its parent: what happens to one, happens to both."""

    def __init__(self, context: FlowRunContext, mirror: TaskRun | None, pending: list[NewEvent], blobs: Any) -> None:
        self.context = context
        self.run = context.flow_run
        self.mirror = mirror
        self._pending = pending
        self._blobs = blobs
        self._mirrored: list[NewEvent] = []

    def create_mirror(self, facts: dict[str, Any]) -> None:
        if self.mirror is not None:
            self._mirrored.append(self.mirror.record(Create(facts)))

    def start(self) -> Unit:
        """Put in line that an attempt starts."""
        self._pending.append(self.run.record(Start(provenance.process())))
        if self.mirror is not None:
            self._mirrored.append(self.mirror.record(Start()))
        return self._put()

    def refuse(self, message: str) -> tuple[Unit, State[Any]]:
        """Put in line that the run cannot start; return what to wait for, and the state."""
        self._pending.append(self.run.record(Refuse({"message": message})))
        if self.mirror is not None:
            self._mirrored.append(self.mirror.record(Refuse({"message": message})))
        return self._put(), State(StateType.PENDING, "NotReady", message)

    def end(self, end: End, blobs: Any) -> tuple[Unit, NewEvent]:
        """Put in line that an attempt ended; return what to wait for, and the event."""
        event = self.run.record(end)
        self._pending.append(event)
        self._blobs = {**self._blobs, **blobs}
        if self.mirror is not None:
            facts = {**end.facts, "child_flow_run_id": self.run.key}
            self._mirrored.append(self.mirror.record(End(end.type, facts, end.now, end.retriable)))
        return self._put(), event

    def _put(self) -> Unit:
        appends: list[Append] = []
        if self.mirror is not None and self._mirrored:
            appends.append(self.mirror.journal.append(self._mirrored))
        appends.append(self.run.journal.append(self._pending, self._blobs))
        unit = self.context.engine.log.enqueue(appends)
        told = [(self.mirror, event) for event in self._mirrored] + [(self.run, event) for event in self._pending]
        self._pending, self._mirrored, self._blobs = [], [], {}
        for run, event in told:
            if run is not None:
                run.tell(event)
        return unit


async def run_flow(waits: Waits, call: FlowCall) -> State[Any]:
    """Take a call to its final state and return that; the caller raises what is to be raised.

    Raises:
        UpstreamTaskError: what a subflow rests on did not complete.
        LogError, TakenOver: the log does not take the run's events, so the run cannot go on.
    """
    parent = call.caller.flow_context if call.caller is not None else None
    parameters = call.parameters
    if parent is not None:
        call.inputs = inputs_of(parent, call.parameters, call.wait_for)
        parameters = await resolved(waits, call.parameters, None)
    digest = input_digest(call.engine.key, parameters)
    memory_key = (None, f"flow:{call.flow.key}", digest)
    if parent is not None and parent.memory is not None:
        earlier = parent.memory.take(*memory_key)
        if earlier is not None and earlier.state.is_completed():
            parent.memory.add(*memory_key, earlier)
            parent.tally.add(earlier.state)
            return earlier.state
    state = await _run(waits, call, parameters)
    if parent is not None:
        if parent.memory is not None:
            parent.memory.add(*memory_key, Call(None, state))
        if not isinstance(call.caller, TaskRunContext):
            parent.tally.add(state, next(parent.numbers))
    return state


async def _run(waits: Waits, call: FlowCall, parameters: dict[str, Any]) -> State[Any]:
    flow, engine = call.flow, call.engine
    learn_secrets(parameters)
    refusal: ParameterTypeError | None = None
    if flow.should_validate_parameters:
        try:
            parameters = flow.validate(parameters)
            learn_secrets(parameters)  # what was given as text may be a secret by its annotation
        except ParameterTypeError as error:
            refusal = error
            parameters = {name: Refused(value) for name, value in parameters.items()}
    progress = _create(call, parameters)
    try:
        if refusal is not None:
            unit, state = _invalid(progress, refusal)
        else:
            await resolved(waits, {}, call.wait_for)
            context = progress.context
            with context.task_runner.start(), logged_prints() if context.log_prints else nullcontext():
                unit, state = await _attempts(waits, progress)
    except UpstreamTaskError as error:
        unit, state = progress.refuse(str(error))
    except (LogError, TakenOver):
        raise
    except BaseException as error:
        await end_early(progress.context)
        if progress.run.is_final:
            raise
        state, facts = crash(error)
        unit, _ = progress.end(end_of(state, facts, 0, retriable=False), {})
    finally:
        progress.context.closed = True
    _settle_details(progress, state)
    if call.caller is None:
        # Nothing leaves the process before what it rests on is committed.
        engine.lines.put(progress.run.id)
        await _commit_end(waits, engine, unit, state)
    return state


async def _commit_end(waits: Waits, engine: Engine, unit: Unit, state: State[Any]) -> None:
    if state.type is StateType.CRASHED:
        engine.log.commit(unit)  # being cancelled or interrupted, the loop would not let us wait
    else:
        await waits.commit(engine.log, unit)


def _create(call: FlowCall, parameters: dict[str, Any]) -> _Progress:
    """Create the flow run, and the task run that stands for it in its parent."""
    flow, engine, caller = call.flow, call.engine, call.caller
    parent = caller.flow_context if caller is not None else None
    key = engine.ids.new()
    refused = any(isinstance(value, Refused) for value in parameters.values())
    name = (
        None if refused or callable(flow.flow_run_name) else run_name(flow.flow_run_name, parameters)
    ) or engine.ids.slug()
    mirror: TaskRun | None = None
    cause: bytes | None = None
    if caller is not None and parent is not None:
        mirror = _mirror(flow, caller, parent)
        cause = mirror.cause
    run = FlowRun(Journal(engine, key, name), key, name, retries=flow.retries, delays=flow.delays, cause=cause)
    runner = flow.task_runner.duplicate()
    context = FlowRunContext(
        engine,
        flow,
        run,
        parameters,
        runner,
        tally=Tally(),
        tracker=Tracker(),
        memory=CallMemory() if flow.retries else None,
        log_prints=_prints(flow, engine, parent),
        parent=caller,
    )
    if callable(flow.flow_run_name) and not refused:
        run.name = run.journal.flow_run_name = _named_inside(context)
    if parent is None and ENGINE.isEnabledFor(20):
        say(ENGINE, 20, f"Created flow run {run.name!r} for flow {flow.name!r}", {})
    facts, blobs = _facts(call, parameters, run.name, runner)
    if mirror is not None and parent is not None:
        facts["parent_flow_run_id"] = parent.flow_run.key
        facts["parent_task_run_id"] = mirror.key
    progress = _Progress(context, mirror, [], blobs)
    if mirror is not None:
        progress.create_mirror(
            {
                "task": flow.name,
                "key": flow.key,
                "name": mirror.name,
                "child_flow_run_id": key,
                "child_flow_run_name": run.name,
            }
            | ({"inputs": call.inputs} if call.inputs else {})
            | ({"retries": flow.retries} if flow.retries else {})
            | ({"parent": caller.task_run.key} if isinstance(caller, TaskRunContext) else {})
        )
        run.cause = mirror.cause
    progress._pending.append(run.record(Create(facts)))
    return progress


def _mirror(flow: "Flow[Any, Any]", caller: RunContext, parent: FlowRunContext) -> TaskRun:
    counter = parent.counters.setdefault(f"flow:{flow.key}", count())
    return new_task_run(
        parent,
        caller if isinstance(caller, TaskRunContext) else None,
        f"{flow.name}-{flow.key_hash}-{next(counter)}",
        flow.name,
        flow.retries,
        flow.delays,
    )


def _named_inside(context: FlowRunContext) -> str:
    """Return the name that a flow's own function gives the run, called inside of it."""
    token = CURRENT.set(context)
    try:
        return run_name(context.flow.flow_run_name, context.parameters) or context.flow_run.name
    finally:
        CURRENT.reset(token)


def _prints(flow: "Flow[Any, Any]", engine: Engine, parent: FlowRunContext | None) -> bool:
    if flow.log_prints is not None:
        return flow.log_prints
    return engine.settings.logging_log_prints if parent is None else parent.log_prints


def _facts(call: FlowCall, parameters: dict[str, Any], name: str, runner: Any) -> tuple[dict[str, Any], Any]:
    """Return all that running the flow again needs."""
    flow = call.flow
    told, blobs = recorded(call.engine.key, parameters)
    code, _ = provenance.source_digests(source_file(flow.fn))
    packages, package_blob = blob_of(provenance.packages(), "text")
    facts = {
        "flow": flow.name,
        "name": name,
        "version": flow.version,
        "entrypoint": entrypoint(flow.fn),
        "directory": str(Path.cwd()),
        "code": code,
        "python": provenance.python_version(),
        "packages": packages,
        "task_runner": type(runner).__name__,
        **told,
    }
    if flow.retries:
        facts["retries"] = flow.retries
    return {name: value for name, value in facts.items() if value is not None}, {**blobs, **package_blob}


def _invalid(progress: _Progress, error: ParameterTypeError) -> tuple[Unit, State[Any]]:
    """End a run whose parameters do not fit: it never started."""
    state: State[Any] = State(StateType.FAILED, None, str(error), error)
    facts = {"cause": "user_error", "error": {"type": "ParameterTypeError", "message": str(error)}}
    unit, _ = progress.end(end_of(state, facts, 0, retriable=False), {})
    return unit, state


async def _attempts(waits: Waits, progress: _Progress) -> tuple[Unit, State[Any]]:
    """Call the function until it succeeds or its retries are used up."""
    context, flow = progress.context, progress.context.flow
    engine = context.engine
    arguments = flow.signature.call_with(context.parameters)
    while True:
        unit = progress.start()
        await waits.commit(engine.log, unit)
        outcome = await call_user(waits, context, flow.fn, arguments, flow.timeout_seconds)
        found = unsuccessful(outcome, "Flow", flow.timeout_seconds)
        if found is not None and (outcome.timed_out or found[0].is_crashed()):
            await end_early(context)
        else:
            await wait_for_all(waits, context)
        state, facts, blobs = await _conclude(waits, context, found, outcome.value)
        unit, event = progress.end(end_of(state, facts, engine.clock.now()), blobs)
        if (due := event.data.get("scheduled")) is None:
            return unit, state
        context = progress.context = _next_attempt(context)
        await waits.sleep(engine.clock, max(0.0, (due - engine.clock.now()) / 1e6))


def _next_attempt(context: FlowRunContext) -> FlowRunContext:
    """Return the context of another attempt: code of one that timed out must not go on in its name."""
    following = copy.copy(context)
    following.closed = False
    following.tally = Tally()
    following.open_futures = set()
    assert following.memory is not None
    following.memory.begin_attempt()
    return following


async def _conclude(
    waits: Waits, context: FlowRunContext, found: tuple[State[Any], dict[str, Any]] | None, value: Any
) -> tuple[State[Any], dict[str, Any], Any]:
    """Return the state that an attempt leads to, what the log is told of it, and the blobs that go with it."""
    if found is not None:
        return *found, {}
    state = await final_state(waits, context.tally, value)
    if state.type is StateType.COMPLETED:
        facts, blobs = value_facts(context.engine.key, state.data, context.flow.persist_result)
        return state, facts, blobs
    return state, {"cause": "user_error"} if state.type is StateType.FAILED else {}, {}


async def final_state(waits: Waits, tally: Tally, value: Any) -> State[Any]:
    """Return the final state of a flow whose function returned `value`.

    A state made by hand is used as it is. None, a future or run's state, and a list, tuple or set of nothing
    else, aggregate the states of the runs in question. Anything else is Completed. The value is what the
    function returned, with futures and states in it replaced by their values.
    """
    if isinstance(value, State) and value.state_details.flow_run_id is None:
        return State(value.type, value.name, value.message, value.data, states=value.states)
    if value is None:
        return tally.aggregate() if tally else State(StateType.COMPLETED)
    found = Found()
    look(value, found)
    states = [await settled_state(waits, upstream.source) for upstream in found.upstream]
    result = replace(value, value_of) if found.marked else value
    if not _all_runs(value):
        return State(StateType.COMPLETED, None, None, result)
    inner = Tally()
    for number, state in enumerate(states):
        inner.add(state, number)
    aggregate = inner.aggregate()
    aggregate.data = result if aggregate.is_completed() else None
    return aggregate


def _all_runs(value: Any) -> bool:
    if type(value) in (list, tuple, set):
        return bool(value) and all(isinstance(item, (BaseFuture, State)) for item in value)
    return isinstance(value, (BaseFuture, State))


def _settle_details(progress: _Progress, state: State[Any]) -> None:
    mirror = progress.mirror
    own = progress.run
    state.state_details = run_details(own.id, None if mirror is None else mirror.key)
    if mirror is not None:
        state.state_details.child_flow_run_id = own.id
