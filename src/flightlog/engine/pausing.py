"""Pausing a flow run until somebody says that it may go on, perhaps with input; holding no process while suspended.

A pause is an event that says what was asked, of what shape the answer is to be, and until when; an answer is an event
that says who gave it. The same pause of a run that is resumed or retried is answered already, and does not wait again.
"""

import json
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Self

from flightlog.clock import isoformat
from flightlog.engine.bridge import ASYNC, SYNC, Waits, run_sync
from flightlog.engine.context import CURRENT, FlowRunContext, check
from flightlog.engine.history import read_history
from flightlog.engine.promises import Promise
from flightlog.engine.recovery import is_lost, mark_lost
from flightlog.engine.run_inputs import Question, checked_answer, question_of
from flightlog.engine.runtime import current_engine
from flightlog.engine.transitions import Continue, Pause
from flightlog.errors import (
    FlowPauseTimeout,
    InvalidInput,
    MissingContextError,
    NotPausedError,
    RunNotFound,
    RunSuspended,
    VersionConflict,
)
from flightlog.events.model import NewEvent
from flightlog.events.questions import question_text
from flightlog.events.subjects import ERASED, HIDDEN, guarded
from flightlog.events.types import ANSWER_REFUSED, ANSWERED, flow_run_stream
from flightlog.ids import parse_id
from flightlog.masking import MASKER

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine

_POLL = (0.05, 1.0)
_LONGEST = 1e9
"""Seconds: some thirty years, for those who say infinity."""


def pause_flow_run(
    wait_for_input: Any = None, *, timeout: float = 3600, poll_interval: float = 10, key: str | None = None
) -> Any:
    """Wait in this process until somebody resumes the flow run; awaitable in async flows.

    Task runs that are under way go on; new ones wait too. To let it go on: ``flightlog runs resume RUN``, or
    `resume_flow_run`.

    Args:
        wait_for_input: the type of the input to wait for: a `RunInput`, a pydantic model, or any type.
        timeout: how long to wait, in seconds; after that the pause fails.
        poll_interval: how long it may take at the most until an answer is noticed, in seconds.
        key: what tells this pause from others of the run; its number by default.

    Returns:
        Any: the input, if some was asked for; else None.

    Raises:
        FlowPauseTimeout: nobody resumed it in time.
        RuntimeError: in a task.
    """
    context = _flow_context("pause")
    return _in_its_way(context, _pause(_waits(context), context, wait_for_input, timeout, poll_interval, key))


def suspend_flow_run(wait_for_input: Any = None, *, timeout: float = 3600, key: str | None = None) -> Any:
    """End this process's part in the flow run; it goes on from its start, with what is recorded, once it is resumed.

    The call of the flow raises `PausedRun`, or returns a state named Suspended. Whoever resumes it runs it in his
    process: ``flightlog runs resume RUN``.

    Args:
        wait_for_input: the type of the input to wait for; see `pause_flow_run`.
        timeout: how long it may stay suspended, in seconds; after that it fails.
        key: what tells this pause from others of the run; its number by default.

    Returns:
        Any: the input, when the run has been resumed; None if none was asked for.

    Raises:
        RuntimeError: in a task, or in a subflow.
    """
    context = _flow_context("suspend")
    if context.parent is not None:
        raise RuntimeError("Cannot suspend subflows.")
    return _in_its_way(context, _suspend(_waits(context), context, wait_for_input, timeout, key))


def _flow_context(what: str) -> FlowRunContext:
    context = CURRENT.get()
    if context is None:
        raise MissingContextError(f"There is no flow run to {what} here.")
    if not isinstance(context, FlowRunContext):
        raise RuntimeError(f"Cannot {what} task runs.")  # noqa: TRY004 - the class that users know
    return context


def _waits(context: FlowRunContext) -> Waits:
    return ASYNC if context.isasync else SYNC


def _in_its_way(context: FlowRunContext, work: Any) -> Any:
    return work if context.isasync else run_sync(work)


def _answer(context: FlowRunContext, key: str, after: int = 0) -> tuple[dict[str, Any] | None, int]:
    """Return the answer to a pause, if it is there, and the version up to which the run's stream was read."""
    past = None if context.memory is None else context.memory.past
    found = past.history.answers.get(key) if past is not None and not after else None
    for event in context.engine.log.read(context.flow_run.journal.stream, after):
        after = event.version
        if event.type in (ANSWERED, ANSWER_REFUSED) and event.data["key"] == key:
            found = event.data if event.type == ANSWERED else None
    return found, after


def _read(context: FlowRunContext, question: Question, key: str, answer: Mapping[str, Any]) -> Any:
    """Return what was answered; an answer that the model's own validators refuse is not taken up again."""
    try:
        given = answer.get("input")
        return question.read(given if given is None else context.engine.vault.revealed(given))
    except Exception:
        engine, run = context.engine, context.flow_run
        event = NewEvent(engine.ids.new(), ANSWER_REFUSED, {"key": key}, engine.clock.now(), run.cause)
        run.journal.put([event])
        raise


async def _pause(
    waits: Waits, context: FlowRunContext, kind: Any, timeout: float, poll_interval: float, key: str | None
) -> Any:
    check(context)
    if context.paused is not None:
        raise RuntimeError("The flow run is paused already, by other code of it. Pause once, and go on from there.")
    question, key = question_of(kind), key or str(next(context.pauses))
    context.paused = Promise()
    try:
        answer: Mapping[str, Any] | None
        answer, version = await waits.elsewhere(lambda: _answer(context, key))
        if answer is None:
            times = (min(timeout, _LONGEST), max(poll_interval, _POLL[0]))
            answer = await _waited(waits, context, question, times, key, version)
    finally:
        paused, context.paused = context.paused, None
        paused.set(None)
    return _read(context, question, key, answer)


