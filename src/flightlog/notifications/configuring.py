"""The configuration that counts is in the log: changes of rules are events, whoever makes them, and wherever."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from flightlog.clock import Clock
from flightlog.errors import SettingsError
from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import (
    CHANNEL_REMOVED,
    CHANNEL_SET,
    ROUTES_SET,
    ROUTES_STREAM,
    RULE_REMOVED,
    RULE_SET,
    channel_stream,
    rule_stream,
)
from flightlog.ids import Ids
from flightlog.names import did_you_mean
from flightlog.notifications.channels import ChannelError, notifier_of
from flightlog.notifications.rules import Channel, Configuration, Route, Rule, channels_of
from flightlog.notifications.service import FACT

_ROUTES: Final = TypeAdapter(tuple[Route, ...])


@dataclass(slots=True)
class Present:
    """What is configured, as the log has it.

    Attributes:
        rules: the rules by name.
        channels: the channels by name.
        routes: the routing tree.
        sources: by kind (``rule``, ``channel``, ``routes``) and name, the file that it comes from, or None.
    """

    rules: dict[str, Rule] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    sources: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def configuration(self) -> Configuration:
        """Return all of it as one configuration."""
        return Configuration(
            rules=tuple(self.rules.values()), channels=tuple(self.channels.values()), routes=self.routes
        )


def present(log: Log) -> Present:
    """Return what is configured."""
    found = Present()
    for event in log.read_all(types=[RULE_SET, RULE_REMOVED, CHANNEL_SET, CHANNEL_REMOVED, ROUTES_SET]):
        data, kind = event.data, event.type.partition(".")[0]
        name = data.get("name", "")
        if event.type == RULE_SET:
            found.rules[name] = Rule.model_validate_json(data["rule"])
        elif event.type == CHANNEL_SET:
            found.channels[name] = Channel.model_validate_json(data["channel"])
        elif event.type == ROUTES_SET:
            found.routes = _ROUTES.validate_json(data["routes"])
        else:
            (found.rules if kind == "rule" else found.channels).pop(name, None)
            found.sources.pop((kind, name), None)
            continue
        found.sources[kind, name] = data.get("source")
    return found


class Configurator:
    """Changes the configuration in the log.

    Args:
        log: the log.
        clock: time.
        ids: identity.
        actor: who does so.
    """

    def __init__(self, log: Log, clock: Clock, ids: Ids, actor: str = "engine") -> None:
        self._log = log
        self._clock = clock
        self._ids = ids
        self._actor = actor

    def set_rule(self, rule: Rule, source: str | None = None) -> None:
        """Make a rule, or change the one of its name."""
        self._put(self._rule(rule, source))

    def remove_rule(self, name: str) -> None:
        """Take a rule away."""
        self._put(self._event(rule_stream(name), RULE_REMOVED, {"name": name}))

    def set_channel(self, channel: Channel, source: str | None = None) -> None:
        """Make a channel, or change the one of its name.

        Raises:
            ChannelError: it has a secret in it, which does not belong in the log.
        """
        self._put(self._channel(channel, source))

    def remove_channel(self, name: str) -> None:
        """Take a channel away."""
        self._put(self._event(channel_stream(name), CHANNEL_REMOVED, {"name": name}))

    def set_routes(self, routes: tuple[Route, ...], source: str | None = None) -> None:
        """Make these the routing tree."""
        self._put(self._routes(routes, source))

    def synchronise(self, wanted: Configuration, source: str) -> list[str]:
        """Bring what comes from a file to what the file says now; return what was changed, a line each.

        Args:
            wanted: what the file says.
            source: the file.

        Raises:
            SettingsError: a name is taken by something that comes from elsewhere.
        """
        now = present(self._log)
        changes: list[tuple[str, Append]] = []
        makers: list[tuple[str, Any, Any, Callable[..., Append]]] = [
            ("rule", {rule.name: rule for rule in wanted.rules}, now.rules, self._rule),
            ("channel", {one.name: completed(one) for one in wanted.channels}, now.channels, self._channel),
        ]
        for kind, here, there, make in makers:
            for name, model in here.items():
                _check_source(kind, name, source, now)
                if there.get(name) != model:
                    changes.append((f"{kind} {name}", make(model, source)))
            for name in [name for (k, name), file in now.sources.items() if k == kind and file == source]:
                if name not in here:
                    changes.append((f"{kind} {name} taken away", self._gone(kind, name, source)))
        if wanted.routes != now.routes and (wanted.routes or now.sources.get(("routes", "")) == source):
            _check_source("routes", "", source, now)
            changes.append(("routes", self._routes(wanted.routes, source)))
        if changes:
            self._put(*(append for _, append in changes))
        return [told for told, _ in changes]

    def _rule(self, rule: Rule, source: str | None) -> Append:
        facts = {"name": rule.name, "rule": _json(rule)}
        return self._event(rule_stream(rule.name), RULE_SET, facts, source)

    def _channel(self, channel: Channel, source: str | None) -> Append:
        channel = completed(channel)
        facts = {"name": channel.name, "channel": _json(channel)}
        return self._event(channel_stream(channel.name), CHANNEL_SET, facts, source)

    def _routes(self, routes: tuple[Route, ...], source: str | None) -> Append:
        facts = {"routes": _ROUTES.dump_json(routes, by_alias=True, exclude_defaults=True).decode()}
        return self._event(ROUTES_STREAM, ROUTES_SET, facts, source)

    def _gone(self, kind: str, name: str, source: str) -> Append:
        rule = kind == "rule"
        stream, type_ = (rule_stream(name), RULE_REMOVED) if rule else (channel_stream(name), CHANNEL_REMOVED)
        return self._event(stream, type_, {"name": name}, source)

    def _event(self, stream: str, type_: str, facts: dict[str, Any], source: str | None = None) -> Append:
        told = facts if source is None else {**facts, "source": source}
        return Append(stream, [NewEvent(self._ids.new(), type_, told, self._clock.now(), actor=self._actor)])

    def _put(self, *appends: Append) -> None:
        self._log.append_all(appends)
        self._log.store.set_fact(FACT, b"1")


def problems_of(wanted: Configuration) -> list[str]:
    """Return what is wrong with a configuration that its model cannot say: a line each."""
    known = {channel.name for channel in wanted.channels}
    problems = []
    for rule in wanted.rules:
        named = {*rule.channels, *(name for step in rule.escalate for name in step.channels)}
        problems += [f"The rule {rule.name!r} names a channel {name!r} that there is not." for name in named - known]
        others = {other.name for other in wanted.rules}
        missing = [name for name in rule.inhibit.rules if name not in others]
        problems += [f"The rule {rule.name!r} is inhibited by {name!r}, which there is not." for name in missing]
        if not rule.channels and not wanted.routes:
            problems.append(f"The rule {rule.name!r} names no channel, and there are no routes: nobody is told.")
    problems += [f"A route names a channel {name!r} that there is not." for name in channels_of(wanted.routes) - known]
    for channel in wanted.channels:
        try:
            notifier_of(channel)
        except ChannelError as error:
            problems.append(str(error))
    return problems


def completed(channel: Channel) -> Channel:
    """Return a channel with what its notifier says of itself; a secret in it is refused."""
    from flightlog.notifications.channels import class_of, kinds, secret_settings

    for name in secret_settings(channel):
        raise ChannelError(
            f"The setting {name!r} of the channel {channel.name!r} is a secret, which does not belong in a file or "
            f'the log. Write {name} = "env:NAME" for an environment variable, or save a block and name that.'
        )
    kind = class_of(channel)
    if kind is None and channel.block is None:
        # Of settings of an unknown kind nobody can say which are secrets.
        raise ChannelError(
            f"The channel {channel.name!r} is of a kind {channel.kind!r}, which there is not here."
            f"{did_you_mean(channel.kind or '', kinds())}"
        )
    return channel.model_copy(update={"can_update": kind is not None and kind.threads})


def _check_source(kind: str, name: str, source: str, now: Present) -> None:
    """Refuse a name that something else has."""
    if (kind, name) not in now.sources or now.sources[kind, name] == source:
        return
    owner = now.sources[kind, name] or "the command line or code"
    raise SettingsError(
        f"{source}: the {kind} {name!r} is there already, from {owner}. Give this one another name, or take that one "
        f"away: flightlog notify {kind}s rm {name!r}"
    )


def _json(model: BaseModel) -> str:
    return model.model_dump_json(by_alias=True, exclude_defaults=True)
