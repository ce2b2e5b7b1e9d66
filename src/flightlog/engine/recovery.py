"""Finding runs whose process is gone, and putting on record that they crashed."""

from collections.abc import Iterable, Mapping
from typing import Any

from flightlog.clock import Clock, SystemClock
from flightlog.engine.history import History, read_history
from flightlog.engine.transitions import ONCE, End, decide
from flightlog.errors import LogWriteError, RunNotFound, TakenOver, VersionConflict
from flightlog.events.liveness import PATIENCE_SECONDS, is_gone, key_of
from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import flow_run_stream
from flightlog.ids import Ids, RandomIds


def is_lost(log: Log, history: History) -> bool:
    """Tell whether a run that has not ended never will: its process is gone."""
    if history.ended or history.running is None or history.suspended:
        return False
    return is_dead(log, history.running, history.running_at)


def is_dead(log: Log, process: Mapping[str, Any], seen: int) -> bool:
    """Tell whether a process is gone.

    Args:
        log: the log, beside which processes leave their beats.
        process: what `this_process` gave there.
        seen: when it was certainly there, in microseconds since 1970.
    """
    gone = is_gone(process)
    if gone is not None:
        return gone
    # It ran on another machine, or in another container: has it left a beat lately?
    seen = max(log.store.beats().get(key_of(process), 0), seen)
    return log.store.now() - seen > PATIENCE_SECONDS * 1e6


def mark_lost(
    log: Log, runs: Iterable[bytes], *, actor: str, clock: Clock | None = None, ids: Ids | None = None
) -> list[History]:
    """Put on record that runs crashed whose process is gone, and that suspended ones failed whose time is over.

    The epoch is raised with it: should the process live on after all, what it writes late is refused. Returns the
    runs that were marked.

    Args:
        log: the log.
        runs: the flow runs to look at, 16 bytes each.
        actor: who looks.
        clock: time; the machine's by default.
        ids: identity.
    """
    clock, ids = clock or SystemClock(), ids or RandomIds()
    found = []
    for run in runs:
        try:
            history = read_history(log, run)
        except RunNotFound:
            continue
        if is_lost(log, history):
            end = _lost(history)
        elif history.suspended and history.pause is not None and history.pause["deadline"] <= clock.now():
            end = _LATE
        else:
            continue
        if _mark(log, history, end, actor, clock, ids):
            found.append(read_history(log, run))
    return found


_LATE = End("FAILED", {"message": "The run was suspended and never resumed.", "cause": "timed_out"}, retriable=False)


def _lost(history: History) -> End:
    running = history.running or {}
    where = f"process {running.get('pid')} on {running.get('host')}"
    message = f"The {where} ended without a word: killed, or its machine stopped."
    return End("CRASHED", {"message": message, "cause": "lost_worker"}, retriable=False)


def _mark(log: Log, history: History, end: End, actor: str, clock: Clock, ids: Ids) -> bool:
    now = clock.now()
    events = []
    for call in history.unfinished():
        fact = decide(call.rules(ONCE), end)
        events.append(
            NewEvent(ids.new(), fact.type, {"task_run_id": call.key, **fact.data}, now, call.cause, actor=actor)
        )
    fact = decide(history.rules, end)
    events.append(NewEvent(ids.new(), fact.type, fact.data, now, history.cause, actor=actor))
    append = Append(flow_run_stream(history.text), events, history.version, history.epoch + 1)
    try:
        log.append_all([append])
    except (VersionConflict, TakenOver, LogWriteError):
        return False  # somebody else was first, or the log can only be read here
    return True
