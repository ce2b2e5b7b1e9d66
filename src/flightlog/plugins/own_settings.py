"""The settings that plug-ins bring: ``FLIGHTLOG_PLUGIN_<plug-in>_<name>``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flightlog.errors import PluginError, SettingsError
from flightlog.names import did_you_mean
from flightlog.plugins.offers import PluginSetting
from flightlog.settings import OF_PLUGINS, plugin_settings

if TYPE_CHECKING:
    from flightlog.plugins.host import Host
    from flightlog.plugins.plugin import Plugin


def prefix_of(plugin: str) -> str:
    """Return what the names of a plug-in's own settings begin with."""
    return f"{OF_PLUGINS}{plugin.upper().replace('-', '_')}_"


def values(host: "Host", name: str) -> dict[str, Any]:
    """Return the values of a plug-in's own settings, by name.

    Args:
        host: the plug-ins.
        name: the plug-in's name.

    Raises:
        PluginError: there is no such plug-in, or it is just being imported.
        SettingsError: a value cannot be used, or there is no such setting.
    """
    plugin = host.plugin(name)
    if plugin is None:
        raise PluginError(f"There is no plug-in {name!r}.{did_you_mean(name, [p.name for p in host.plugins])}")
    if plugin.thread.is_here and plugin.status == "ready":
        raise PluginError(f"The settings of {name!r} are there once it is imported: read them in a hook")
    if wrong := unknown(host, plugin):
        raise SettingsError(wrong[0])
    found = given(host, plugin)
    return {setting.name: _value(plugin, setting, found) for setting in known(host, plugin)}


def _value(plugin: "Plugin", setting: PluginSetting, found: Mapping[str, str]) -> Any:
    text = found.get(setting.name, setting.default)
    try:
        return setting.read(text)
    except ValueError as error:
        raise SettingsError(
            f"The setting {prefix_of(plugin.name)}{setting.name} cannot be {text!r}: {error}."
        ) from None


def known(host: "Host", plugin: "Plugin") -> Sequence[PluginSetting]:
    """Return the settings that a plug-in has."""
    return host.asked(plugin, "register_settings") or ()


def given(host: "Host", plugin: "Plugin") -> dict[str, str]:
    """Return what somebody has set of a plug-in's own settings, as text."""
    prefix = prefix_of(plugin.name)
    # What is set for the plug-in `acme-table` looks like a setting of `acme` too.
    others = tuple(other for other in (prefix_of(p.name) for p in host.plugins) if len(other) > len(prefix))
    return {name: value for name, value in plugin_settings(prefix).items() if not (prefix + name).startswith(others)}


def unknown(host: "Host", plugin: "Plugin") -> list[str]:
    """Return a sentence for each setting of a plug-in that somebody has set, and that it does not have."""
    prefix, names = prefix_of(plugin.name), [setting.name for setting in known(host, plugin)]
    return [
        f"{prefix}{name} is no setting of the plug-in {plugin.name!r}."
        f"{did_you_mean(name, names, before=prefix, else_say='')}"
        for name in sorted(given(host, plugin).keys() - set(names))
    ]


def of_nobody(host: "Host") -> list[str]:
    """Return a sentence for each setting that somebody has set for a plug-in that there is not."""
    prefixes = tuple(prefix_of(plugin.name) for plugin in host.plugins)
    names = [plugin.name for plugin in host.plugins]
    odd = sorted(name for name in plugin_settings(OF_PLUGINS) if not (OF_PLUGINS + name).startswith(prefixes))
    return [f"{OF_PLUGINS}{name} is set, and there is no such plug-in.{_nearest(name, names)}" for name in odd]


def _nearest(setting: str, names: Sequence[str]) -> str:
    """Return a question for the plug-in that is meant by a setting's name, which begins with the plug-in's."""
    words = setting.lower().split("_")
    hints = (did_you_mean("-".join(words[:end]), names, else_say="") for end in range(1, len(words) + 1))
    return next(filter(None, hints), "")
