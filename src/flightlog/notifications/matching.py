"""Which events are about what, and which rules match them. Pure: an event, what is remembered, and the log itself."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

from flightlog.events.model import Event
from flightlog.events.narration import state_of
from flightlog.events.types import FLOW_RUN, STATES, TASK_RUN, flow_run_of
from flightlog.ids import id_text
from flightlog.notifications.durations import microseconds
from flightlog.notifications.expressions import compiled
from flightlog.notifications.rules import Match, Rule
from flightlog.notifications.state import FlowMemory, Occurrence, RunMemory

LookUp = Callable[[str, bytes | None], Mapping[str, Any]]
"""Returns the payload of the event that created a flow run (by stream) or a task run in it; empty if there is none."""
BAD: Final = frozenset({"FAILED", "CRASHED"})
CUSTOM: Final = "event.emitted"
PARENT: Final = "its parent run goes on"


def occurrence_of(event: Event, run: RunMemory | None, look_up: LookUp) -> Occurrence:
    """Return what an event says, with what is known of its run.

    Args:
        event: the event.
        run: its flow run; None if it has none, or that is not known.
        look_up: finds what created a task run.
    """
    kind, _, suffix = event.type.partition(".")
    data = event.data
    found = Occurrence(event.recorded_at, event.position, event.id.hex(), event.type, event.type, event.stream)
    if run is not None:
        identifier = flow_run_of(event.stream)
        found.flow, found.run_name, found.tags = run.flow, run.name, list(run.tags)
        found.deployment = run.deployment
        found.run = "" if identifier is None else id_text(identifier)
        found.took = event.occurred_at - run.started_at if run.started_at else None
    if suffix in STATES and kind in (FLOW_RUN, TASK_RUN):
        _add_state(found, kind, event, look_up)
    else:
        found.type = data["event"] if event.type == CUSTOM else event.type
        found.text = _told(found.type, data)
    return found


def _add_state(found: Occurrence, kind: str, event: Event, look_up: LookUp) -> None:
    data = event.data
    found.state_type, found.state_name = state_of(event.type, data)
    found.attempt = data.get("attempt", 1)  # what is usual is left out of payloads
    error = data.get("error") or {}
    found.error = f"{error['type']}: {error['message']}" if error else ""
    if kind == TASK_RUN:
        created = look_up(event.stream, data["task_run_id"])
        found.task = created.get("task", "")
        found.tags = list(created.get("tags") or found.tags)
    why = found.error or data.get("message") or ""
    found.text = f"{found.task or found.flow} {found.state_name}{f': {_first_line(why)}' if why else ''}"


def _told(name: str, data: Mapping[str, Any]) -> str:
    message = data.get("message") or data.get("problem") or ""
    return f"{name}{f': {_first_line(str(message))}' if message else ''}"


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")[:300]


def is_about(match: Match, occurrence: Occurrence) -> bool:
    """Tell whether an occurrence is of the flows, tasks and tags that a rule is about, whatever its state."""
    if match.flow and not fits(match.flow, occurrence.flow):
        return False
    if match.tags and not has_tags(match.tags, occurrence.tags):
        return False
    if not comes_from(match.deployment, occurrence.deployment):
        return False
    if bool(match.task) != bool(occurrence.task) and not match.event:
        return False
    return not match.task or fits(match.task, occurrence.task)


def may_match(rule: Rule, type_: str) -> bool:
    """Tell whether a rule could match events of a type: what no rule wants need not be looked at any further."""
    match, threshold = rule.match, rule.threshold
    if not rule.enabled or threshold.slower_than is not None or threshold.not_succeeded_within is not None:
        return False  # it is switched off, or waits for what does not happen
    if match.event:
        return type_ == CUSTOM or fits(match.event, type_)
    kind, _, suffix = type_.partition(".")
    if kind != (TASK_RUN if match.task else FLOW_RUN) or suffix not in STATES:
        return False
    return bool(match.state) or STATES[suffix][0] in BAD


def matches(rule: Rule, occurrence: Occurrence, event: Event, look_up: LookUp) -> bool:
    """Tell whether a rule matches what an event says."""
    match = rule.match
    if not _is_wanted(match, occurrence, event.type) or not is_about(match, occurrence):
        return False
    return match.where is None or compiled(match.where)(names_of(occurrence, event, look_up))


def _is_wanted(match: Match, occurrence: Occurrence, type_: str) -> bool:
    """Tell whether an event's type, or the state that it leads to, is one that a rule asks for."""
    if match.event and not (fits(match.event, occurrence.type) or fits(match.event, type_)):
        return False
    if match.state:
        return occurrence.state_name in match.state or occurrence.state_type in match.state
    return bool(match.event) or occurrence.state_type in BAD


