"""The fold of rules: events and time in, decisions out. Pure, so live and in a back-test it decides the same.

An event goes the way that every rule lays down: match, hold until it cannot mend itself any more, count up to the
threshold, group into an incident; from there on `flightlog.notifications.telling` says who is told, when, and why not.

Time is the log's: what is due by the clock happens at its due time, before any event that was recorded later, however
late somebody looks.
"""

import heapq
from collections.abc import Callable
from typing import Any, Final

from pydantic import TypeAdapter

from flightlog.events.model import Event
from flightlog.events.types import (
    CHANNEL_REMOVED,
    CHANNEL_SET,
    FLOW_RUN,
    INCIDENT_ACKNOWLEDGED,
    NOTIFICATION_DEAD,
    NOTIFICATION_DELIVERED,
    NOTIFICATION_FAILED,
    ROUTES_SET,
    RULE_REMOVED,
    RULE_SET,
    SILENCE_ADDED,
    SILENCE_ENDED,
    STATES,
    TERMINAL,
)
from flightlog.ids import id_text
from flightlog.notifications.decisions import Decision, IncidentChanged, Withheld
from flightlog.notifications.durations import text
from flightlog.notifications.matching import (
    PARENT,
    LookUp,
    fits,
    going_on,
    group_of,
    is_about,
    limit_of,
    matches,
    may_match,
    may_mend,
    occurrence_of,
)
from flightlog.notifications.outages import CHANNEL_DOWN, UNDELIVERED
from flightlog.notifications.rules import Channel, Configuration, Route, Rule
from flightlog.notifications.state import (
    DURATIONS,
    ENTRIES,
    LATEST,
    FlowMemory,
    Group,
    Held,
    Incident,
    Memory,
    Occurrence,
    RunMemory,
)
from flightlog.notifications.telling import Telling

_ROUTES: Final = TypeAdapter(tuple[Route, ...])
_ALWAYS: Final = frozenset(
    {f"{FLOW_RUN}.{suffix}" for suffix in STATES}
    | {f"task_run.{suffix}" for suffix in ("failed", "crashed", "cancelled", "awaiting_retry")}
    | {RULE_SET, RULE_REMOVED, CHANNEL_SET, CHANNEL_REMOVED, ROUTES_SET, SILENCE_ADDED, SILENCE_ENDED}
    | {INCIDENT_ACKNOWLEDGED, NOTIFICATION_DEAD, NOTIFICATION_FAILED, NOTIFICATION_DELIVERED}
)
_ENDS: Final = frozenset(f"{FLOW_RUN}.{suffix}" for suffix, (state, _) in STATES.items() if state in TERMINAL)
_CONFIGURATION: Final = frozenset({RULE_SET, RULE_REMOVED, CHANNEL_SET, CHANNEL_REMOVED, ROUTES_SET})
_OWN: Final = ("rule.", "channel.", "routes.", "silence.", "incident.", "notification.")


