"""Making runs and states of what the log has of earlier calls, and telling where code and record differ."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flightlog.engine import results
from flightlog.engine.calls import Call, CallMemory, Past
from flightlog.engine.history import FLOW, RecordedCall
from flightlog.engine.outcomes import end_of
from flightlog.engine.privacy import belongs
from flightlog.engine.results import PLAINLY, Keeping
from flightlog.engine.runs import Journal, TaskRun
from flightlog.engine.states import MISSING, State, StateType
from flightlog.engine.transitions import ONCE, Create, Policy
from flightlog.errors import CallsDiffer, CorruptResult, FailedRun, MissingResult
from flightlog.garbage import no_collections

if TYPE_CHECKING:
    from flightlog.engine.context import FlowRunContext
    from flightlog.engine.definitions import Definition
    from flightlog.events.log import Log

_MANY = 500
_HELD = 64 * 1024
_HELD_IN_ALL = 64 * 1024 * 1024


class CannotRecall(Exception):
    """A recorded value cannot be had; the text says why. The call runs again."""


def prefetch(log: "Log", past: Past) -> None:
    """Read the values of finished calls in few steps: one by one would take most of a resume's time."""
    wanted, size = [], 0
    for call in past.history.calls.values():
        reference = call.result or {}
        if "digest" in reference and "storage" not in reference and reference["size"] <= _HELD and size < _HELD_IN_ALL:
            wanted.append(reference["digest"])
            size += reference["size"]
    with no_collections():
        for start in range(0, len(wanted), _MANY):
            past.contents.update(log.blobs(wanted[start : start + _MANY]))


def recalled(
    context: "FlowRunContext",
    call: Call,
    definition: "Definition[Any, Any]",
    tags: frozenset[str] = frozenset(),
) -> Call:
    """Return an earlier call with its run and, if it ended in a way that counts, its state.

    Args:
        context: the flow run that repeats the call.
        call: what is remembered of it.
        definition: what is called, as the code has it now.
        tags: those that a new run of it would have: one that is taken over from another flow run is new here.

    Raises:
        CannotRecall: its recorded value cannot be had.
        LogCorrupt: the value is missing from the log, or was not written by it.
    """
    recorded, memory = call.recorded, context.memory
    if recorded is None or memory is None or memory.past is None:
        if call.run is not None:
            call.run.journal = context.flow_run.journal  # the run's epoch may have been raised since
        return call
    if memory.past.history.foreign:
        return _adopted(context, memory.past, recorded, definition, tags)
    journal = context.flow_run.journal
    policy = journal.engine.policy_of(definition)
    if call.run is None:
        call.run = recorded_run(journal, recorded, policy)
        if recorded.type == "RUNNING":  # its flow run has ended, and it with it, without a word
            call.run.restore(replace(recorded.rules(policy), type="CRASHED"))
    if call.state is None and recorded.digest is not None:
        call.state = _state(context, memory.past, recorded, definition)
    return call


def recorded_run(journal: Journal, recorded: RecordedCall, policy: Policy = ONCE) -> TaskRun:
    """Return a task run that is on record, as it was left.

    Args:
        journal: its flow run's way to the log.
        recorded: what the log has of it.
        policy: how often failed attempts are tried again from now on.
    """
    run = TaskRun(
        journal,
        recorded.key,
        recorded.name,
        task_name=recorded.task,
        number=recorded.number,
        policy=policy,
        cause=recorded.cause,
    )
    run.tags = recorded.tags
    run.restore(recorded.rules(policy))
    return run


def _adopted(
    context: "FlowRunContext",
    past: Past,
    recorded: RecordedCall,
    definition: "Definition[Any, Any]",
    tags: frozenset[str],
) -> Call:
    """Enter a call of the run that this one was forked from, if it completed: with the original's value."""
    if not recorded.completed or recorded.digest is None:
        return Call(recorded=recorded)
    journal = context.flow_run.journal
    state = _state(context, past, recorded, definition)
    assert state is not None
    run = TaskRun(
        journal,
        journal.engine.ids.new(),
        recorded.name,
        task_name=recorded.task,
        number=next(context.numbers),
        policy=ONCE,
        cause=recorded.cause,
    )
    if (group := (recorded.result or {}).get("personal")) is not None:
        belongs(run, context.engine.vault.members(group))
    facts: dict[str, Any] = {
        "task": recorded.task,
        "key": recorded.function.removeprefix(FLOW),
        "name": recorded.name,
        "digest": recorded.digest,
    }
    if recorded.child is not None:
        facts["child_flow_run_id"] = recorded.child
    if tags:
        run.tags, facts["tags"] = tags, sorted(tags)
    told: dict[str, Any] = {"result": recorded.result, "name": "Cached"}
    if recorded.partial:
        told["partial"] = True
    if recorded.child is not None:
        told["child_flow_run_id"] = recorded.child
    state.name = "Cached"
    state.of_run(journal.flow_run_id, run.key)
    events = [run.record(Create(facts)), run.record(end_of(state, told, 0))]
    journal.put(events)
    for event in events:
        run.tell(event)
    return Call(run, state, recorded)