def may_mend(rule: Rule, occurrence: Occurrence, event: Event, has_parent: bool) -> str:
    """Return why what matched may still mend itself, or be told by another; empty if not."""
    if event.type == "flow_run.awaiting_retry":
        return "the run is tried again"
    if event.type.startswith("task_run.") and occurrence.state_type not in ("RUNNING", "PENDING"):
        return "its flow run goes on"
    return PARENT if has_parent and rule.inhibit.parents and event.type.startswith("flow_run.") else ""


def limit_of(rule: Rule, flow: FlowMemory | None) -> int | None:
    """Return how long a flow's runs may take by a rule, in microseconds; None for as long as they like."""
    wanted = rule.threshold.slower_than
    if wanted is None or wanted[:1] != "p":
        return None if wanted is None else microseconds(wanted)
    return None if flow is None else flow.percentile(int(wanted[1:]))


def going_on(occurrence: Occurrence, run: RunMemory, stream: str, took: int) -> Occurrence:
    """Return what happens by the clock to a run that is going on, with what is known of the run."""
    return replace(
        occurrence, stream=stream, run=stream.removeprefix("flow-run/"), run_name=run.name, tags=list(run.tags),
        state_name="Running", state_type="RUNNING", took=took, deployment=run.deployment,
    )  # fmt: skip


def names_of(occurrence: Occurrence, event: Event, look_up: LookUp) -> dict[str, Any]:
    """Return what a rule's expression can use."""
    return {
        "type": occurrence.type,
        "data": _Fields(_usual(event.type) | event.data),
        "flow": occurrence.flow or None,
        "run": occurrence.run_name or None,
        "task": occurrence.task or None,
        "tags": occurrence.tags,
        "state": occurrence.state_name,
        "state_type": occurrence.state_type,
        "parameters": _parameters(look_up(occurrence.stream, None)),
        "duration": None if occurrence.took is None else occurrence.took / 1e6,
    }


@lru_cache(256)
def _usual(type_: str) -> dict[str, Any]:
    """Return what payloads of a type leave out, since it is what is usual."""
    from flightlog.events.vocabulary import MODELS

    model = MODELS.get(type_)
    fields = {} if model is None else model.model_fields
    return {name: field.default for name, field in fields.items() if not field.is_required()}


class _Fields(dict[str, Any]):
    """A payload; what `emit_event` was given as JSON can be looked into."""

    def __missing__(self, key: str) -> Any:
        return _parsed(self.get("payload") or "{}").get(key)


def _parameters(created: Mapping[str, Any]) -> Mapping[str, Any]:
    return _parsed(created.get("parameters") or "{}")


def _parsed(text: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def group_of(rule: Rule, occurrence: Occurrence) -> str:
    """Return what tells the incidents of a rule apart: ``flow=etl, tag:team=core``."""
    return ", ".join(f"{name}={_group_value(name, occurrence)}" for name in rule.group_by)


def _group_value(name: str, occurrence: Occurrence) -> str:
    if name.startswith("tag:"):
        prefix = name.removeprefix("tag:")
        return ",".join(sorted(tag.removeprefix(prefix) for tag in occurrence.tags if tag.startswith(prefix)))
    values = {
        "flow": occurrence.flow,
        # Names of runs come again; the end of an id does not.
        "run": f"{occurrence.run_name} {occurrence.run[-6:]}".strip(),
        "task": occurrence.task,
        "state": occurrence.state_name,
        "error": occurrence.error.partition(":")[0],
        "event": occurrence.type,
        "resource": occurrence.stream,
    }
    return values[name]


@lru_cache(4096)
def fits(patterns: tuple[str, ...], name: str) -> bool:
    """Tell whether a name fits one of some patterns, and none of those with ``!`` in front."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    if any(fnmatchcase(name, pattern) for pattern in unwanted):
        return False
    return not wanted or any(fnmatchcase(name, pattern) for pattern in wanted)


def comes_from(patterns: tuple[str, ...], deployment: str) -> bool:
    """Tell whether a run's deployment fits; one that comes from none fits nothing but no patterns."""
    return not patterns or (bool(deployment) and fits(patterns, deployment))


def has_tags(patterns: Iterable[str], tags: Iterable[str]) -> bool:
    """Tell whether some tags have all that are asked for, and none with ``!`` in front."""
    own = list(tags)
    return all(
        any(fnmatchcase(tag, pattern.removeprefix("!")) for tag in own) != pattern.startswith("!")
        for pattern in patterns
    )
