"""The host of a process's plug-ins: which there are, which can be used, and calls into them.

A plug-in is known by its manifest and imported at its first use. One that is broken, made for another version, or not
wanted is skipped, with one clear line; one that fails again and again, or hangs, is switched off for the process.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from flightlog.errors import PluginError
from flightlog.plugins import manifests, own_settings
from flightlog.plugins.hooks import BY_NAME
from flightlog.plugins.isolation import Called, Isolated
from flightlog.plugins.loading import load
from flightlog.plugins.manifests import FOLDER, Manifest, is_made_for
from flightlog.plugins.plugin import Plugin, Problem
from flightlog.settings import Settings
from flightlog.settings import load as load_settings
from flightlog.version import __version__

_LOGGER = logging.getLogger("flightlog.plugins")
_IN_A_ROW: Final = 5
"""After so many failures in a row a plug-in is switched off."""
_SLOW_SECONDS: Final = 1.0
"""An observer's call that takes longer is put on record."""


class Host:
    """The plug-ins of a process.

    Args:
        settings: which are wanted, and how long they may take.
        found: the manifests; what is installed, and what lies in `directory`, by default.
        directory: where the folder of plug-ins of one file is looked for; the working directory by default.

    Attributes:
        plugins: the plug-ins, by name.
        on_problem: called with each problem, for the record.
    """

    def __init__(
        self, settings: Settings, found: Sequence[Manifest] | None = None, *, directory: Path | None = None
    ) -> None:
        self.settings = settings
        self.on_problem: Callable[[Problem], None] | None = None
        self._count_lock = threading.Lock()
        self._directory = Path.cwd() if directory is None else directory
        self.plugins = [self._judged(manifest) for manifest in (self._discover() if found is None else found)]
        _HOSTS.add(self)

    @property
    def is_strict(self) -> bool:
        """Whether a plug-in that cannot be used is an error."""
        return self.settings.plugins_mode == "strict"

    @property
    def problems(self) -> list[Problem]:
        """What went wrong lately, by plug-in."""
        return [problem for plugin in self.plugins for problem in plugin.problems]

    def insist(self) -> None:
        """In strict mode, import all plug-ins that are wanted.

        Raises:
            PluginError: one of them cannot be used.
        """
        for plugin in self.plugins if self.is_strict else ():
            self._load(plugin)
            if plugin.status == "skipped":
                raise PluginError(_skipped(plugin))

    # --- which there are ----------------------------------------------------------------------------

    def _discover(self) -> list[Manifest]:
        files = manifests.in_folder(self._directory / FOLDER) if self.settings.plugins_folder else []
        return manifests.told_apart([*manifests.installed(), *files])

    def _judged(self, manifest: Manifest) -> Plugin:
        plugin = Plugin(manifest)
        settings = self.settings
        if why := _unwanted(manifest, settings):
            plugin.status, plugin.reason = "not wanted", why
        elif manifest.problem:
            self._skip(plugin, manifest.problem)
        elif not is_made_for(manifest, __version__):
            self._skip(plugin, f"it is made for Flightlog {manifest.made_for}, and this is {__version__}")
        return plugin

    def _skip(self, plugin: Plugin, why: str) -> None:
        plugin.status, plugin.reason = "skipped", " ".join(why.split()).rstrip(".")
        self._note(Problem(plugin, "skipped", plugin.reason))
        if not self.is_strict:
            _LOGGER.warning(_skipped(plugin))

    def _note(self, problem: Problem) -> None:
        problem.plugin.problems.append(problem)
        if self.on_problem is not None:
            self.on_problem(problem)

    def plugin(self, name: str) -> Plugin | None:
        """Return a plug-in by its name."""
        return next((plugin for plugin in self.plugins if plugin.name == name), None)

    def usable(self, *wanted: str) -> list[Plugin]:
        """Return the plug-ins that can be called and whose manifests have one of some hooks."""
        return [plugin for plugin in self.plugins if plugin.is_usable and set(wanted) & set(plugin.manifest.hooks)]

    def names(self, hook: str) -> list[str]:
        """Return the names that plug-ins offer something under by a hook, by their manifests."""
        return [name for plugin in self.usable(hook) for name in plugin.manifest.names(hook)]

    # --- loading ------------------------------------------------------------------------------------

    def _load(self, plugin: Plugin) -> bool:
        """Import a plug-in unless it is; tell if it can be called."""
        if plugin.status != "ready":
            return plugin.is_usable
        if plugin.thread.is_here:
            return False  # it asks for itself while it is imported
        with plugin.lock:
            self._import(plugin)
        return plugin.is_usable

    def _import(self, plugin: Plugin) -> None:
        if plugin.status != "ready":
            return  # somebody else was first
        limit = self.settings.plugins_timeout_seconds
        called = plugin.thread.call(load, {"manifest": plugin.manifest}, limit)
        if called.problem is not None:
            self._skip(plugin, f"it cannot be imported: {called.problem}")
        else:
            plugin.functions = called.value
            plugin.status = "loaded"

    # --- calling ------------------------------------------------------------------------------------

    def call(self, plugin: Plugin, hook: str, arguments: Mapping[str, Any]) -> Called:
        """Call a hook of one plug-in in isolation, and count what came of it.

        Args:
            plugin: the plug-in; it is imported if it is not.
            hook: the hook.
            arguments: the hook's arguments; the function gets those that it takes.
        """
        if not self._load(plugin) or hook not in plugin.functions:
            return Called(problem=None if plugin.is_usable else plugin.reason)
        function, names = plugin.functions[hook]
        return self.do(plugin, hook, function, {name: arguments[name] for name in names})

    def do(
        self,
        plugin: Plugin,
        hook: str,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        limit: float | None = None,
        thread: Isolated | None = None,
    ) -> Called:
        """Call a function that a plug-in has given in isolation, and count what came of it.

        Args:
            plugin: the plug-in.
            hook: the hook that it belongs to.
            function: the function.
            arguments: its arguments, by name.
            limit: how many seconds it may take; what the settings say by default.
            thread: where it is called; the plug-in's own thread by default.
        """
        limit = self.settings.plugins_timeout_seconds if limit is None else limit
        called = (thread or plugin.thread).call(function, arguments, limit)
        if plugin.status == "closed":
            return called
        with self._count_lock:  # a plug-in may be called from several threads, one after the other
            plugin.calls[hook] += 1
            plugin.seconds[hook] += called.took
            plugin.failures[hook] += called.problem is not None
            plugin.in_a_row = 0 if called.problem is None else plugin.in_a_row + 1
        if called.problem is not None:
            self._note(Problem(plugin, "failed", called.problem, hook, called.took))
            if called.hung or plugin.in_a_row >= _IN_A_ROW:
                self._switch_off(plugin, hook, called)
        elif called.took > _SLOW_SECONDS and hook.startswith("on_"):
            self.lag(plugin, hook, f"it took {called.took:.1f} seconds", called.took)
        return called

    def complain(self, plugin: Plugin, hook: str, problem: str) -> None:
        """Note that what a plug-in returned cannot be used.

        Args:
            plugin: the plug-in.
            hook: the hook that it returned it for.
            problem: why.
        """
        plugin.failures[hook] += 1
        self._note(Problem(plugin, "failed", problem, hook))

    def lag(self, plugin: Plugin, hook: str, text: str, took: float = 0.0) -> None:
        """Note that a plug-in is slow.

        Args:
            plugin: the plug-in.
            hook: the hook that is slow.
            text: how slow.
            took: how long a call took, in seconds.
        """
        self._note(Problem(plugin, "lagged", text, hook, took))

    def _switch_off(self, plugin: Plugin, hook: str, called: Called) -> None:
        why = (
            called.problem
            if called.hung
            else f"{plugin.in_a_row} calls in a row failed, the last one with {called.problem}"
        )
        if plugin.status == "switched off":
            return
        plugin.status, plugin.reason = "switched off", f"{hook}: {why}"
        self._note(Problem(plugin, "switched_off", why or "", hook, called.took))
        _LOGGER.warning("The plug-in %r is switched off for this process: %s: %s.", plugin.name, hook, why)

    # --- what they offer ----------------------------------------------------------------------------

    def find(self, hook: str, name: str) -> Any:
        """Return what a plug-in offers under a name by a hook; None if none does.

        Only plug-ins whose manifests have that name, or name nothing, are imported for it.
        """
        for plugin in self.usable(hook):
            names = plugin.manifest.names(hook)
            if (not names or name in names) and name in (offers := self.asked(plugin, hook) or {}):
                return offers[name]
        return None

    def why_not(self, hook: str, name: str) -> str:
        """Say why there is nothing under a name, if a plug-in has it that cannot be used; with a blank in front.

        Args:
            hook: the hook.
            name: the name.
        """
        for plugin in self.plugins:
            if not plugin.is_usable and name in plugin.manifest.names(hook):
                return f" The plug-in {plugin.name!r} has it, which is {plugin.status}: {plugin.reason}."
        return ""

    def all(self, hook: str) -> list[tuple[Plugin, Any]]:
        """Return what each plug-in returns for a hook that asks, with the plug-in; those that fail are left out."""
        found = ((plugin, self.asked(plugin, hook)) for plugin in self.usable(hook))
        return [(plugin, value) for plugin, value in found if value is not None]

    def asked(self, plugin: Plugin, hook: str) -> Any:
        """Return what a plug-in returned for a hook that asks; it is called once in a process. None if that failed."""
        with plugin.alone():
            if hook not in plugin.offers:
                plugin.offers[hook] = self._offered(plugin, hook)
            return plugin.offers[hook]

    def _offered(self, plugin: Plugin, hook: str) -> Any:
        value = self.call(plugin, hook, {}).value
        wanted: type[Any] = Mapping if hook in BY_NAME else Sequence
        if value is None and hook not in plugin.functions:
            return None
        if isinstance(value, wanted) and not isinstance(value, str):
            return value
        if plugin.is_usable and not plugin.in_a_row:
            self.complain(plugin, hook, f"it returned a {type(value).__name__}, and no {wanted.__name__.lower()}")
        return None

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the values of a plug-in's own settings, by name. Raises what `flightlog.plugins.own_settings` does."""
        return own_settings.values(self, name)

    # --- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let the threads of the plug-ins end. They are not called any more."""
        for plugin in self.plugins:
            if plugin.is_usable:
                plugin.status, plugin.reason = "closed", "the process has let go of its plug-ins"
            plugin.thread.close()

    def _after_fork(self) -> None:
        self._count_lock = threading.Lock()
        for plugin in self.plugins:
            plugin.lock = threading.RLock()