async def _waited(
    waits: Waits,
    context: FlowRunContext,
    question: Question,
    times: tuple[float, float],
    key: str,
    version: int,
) -> Mapping[str, Any]:
    engine, run = context.engine, context.flow_run
    end = engine.clock.now() + round(times[0] * 1e6)
    asked = run.record(Pause(_facts(question, key, end, run.id, suspended=False)))
    unit = run.journal.put([asked])
    run.tell(asked)
    await waits.commit(engine.log, unit)
    delay, answer = _POLL[0], None
    while answer is None and (left := (end - engine.clock.now()) / 1e6) > 0:
        await waits.sleep(engine.clock, min(delay, times[1], left), context.wake)
        delay = min(delay * 1.5, _POLL[1])
        check(context)
        answer, version = _answer(context, key, version)
    on = run.record(Continue())
    unit = run.journal.put([on])
    if answer is None:
        # From here on nobody can answer; but somebody may have, just before.
        await waits.commit(engine.log, unit)
        answer, _ = _answer(context, key, version)
    if answer is None:
        raise FlowPauseTimeout("The flow run was paused and never resumed.")
    return answer


async def _suspend(waits: Waits, context: FlowRunContext, kind: Any, timeout: float, key: str | None) -> Any:
    check(context)
    question, key = question_of(kind), key or str(next(context.pauses))
    answer, _ = await waits.elsewhere(lambda: _answer(context, key))
    if answer is not None:
        return _read(context, question, key, answer)
    end = context.engine.clock.now() + round(min(timeout, _LONGEST) * 1e6)
    facts = _facts(question, key, end, context.flow_run.id, suspended=True)
    raise RunSuspended({"name": "Suspended", **facts})


def _facts(question: Question, key: str, end: int, run: str, *, suspended: bool) -> dict[str, Any]:
    """Return what the log is told of a pause: what is asked, until when, and how it is answered."""
    facts: dict[str, Any] = {"key": key, "deadline": end}
    if question.schema is not None:
        facts["input_schema"] = json.dumps(question.schema)
    if question.description:
        facts["shown"] = MASKER.mask(question.description)
    facts["message"] = MASKER.mask(question_text(run, facts, suspended=suspended))
    return facts


class Answered(str):
    """What a run was that has been answered: ``paused`` or ``suspended``; async code of Prefect 2 awaits it."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Self]:
        yield from ()
        return self


def resume_flow_run(
    run: str, run_input: Any = None, *, actor: str = "engine", engine: "Engine | None" = None
) -> Answered:
    """Say that a paused or suspended flow run may go on, with input if it asks for some.

    A paused run goes on by itself. A suspended one goes on in the process of whoever runs it then: `resume_run`.

    Args:
        run: the flow run's id.
        run_input: the input: a dict by field, a model, or the value itself where a plain type was asked for.
        actor: who says so.
        engine: the engine; this process's by default.

    Returns:
        Answered: what the run was: ``paused`` or ``suspended``.

    Raises:
        NotPausedError: it is not paused, or somebody else was first.
        FlowPauseTimeout: it was too late.
        InvalidInput: (a RuntimeError) the input does not fit; the run stays paused.
    """
    engine = engine or current_engine()
    try:
        key = parse_id(run)
    except ValueError:
        raise RunNotFound(f"{run!r} is no id of a flow run.") from None
    while True:
        history = read_history(engine.log, key)
        pause = history.pause
        if pause is None or pause["key"] in history.answers:
            raise NotPausedError(f"The run {history.name!r} is not paused: it is {history.rules.type.capitalize()}.")
        if is_lost(engine.log, history):
            mark_lost(engine.log, [key], actor=actor, clock=engine.clock, ids=engine.ids)
            raise NotPausedError(f"The run {history.name!r} is not paused any more: its process is gone.")
        if pause["deadline"] <= engine.clock.now():
            mark_lost(engine.log, [key], actor=actor, clock=engine.clock, ids=engine.ids)
            raise FlowPauseTimeout(f"The run {history.name!r} was to be resumed before {isoformat(pause['deadline'])}.")
        told: dict[str, Any] = {"key": pause["key"]}
        if (answer := checked_answer(_asked(engine, pause), run_input)) is not None:
            told["input"] = MASKER.mask(answer)
        if "shown" in pause:
            told["shown"] = pause["shown"]
        if (group := pause.get("personal")) is not None:
            told = guarded(engine.vault, told, engine.vault.members(group))
        event = NewEvent(engine.ids.new(), ANSWERED, told, engine.clock.now(), history.cause, actor=actor)
        try:
            engine.log.append(flow_run_stream(history.text), [event], expected_version=history.version)
        except VersionConflict:
            continue  # something has happened meanwhile: look again
        return Answered("suspended" if history.suspended else "paused")


def _asked(engine: "Engine", pause: Mapping[str, Any]) -> str | None:
    """Return the JSON Schema of what a paused run asks for.

    Raises:
        InvalidInput: it is personal, and its key is gone.
    """
    schema = pause.get("input_schema")
    if schema is None or (told := engine.vault.revealed(schema)) is schema:
        return schema
    if told in (ERASED, HIDDEN):
        raise InvalidInput(f"What the run asks for is {told} and cannot be read: the key is gone. Cancel the run.")
    return told


__all__ = ["pause_flow_run", "resume_flow_run", "suspend_flow_run"]
