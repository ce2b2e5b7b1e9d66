"""Projections of plug-ins: kept, caught up, checked and rebuilt beside ours."""

from collections.abc import Iterable
from typing import Any, Final

from flightlog.plugins.host import Host
from flightlog.plugins.plugin import Plugin
from flightlog.projections.projection import Projection

_HOOK: Final = "register_projections"


def brought_projections(host: Host, taken: Iterable[str] = ()) -> list[Projection]:
    """Return the projections that plug-ins bring; what is wrong with one is put on record, and it is left out.

    Args:
        host: the plug-ins.
        taken: names that are taken.
    """
    found: list[Projection] = []
    names = set(taken)
    for plugin, brought in host.all(_HOOK):
        for one in brought:
            if (problem := _problem(plugin, one, names)) is not None:
                host.complain(plugin, _HOOK, problem)
            else:
                names.add(one.name)
                found.append(one)
    return found


def _problem(plugin: Plugin, one: Any, taken: set[str]) -> str | None:
    """Return why a projection cannot be kept; None if it can."""
    try:
        names = [one.name, *(table.name for table in one.tables)]
        int(one.version), one.types, one.apply
    except Exception as error:  # noqa: BLE001 - what a plug-in has returned may be anything
        return f"{one!r} is no projection: {type(error).__name__}: {error}"
    if strange := [name for name in names if not plugin.owns(name)]:
        return f"the name {strange[0]!r} does not begin with the plug-in's, {plugin.name!r}"
    return f"there is a projection {one.name!r} already" if one.name in taken else None