def _unwanted(manifest: Manifest, settings: Settings) -> str:
    """Return why a plug-in is not wanted; empty if it is. What comes with Flightlog can be denied by name only."""
    if manifest.name in settings.plugins_deny:
        return "FLIGHTLOG_PLUGINS_DENY names it"
    if manifest.is_own:
        return ""
    if settings.plugins_mode == "safe":
        return "FLIGHTLOG_PLUGINS_MODE is safe"
    if settings.plugins_allow and manifest.name not in settings.plugins_allow:
        return "FLIGHTLOG_PLUGINS_ALLOW does not name it"
    return ""


def _skipped(plugin: Plugin) -> str:
    version = f" {plugin.manifest.version}" if plugin.manifest.version else ""
    return f"The plug-in {plugin.name!r}{version} is skipped: {plugin.reason}."


_HOSTS: "weakref.WeakSet[Host]" = weakref.WeakSet()
_current: Host | None = None
_current_lock = threading.Lock()


def current_host(*, insist: bool = True) -> Host:
    """Return the host of this process; it is made, by the settings, at the first call.

    Args:
        insist: whether it is an error in strict mode that a plug-in cannot be used.

    Raises:
        PluginError: that is so.
    """
    global _current  # noqa: PLW0603 - one host for the process
    with _current_lock:
        host = _current = _current or Host(load_settings())
    if insist:
        host.insist()
    return host


def close_host() -> None:
    """Let go of the process's host; the next one is made anew, with fresh settings."""
    global _current
    with _current_lock:
        host, _current = _current, None
    if host is not None:
        host.close()


@contextmanager
def using_host(host: Host) -> Iterator[Host]:
    """Have the process use a host while this is open; then it is closed. Not for several threads at once."""
    global _current  # noqa: PLW0603 - one host for the process
    with _current_lock:
        before, _current = _current, host
    try:
        yield host
    finally:
        with _current_lock:
            _current = before
        host.close()


def settings_of(plugin: str) -> dict[str, Any]:
    """Return the values of a plug-in's own settings, by name. See `Host.settings_of`."""
    return current_host(insist=False).settings_of(plugin)


def _after_fork() -> None:
    global _current_lock  # noqa: PLW0603 - another thread may have held it when the child was made
    _current_lock = threading.Lock()
    for host in list(_HOSTS):
        host._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
