"""Plug-ins looked at: what is wrong with each, and what each would do with recorded events."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flightlog.errors import FlightlogError
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.names import did_you_mean
from flightlog.plugins import own_settings
from flightlog.plugins.event_types import learn_event_types
from flightlog.plugins.hooks import DURABLE, HOOKS, OBSERVERS
from flightlog.plugins.host import Host
from flightlog.plugins.plugin import Plugin
from flightlog.plugins.projections import brought_projections
from flightlog.plugins.record import is_about
from flightlog.plugins.states import States


class Finding(NamedTuple):
    """What an examination found.

    Attributes:
        plugin: the plug-in's name.
        problem: what is wrong; None for nothing.
        told: what is to be said if nothing is wrong.
    """

    plugin: str
    problem: str | None
    told: str = ""


class Call(NamedTuple):
    """One call of an observer.

    Attributes:
        plugin: the plug-in's name.
        hook: the hook.
        what: what it was told of.
        took: how long it took, in seconds.
        problem: what went wrong; None for nothing.
    """

    plugin: str
    hook: str
    what: str
    took: float
    problem: str | None


def examine(host: Host) -> list[Finding]:
    """Import every plug-in that is wanted and ask it for what it offers; return what was found, a line each.

    Args:
        host: the plug-ins.
    """
    _take_in(host)
    found = [finding for plugin in host.plugins for finding in _examined(host, plugin)]
    return found + [Finding("settings", text) for text in (*_unknown_names(host), *own_settings.of_nobody(host))]


def _take_in(host: Host) -> None:
    """Do with what plug-ins bring what is done with it in earnest; what is wrong with it is noted then."""
    learn_event_types(host)
    if host.usable("register_projections"):
        from flightlog.projections.projector import built_in

        brought_projections(host, [projection.name for projection in built_in()])


def _examined(host: Host, plugin: Plugin) -> Iterator[Finding]:
    if plugin.status == "not wanted":
        yield Finding(plugin.name, None, f"not used: {plugin.reason}")
        return
    problems = _problems(host, plugin)
    yield from (Finding(plugin.name, text) for text in problems)
    if not problems:
        unspoken = "" if plugin.manifest.is_own or plugin.manifest.made_for or plugin.manifest.file else (
            "; it does not say which versions of Flightlog it is made for"
        )  # fmt: skip
        yield Finding(plugin.name, None, f"hooks: {', '.join(plugin.functions)}{unspoken}")


def _problems(host: Host, plugin: Plugin) -> list[str]:
    """Import a plug-in, ask it for all that it offers, and return what is wrong with it."""
    before = {id(thread) for thread in threading.enumerate()}
    asked = {hook: host.asked(plugin, hook) for hook in HOOKS if hook.startswith("register_") and plugin.is_usable}
    left = [t.name for t in threading.enumerate() if id(t) not in before and not t.daemon]
    if not plugin.is_usable:
        return [plugin.reason]
    problems = list(dict.fromkeys(f"{one.hook}: {one.text}" for one in plugin.problems))
    problems += [text for hook, offers in asked.items() for text in _differences(plugin, hook, offers)]
    problems += [
        f"it has the hook {hook!r}, which its manifest does not name: it is never called"
        for hook in plugin.functions
        if hook not in plugin.manifest.hooks
    ]
    problems += [f"it has started the thread {name!r}, which is no daemon: processes would not end" for name in left]
    return problems + _wrong_settings(host, plugin)


def _wrong_settings(host: Host, plugin: Plugin) -> list[str]:
    try:
        own_settings.values(host, plugin.name)
    except FlightlogError as error:
        return [str(error).rstrip(".")]
    return []


def _differences(plugin: Plugin, hook: str, offers: Any) -> list[str]:
    """Return in what a plug-in differs from what its manifest says that it offers by a hook."""
    names = plugin.manifest.names(hook)
    if not names or not isinstance(offers, Mapping):
        return []
    missing, more = sorted(set(names) - set(offers)), sorted(set(offers) - set(names))
    return [f"its manifest names {hook}.{name}, which it does not offer" for name in missing] + [
        f"it offers {name!r} by {hook}, which its manifest does not name" for name in more
    ]


def _unknown_names(host: Host) -> list[str]:
    """Return a sentence for each name on the lists of plug-ins that looks like a slip of the pen."""
    settings, known = host.settings, [plugin.name for plugin in host.plugins]
    listed = [("FLIGHTLOG_PLUGINS_ALLOW", name) for name in settings.plugins_allow]
    listed += [("FLIGHTLOG_PLUGINS_DENY", name) for name in settings.plugins_deny]
    hints = [(where, name, did_you_mean(name, known, else_say="")) for where, name in listed if name not in known]
    return [f"{where} names {name!r}, which there is not.{hint}" for where, name, hint in hints if hint]


def traced(host: Host, log: Log, events: Sequence[Event], name: str | None = None) -> Iterator[Call]:
    """Hand events to observers, and yield each call.

    Args:
        host: the plug-ins.
        log: where runs are looked up that began before.
        events: the events, in order.
        name: the plug-in that is to be told; all that observe by default.
    """
    for plugin in host.usable(*OBSERVERS, DURABLE):
        if name in (None, plugin.name):
            yield from _calls(host, log, plugin, [event for event in events if not is_about(plugin, event)])


def _fresh(log: Log, event: Event) -> Event:
    """Return an event of one's own, whatever others do to theirs."""
    return Event(event.position, event.recorded_at, event.record, log.blob)


def _calls(host: Host, log: Log, plugin: Plugin, events: Sequence[Event]) -> Iterator[Call]:
    hooks = plugin.manifest.hooks
    changes = list(States(log).changes(events))
    for hook in ("on_events", DURABLE):
        if hook in hooks and events and plugin.is_usable:
            fresh = [_fresh(log, event) for event in events]
            yield _called(host, plugin, hook, f"{len(events)} events", {"events": fresh})
    for change in changes:
        hook = f"on_{change.kind}_state"
        if hook in hooks and plugin.is_usable:
            yield _called(host, plugin, hook, f"{change.name} {change.state_name}", {"change": change})


def _called(host: Host, plugin: Plugin, hook: str, what: str, arguments: dict[str, Any]) -> Call:
    called = host.call(plugin, hook, arguments)
    return Call(plugin.name, hook, what, called.took, called.problem)
