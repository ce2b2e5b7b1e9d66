"""What holds of every log, whatever happened: legal transitions, no slot too many, and nothing that is left behind."""

from collections.abc import Sequence
from typing import Any

from flightlog.engine.runtime import Engine
from flightlog.events.model import Event
from flightlog.events.types import FLOW_RUN, STATES, TASK_RUN, TERMINAL
from flightlog.projections.concurrency import ConcurrencyLimits
from flightlog.projections.result_cache import ResultCache

_STARTABLE = {"PENDING", "SCHEDULED"}
_OPEN = {"PENDING", "SCHEDULED", "RUNNING", "PAUSED", "CANCELLING"}
_FROM: dict[str, set[str]] = {
    "created": {""},
    "running": _STARTABLE,
    "not_ready": _STARTABLE,
    "pending": _STARTABLE,
    "paused": {"RUNNING"},
    "resumed": {"PAUSED"},
    "cancelling": _OPEN - {"CANCELLING"},
    "awaiting_retry": {"RUNNING"},
    "scheduled": (_OPEN | TERMINAL) - {"RUNNING"},
    **dict.fromkeys(("completed", "failed", "crashed", "cancelled"), _OPEN),
}


def violations(engine: Engine, *, at_rest: bool = True) -> list[str]:
    """Return what is wrong with a log: see `check_runs` and `check_claims`.

    Args:
        engine: its log is looked at.
        at_rest: whether all runs have ended, so that nothing may be held any more.
    """
    engine.log.flush()
    events = list(engine.log.read_all())
    return check_runs(events, at_rest=at_rest) + check_claims(events, at_rest=at_rest)


def check_runs(events: Sequence[Event], *, at_rest: bool) -> list[str]:
    """Return the transitions that the rules do not know, the starts in runs that have ended, and the runs left open."""
    wrong: list[str] = []
    states: dict[str, str] = {}
    for event in events:
        kind, _, suffix = event.type.partition(".")
        if kind not in (FLOW_RUN, TASK_RUN) or suffix not in STATES:
            continue
        flow = event.stream
        who = flow if kind == FLOW_RUN else f"{flow}/{event.data['task_run_id'].hex()}"
        before = states.get(who, "")
        if before not in _FROM[suffix]:
            wrong.append(f"{event.position}: {event.type} follows on {before!r} of {who}")
        if kind == TASK_RUN and suffix in ("created", "running") and states.get(flow) in TERMINAL:
            wrong.append(f"{event.position}: {event.type} in {flow}, which is {states[flow]}")
        states[who] = STATES[suffix][0]
    if at_rest:
        wrong += [f"{who} is left {state}" for who, state in states.items() if state in ("RUNNING", "CANCELLING")]
    return wrong


def check_claims(events: Sequence[Event], *, at_rest: bool) -> list[str]:
    """Return the slots that were held beyond a limit, and the slots, waiters and claims that are left."""
    wrong: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    for projection in (ConcurrencyLimits(), ResultCache()):
        kept = found.setdefault(projection.name, {})
        for event in events:
            if event.type not in projection.types:
                continue
            state = kept[event.stream] = projection.apply(kept.get(event.stream), event)
            if event.type == "slots.acquired" and state is not None:
                held = sum(holder["slots"] for holder in state["holders"].values())
                if held > state["limit"]:
                    wrong.append(f"{event.position}: {held} of {state['limit']} slots of {state['name']!r} are held")
    if at_rest:
        for state in filter(None, found["concurrency"].values()):
            wrong += [f"{what} of {state['name']!r} are left" for what in ("holders", "waiters") if state[what]]
        wrong += [
            f"a claim is left on {key}" for key, state in found["result_cache"].items() if state and "claim" in state
        ]
    return wrong
