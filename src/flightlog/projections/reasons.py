"""Why a run is in the state that it is in: the one thing that it waits for, or what ended it (invariant I12)."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from flightlog.clock import isoformat
from flightlog.errors import RunNotFound
from flightlog.events.model import Event
from flightlog.events.questions import question_text, shell_command
from flightlog.events.types import FLOW_RUN, STATES, TASK_RUN, flow_run_stream
from flightlog.ids import id_text, parse_id
from flightlog.names import did_you_mean
from flightlog.projections import queries
from flightlog.projections.inline import inline_states
from flightlog.projections.projector import Projector
from flightlog.projections.queries import FlowRunView, TaskRunView

_CAUSES = {
    "user_error": "the code raised an error",
    "timed_out": "its time was over",
    "lost_worker": "its process was lost",
    "out_of_memory": "memory ran out",
    "cancelled": "it was cancelled or interrupted",
    "infrastructure": "something around it failed",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a run is in its state.

    Attributes:
        run: the run's name; with its task run's, if it is about that.
        state_type: the state's type.
        state_name: the state's name.
        text: the reason, in words.
        since: since when, in microseconds since 1970 (UTC).
        position: where in the log the event is that says so.
        event_type: its type.
        event_id: its id.
        hint: what to type next; empty if nothing.
    """

    run: str
    state_type: str
    state_name: str
    text: str
    since: int
    position: int
    event_type: str
    event_id: str
    hint: str


def explain(projector: Projector, run: FlowRunView, task: str | None = None) -> Reason:
    """Return why a flow run, or one of its task runs, is in its state.

    Args:
        projector: the projections.
        run: the flow run.
        task: a task run's name or id, or a task's name; None for the flow run itself.

    Raises:
        RunNotFound: there is no such task run.
    """
    tasks = queries.list_task_runs(projector, run.id)
    if task is None:
        last = _last_event(projector, run.id, FLOW_RUN, None)
        return _flow_reason(projector, run, tasks, last)
    found = _find(tasks, task)
    if found is None:
        names = [name for one in tasks for name in (one.name, one.task)]
        raise RunNotFound(f"The run {run.name!r} has no task run {task!r}.{did_you_mean(task, names)}")
    last = _last_event(projector, run.id, TASK_RUN, found.id)
    return _task_reason(projector, run, found, tasks, last)


def _find(tasks: list[TaskRunView], wanted: str) -> TaskRunView | None:
    """Return the task run of that name or id; of a task's name, the first one that did not end well."""
    exact = next((one for one in tasks if wanted in (one.name, one.id)), None)
    own = [one for one in tasks if one.task == wanted]
    return exact or next((one for one in own if one.state_type != "COMPLETED"), own[0] if own else None)


def _last_event(projector: Projector, run: str, kind: str, task: str | None) -> Event:
    """Return the latest event of a flow run or task run, as of the moment that the projections show."""
    found = None
    for event in projector.log.read(flow_run_stream(run)):
        if projector.until is not None and event.position > projector.until:
            break
        own, _, suffix = event.type.partition(".")
        if own == kind and suffix in STATES and (task is None or id_text(event.data["task_run_id"]) == task):
            found = event
    assert found is not None  # there is a row, so there is its event
    return found


def _flow_reason(projector: Projector, run: FlowRunView, tasks: list[TaskRunView], last: Event) -> Reason:
    text, hint, event = run.message or "", "", last
    short = run.id[:18]
    match run.state_type:
        case "RUNNING":
            held_up = ("AwaitingConcurrencySlot", "AwaitingCache")
            waiting = [t for t in tasks if t.state_type in ("RUNNING", "SCHEDULED") or t.state_name in held_up]
            slot = _awaited_slot(projector, run.id)
            if waiting:
                slowest = min(waiting, key=lambda task: task.started or task.created)
                text = f"Its code runs. It waits for the task run {slowest.name!r}, which is {slowest.state_name}."
                if len(waiting) > 1:
                    text += f" {len(waiting) - 1} more are under way."
                event = _last_event(projector, run.id, TASK_RUN, slowest.id)
                hint = f"flightlog runs why {short}/{slowest.name}"
            elif slot is not None:
                text = f"Its code waits for a free slot of the concurrency limit {slot!r}."
                hint = f"flightlog concurrency show {slot}"
            else:
                text = "Its code runs, outside of any task."
        case "SCHEDULED":
            due = last.data.get("scheduled")
            text = f"It waits for its next attempt, due at {isoformat(due)}." if due else "It is about to go on."
        case "COMPLETED":
            text = text or "It did what it was to do."
        case "PAUSED":
            text, hint = _paused(run, last.data), shell_command(run.id, last.data.get("input_schema"))
        case "CANCELLING":
            text = f"{text} It waits for its task runs that are under way in threads."
        case "FAILED" | "CRASHED" | "CANCELLED":
            text, event, hint = _ended(projector, run, tasks, last)
        case _:
            text = text or "It has not begun."
    text += "".join(f"\n{line}" for line in remarks(tasks))
    return _reason(run.name, run.state_type, run.state_name, text, event, hint)


def remarks(tasks: list[TaskRunView]) -> list[str]:
    """Return lines that say which task runs are not kept as one might think: run again on resume, or not cached."""
    again = Counter((t.task, t.runs_again) for t in tasks if t.state_type == "COMPLETED" and t.runs_again)
    uncached = Counter((t.task, t.uncached.rstrip(".")) for t in tasks if t.uncached)
    lines = ["Runs again on resume, restart or fork, though it has completed:"] if again else []
    lines += [f"  {_times(task, count)}: {why}" for (task, why), count in again.items()]
    lines += ["Not cached, though it was to be:"] if uncached else []
    return lines + [f"  {_times(task, count)}: {why}" for (task, why), count in uncached.items()]


