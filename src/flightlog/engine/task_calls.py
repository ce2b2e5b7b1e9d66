"""Calls of tasks, and the task runs that are made of them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from flightlog.engine.arguments import replace, sources
from flightlog.engine.caching import Lookup
from flightlog.engine.context import CURRENT, IN_HOOK, TAGS, FlowRunContext, RunContext, TaskRunContext
from flightlog.engine.depth import check_room
from flightlog.engine.digests import input_digest
from flightlog.engine.futures import BaseFuture
from flightlog.engine.iterators import listed
from flightlog.engine.names import run_name
from flightlog.engine.privacy import Personal, belongs, given_to, owners
from flightlog.engine.runs import Run, TaskRun
from flightlog.engine.slots import Slots
from flightlog.engine.states import State
from flightlog.engine.transitions import Create, Policy
from flightlog.engine.upstream import value_of
from flightlog.events.model import Append, NewEvent
from flightlog.events.subjects import NOBODY, Subjects

if TYPE_CHECKING:
    from flightlog.engine.tasks import Task
    from flightlog.engine.transaction_parts import Part

_WAIT_FOR = "wait_for"


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
        lookup: what the cache had for it, if its results are cached.
        slots: the slots of concurrency limits that its present attempt holds.
        part: what it is to the transaction that it is made in, once it has completed.
        partial: whether it is a generator's, which was left before its end.
        inherited: those whose personal values the code knew that made it.
        subjects: they, and those whose values it is given.
    """

    task: "Task[Any, Any]"
    flow: FlowRunContext
    parent: TaskRunContext | None
    parameters: dict[str, Any]
    wait_for: Iterable[Any] | None
    run: TaskRun | None = None
    pending: list[NewEvent] = field(default_factory=list)
    submitted: bool = False
    lookup: Lookup | None = None
    slots: Slots | None = None
    part: "Part | None" = None
    partial: bool = False
    inherited: Subjects = NOBODY
    subjects: Subjects = NOBODY

    @property
    def caller(self) -> Run:
        """The run whose code makes the call."""
        return self.flow.flow_run if self.parent is None else self.parent.task_run

    def given_back(self, *, ended: bool) -> list[Append]:
        """Return what gives back all that the call holds; a claim on a cache key, only once it has ended."""
        appends = [] if self.slots is None else self.slots.released()
        if ended and self.lookup is not None:
            appends += self.lookup.released()
        return appends


def new_call(
    task: "Task[Any, Any]", context: RunContext, parameters: dict[str, Any], wait_for: Iterable[Any] | None
) -> TaskCall:
    """Return a call; its run is created at once, unless an earlier attempt of the flow may have it already.

    Raises:
        RecursionError: it is made too deep in other runs.
    """
    flow = context.flow_context
    parent = context if isinstance(context, TaskRunContext) else None
    if parent is not None:
        check_room(task.name)
    call = TaskCall(task, flow, parent, listed(parameters), None if wait_for is None else list(_each(wait_for)))
    caller = flow.flow_run if parent is None else parent.task_run
    if caller.subjects:
        call.inherited = call.subjects = caller.subjects
    if Personal.used:
        take_in(call, call.parameters)
    if flow.memory is None or not flow.memory.has_past:
        create(call)
    return call


def take_in(call: TaskCall, parameters: Mapping[str, Any]) -> Subjects:
    """Have a call belong to those whose personal values it is given; return those whom its own parameters name.

    Raises:
        ParameterTypeError: it cannot be told whose a value is.
    """
    given = given_to(call.task, parameters)
    own = NOBODY if given is None else owners(call.flow.engine.vault, given)
    call.subjects |= own
    if call.flow.personal_runs:
        for runs in inputs_of(call.flow, call.parameters, call.wait_for).values():
            call.subjects |= brought_by(call.flow, runs)
    if call.run is not None:
        belongs(call.run, call.subjects)
    return own