def _state(
    context: "FlowRunContext", past: Past, recorded: RecordedCall, definition: "Definition[Any, Any]"
) -> State[Any] | None:
    """Return the state that a recorded call ended in; None if it has to run again."""
    if recorded.completed:
        keeping = definition.keeping(context.keeping)
        type_, value = StateType.COMPLETED, _value(context, past, recorded.result or {}, keeping)
    elif recorded.type == "FAILED" and past.keeps_failure(recorded):
        type_, value = StateType.FAILED, _error(context, past, recorded)
    else:
        return None
    message = None if recorded.message is None else context.engine.vault.revealed(recorded.message)
    state: State[Any] = State(type_, recorded.state_name, message, value)
    return state.of_run(context.flow_run.flow_run_id, recorded.key)


def _value(context: "FlowRunContext", past: Past, reference: Mapping[str, Any], keeping: Keeping = PLAINLY) -> Any:
    if "value" in reference:
        return reference["value"]
    if (reason := reference.get("not_recorded")) is not None:
        raise CannotRecall(f"its result was not recorded ({context.engine.vault.revealed(reason)})")
    if "digest" not in reference:
        return MISSING
    log = context.engine.log

    def blob(digest: bytes) -> bytes:
        return past.contents.pop(digest, None) or log.blob(digest)

    try:
        return results.fetch(context.engine.key, reference, blob, keeping, vault=context.engine.vault)
    except results.NotLoadable as error:
        raise CannotRecall(f"its recorded result cannot be loaded: {error}") from None
    except (MissingResult, CorruptResult) as error:
        if past.strict:
            raise CallsDiffer(
                f"{error} To run the call again instead, resume with --on-change rerun (in Python: on_change='rerun')."
            ) from None
        raise CannotRecall(str(error).rstrip(".")) from None


def _error(context: "FlowRunContext", past: Past, recorded: RecordedCall) -> BaseException:
    """Return the exception of a failed call: itself if it was recorded, else one that says the same."""
    if recorded.result is not None:
        try:
            value = _value(context, past, recorded.result)
        except CannotRecall:
            value = None
        if isinstance(value, BaseException):
            return value
    error = recorded.error or {}
    told = f"{error.get('type', 'Failed')}: {error.get('message') or recorded.message}"
    return FailedRun(context.engine.vault.revealed(told))


def check_new(
    context: "FlowRunContext", memory: CallMemory, parent: bytes | None, function: str, *, alone: bool
) -> None:
    """Refuse a call that nothing recorded fits, if what is recorded should have come first.

    As long as calls run at the same time their order says nothing, and the same code makes the same calls; so it
    takes a changed source file, or a call that is alone, to know that code and record differ.

    Args:
        context: the flow run.
        memory: what it remembers.
        parent: the task run that makes the call.
        function: the function that is called.
        alone: whether no other call of the run is under way.

    Raises:
        CallsDiffer: they differ, and the run is to stop then.
    """
    past = memory.past
    if past is None or not past.strict or not (past.code_changed or alone):
        return
    missed = memory.missed(parent)
    if not missed:
        return
    called = function.removeprefix(FLOW).rpartition(".")[2]
    same = next((call for call in missed if call.function == function), None)
    if same is not None:
        what = f"it calls {called!r} with other arguments than {same.name!r} had"
    else:
        what = f"it calls {called!r} where {missed[0].name!r} is recorded"
    others = f", and {len(missed) - 1} more" if len(missed) > 1 else ""
    why = "the source file has changed since" if past.code_changed else "the source file is the same"
    raise CallsDiffer(
        f"The code differs from what run {context.flow_run.name!r} recorded: {what} "
        f"({missed[0].name!r} completed and was not asked for{others}; {why}). To run such calls anew, resume with "
        "--on-change rerun (in Python: on_change='rerun')."
    )
