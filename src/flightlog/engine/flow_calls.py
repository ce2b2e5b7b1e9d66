"""Calls of flows, and the runs that are made of them: new ones, and recorded ones that go on."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightlog.engine import provenance
from flightlog.engine.calls import CallMemory, Past
from flightlog.engine.context import CURRENT, TAGS, FlowRunContext, RunContext, TaskRunContext
from flightlog.engine.history import FLOW
from flightlog.engine.names import entrypoint, run_name, source_file
from flightlog.engine.parameters import Refused, recorded
from flightlog.engine.privacy import belongs, given_to, owners
from flightlog.engine.results import PLAINLY, Closing, blob_of
from flightlog.engine.run_logs import ENGINE, say
from flightlog.engine.runs import FlowRun, Journal, Run, TaskRun
from flightlog.engine.runtime import Engine
from flightlog.engine.states import State, StateType, Tally
from flightlog.engine.task_calls import brought_by, new_task_run
from flightlog.engine.task_runners import SequentialTaskRunner
from flightlog.engine.tracking import Tracker
from flightlog.engine.transitions import Cancel, Create, End, Pause, Refuse, Rerun, RollBack, Start
from flightlog.errors import RunCancelled
from flightlog.events.liveness import this_process
from flightlog.events.model import Append, NewEvent
from flightlog.events.store import Unit
from flightlog.events.subjects import NOBODY, Subjects

if TYPE_CHECKING:
    from flightlog.engine.flows import Flow
    from flightlog.engine.transaction_parts import Part


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
        digest: of the arguments; None if they have none.
        past: what is recorded of the run, if it goes on from there.
        mirror: the task run that stands for it in its parent, if there is one already.
        replaces: the task run that stood for it before, 16 bytes, if the subflow failed then.
        actor: who asked for the run to go on.
        about: more facts for its first event.
        subjects: those whose personal values it is given, or the code knew that made it.
        personal: its parameters whose values are personal.
    """

    flow: "Flow[Any, Any]"
    engine: Engine
    caller: RunContext | None
    parameters: dict[str, Any]
    wait_for: Iterable[Any] | None
    inputs: dict[str, list[bytes]] = field(default_factory=dict)
    digest: bytes | None = None
    past: Past | None = None
    mirror: TaskRun | None = None
    replaces: bytes | None = None
    actor: str = "engine"
    about: dict[str, Any] = field(default_factory=dict)
    subjects: Subjects = NOBODY
    personal: Collection[str] = ()

    @property
    def caller_run(self) -> Run | None:
        """The run whose code makes the call."""
        if self.caller is None:
            return None
        return self.caller.task_run if isinstance(self.caller, TaskRunContext) else self.caller.flow_context.flow_run

    def inherit(self) -> None:
        """Have the call belong to whom the run that makes it belongs, and the runs whose values it is given."""
        if self.caller_run is None or self.caller is None:
            return
        parent = self.caller.flow_context
        self.subjects = self.caller_run.subjects
        for name, runs in self.inputs.items():
            if parent.personal_runs and (found := brought_by(parent, runs)):
                self.subjects |= found
                self.personal = {*self.personal, name}
        if self.caller_run.subjects:
            self.personal = self.parameters.keys()

    def pass_on(self, progress: "Progress", state: State[Any]) -> None:
        """Have the run that made the call belong to those whose personal values it gets to see by its end."""
        subjects = progress.run.subjects
        if self.caller is None or not subjects or (state.data is None and state.load is None):
            return
        if progress.mirror is not None:
            self.caller.flow_context.personal_runs[progress.mirror.key] = subjects
        if (run := self.caller_run) is not None:
            belongs(run, subjects)

    def take_in(self, parameters: Mapping[str, Any]) -> Subjects:
        """Have the call belong to those whose personal values it is given; return those whom its parameters name.

        Raises:
            ParameterTypeError: it cannot be told whose a value is.
        """
        given = given_to(self.flow, parameters)
        if given is None:
            return NOBODY
        own = owners(self.engine.vault, given)
        self.subjects |= own
        self.personal = {*self.personal, *given.parameters}
        return own