class Fold:
    """Rules at work.

    Args:
        look_up: finds what created a run, in the log.
        memory: where an earlier fold had come; nothing by default.
        only: a configuration to use instead of those that the log has, for a back-test.

    Attributes:
        memory: what is remembered.
    """

    def __init__(self, look_up: LookUp, memory: Memory | None = None, *, only: Configuration | None = None) -> None:
        self.memory = memory or Memory()
        self._look_up = look_up
        self._only = only is not None
        self.rules: dict[str, Rule] = {CHANNEL_DOWN.name: CHANNEL_DOWN}
        self._telling = Telling(self.memory, self.rules)
        self._wanting: dict[str, list[Rule]] = {}
        self._learn(only)
        self._out: list[Decision] = []

    def _learn(self, only: Configuration | None) -> None:
        memory, telling = self.memory, self._telling
        self.rules |= {rule.name: rule for rule in map(Rule.model_validate_json, memory.rules.values())}
        telling.channels |= {one.name: one for one in map(Channel.model_validate_json, memory.channels.values())}
        telling.routes = _ROUTES.validate_json(memory.routes)
        if only is not None:
            self.rules |= {rule.name: rule for rule in only.rules}
            telling.channels |= {channel.name: channel for channel in only.channels}
            telling.routes = only.routes

    @property
    def types(self) -> frozenset[str] | None:
        """The event types that the rules need; None for all."""
        wanted = set(_ALWAYS)
        for rule in self.rules.values():
            if any(not pattern.replace(".", "").replace("_", "").isalnum() for pattern in rule.match.event):
                return None
            if rule.match.event:
                wanted |= {*rule.match.event, "event.emitted"}  # a custom event's name is in its payload
            if rule.match.task and rule.match.state:
                wanted |= {f"task_run.{suffix}" for suffix in STATES}
        return frozenset(wanted)

    # --- events and time ----------------------------------------------------------------------------

    def apply(self, event: Event) -> list[Decision]:
        """Fold one event, after all that was due before it; return what is decided.

        Args:
            event: the next event of the log that the rules need.
        """
        self._out, type_ = self.tick(event.recorded_at), event.type
        self.memory.position = event.position
        handle = _HANDLERS.get(type_)
        if handle is not None and not (self._only and type_ in _CONFIGURATION):
            handle(self, event)
        if not type_.startswith(_OWN) or type_ in UNDELIVERED:
            self._observe(event, type_)
        return self._out

    def tick(self, now: int) -> list[Decision]:
        """Let happen what is due at a moment or before; return what is decided.

        Args:
            now: in microseconds since 1970 (UTC).
        """
        self._out = self._telling.out = []
        memory = self.memory
        while memory.timers and memory.timers[0][0] <= now:
            due, _, kind, *args = heapq.heappop(memory.timers)
            memory.now = max(memory.now, due)
            _TIMERS[kind](self, due, *args)
        memory.now = max(memory.now, now)
        return self._out

    @property
    def next_due(self) -> int | None:
        """When something is due by the clock, in microseconds since 1970; None if nothing is."""
        return self.memory.timers[0][0] if self.memory.timers else None

    # --- what people set ----------------------------------------------------------------------------

    def _set_rule(self, event: Event) -> None:
        rule = Rule.model_validate_json(event.data["rule"])
        self.memory.rules[rule.name] = event.data["rule"]
        self.rules[rule.name] = rule
        self._wanting.clear()
        self._arm_all(rule, event.recorded_at)

    def _remove_rule(self, event: Event) -> None:
        name = event.data["name"]
        if self.memory.rules.pop(name, None) is not None:
            self.rules.pop(name)
            self._wanting.clear()
            for group in self.memory.groups.pop(name, {}).values():
                if incident := self.memory.incidents.pop(group.incident, None):
                    self._changed("resolved", incident, event.recorded_at, incident.latest, "the rule is gone")
            self._telling.release(name, event.recorded_at)

    def _set_channel(self, event: Event) -> None:
        channel = Channel.model_validate_json(event.data["channel"])
        self.memory.channels[channel.name] = event.data["channel"]
        self._telling.channels[channel.name] = channel

    def _remove_channel(self, event: Event) -> None:
        self.memory.channels.pop(event.data["name"], None)
        self._telling.channels.pop(event.data["name"], None)

    def _set_routes(self, event: Event) -> None:
        self.memory.routes = event.data["routes"]
        self._telling.routes = _ROUTES.validate_json(self.memory.routes)

    def _silence(self, event: Event) -> None:
        self._telling.silence(event.data)

    def _end_silence(self, event: Event) -> None:
        self._telling.end_silence(event.data["silence"], event.recorded_at)

    def _acknowledge(self, event: Event) -> None:
        if incident := self.memory.incidents.get(event.data["incident"]):
            incident.acknowledged = True

    def _delivered(self, event: Event) -> None:
        """A channel that was down works again."""
        group = self.memory.groups.get(CHANNEL_DOWN.name, {}).get(f"resource={event.data['channel']}")
        if group is not None and group.incident:
            self._close(CHANNEL_DOWN, group, event.recorded_at, None, "a message was delivered again")

    # --- what happens -------------------------------------------------------------------------------

    def _observe(self, event: Event, type_: str) -> None:
        rules, run = self._rules_for(type_), self._run_of(event)
        is_end = type_ in _ENDS and run is not None
        if type_ == "flow_run.running" and run is not None:
            run.started_at = run.started_at or event.recorded_at
            self._watch_duration(run, event)
        if type_ == "flow_run.awaiting_retry" and run is not None:
            run.retried_at = event.recorded_at
        if not rules and not is_end:
            return
        occurrence = occurrence_of(event, run, self._look_up)
        if type_ in UNDELIVERED:
            occurrence.stream = event.data["channel"]
        for rule in rules:
            if matches(rule, occurrence, event, self._look_up):
                self._match(rule, occurrence, run, event)
        if is_end and run is not None:
            self._end_run(event, run, occurrence)

    def _rules_for(self, type_: str) -> list[Rule]:
        """Return the rules that events of a type could match."""
        if type_ not in self._wanting:
            wanting = [rule for rule in self.rules.values() if may_match(rule, type_)]
            # What keeps others quiet comes first, wherever it stands: they may match the same event.
            self._wanting[type_] = sorted(wanting, key=lambda rule: bool(rule.inhibit.rules))
        return self._wanting[type_]

    def _run_of(self, event: Event) -> RunMemory | None:
        """Return the flow run that an event belongs to; one that is not known is looked up."""
        runs, stream = self.memory.runs, event.stream
        if not stream.startswith("flow-run/"):
            identifier = event.data.get("flow_run_id") if event.type == "event.emitted" else None
            stream = f"flow-run/{id_text(identifier)}" if identifier else ""
            return runs.get(stream) or (RunMemory.of(self._look_up(stream, None), 0) if stream else None)
        if stream not in runs:
            created = event.data if event.type == "flow_run.created" else self._look_up(stream, None)
            run = RunMemory.of(created, event.recorded_at)
            if run is None:
                return None
            runs[stream] = run
            self._first_seen(run, event.recorded_at)
        return runs[stream]

    def _match(self, rule: Rule, occurrence: Occurrence, run: RunMemory | None, event: Event) -> None:
        """Hold a match back, or count it."""
        if (
            rule.hold == "retries"
            and run is not None
            and (why := may_mend(rule, occurrence, event, run.parent in self.memory.runs))
        ):
            holder = self.memory.runs[run.parent] if why == PARENT else run
            holder.held.append(Held(rule.name, occurrence, why))
            self._withhold(rule, occurrence, "held", why)
        elif isinstance(rule.hold, int) and not (group := self._group(rule, occurrence)).incident:
            group.held.append(Held(rule.name, occurrence, f"held for {text(rule.hold)}"))
            self._withhold(rule, occurrence, "held", f"it is told if nothing completes within {text(rule.hold)}")
            self._at(occurrence.at + rule.hold, "hold", rule.name, group.key)
        else:
            self._count(rule, occurrence)

    def _end_run(self, event: Event, run: RunMemory, occurrence: Occurrence) -> None:
        """Let go of what waited for the end of a run."""
        self.memory.runs.pop(event.stream, None)
        above = self.memory.runs.get(run.parent)
        passed_on = above is not None and any(one.occurrence.event == occurrence.event for one in above.held)
        told = any(isinstance(one, IncidentChanged) and one.cause.event == occurrence.event for one in self._out)
        for held in run.held:
            if held.why == PARENT and passed_on and above is not None:
                above.held.append(held)  # whether the parent is told hangs on its own parent
            elif (rule := self.rules.get(held.rule)) is not None:
                self._let_go(rule, held, run, occurrence, told=told)
        flow = self.memory.flows.setdefault(run.flow, FlowMemory())
        flow.ends = [*flow.ends, occurrence.state_type][-LATEST:]
        if occurrence.state_type == "COMPLETED":
            flow.completed_at = event.recorded_at
            if occurrence.took is not None:
                flow.durations = [*flow.durations, occurrence.took][-DURATIONS:]
            self._succeed(occurrence)

    def _let_go(self, rule: Rule, held: Held, run: RunMemory, end: Occurrence, *, told: bool) -> None:
        """Count a match that waited for the end of a run, or say why it counts no more."""
        if held.why == PARENT and told and end.state_type != "COMPLETED":
            self._withhold(rule, held.occurrence, "inhibited", f"its parent {run.name} failed too, and that is told")
        elif held.occurrence.task and held.occurrence.at <= run.retried_at:
            self._withhold(rule, held.occurrence, "recovered", "a later attempt of its flow run took its place")
        elif held.why != PARENT and not held.occurrence.task and end.state_type == "COMPLETED":
            self._withhold(rule, held.occurrence, "recovered", "the flow run completed after all")
        else:
            self._count(rule, held.occurrence, at=end.at)

    def _succeed(self, occurrence: Occurrence) -> None:
        """A flow run completed: what waits for that is over."""
        for rule in list(self.rules.values()):
            # A rule about tasks takes the flow's end for theirs: by then none of them can fail any more.
            about = rule.match.model_copy(update={"task": (), "event": ()})
            if not rule.enabled or rule.match.event or not (is_about(about, occurrence) or rule.match.task):
                continue
            if rule.threshold.not_succeeded_within is not None:
                self._arm(rule, self._group(rule, occurrence), occurrence.at)
            for group in list(self.memory.groups.get(rule.name, {}).values()):
                if group.flow == occurrence.flow and ("run" not in rule.group_by or group.run == occurrence.run):
                    self._recover(rule, group, occurrence)

    def _recover(self, rule: Rule, group: Group, occurrence: Occurrence) -> None:
        group.streak = 0
        for held in group.held:
            self._withhold(rule, held.occurrence, "recovered", "a run completed before its time was over")
        group.held = []
        if rule.threshold.recovered and group.failed:
            self._open(rule, group, occurrence, occurrence.at, "a run completed after one that did not", tell=False)
            self._close(rule, group, occurrence.at, occurrence, "it has recovered")
        elif group.incident and rule.resolve == "success":
            self._close(rule, group, occurrence.at, occurrence, f"{occurrence.run_name} completed")
        group.failed = False

    # --- thresholds ---------------------------------------------------------------------------------

    def _count(self, rule: Rule, occurrence: Occurrence, at: int | None = None) -> None:
        """Count a match; once it is enough, there is an incident."""
        now = occurrence.at if at is None else at
        group, threshold = self._group(rule, occurrence), rule.threshold
        group.failed = True
        if threshold.recovered:
            self._withhold(rule, occurrence, "counted", "the rule tells when a run completes again")
            return
        if group.incident:
            self._join(rule, group, occurrence, now)
            return
        group.streak += 1
        if threshold.within is not None:
            group.times = [time for time in [*group.times, occurrence.at] if time > occurrence.at - threshold.within]
            needed, have, what = threshold.failures, len(group.times), f"within {text(threshold.within)}"
        else:
            needed, have, what = threshold.consecutive or 1, group.streak, "in a row"
        if have < needed:
            self._withhold(rule, occurrence, "counted", f"{have} of {needed} {what}")
        else:
            group.times = []
            self._open(rule, group, occurrence, now, f"{have} {what}" if needed > 1 else "it matched")

    def _watch_duration(self, run: RunMemory, event: Event) -> None:
        for rule in self.rules.values():
            limit = limit_of(rule, self.memory.flows.get(run.flow)) if rule.enabled else None
            if limit is not None and is_about(rule.match, occurrence_of(event, run, self._look_up)):
                self._at(event.recorded_at + limit, "slow", rule.name, event.stream, limit)

    def _slow(self, due: int, name: str, stream: str, limit: int) -> None:
        rule, run = self.rules.get(name), self.memory.runs.get(stream)
        if rule is None or not rule.enabled or run is None:
            return
        wanted = rule.threshold.slower_than or ""
        than = f"{text(limit)} ({wanted} of its runs)" if wanted[:1] == "p" else wanted
        occurrence = self._by_clock(due, f"{run.flow} is running for longer than {than}", run.flow)
        self._count(rule, going_on(occurrence, run, stream, limit))

    def _by_clock(self, due: int, told: str, flow: str) -> Occurrence:
        return Occurrence(due, self.memory.position, "", "clock", told, flow=flow)

    def _first_seen(self, run: RunMemory, at: int) -> None:
        """Begin to wait for a first success of a flow."""
        occurrence = self._by_clock(at, "", run.flow)
        occurrence.run_name, occurrence.tags, occurrence.deployment = run.name, list(run.tags), run.deployment
        for rule in self.rules.values():
            if rule.enabled and rule.threshold.not_succeeded_within and is_about(rule.match, occurrence):
                group = self._group(rule, occurrence)
                if not group.armed:
                    self._arm(rule, group, at)

    def _arm_all(self, rule: Rule, at: int) -> None:
        """Begin to wait for the successes of all flows that are known, for a rule that is new.

        Not for one that asks for tags or deployments: whether a flow's runs have these shows with the next of them.
        """
        if rule.threshold.not_succeeded_within is None or rule.match.tags or rule.match.deployment:
            return
        for name, flow in self.memory.flows.items():
            if fits(rule.match.flow, name):
                group = self._group(rule, self._by_clock(at, "", name))
                self._arm(rule, group, max(flow.completed_at, at - rule.threshold.not_succeeded_within))

    def _arm(self, rule: Rule, group: Group, since: int) -> None:
        group.armed = since
        self._at(since + (rule.threshold.not_succeeded_within or 0), "missed", rule.name, group.key, since)

    def _missed(self, due: int, name: str, key: str, since: int) -> None:
        rule, group = self.rules.get(name), self.memory.groups.get(name, {}).get(key)
        if rule is None or not rule.enabled or group is None or group.armed != since:
            return
        if not rule.threshold.not_succeeded_within:
            return
        span = text(rule.threshold.not_succeeded_within)
        occurrence = self._by_clock(due, f"No run of {group.flow} has completed for {span}", group.flow)
        if not group.incident:
            self._open(rule, group, occurrence, due, f"nothing completed for {span}")

    def _hold_over(self, due: int, name: str, key: str) -> None:
        rule, group = self.rules.get(name), self.memory.groups.get(name, {}).get(key)
        if rule is None or not rule.enabled or group is None or not isinstance(rule.hold, int):
            return
        ripe = [held for held in group.held if held.occurrence.at + rule.hold <= due]
        group.held = group.held[len(ripe) :]
        for held in ripe:
            self._count(rule, held.occurrence, at=due)

    # --- incidents ----------------------------------------------------------------------------------

    def _group(self, rule: Rule, occurrence: Occurrence) -> Group:
        key = group_of(rule, occurrence)
        groups = self.memory.groups.setdefault(rule.name, {})
        if key not in groups:
            groups[key] = Group(key)
        group = groups[key]
        group.flow, group.run = occurrence.flow or group.flow, occurrence.run or group.run
        return group

    def _open(
        self, rule: Rule, group: Group, occurrence: Occurrence, at: int, reason: str, *, tell: bool = True
    ) -> None:
        incident = Incident.begin(rule.name, group.key, occurrence, at)
        self.memory.incidents[incident.id] = incident
        group.incident = incident.id
        self._changed("opened", incident, at, occurrence, reason)
        if tell:
            self._telling.opened(rule, group, incident, at)
        if rule.ends_after is not None:
            self._at(at + rule.ends_after, "quiet", rule.name, group.key, incident.id)

    def _join(self, rule: Rule, group: Group, occurrence: Occurrence, at: int) -> None:
        incident = self.memory.incidents[group.incident]
        incident.count += 1
        incident.latest = occurrence
        incident.entries = [*incident.entries, occurrence][-ENTRIES:]
        self._changed("updated", incident, at, occurrence, f"event {incident.count} of the incident")
        self._telling.joined(rule, incident, at)

    def _close(self, rule: Rule, group: Group, at: int, occurrence: Occurrence | None, reason: str) -> None:
        incident = self.memory.incidents.pop(group.incident)
        occurrence = occurrence or incident.latest
        group.incident, group.streak = "", 0
        self._changed("resolved", incident, at, occurrence, reason)
        self._telling.resolved(rule, group, incident, at, occurrence)
        if "run" in rule.group_by:
            self.memory.groups[rule.name].pop(group.key, None)  # there is one for each run: they would pile up

    def _quiet(self, due: int, name: str, key: str, identifier: str) -> None:
        """End an incident that nothing has happened in for a while."""
        rule, group = self.rules.get(name), self.memory.groups.get(name, {}).get(key)
        incident = self.memory.incidents.get(identifier)
        if rule is None or group is None or incident is None or rule.ends_after is None:
            return
        if incident.latest.at + rule.ends_after > due:
            self._at(incident.latest.at + rule.ends_after, "quiet", name, key, identifier)
        else:
            self._close(rule, group, due, None, f"nothing more happened for {text(rule.ends_after)}")

    def _changed(self, what: Any, incident: Incident, at: int, cause: Occurrence, reason: str) -> None:
        changed = IncidentChanged(what, at, incident.id, incident.rule, incident.group, incident.count, cause, reason)
        self._telling.out.append(changed)

    def _withhold(self, rule: Rule, occurrence: Occurrence, reason: str, why: str) -> None:
        at = max(self.memory.now, occurrence.at)
        self._telling.out.append(Withheld(at, rule.name, group_of(rule, occurrence), "", occurrence, reason, why))

    def _at(self, due: int, kind: str, *args: Any) -> None:
        self._telling.at(due, kind, *args)


def _told(name: str) -> Callable[..., None]:
    """Return a timer's handler that is the telling's."""

    def handle(fold: Fold, due: int, *args: Any) -> None:
        getattr(fold._telling, name)(due, *args)

    return handle


_HANDLERS: Final[dict[str, Callable[[Fold, Event], None]]] = {
    RULE_SET: Fold._set_rule,
    RULE_REMOVED: Fold._remove_rule,
    CHANNEL_SET: Fold._set_channel,
    CHANNEL_REMOVED: Fold._remove_channel,
    ROUTES_SET: Fold._set_routes,
    SILENCE_ADDED: Fold._silence,
    SILENCE_ENDED: Fold._end_silence,
    INCIDENT_ACKNOWLEDGED: Fold._acknowledge,
    NOTIFICATION_DELIVERED: Fold._delivered,
}
_TIMERS: Final[dict[str, Callable[..., None]]] = {
    "hold": Fold._hold_over,
    "slow": Fold._slow,
    "missed": Fold._missed,
    "quiet": Fold._quiet,
    **{name: _told(name) for name in ("update", "repeat", "escalate", "calm", "speak", "digest", "relieve")},
}
