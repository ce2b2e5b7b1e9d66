"""Rules, channels and what people do about incidents, from Python: ``from flightlog.rules import Rule, set_rule``.

The models are those of `notifications.toml` and of ``flightlog notify``; what is set here is on record in the log as
what is set there.
"""

from collections.abc import Iterable
from pathlib import Path

from flightlog.engine.runtime import current_engine
from flightlog.errors import SettingsError
from flightlog.names import did_you_mean
from flightlog.notifications.configuring import Configurator, Present, present
from flightlog.notifications.durations import Duration
from flightlog.notifications.durations import microseconds as _microseconds
from flightlog.notifications.ledger import find, incidents
from flightlog.notifications.responding import Responder
from flightlog.notifications.rules import (
    Channel,
    Flapping,
    Inhibit,
    Match,
    MuteTime,
    Route,
    Rule,
    Silence,
    Step,
    Threshold,
)
from flightlog.notifications.service import FACT

__all__ = [
    "Channel", "Duration", "Flapping", "Inhibit", "Match", "MuteTime", "Present", "Route", "Rule", "Silence", "Step",
    "Threshold", "acknowledge", "add_silence", "configured", "end_silences", "remove_channel", "remove_rule",
    "set_channel", "set_routes", "set_rule",
]  # fmt: skip


def configured() -> Present:
    """Return the rules, channels and routes that count now."""
    return present(current_engine().log)


def set_rule(rule: Rule) -> None:
    """Make a rule, or change the one of its name. It counts for what is recorded from now on.

    Args:
        rule: the rule.

    Raises:
        SettingsError: it stands in a file, or names a channel that there is not.
    """
    now = configured()
    _check_free("rule", rule.name, now)
    for name in {*rule.channels, *(name for step in rule.escalate for name in step.channels)} - now.channels.keys():
        raise SettingsError(
            f"The rule {rule.name!r} names a channel {name!r} that there is not.{did_you_mean(name, now.channels)} "
            "Set the channel first: set_channel(Channel(...))."
        )
    _configurator().set_rule(rule)


def remove_rule(name: str) -> None:
    """Take a rule away. Its open incidents end; nobody is told.

    Raises:
        SettingsError: there is no such rule, or it stands in a file.
    """
    now = configured()
    _check_known("rule", name, now.rules)
    _check_free("rule", name, now)
    _configurator().remove_rule(name)


def set_channel(channel: Channel) -> None:
    """Make a channel, or change the one of its name.

    Args:
        channel: the channel; secrets in its settings as ``env:NAME``, or in a block.

    Raises:
        SettingsError: it stands in a file.
        ChannelError: it has a secret in it, or is of a kind that there is not.
    """
    _check_free("channel", channel.name, configured())
    _configurator().set_channel(channel)


def remove_channel(name: str) -> None:
    """Take a channel away; messages that still wait for it are given up.

    Raises:
        SettingsError: there is no such channel, or it stands in a file.
    """
    now = configured()
    _check_known("channel", name, now.channels)
    _check_free("channel", name, now)
    _configurator().remove_channel(name)


def set_routes(routes: Iterable[Route]) -> None:
    """Make these the routing tree.

    Raises:
        SettingsError: the present one stands in a file.
    """
    _check_free("routes", "", configured())
    _configurator().set_routes(tuple(routes))


def add_silence(span: str, about: Silence | None = None) -> str:
    """Have nobody told of some incidents for a time; what still goes on then is told afterwards.

    Args:
        span: how long, such as ``2h``.
        about: which incidents; all by default.

    Returns:
        The silence's id.

    Raises:
        ValueError: the span is none.
    """
    identifier, _ = _responder().silence(_microseconds(span), about or Silence())
    return identifier


def end_silences() -> int:
    """End all silences at once; return how many that were."""
    return _responder().end_silences()


def acknowledge(incident: str, comment: str = "") -> None:
    """Say that you look after an incident: nobody else is told of it any more.

    Args:
        incident: its id, or the beginning of it.
        comment: what you do about it.

    Raises:
        SettingsError: no open incident, or more than one, has an id that begins so.
    """
    going_on = [one.id for one in incidents(current_engine().log) if one.resolved_at is None]
    found = find(going_on, incident)
    if len(found) != 1:
        raise SettingsError(f"{len(found)} open incidents have an id that begins with {incident!r}.")
    _responder().acknowledge(found[0], comment)


def _configurator() -> Configurator:
    engine = current_engine()
    if engine.companions is not None and FACT not in engine.log.store.facts():
        engine.companions.stop()  # nobody here looks at rules yet; with the next flow run all begins anew
    return Configurator(engine.log, engine.clock, engine.ids, "python")


def _responder() -> Responder:
    engine = current_engine()
    return Responder(engine.log, engine.clock, engine.ids, "python")


def _check_free(kind: str, name: str, now: Present) -> None:
    if (source := now.sources.get((kind, name))) is not None and Path(source).exists():
        raise SettingsError(f"The {kind} {name!r} stands in {source}: change it there.")


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise SettingsError(f"There is no {kind} {name!r}.{did_you_mean(name, known)}")