class Progress:
    """A flow run and the task run that stands for it in its parent: what happens to one, happens to both.

    Attributes:
        cancelled: the request to cancel the run, once it has come.
        interruptible: whether it may still be stopped; not while its end is put on record.
        listens_in_loop: whether a request to cancel it cancels what runs it in an event loop.
        struck: how often that was done, and not taken note of yet.
        streams: whether its pieces are handed out as they come, so that other code runs in between.
        part: what it is to the transaction that it was called in, once it has completed.
    """

    def __init__(self, context: FlowRunContext, mirror: TaskRun | None, digest: bytes | None, blobs: Any) -> None:
        self.context = context
        self.run = context.flow_run
        self.mirror = mirror
        self._digest = digest
        self._pending: list[NewEvent] = []
        self._blobs = blobs
        self._mirrored: list[NewEvent] = []
        self.cancelled: RunCancelled | None = None
        self.interruptible = True
        self.listens_in_loop = False
        self.struck = 0
        self.streams = False
        self.part: Part | None = None

    def create(self, facts: dict[str, Any]) -> None:
        """Put down that the run was asked for."""
        self._pending.append(self.run.record(Create(facts)))

    def create_mirror(self, facts: dict[str, Any]) -> None:
        """Put down that the task run that stands for it was asked for."""
        if self.mirror is not None:
            self._mirrored.append(self.mirror.record(Create(facts)))

    def take_over(self, past: Past, actor: str) -> Unit:
        """Put in line that a recorded run goes on in this process under its new epoch, if nobody else was first."""
        facts = this_process() | ({} if past.restart is None else {"restart": past.restart})
        event = self.run.record(Rerun(facts), actor)
        if self.mirror is not None:
            self._mirrored.append(self.mirror.record(Rerun()))
        append = self.run.journal.append([event])
        append.expected_version = past.history.version
        return self.context.engine.log.enqueue([append])

    def start(self) -> Unit:
        """Put in line that an attempt starts."""
        self._pending.append(self.run.record(Start(this_process())))
        if self.mirror is not None:
            known = self._digest is None or self.mirror.run_count
            self._mirrored.append(self.mirror.record(Start({} if known else {"digest": self._digest})))
        return self._put()

    def refuse(self, message: str) -> tuple[Unit, State[Any]]:
        """Put in line that the run cannot start; return what to wait for, and the state."""
        self._pending.append(self.run.record(Refuse({"message": message})))
        if self.mirror is not None:
            self._mirrored.append(self.mirror.record(Refuse({"message": message})))
        return self._put(), State(StateType.PENDING, "NotReady", message)

    def change(self, command: Pause | Cancel) -> Unit:
        """Put in line that the run is suspended, or that a request to cancel it has come."""
        self._pending.append(self.run.record(command))
        return self._put()

    def end(self, end: End, blobs: Any) -> tuple[Unit, NewEvent]:
        """Put in line that an attempt ended; return what to wait for, and the event."""
        event = self.run.record(end)
        self._pending.append(event)
        self._blobs = {**self._blobs, **blobs}
        if self.mirror is not None:
            facts = {**end.facts, "child_flow_run_id": self.run.key}
            self._mirrored.append(self.mirror.record(End(end.type, facts, end.now, end.retriable)))
        return self._put(), event

    def roll_back(self) -> None:
        """Put on record that the run, which had completed, was undone with the transaction that it was called in."""
        self._pending.append(self.run.record(RollBack()))
        if self.mirror is not None and self.context.parent is not None:
            self.mirror.journal = self.context.parent.flow_context.flow_run.journal
            self._mirrored.append(self.mirror.record(RollBack()))
        self.context.engine.log.commit(self._put())

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


def _memory(engine: Engine, past: Past | None, *, retries: int) -> CallMemory | None:
    """Return what a flow run knows of earlier calls; None if it can do without."""
    if engine.script is not None:
        return engine.script()
    return CallMemory(past) if retries or past is not None else None


def create(call: FlowCall, parameters: dict[str, Any]) -> Progress:
    """Create the flow run, and the task run that stands for it in its parent; or take up those that are recorded."""
    flow, caller, past = call.flow, call.caller, call.past
    parent = caller.flow_context if caller is not None else None
    refused = any(isinstance(value, Refused) for value in parameters.values())
    mirror = call.mirror
    if caller is not None and parent is not None:
        mirror = mirror or _mirror(flow, caller, parent)
        belongs(mirror, call.subjects)
    going_on = past is not None and not past.history.foreign
    run = _recorded_run(call, past) if past is not None and going_on else _new_run(call, parameters, refused, mirror)
    belongs(run, call.subjects)
    context = FlowRunContext(
        call.engine,
        flow,
        run,
        parameters,
        flow.task_runner.duplicate() if call.engine.script is None else SequentialTaskRunner(),
        tally=Tally(),
        tracker=Tracker(),
        memory=_memory(call.engine, past, retries=run.policy.retries),
        log_prints=_prints(flow, call.engine, parent),
        tags=_tags(parent, past),
        keeping=flow.inherited(call.engine.keeping if parent is None else parent.keeping),
        parent=caller,
    )
    if past is not None and going_on:
        _count_on(context, past)
        _announce(context, "Resuming flow run {} of flow {}")
        return Progress(context, mirror, call.digest, {})
    if callable(flow.flow_run_name) and not refused and not call.personal:
        run.name = run.journal.flow_run_name = _named_inside(context)
    _announce(context, "Created flow run {} for flow {}")
    facts, blobs = _facts(call, parameters, run.name, context.task_runner)
    if context.tags:
        facts["tags"] = sorted(context.tags)
    if mirror is not None and parent is not None:
        facts["parent_flow_run_id"] = parent.flow_run.key
        facts["parent_task_run_id"] = mirror.key
    progress = Progress(context, mirror, call.digest, blobs)
    if mirror is not None:
        progress.create_mirror(_mirror_facts(call, mirror, run))
        run.cause = mirror.cause
    progress.create(facts | call.about)
    return progress


