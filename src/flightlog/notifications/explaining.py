"""Why a rule does not match an event: the first of its conditions that does not hold."""

from collections.abc import Iterator
from typing import Final

from flightlog.events.model import Event
from flightlog.notifications.expressions import compiled
from flightlog.notifications.matching import BAD, LookUp, fits, has_tags, names_of
from flightlog.notifications.rules import Rule
from flightlog.notifications.state import Occurrence

MATCHES: Final = "it matches"


def why_not(rule: Rule, occurrence: Occurrence, event: Event, look_up: LookUp) -> str:
    """Return in words why a rule does not match what an event says.

    Args:
        rule: the rule.
        occurrence: what the event says.
        event: the event.
        look_up: finds what created a run.
    """
    reasons = _reasons(rule, occurrence)
    if (reason := next(reasons, None)) is not None:
        return reason
    where = rule.match.where
    if where is not None and not compiled(where)(names_of(occurrence, event, look_up)):
        return f"the expression {where!r} does not hold"
    return MATCHES


def _reasons(rule: Rule, occurrence: Occurrence) -> Iterator[str]:
    match, state = rule.match, occurrence.state_name
    if not rule.enabled:
        yield "the rule is switched off"
    if match.event:
        yield f"it is about events of type {_any(match.event)}"
    if match.task and not occurrence.task:
        yield "it is about task runs"
    if match.flow and not fits(match.flow, occurrence.flow):
        yield f"the flow {occurrence.flow!r} is not {_any(match.flow)}"
    if match.task and not fits(match.task, occurrence.task):
        yield f"the task {occurrence.task!r} is not {_any(match.task)}"
    if match.tags and not has_tags(match.tags, occurrence.tags):
        yield f"the run's tags ({', '.join(occurrence.tags) or 'none'}) are not {' and '.join(match.tags)}"
    if match.state and state not in match.state and occurrence.state_type not in match.state:
        yield f"the state {state} is not {_any(match.state)}"
    if not match.state and occurrence.state_type not in BAD:
        yield f"the state {state} is neither Failed nor Crashed"


def _any(patterns: tuple[str, ...]) -> str:
    return " or ".join(patterns)