def _times(task: str, count: int) -> str:
    return task if count == 1 else f"{task} ({count} task runs)"


def _paused(run: FlowRunView, data: dict[str, Any]) -> str:
    """Return what a paused run waits for."""
    suspended = run.state_name == "Suspended"
    held = "No process has it meanwhile." if suspended else "Its process waits."
    if "deadline" not in data:
        return f"It waits for somebody to resume it. {held}"
    return f"{question_text(run.id, data, suspended=suspended)}\n{held} It fails after that time."


def _ended(projector: Projector, run: FlowRunView, tasks: list[TaskRunView], last: Event) -> tuple[str, Event, str]:
    """Return why a run ended badly: the first task run that did so, if the run's own end speaks of no other reason."""
    text = run.message or "It gave no reason."
    cause = last.data.get("cause")
    if cause:
        text += f"\nCause: {cause} ({_CAUSES.get(cause, cause)})."
    bad = [task for task in tasks if task.state_type in ("FAILED", "CRASHED") and task.ended is not None]
    event = last
    if bad and run.state_type != "CANCELLED":
        first = min(bad, key=lambda task: task.ended or 0)
        event = _last_event(projector, run.id, TASK_RUN, first.id)
        text += f"\nThe first task run that did not end well: {first.name!r}: {first.message or first.state_name}"
    return text, event, f"flightlog runs resume {run.id[:18]}" if run.run_count else ""


def _task_reason(
    projector: Projector, run: FlowRunView, task: TaskRunView, tasks: list[TaskRunView], last: Event
) -> Reason:
    text, event, hint = task.message or "", last, ""
    culprit = _rests_on(projector, run, task, tasks) if task.state_type == "PENDING" else None
    if culprit is not None:
        event = _last_event(projector, run.id, TASK_RUN, culprit.id)
        hint = f"flightlog runs why {run.id[:18]}/{culprit.name}"
    match task.state_type:
        case "PENDING" if task.state_name == "NotReady":
            text = task.message or "What it rests on did not complete."
            if culprit is not None:
                text += f"\nIt rests on {culprit.name!r}, which is {culprit.state_name}."
        case "PENDING" if task.state_name != "Pending":
            text = task.message or "It waits for what somebody else holds."
        case "PENDING" if culprit is not None:
            text = f"It waits for {culprit.name!r}, which is {culprit.state_name}."
        case "PENDING":
            text = "It waits for a free worker of its flow's task runner."
        case "SCHEDULED":
            due = last.data.get("scheduled")
            text = f"It failed, and waits for its next attempt, due at {isoformat(due)}." if due else "It goes on soon."
        case "RUNNING":
            slot = _awaited_slot(projector, run.id, task.id)
            text = "Its function runs." if slot is None else f"Its function waits for a free slot of {slot!r}."
            text += _cache_text(_cache_facts(projector, run, task))
        case "COMPLETED":
            text = (text or "It did what it was to do.") + _cache_text(_cache_facts(projector, run, task))
            text += f"\nIt runs again on resume, restart or fork: {task.runs_again}." if task.runs_again else ""
        case _:
            cause: Any = last.data.get("cause")
            text = (text or "It gave no reason.") + (
                f"\nCause: {cause} ({_CAUSES.get(cause, cause)})." if cause else ""
            )
    return _reason(f"{run.name}/{task.name}", task.state_type, task.state_name, text, event, hint)


def _awaited_slot(projector: Projector, run: str, task: str | None = None) -> str | None:
    """Return the concurrency limit that a run's own code waits for; None if there is none."""
    if projector.is_past:
        return None  # who waits now says nothing of then
    for state in inline_states(projector.log, "concurrency").values():
        for who in state["waiters"].values():
            same = who.get("flow_run_id") == parse_id(run)
            if same and who.get("task_run_id") == (None if task is None else parse_id(task)):
                name: str = state["name"]
                return name
    return None


def _cache_facts(projector: Projector, run: FlowRunView, task: TaskRunView) -> dict[str, Any] | None:
    """Return what the cache had to do with a task run; None for nothing."""
    found = None
    for event in projector.log.read(flow_run_stream(run.id)):
        if projector.until is not None and event.position > projector.until:
            break
        if event.data.get("task_run_id") == parse_id(task.id):
            found = event.data.get("cache", found)
    return found


def _cache_text(facts: dict[str, Any] | None) -> str:
    """Return in words what the cache had to do with a task run, with each part of the key."""
    if facts is None:
        return ""
    if "uncached" in facts:
        text = f"\nIt was not cached, though it was to be: {facts['uncached']}"
    elif "miss" in facts:
        text = f"\nThe cache had no value for it: {facts['miss']}"
    else:
        made = f"the task run {id_text(facts['task_run_id'])} of the flow run {id_text(facts['flow_run_id'])}"
        text = f"\nIts value came from the cache: {made} computed it."
    return text + "".join(f"\n  {name}: {part}" for name, part in sorted(facts.get("parts", {}).items()))


def _rests_on(
    projector: Projector, run: FlowRunView, task: TaskRunView, tasks: list[TaskRunView]
) -> TaskRunView | None:
    """Return the first of the task runs whose results a task run is given that did not complete (yet)."""
    upstream = {edge.upstream for edge in queries.list_dependencies(projector, run.id) if edge.task_run_id == task.id}
    return next((one for one in tasks if one.id in upstream and one.state_type != "COMPLETED"), None)


def _reason(run: str, state_type: str, state_name: str, text: str, event: Event, hint: str) -> Reason:
    return Reason(
        run, state_type, state_name, text, event.occurred_at, event.position, event.type, id_text(event.id), hint
    )