def _recorded_run(call: FlowCall, past: Past) -> FlowRun:
    """Return the run that is recorded, under the epoch of its new owner."""
    flow, history = call.flow, past.history
    policy = flow.policy(call.engine.flow_policy)
    journal = Journal(call.engine, history.id, history.name, history.epoch + 1)
    run = FlowRun(journal, history.id, history.name, policy=policy, cause=history.cause)
    run.restore(history.rules_with(policy))
    return run


def _new_run(call: FlowCall, parameters: dict[str, Any], refused: bool, mirror: TaskRun | None) -> FlowRun:
    flow, key, name = call.flow, call.engine.ids.new(), _name(call, parameters, refused)
    cause = None if mirror is None else mirror.cause
    policy = flow.policy(call.engine.flow_policy)
    return FlowRun(Journal(call.engine, key, name), key, name, policy=policy, cause=cause)


def _announce(context: FlowRunContext, what: str) -> None:
    """Say on the console what becomes of an outermost run."""
    if context.parent is None and ENGINE.isEnabledFor(20):
        say(ENGINE, 20, what.format(repr(context.flow_run.name), repr(context.flow.name)), {})


def _mirror_facts(call: FlowCall, mirror: TaskRun, run: FlowRun) -> dict[str, Any]:
    """Return what the log is told of the task run that stands for a flow run in its parent."""
    flow, caller = call.flow, call.caller
    facts: dict[str, Any] = {
        "task": flow.name,
        "key": flow.key,
        "name": mirror.name,
        "child_flow_run_id": run.key,
        "child_flow_run_name": run.name,
    }
    if call.inputs:
        facts["inputs"] = call.inputs
    if run.policy.retries:
        facts["retries"] = run.policy.retries
    if isinstance(caller, TaskRunContext):
        facts["parent"] = caller.task_run.key
    if call.replaces is not None:
        facts["replaces"] = call.replaces
    return facts


def _name(call: FlowCall, parameters: dict[str, Any], refused: bool) -> str:
    flow = call.flow
    given = None if refused or callable(flow.flow_run_name) else run_name(flow.flow_run_name, parameters, call.personal)
    return given or call.engine.ids.slug()


def _count_on(context: FlowRunContext, past: Past) -> None:
    """Let new task runs have numbers and names after those that are recorded."""
    calls = past.history.calls.values()
    context.numbers = count(len(calls))
    for function, made in Counter(call.function for call in calls).items():
        context.counters[function] = count(made)


def _mirror(flow: "Flow[Any, Any]", caller: RunContext, parent: FlowRunContext) -> TaskRun:
    counter = parent.counters.setdefault(FLOW + flow.key, count())
    return new_task_run(
        parent,
        caller if isinstance(caller, TaskRunContext) else None,
        f"{flow.name}-{flow.key_hash}-{next(counter)}",
        flow.name,
        flow.policy(parent.engine.flow_policy),
    )


def _named_inside(context: FlowRunContext) -> str:
    """Return the name that a flow's own function gives the run, called inside of it."""
    token = CURRENT.set(context)
    try:
        return run_name(context.flow.flow_run_name, context.parameters) or context.flow_run.name
    finally:
        CURRENT.reset(token)


def _tags(parent: FlowRunContext | None, past: Past | None) -> frozenset[str]:
    recorded = () if past is None else past.history.created.get("tags", ())
    return TAGS.get().union(() if parent is None else parent.tags, recorded)


def _prints(flow: "Flow[Any, Any]", engine: Engine, parent: FlowRunContext | None) -> bool:
    if flow.log_prints is not None:
        return flow.log_prints
    return engine.settings.logging_log_prints if parent is None else parent.log_prints


def _facts(call: FlowCall, parameters: dict[str, Any], name: str, runner: Any) -> tuple[dict[str, Any], Any]:
    """Return all that running the flow again needs."""
    flow = call.flow
    keeping = replace(PLAINLY, closing=Closing(call.engine.vault, call.subjects)) if call.subjects else PLAINLY
    told, blobs = recorded(call.engine.key, parameters, keeping, call.personal)
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
    if retries := flow.policy(call.engine.flow_policy).retries:
        facts["retries"] = retries
    return {name: value for name, value in facts.items() if value is not None}, {**blobs, **package_blob}
