"""Plug-ins looked at: what is wrong with each, and what each would do with recorded events."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.plugins.companions import DURABLE, is_about
from flightlog.plugins.hooks import HOOKS, OBSERVERS
from flightlog.plugins.host import Host, Plugin
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
    return [finding for plugin in host.plugins for finding in _examined(host, plugin)]


def _examined(host: Host, plugin: Plugin) -> Iterator[Finding]:
    if plugin.status == "not wanted":
        yield Finding(plugin.name, None, f"not used: {plugin.reason}")
        return
    seen = len(host.problems)
    asked = {hook: host.asked(plugin, hook) for hook in HOOKS if hook.startswith("register_") and plugin.is_usable}
    if not plugin.is_usable:
        yield Finding(plugin.name, plugin.reason)
        return
    problems = [problem.text for problem in host.problems[seen:] if problem.plugin is plugin]
    problems += [text for hook, offers in asked.items() for text in _differences(plugin, hook, offers)]
    yield from (Finding(plugin.name, text) for text in problems)
    if not problems:
        unspoken = "" if plugin.manifest.is_own or plugin.manifest.made_for or plugin.manifest.file else (
            "; it does not say which versions of Flightlog it is made for"
        )  # fmt: skip
        yield Finding(plugin.name, None, f"{len(plugin.functions)} hooks{unspoken}")


def _differences(plugin: Plugin, hook: str, offers: Any) -> list[str]:
    """Return in what a plug-in differs from what its manifest says that it offers by a hook."""
    names = plugin.manifest.names(hook)
    if not names or not isinstance(offers, dict):
        return []
    missing, more = sorted(set(names) - set(offers)), sorted(set(offers) - set(names))
    return [f"its manifest names {hook}.{name}, which it does not offer" for name in missing] + [
        f"it offers {name!r} by {hook}, which its manifest does not name" for name in more
    ]


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


def _calls(host: Host, log: Log, plugin: Plugin, events: Sequence[Event]) -> Iterator[Call]:
    hooks = plugin.manifest.hooks
    for hook in ("on_events", DURABLE):
        if hook in hooks and events and plugin.is_usable:
            yield _called(host, plugin, hook, f"{len(events)} events", {"events": events})
    for change in States(log).changes(events):
        hook = f"on_{change.kind}_state"
        if hook in hooks and plugin.is_usable:
            yield _called(host, plugin, hook, f"{change.name} {change.state_name}", {"change": change})


def _called(host: Host, plugin: Plugin, hook: str, what: str, arguments: dict[str, Any]) -> Call:
    called = host.call(plugin, hook, arguments)
    return Call(plugin.name, hook, what, called.took, called.problem)
