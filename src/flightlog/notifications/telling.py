"""Who is told of an incident, when, and why not: damping, silences, mute times, routes, digests, limits, escalation.

The second half of the fold (`flightlog.notifications.folding`): from incidents to drafts of messages. Pure like it.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from flightlog.notifications.decisions import Decision, Draft, Withheld
from flightlog.notifications.durations import text
from flightlog.notifications.matching import comes_from, fits, has_tags
from flightlog.notifications.notifier import Kind
from flightlog.notifications.outages import UNDELIVERED
from flightlog.notifications.rules import Channel, Route, Rule, rate_of
from flightlog.notifications.state import FlowMemory, Group, Incident, Memory, Occurrence

_MOST = 50
"""How many entries a digest shows."""


class Telling:
    """Turns what becomes of incidents into drafts of messages, or into reasons why there is none.

    Args:
        memory: what the fold remembers.
        rules: the rules by name, as they are at any time.

    Attributes:
        channels: the channels by name.
        routes: the routing tree.
        out: where decisions go.
    """

    def __init__(self, memory: Memory, rules: dict[str, Rule]) -> None:
        self._memory = memory
        self._rules = rules
        self.channels: dict[str, Channel] = {}
        self.routes: Sequence[Route] = ()
        self.out: list[Decision] = []

    def at(self, due: int, kind: str, *args: Any) -> None:
        """Have something happen at a time."""
        self._memory.numbered += 1
        heapq.heappush(self._memory.timers, [due, self._memory.numbered, kind, *args])

    # --- what becomes of incidents ------------------------------------------------------------------

    def opened(self, rule: Rule, group: Group, incident: Incident, at: int) -> None:
        """Tell of an incident that has begun."""
        for step in range(len(rule.escalate)):
            self.at(at + rule.escalate[step].after, "escalate", incident.id, step)
        if rule.repeat_every is not None:
            self.at(at + rule.repeat_every, "repeat", incident.id)
        if not self._damped(rule, group, incident, at):
            self._tell("opened", rule, incident, at)

    def joined(self, rule: Rule, incident: Incident, at: int) -> None:
        """Note that an incident has got another event; messages that can be changed are, now and then."""
        if incident.update_due or not incident.told:
            return
        incident.update_due = True
        self.at(max(at, incident.updated_at + rule.update_every), "update", incident.id)

    def resolved(self, rule: Rule, group: Group, incident: Incident, at: int, cause: Occurrence) -> None:
        """Tell whoever was told of an incident that it is over."""
        self.release(rule.name, at)
        incident = replace(incident, latest=cause)
        if self._damped(rule, group, incident, at):
            return
        if incident.told:
            self._tell("resolved", rule, incident, at, list(incident.told))
        elif rule.threshold.recovered:
            self._tell("resolved", rule, incident, at)

    def _damped(self, rule: Rule, group: Group, incident: Incident, at: int) -> bool:
        """Count a change of a group; tell if it comes and goes too often to be told of."""
        flapping = rule.flapping
        if flapping is None:
            return False
        group.changes = [time for time in [*group.changes, at] if time > at - flapping.within]
        if not group.flapping and len(group.changes) >= flapping.changes:
            group.flapping = True
            note = (
                f"It comes and goes: {len(group.changes)} changes within {text(flapping.within)}. You are told again "
            )
            note += f"when it has kept still for {text(flapping.within)}."
            self._tell("updated" if incident.told else "opened", rule, incident, at, list(incident.told) or None, note)
            self.at(at + flapping.within, "calm", rule.name, group.key)
            return True
        if group.flapping:
            self._withhold(rule, incident, at, "flapping", "it comes and goes")
        return group.flapping

    # --- what is due by the clock -------------------------------------------------------------------

    def update(self, due: int, identifier: str) -> None:
        """Change the messages of an incident, where the channel can."""
        for rule, incident in self._going_on(identifier):
            incident.update_due, incident.updated_at = False, due
            self._tell("updated", rule, incident, due, list(incident.told))

    def repeat(self, due: int, identifier: str) -> None:
        """Tell again of an incident that goes on and that nobody has acknowledged."""
        for rule, incident in self._going_on(identifier):
            if rule.repeat_every is None or incident.acknowledged:
                continue
            note = f"It goes on for {text(max(1, due - incident.opened_at))}."
            self._tell("escalated", rule, incident, due, list(incident.told) or None, note)
            self.at(due + rule.repeat_every, "repeat", identifier)

    def escalate(self, due: int, identifier: str, step: int) -> None:
        """Tell the next ones of an incident that nobody has acknowledged."""
        for rule, incident in self._going_on(identifier):
            if step < len(rule.escalate):
                self._escalate(due, rule, incident, step)

    def _escalate(self, due: int, rule: Rule, incident: Incident, step: int) -> None:
        after = text(rule.escalate[step].after)
        if incident.acknowledged:
            self._withhold(rule, incident, due, "acknowledged", f"somebody acknowledged it within {after}")
            return
        if (quiet := self._quieted(rule, incident, due)) is not None:
            self.at(quiet[2], "escalate", incident.id, step)  # its time comes when the silence is over
        note = f"Nobody has acknowledged it for {text(max(1, due - incident.opened_at))}."
        self._tell("escalated", rule, incident, due, list(rule.escalate[step].channels), note)

    def _going_on(self, identifier: str) -> Iterator[tuple[Rule, Incident]]:
        """Yield an incident with its rule, if it still goes on and the rule still counts."""
        incident = self._memory.incidents.get(identifier)
        rule = None if incident is None else self._rules.get(incident.rule)
        if incident is not None and rule is not None and rule.enabled:
            yield rule, incident

    def calm(self, due: int, name: str, key: str) -> None:
        """Say where a group stands that came and went, if it has kept still since."""
        rule, group = self._rules.get(name), self._memory.groups.get(name, {}).get(key)
        if rule is None or group is None or rule.flapping is None:
            return
        if (last := max(group.changes, default=0)) + rule.flapping.within > due:
            self.at(last + rule.flapping.within, "calm", name, key)
            return
        group.flapping, group.changes = False, []
        if (incident := self._memory.incidents.get(group.incident)) is not None:
            self._tell("opened", rule, incident, due, note="It has come and gone, and now it stays.")

    def speak(self, due: int, identifier: str) -> None:
        """Tell of an incident that still goes on now that a silence or mute time is over."""
        for rule, incident in self._going_on(identifier):
            if incident.waiting:
                why, incident.waiting = incident.waiting, ""
                self._tell("opened", rule, incident, due, note=f"It began {why}.")

    # --- silences -----------------------------------------------------------------------------------

    def silence(self, data: dict[str, Any]) -> None:
        """Begin a silence."""
        self._memory.silences[data["silence"]] = data

    def end_silence(self, identifier: str, at: int) -> None:
        """End a silence before its time."""
        if self._memory.silences.pop(identifier, None) is not None:
            for incident in list(self._memory.incidents.values()):
                if incident.waiting:
                    self.speak(at, incident.id)

    def _quieted(self, rule: Rule, incident: Incident, at: int) -> tuple[str, str, int] | None:
        """Return why nobody may be told just now, as a word and in words, and until when; None if they may."""
        silences = self._memory.silences
        for identifier in [key for key, silence in silences.items() if silence["until"] <= at]:
            del silences[identifier]
        for silence in silences.values():
            if _covers(silence, rule, incident):
                who = silence.get("comment") or "no reason given"
                return "silenced", f"while it was silenced ({who})", silence["until"]
        for mute in rule.mute:
            if (until := mute.until(at)) is not None:
                return "muted", "in a time in which the rule is mute", until
        return None

    def release(self, name: str, at: int) -> None:
        """Have incidents told of that an incident of a rule has kept quiet, if they go on now that it is over."""
        kept_quiet = {rule.name for rule in self._rules.values() if name in rule.inhibit.rules}
        for incident in self._memory.incidents.values() if kept_quiet else ():
            if incident.waiting and incident.rule in kept_quiet:
                self.at(at, "speak", incident.id)  # not at once: what has ended the one may end the other

    def _inhibited(self, rule: Rule) -> str:
        """Return the rule that keeps this one quiet; empty for none."""
        for name in rule.inhibit.rules:
            for other in self._memory.groups.get(name, {}).values():
                if other.incident:
                    return name
        return ""

    # --- to channels --------------------------------------------------------------------------------

    def _tell(
        self, kind: Kind, rule: Rule, incident: Incident, at: int, channels: Sequence[str] | None = None, note: str = ""
    ) -> None:
        """Draft a message for each channel, unless something speaks against it."""
        if by := self._inhibited(rule):
            if kind == "opened" and incident.id in self._memory.incidents:
                incident.waiting = f"while an incident of {by!r} was open"
            self._withhold(rule, incident, at, "inhibited", f"an incident of {by!r} is open")
            return
        if (quiet := self._quieted(rule, incident, at)) is not None:
            reason, words, until = quiet
            if kind == "opened" and incident.id in self._memory.incidents:
                incident.waiting = words
                self.at(until, "speak", incident.id)
            self._withhold(rule, incident, at, reason, words)
            return
        chosen = channels if channels is not None else self._route(rule, incident)
        if not chosen:
            self._withhold(rule, incident, at, "unrouted", "neither the rule nor a route names a channel for it")
        for name in chosen:
            self._to_channel(name, kind, rule, incident, at, note)

    def _to_channel(self, name: str, kind: Kind, rule: Rule, incident: Incident, at: int, note: str) -> None:
        channel = self.channels.get(name)
        if channel is None:
            self._withhold(rule, incident, at, "unrouted", f"there is no channel {name!r}")
        elif kind == "updated" and not channel.can_update and not note:
            self._withhold(rule, incident, at, "grouped", f"messages of {name!r} cannot be changed; it is counted")
        elif rule.digest is not None and kind != "escalated":
            self._gather(rule, channel, kind, incident, at)
        elif (free := self._free_at(channel, at)) > at:
            entries = self._memory.overflow.setdefault(name, [])
            if not entries:
                self.at(free, "relieve", name)
            entries.append(_entry(kind, rule, incident, at))
            self._withhold(rule, incident, at, "limited", f"{name!r} takes {channel.rate}; it is summed up later")
        else:
            self._draft(channel, kind, rule, incident, at, note)

    def _draft(self, channel: Channel, kind: Kind, rule: Rule, incident: Incident, at: int, note: str) -> None:
        incident.messages += 1
        key = _key(incident.id, channel.name, kind, incident.messages)
        first = incident.told.setdefault(channel.name, key)
        flow = self._memory.flows.get(incident.latest.flow, FlowMemory())
        ends = (*flow.ends, incident.latest.state_type) if incident.latest.state_type else tuple(flow.ends)
        if kind == "opened":
            incident.updated_at = at
        self._count_sent(channel, at)
        self.out.append(
            Draft(
                key,
                at,
                channel.name,
                kind,
                rule.name,
                replace(incident, told={}, entries=list(incident.entries)),
                incident.latest,
                note,
                ends=ends[-7:] if incident.latest.run else (),
                usual=flow.percentile(50),
                first="" if first == key else first,
            )
        )

    # --- digests and limits -------------------------------------------------------------------------

    def _gather(self, rule: Rule, channel: Channel, kind: Kind, incident: Incident, at: int) -> None:
        name = f"{rule.name}\0{channel.name}"
        entries = self._memory.digests.setdefault(name, [])
        if not entries:
            self.at(at + (rule.digest or 0), "digest", rule.name, channel.name)
        entries.append(_entry(kind, rule, incident, at))
        incident.told.setdefault(channel.name, "")
        self._withhold(rule, incident, at, "gathered", f"it goes out with a digest through {channel.name!r}")

    def digest(self, due: int, rule: str, channel: str) -> None:
        """Send what was gathered for a channel."""
        if (later := self._digest_at(due, rule, channel)) > due:
            self.at(later, "digest", rule, channel)
            return
        entries = self._memory.digests.pop(f"{rule}\0{channel}", [])
        self._sum_up(due, rule, channel, entries, f"What {rule!r} has gathered")

    def _digest_at(self, due: int, name: str, channel: str) -> int:
        """Return when a digest may go out: not in a mute time of its rule, nor while its channel takes no more."""
        rule, there = self._rules.get(name), self.channels.get(channel)
        muted = [until for mute in (rule.mute if rule else ()) if (until := mute.until(due)) is not None]
        return max([due, *muted, due if there is None else self._free_at(there, due)])

    def relieve(self, due: int, channel: str) -> None:
        """Send a summary of what was more than a channel takes."""
        entries = self._memory.overflow.pop(channel, [])
        if entries:
            note = f"More than {channel!r} takes ({self.channels[channel].rate})" if channel in self.channels else ""
            self._sum_up(due, str(entries[0]["rule"]), channel, entries, note)

    def _sum_up(self, due: int, rule: str, name: str, entries: list[dict[str, Any]], note: str) -> None:
        channel = self.channels.get(name)
        if channel is None or not entries:
            return
        self._count_sent(channel, due)
        cause = Occurrence(due, self._memory.position, "", "clock", f"{len(entries)} messages")
        shown = tuple(entries[:_MOST])
        key = _key(f"{rule}\0{due}", name, "digest", note, len(entries))
        self.out.append(Draft(key, due, name, "digest", rule, None, cause, note, shown, len(entries) - len(shown)))

    def _free_at(self, channel: Channel, at: int) -> int:
        """Return when a channel takes another message: now, or when the oldest one counts no more."""
        if channel.rate is None:
            return at
        count, span = rate_of(channel.rate)
        sent = [time for time in self._memory.sent.get(channel.name, []) if time > at - span]
        self._memory.sent[channel.name] = sent
        return at if len(sent) < count else sent[0] + span

    def _count_sent(self, channel: Channel, at: int) -> None:
        if channel.rate is not None:
            self._memory.sent.setdefault(channel.name, []).append(at)

    # --- routes -------------------------------------------------------------------------------------

    def _route(self, rule: Rule, incident: Incident) -> list[str]:
        """Return the channels that an incident goes to."""
        if rule.match.event and set(rule.match.event) <= set(UNDELIVERED):
            return self._others(incident.latest.stream)
        return list(dict.fromkeys(rule.channels or _routed(self.routes, rule, incident)))

    def _others(self, dead: str) -> list[str]:
        """Return who is told that a channel is dead."""
        channel = self.channels.get(dead)
        fallback = channel.fallback if channel is not None else ()
        return [name for name in fallback or self.channels if name != dead]

    def _withhold(self, rule: Rule, incident: Incident, at: int, reason: str, words: str) -> None:
        self.out.append(Withheld(at, rule.name, incident.group, incident.id, incident.latest, reason, words))


def _routed(routes: Sequence[Route], rule: Rule, incident: Incident) -> list[str]:
    """Return the channels of the first branch that matches, and of those that follow one that says `continue`."""
    found: list[str] = []
    for route in routes:
        if _takes(route, rule, incident):
            found += _routed(route.routes, rule, incident) or route.channels
            if not route.go_on:
                break
    return found


def _takes(route: Route, rule: Rule, incident: Incident) -> bool:
    latest = incident.latest
    return (
        fits(route.flow, latest.flow)
        and has_tags(route.tags, latest.tags)
        and comes_from(route.deployment, latest.deployment)
        and fits(route.rule, rule.name)
        and (not route.severity or rule.severity in route.severity)
    )


def _covers(silence: dict[str, Any], rule: Rule, incident: Incident) -> bool:
    """Tell whether a silence is about an incident."""
    latest = incident.latest
    return (
        fits(tuple(silence.get("rule") or ()), rule.name)
        and fits(tuple(silence.get("flow") or ()), latest.flow)
        and has_tags(silence.get("tags") or (), latest.tags)
    )


def _entry(kind: Kind, rule: Rule, incident: Incident, at: int) -> dict[str, Any]:
    latest = incident.latest
    return {
        "at": at,
        "kind": kind,
        "rule": rule.name,
        "group": incident.group,
        "incident": incident.id,
        "text": latest.text,
        "run": latest.run_name,
        "state_type": "COMPLETED" if kind == "resolved" else latest.state_type or "FAILED",
    }


def _key(*parts: Any) -> str:
    return sha256("\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
