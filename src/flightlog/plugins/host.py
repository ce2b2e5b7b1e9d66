"""The host of a process's plug-ins: which there are, which can be used, and calls into them.

A plug-in is known by its manifest and imported at its first use. One that is broken, made for another version, or not
wanted is skipped, with one clear line; one that fails again and again, or hangs, is switched off for the process.
"""

import importlib
import importlib.util
import inspect
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from pluggy import PluginManager, PluginValidationError

from flightlog.errors import PluginError, SettingsError
from flightlog.names import did_you_mean
from flightlog.plugins import hooks, manifests
from flightlog.plugins.hooks import HOOKS
from flightlog.plugins.isolation import Called, Isolated
from flightlog.plugins.manifests import FOLDER, Manifest, is_made_for
from flightlog.settings import OF_PLUGINS, Settings, plugin_settings
from flightlog.settings import load as load_settings
from flightlog.version import __version__

Status = Literal["ready", "loaded", "not wanted", "skipped", "switched off"]
_LOGGER = logging.getLogger("flightlog.plugins")
_IN_A_ROW: Final = 5
"""After so many failures in a row a plug-in is switched off."""


@dataclass(slots=True)
class Plugin:
    """A plug-in and how it fares in this process.

    Attributes:
        manifest: what it says of itself.
        status: what it is to the host.
        reason: why it is not used, if it is not.
        calls: how often each hook was called.
        failures: how often each hook failed.
        seconds: how long each hook took in all.
        in_a_row: how many calls have failed since one succeeded.
        functions: its hooks, once it is loaded.
    """

    manifest: Manifest
    status: Status = "ready"
    reason: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    in_a_row: int = 0
    functions: dict[str, tuple[Callable[..., Any], Sequence[str]]] = field(default_factory=dict)
    thread: Isolated | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.manifest.name

    @property
    def is_usable(self) -> bool:
        """Whether it can be called."""
        return self.status in ("ready", "loaded")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong with a plug-in.

    Attributes:
        plugin: the plug-in.
        kind: ``skipped``, ``failed`` or ``switched_off``.
        text: what went wrong.
        hook: the hook that was called; empty for none.
        took: how long the call took, in seconds.
    """

    plugin: Plugin
    kind: Literal["skipped", "failed", "switched_off"]
    text: str
    hook: str = ""
    took: float = 0.0


class Host:
    """The plug-ins of a process.

    Args:
        settings: which are wanted, and how long they may take.
        found: the manifests; what is installed, and what lies in `directory`, by default.
        directory: where the folder of plug-ins of one file is looked for; the working directory by default.

    Attributes:
        problems: what went wrong so far, oldest first.
        on_problem: called with each problem, for the record.
    """

    def __init__(
        self, settings: Settings, found: Sequence[Manifest] | None = None, *, directory: Path | None = None
    ) -> None:
        self.settings = settings
        self.problems: list[Problem] = []
        self.on_problem: Callable[[Problem], None] | None = None
        self._lock = threading.RLock()
        self._manager = PluginManager("flightlog")
        self._manager.add_hookspecs(hooks)
        self._directory = Path.cwd() if directory is None else directory
        self._offers: dict[str, dict[str, tuple[Plugin, Any]]] = {}
        self.plugins = [self._judged(manifest) for manifest in (self._discover() if found is None else found)]
        if self.is_strict:
            for plugin in self.plugins:
                self._load(plugin)

    @property
    def is_strict(self) -> bool:
        """Whether a plug-in that cannot be used is an error."""
        return self.settings.plugins_mode == "strict"

    # --- which there are ----------------------------------------------------------------------------

    def _discover(self) -> list[Manifest]:
        files = manifests.in_folder(self._directory / FOLDER) if self.settings.plugins_folder else []
        found = manifests.installed()
        taken = {manifest.name for manifest in found}
        return [*found, *(manifest for manifest in files if manifest.name not in taken)]

    def _judged(self, manifest: Manifest) -> Plugin:
        plugin = Plugin(manifest)
        settings = self.settings
        if not manifest.is_own and (why := _unwanted(manifest.name, settings)):
            plugin.status, plugin.reason = "not wanted", why
        elif manifest.problem:
            self._skip(plugin, manifest.problem)
        elif not is_made_for(manifest, __version__):
            self._skip(plugin, f"it is made for Flightlog {manifest.made_for}, and this is {__version__}")
        return plugin

    def _skip(self, plugin: Plugin, why: str) -> None:
        plugin.status, plugin.reason = "skipped", why
        text = f"The plug-in {plugin.name!r}{_version(plugin)} is skipped: {why}."
        self._note(Problem(plugin, "skipped", why))
        if self.is_strict:
            raise PluginError(text)
        _LOGGER.warning(text)

    def _note(self, problem: Problem) -> None:
        self.problems.append(problem)
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
        with self._lock:
            if plugin.status != "ready":
                return plugin.is_usable
            plugin.thread = Isolated(plugin.name)
            called = plugin.thread.call(self._imported, {"plugin": plugin}, self.settings.plugins_timeout_seconds)
            if called.problem is not None:
                self._skip(plugin, f"it cannot be imported: {called.problem}")
                return False
            plugin.status = "loaded"
            return True

    def _imported(self, plugin: Plugin) -> None:
        manifest = plugin.manifest
        module = importlib.import_module(manifest.module) if manifest.file is None else _file_module(manifest)
        self._check(module, manifest)
        try:
            self._manager.register(module, plugin.name)
        except PluginValidationError as error:
            raise PluginError(" ".join(str(error).split())) from None
        for hook in HOOKS:
            caller = getattr(self._manager.hook, hook)
            for implementation in caller.get_hookimpls():
                if implementation.plugin is module:
                    plugin.functions[hook] = implementation.function, implementation.argnames

    def _check(self, module: ModuleType, manifest: Manifest) -> None:
        """Refuse a module whose hooks are not what its manifest says, or are no plain functions."""
        marked = {name for name in dir(module) if self._manager.parse_hookimpl_opts(module, name)}
        if odd := sorted(marked - set(HOOKS)):
            raise PluginError(f"it marks {odd[0]!r} as a hook, which there is not.{did_you_mean(odd[0], HOOKS)}")
        if missing := [hook for hook in manifest.hooks if hook not in marked]:
            raise PluginError(
                f"it has no {missing[0]!r} that is marked with @hookimpl (from flightlog.plugins import hookimpl)"
            )
        for name in sorted(marked):
            function = getattr(module, name)
            if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
                raise PluginError(f"its hook {name!r} is async or a generator; hooks are plain functions")

    # --- calling ------------------------------------------------------------------------------------

    def call(self, plugin: Plugin, hook: str, arguments: Mapping[str, Any]) -> Called:
        """Call a hook of one plug-in in isolation, and count what came of it.

        Args:
            plugin: the plug-in; it is imported if it is not.
            hook: the hook.
            arguments: the hook's arguments; the function gets those that it takes.
        """
        if not self._load(plugin) or hook not in plugin.functions or plugin.thread is None:
            return Called(problem=None if plugin.is_usable else plugin.reason)
        function, names = plugin.functions[hook]
        wanted = {name: arguments[name] for name in names}
        called = plugin.thread.call(function, wanted, self.settings.plugins_timeout_seconds)
        plugin.calls[hook] += 1
        plugin.seconds[hook] = plugin.seconds.get(hook, 0.0) + called.took
        plugin.in_a_row = 0 if called.problem is None else plugin.in_a_row + 1
        if called.problem is not None:
            plugin.failures[hook] += 1
            self._note(Problem(plugin, "failed", called.problem, hook, called.took))
            if called.hung or plugin.in_a_row >= _IN_A_ROW:
                self._switch_off(plugin, hook, called)
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

    def _switch_off(self, plugin: Plugin, hook: str, called: Called) -> None:
        why = (
            called.problem
            if called.hung
            else f"{plugin.in_a_row} calls in a row failed, the last one with {called.problem}"
        )
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
            if (not names or name in names) and name in (offers := self._offered(plugin, hook)):
                return offers[name]
        return None

    def all(self, hook: str) -> list[tuple[Plugin, Any]]:
        """Return what each plug-in returns for a hook that asks, with the plug-in; those that fail are left out."""
        found = ((plugin, self.asked(plugin, hook)) for plugin in self.usable(hook))
        return [(plugin, value) for plugin, value in found if value is not None]

    def asked(self, plugin: Plugin, hook: str) -> Any:
        """Return what a plug-in returned for a hook that asks; it is called once in a process."""
        with self._lock:
            known = self._offers.setdefault(hook, {})
            if plugin.name not in known:
                known[plugin.name] = plugin, self.call(plugin, hook, {}).value
            return known[plugin.name][1]

    def _offered(self, plugin: Plugin, hook: str) -> Mapping[str, Any]:
        offers = self.asked(plugin, hook)
        return offers if isinstance(offers, Mapping) else {}

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the values of a plug-in's own settings, by name.

        Raises:
            PluginError: there is no such plug-in.
            SettingsError: a value cannot be used, or there is no such setting.
        """
        plugin = self.plugin(name)
        if plugin is None:
            raise PluginError(f"There is no plug-in {name!r}.{did_you_mean(name, [p.name for p in self.plugins])}")
        known = {setting.name: setting for setting in self.asked(plugin, "register_settings") or ()}
        given = plugin_settings(name)
        prefix = f"{OF_PLUGINS}{name.upper().replace('-', '_')}_"
        for odd in given.keys() - known.keys():
            hint = did_you_mean(odd, known, before=prefix, else_say="")
            raise SettingsError(f"{prefix}{odd} is no setting of the plug-in {name!r}.{hint}")
        values = {}
        for setting in known.values():
            text = given.get(setting.name, setting.default)
            try:
                values[setting.name] = setting.read(text)
            except ValueError as error:
                raise SettingsError(f"The setting {prefix}{setting.name} cannot be {text!r}: {error}.") from None
        return values

    def close(self) -> None:
        """Let the threads of the plug-ins end."""
        for plugin in self.plugins:
            if plugin.thread is not None:
                plugin.thread.close()


