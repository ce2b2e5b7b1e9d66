"""Going on with recorded runs: resume, restart from a task, fork at an event."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flightlog.engine import provenance, results
from flightlog.engine.bridge import ASYNC, SYNC, run_sync
from flightlog.engine.calls import Past
from flightlog.engine.context import current
from flightlog.engine.definitions import finish
from flightlog.engine.digests import input_digest
from flightlog.engine.flow_calls import FlowCall
from flightlog.engine.flow_runs import run_flow
from flightlog.engine.flows import Flow, termination
from flightlog.engine.history import FLOW, History, forget_from, read_history
from flightlog.engine.loading import load_flow
from flightlog.engine.names import source_file
from flightlog.engine.pausing import resume_flow_run
from flightlog.engine.recall import prefetch
from flightlog.engine.recovery import is_lost, mark_lost
from flightlog.engine.runtime import Engine, current_engine
from flightlog.errors import CannotResume, InvalidInput, RunNotFound, ScriptError
from flightlog.events.questions import python_call
from flightlog.ids import id_text, parse_id
from flightlog.names import did_you_mean

if TYPE_CHECKING:
    from flightlog.events.model import Event

OnChange = Literal["stop", "rerun"]


@dataclass(frozen=True, slots=True)
class _Request:
    """How somebody wants a run to go on; see `resume_run`."""

    flow: Flow[..., Any] | None
    parameters: Mapping[str, Any] | None
    return_state: bool
    actor: str


def resume_run(
    run: str,
    *,
    flow: Flow[..., Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    on_change: OnChange = "stop",
    run_input: Any = None,
    return_state: bool = False,
    actor: str = "engine",
) -> Any:
    """Go on with a run that crashed, failed, was cancelled or is suspended, and return the flow's value.

    For an async flow the value is awaitable.

    The flow's function runs from its start; calls that completed return what is recorded instead of running again.
    After a crash a call that had failed fails again as recorded, since the run went on after it; in a run that
    failed it runs again.

    Args:
        run: the flow run's id.
        flow: the flow; loaded from where the log says it is by default.
        parameters: values of parameters that were not recorded (secrets, what cannot be pickled).
        on_change: what to do where the code makes other calls than are recorded: ``stop``, or ``rerun`` them.
        run_input: the input that a suspended run waits for, if it does; see `resume_flow_run`.
        return_state: return the final `State` instead, and do not raise for a flow that failed.
        actor: who asks for it.

    Raises:
        RunNotFound: there is no such run.
        FlowPauseTimeout, InvalidInput: see `resume_flow_run`.
        CannotResume: it is still going, it completed, or the log lacks what going on needs.
        CallsDiffer: the code makes another call than the one recorded.
        ScriptError: the flow cannot be loaded.
    """
    engine = _outside()
    history = read_history(engine.log, _key(run))
    waits = history.pause is not None and history.pause["key"] not in history.answers
    if waits and history.suspended:
        resume_flow_run(run, run_input, actor=actor, engine=engine)
    elif run_input is not None and not waits:
        raise InvalidInput(f"The run {history.name!r} does not wait for input; resume it without.")
    history = _ended(engine, history.id, actor)
    if history.rules.type == "FAILED" and not history.rules.attempt:
        raise CannotResume(
            f"The run {history.name!r} never began: its parameters do not fit, and only their types are recorded. "
            "Start a new run with others."
        )
    if history.rules.type == "COMPLETED" and not history.rolled_back:
        raise CannotResume(
            f"The run {history.name!r} completed: nothing is left to do. `flightlog runs restart` runs it again "
            "from a task on, `flightlog runs fork` makes a new run of it."
        )
    past = Past(history, keep_failures=history.rules.type in ("CRASHED", "PAUSED"), strict=on_change == "stop")
    return _go_on(engine, past, _Request(flow, parameters, return_state, actor))


def restart_run(
    run: str,
    *,
    from_task: str,
    flow: Flow[..., Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    on_change: OnChange = "stop",
    return_state: bool = False,
    actor: str = "engine",
) -> Any:
    """Run a flow run again from a task on: that task's first call, and all calls that were made after it.

    Args:
        run: the flow run's id.
        from_task: a task's name, or a task run's name or id.
        flow: the flow; loaded from where the log says it is by default.
        parameters: values of parameters that were not recorded.
        on_change: what to do where the code makes other calls than are recorded: ``stop``, or ``rerun`` them.
        return_state: return the final `State` instead, and do not raise for a flow that failed.
        actor: who asks for it.

    Raises:
        RunNotFound: there is no such run, or it has no such task.
        CannotResume, CallsDiffer, ScriptError: see `resume_run`.
    """
    engine = _outside()
    history = _ended(engine, _key(run), actor)
    names = [name for call in history.calls.values() for name in (call.task, call.name)]
    first = forget_from(history, lambda call: from_task in (call.task, call.name, id_text(call.key)))
    if first is None:
        raise RunNotFound(f"The run {history.name!r} has no task {from_task!r}.{did_you_mean(from_task, names)}")
    past = Past(history, restart=first.position, strict=on_change == "stop")
    return _go_on(engine, past, _Request(flow, parameters, return_state, actor))


def fork_run(
    run: str,
    *,
    at: str | int | None = None,
    flow: Flow[..., Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    on_change: OnChange = "stop",
    return_state: bool = False,
    actor: str = "engine",
) -> Any:
    """Make a new run that goes on from a moment in another run's past; the other run stays as it is.

    Args:
        run: the flow run's id.
        at: the last event that counts: its id or position; the run's latest by default.
        flow: the flow; loaded from where the log says it is by default.
        parameters: parameters to change. Calls that are given other values than are recorded run anew.
        on_change: what to do where the code makes other calls than are recorded: ``stop``, or ``rerun`` them.
            With changed parameters, ``rerun``.
        return_state: return the final `State` instead, and do not raise for a flow that failed.
        actor: who asks for it.

    Raises:
        RunNotFound: there is no such run or event.
        CannotResume, CallsDiffer, ScriptError: see `resume_run`.
    """
    engine = _outside()
    key = _key(run)
    history = read_history(engine.log, key)
    event = _event(engine, history, at)
    history = read_history(engine.log, key, until=event.position)
    history.foreign = True
    past = Past(history, strict=on_change == "stop" and not parameters)
    about = {"forked_from": key, "forked_at": event.id}
    return _go_on(engine, past, _Request(flow, parameters, return_state, actor), about=about)


def _outside() -> Engine:
    if current() is not None:
        raise CannotResume("A run cannot be resumed, restarted or forked from within a flow or task.")
    return current_engine()


def _key(run: str) -> bytes:
    try:
        return parse_id(run)
    except ValueError:
        raise RunNotFound(f"{run!r} is no id of a flow run.") from None


def _ended(engine: Engine, key: bytes, actor: str) -> History:
    """Return a run that has ended, or whose process is gone; that is put on record first."""
    history = read_history(engine.log, key)
    if history.created.get("parent_flow_run_id") is not None:
        parent = id_text(history.created["parent_flow_run_id"])
        raise CannotResume(f"The run {history.name!r} is a subflow's; resume the run it belongs to: {parent}.")
    if _mark_all(engine, history, actor):
        history = read_history(engine.log, key)
    if not (history.ended or history.suspended):
        if history.pause is not None:
            call = python_call(history.text, history.pause.get("input_schema"), suspended=False)
            raise CannotResume(f"The run {history.name!r} is paused, and goes on in its own process: {call}.")
        running = history.running or {}
        raise CannotResume(
            f"The run {history.name!r} is still going: process {running.get('pid')} on {running.get('host')}."
        )
    return history


def _mark_all(engine: Engine, history: History, actor: str) -> bool:
    """Put on record that a run and its subflows crashed, if their process is gone; tell if it is."""
    lost, waiting = [], [history]
    while waiting:
        run = waiting.pop()
        if not is_lost(engine.log, run):
            continue
        lost.append(run.id)
        for child in _children(run):
            with suppress(RunNotFound):
                waiting.append(read_history(engine.log, child))
    mark_lost(engine.log, reversed(lost), actor=actor, clock=engine.clock, ids=engine.ids)
    return bool(lost)


def _children(history: History) -> list[bytes]:
    return [call.child for call in history.calls.values() if call.child is not None and not call.completed]


def _event(engine: Engine, history: History, at: str | int | None) -> "Event":
    """Return the event of a run that is meant by its id or position.

    Raises:
        RunNotFound: the run has no such event.
    """
    from flightlog.events.types import flow_run_stream

    last = None
    for event in engine.log.read(flow_run_stream(history.text)):
        if at is not None and str(at) in (str(event.position), id_text(event.id)):
            return event
        last = event
    if at is None and last is not None:
        return last
    raise RunNotFound(f"The run {history.name!r} has no event {at}. See: flightlog events ls --run {history.text}")


def _go_on(engine: Engine, past: Past, request: _Request, *, about: dict[str, Any] | None = None) -> Any:
    """Run the flow on a recorded past; `about` is what a fork is told of where it comes from."""
    history = past.history
    flow = request.flow if request.flow is not None else flow_of(history)
    digest, _ = provenance.source_digests(source_file(flow.fn))
    past.code_changed = digest != history.created.get("code")
    parameters = _parameters(engine, history, flow, request.parameters or {}, change=about is not None)
    _complete_digests(engine, history)
    prefetch(engine.log, past)
    call = FlowCall(flow, engine, None, parameters, None, past=past, actor=request.actor, about=about or {})
    if flow.isasync:
        return _run_async(call, request.return_state)
    with termination(outermost=True):
        return finish(run_sync(run_flow(SYNC, call)), request.return_state)


async def _run_async(call: FlowCall, return_state: bool) -> Any:
    with termination(outermost=True):
        return finish(await run_flow(ASYNC, call), return_state)


def flow_of(history: History) -> Flow[..., Any]:
    """Load a run's flow from where the log says it is.

    Raises:
        CannotResume: the log does not say.
        ScriptError: it cannot be loaded.
    """
    entrypoint = history.created.get("entrypoint")
    if entrypoint is None:
        raise CannotResume(f"The log does not say where the flow of run {history.name!r} is; give it: flow=...")
    directory = history.created.get("directory")
    if directory and Path(directory).is_dir() and directory not in sys.path:
        sys.path.append(directory)
    try:
        return load_flow(entrypoint)
    except ScriptError:
        if not entrypoint.startswith("__main__:"):
            raise
        raise CannotResume(
            f"The flow of run {history.name!r} was defined in a notebook or a shell, where it cannot be found again. "
            "Define it once more, and give it: resume_run(..., flow=...)."
        ) from None


def _parameters(
    engine: Engine, history: History, flow: Flow[..., Any], given: Mapping[str, Any], *, change: bool
) -> dict[str, Any]:
    """Return the parameters as the function got them, and those given besides."""
    created = history.created
    missing = set(created.get("not_recorded") or ())
    names = flow.signature.names
    if unknown := [name for name in given if name not in names]:
        raise CannotResume(f"The flow {flow.name!r} has no parameter {unknown[0]!r}.{did_you_mean(unknown[0], names)}")
    if not change and (extra := [name for name in given if name not in missing]):
        raise CannotResume(
            f"The parameter {extra[0]!r} is on record; a run goes on with what it began with. "
            "`flightlog runs fork` makes a new run with other parameters."
        )
    exact = created.get("exact") or {}
    values: dict[str, Any] = {}
    if "digest" in exact:
        try:
            values = results.fetch(engine.key, exact, engine.log.blob, vault=engine.vault)
        except results.NotLoadable as error:
            if not change or set(names) - set(given):
                raise CannotResume(f"The parameters of run {history.name!r} cannot be loaded: {error}.") from None
    values |= given
    values |= dict(zip(names, flow.bound, strict=False))  # a method's own object, rather than a copy of it
    if lacking := sorted(missing - set(values)):
        raise CannotResume(
            f"The run {history.name!r} needs {', '.join(lacking)} again: secrets and what cannot be pickled are not "
            f"recorded. Give it: --param {lacking[0]}=... (in Python: parameters={{{lacking[0]!r}: ...}})."
        )
    return {name: values[name] for name in names if name in values}


def _complete_digests(engine: Engine, history: History) -> None:
    """Give subflows of runs that were recorded without a digest the one of their own parameters."""
    for call in history.calls.values():
        if call.child is None or call.digest is not None or not call.function.startswith(FLOW):
            continue
        try:
            created = read_history(engine.log, call.child).created
            exact = created.get("exact")
            values = {} if exact is None else results.fetch(engine.key, exact, engine.log.blob, vault=engine.vault)
        except (RunNotFound, KeyError, results.NotLoadable):
            continue  # it was never begun, or cannot be told from others: it runs again
        if not created.get("not_recorded"):
            call.digest = input_digest(engine.key, values)