def digest_of(call: TaskCall, parameters: dict[str, Any]) -> bytes | None:
    """Return the digest of a call's arguments, and have it belong to those whose personal values are among them.

    Raises:
        ParameterTypeError: it cannot be told whose a value is.
    """
    engine, key = call.flow.engine, call.flow.engine.key
    if Personal.used or call.flow.personal_runs:
        key = engine.vault.digest_key(take_in(call, parameters))
    if call.subjects and call.task.isgenerator:
        belongs(call.caller, call.subjects)  # its pieces come before its end
    return input_digest(key, parameters)


def pass_on(call: TaskCall, run: TaskRun, state: State[Any]) -> None:
    """Have the run that made a call belong to those whose personal values it gets to see by its end."""
    if state.data is not None or state.load is not None:
        call.flow.personal_runs[run.key] = run.subjects
        belongs(call.caller, run.subjects)


def brought_by(flow: FlowRunContext, runs: Iterable[bytes]) -> Subjects:
    """Return those whose personal values some task runs of a flow run have returned."""
    return NOBODY.union(*(flow.personal_runs.get(run, NOBODY) for run in runs))


def _each(wait_for: Any) -> Iterable[Any]:
    return wait_for if isinstance(wait_for, Iterable) and not isinstance(wait_for, (str, bytes)) else [wait_for]


def create(call: TaskCall) -> TaskRun:
    """Create the task run of a call."""
    task, flow = call.task, call.flow
    counter = flow.counters.get(task.key)
    if counter is None:
        counter = flow.counters.setdefault(task.key, count())
    policy = task.policy(flow.engine.task_policy)
    call.run = run = new_task_run(flow, call.parent, task.name, task.name, policy)
    run.tags = tags_of(task, flow)
    run.subjects = call.subjects
    run.name = _given_name(call, run) or f"{task.name}-{task.key_hash}-{next(counter)}"
    facts: dict[str, Any] = {"task": task.name, "key": task.key, "name": run.name}
    if call.parent is not None:
        facts["parent"] = call.parent.task_run.key
    if inputs := inputs_of(flow, call.parameters, call.wait_for):
        facts["inputs"] = inputs
    if policy.retries:
        facts["retries"] = policy.retries
    if run.tags:
        facts["tags"] = sorted(run.tags)
    call.pending.append(created := run.record(Create(facts)))
    run.tell(created)
    return run


def _given_name(call: TaskCall, run: TaskRun) -> str | None:
    """Return the name that the task's template or function gives the run; a function sees the run's facts."""
    template = call.task.task_run_name
    if template is None:
        return None
    parameters = {name: replace(value, _as_it_is_known) for name, value in call.parameters.items()}
    personal = _personal_parameters(call, parameters) if call.subjects or Personal.used else ()
    if personal or not callable(template):
        return run_name(template, parameters, personal)
    context = TaskRunContext(call.flow, call.task, run, parameters, log_prints=False, parent=call.parent)
    token, inside = CURRENT.set(context), IN_HOOK.set(context)
    try:
        return run_name(template, parameters)
    finally:
        IN_HOOK.reset(inside)
        CURRENT.reset(token)


def _personal_parameters(call: TaskCall, parameters: dict[str, Any]) -> Collection[str]:
    """Return the parameters whose values are personal, or may be."""
    if call.inherited:
        return parameters.keys()
    given = given_to(call.task, parameters)
    found = set() if given is None else given.parameters
    for name, runs in inputs_of(call.flow, call.parameters, None).items():
        if brought_by(call.flow, runs):
            found.add(name)
    return found


def _as_it_is_known(source: Any) -> Any:
    """Return the value of a run that has ended by now; the run is named before it waits for others."""
    return value_of(source) if not isinstance(source, BaseFuture) or source.done() else source


def tags_of(task: "Task[Any, Any]", flow: FlowRunContext) -> frozenset[str]:
    """Return the tags of a task's run that is made here: the task's, those that hold here, and its flow run's."""
    return task.tags | TAGS.get() | flow.tags


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