def _unwanted(name: str, settings: Settings) -> str:
    """Return why a plug-in is not wanted; empty if it is."""
    if settings.plugins_mode == "safe":
        return "FLIGHTLOG_PLUGINS_MODE is safe"
    if name in settings.plugins_deny:
        return "FLIGHTLOG_PLUGINS_DENY names it"
    if settings.plugins_allow and name not in settings.plugins_allow:
        return "FLIGHTLOG_PLUGINS_ALLOW does not name it"
    return ""


def _version(plugin: Plugin) -> str:
    return f" {plugin.manifest.version}" if plugin.manifest.version else ""


def _file_module(manifest: Manifest) -> ModuleType:
    """Import a plug-in of one file."""
    spec = importlib.util.spec_from_file_location(manifest.module, str(manifest.file))
    if spec is None or spec.loader is None:
        raise PluginError(f"{manifest.file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[manifest.module] = module
    spec.loader.exec_module(module)
    return module


_current: Host | None = None
_current_lock = threading.Lock()


def current_host() -> Host:
    """Return the host of this process; it is made, by the settings, at the first call.

    Raises:
        PluginError: a plug-in cannot be used, in strict mode.
    """
    global _current  # noqa: PLW0603 - one host for the process
    with _current_lock:
        if _current is None:
            _current = Host(load_settings())
        return _current


def close_host() -> None:
    """Let go of the process's host; the next one is made anew, with fresh settings."""
    global _current
    with _current_lock:
        host, _current = _current, None
    if host is not None:
        host.close()


def settings_of(plugin: str) -> dict[str, Any]:
    """Return the values of a plug-in's own settings, by name. See `Host.settings_of`."""
    return current_host().settings_of(plugin)
