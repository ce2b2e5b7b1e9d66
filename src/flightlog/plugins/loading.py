"""Importing a plug-in, and refusing one whose hooks are not what they have to be."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from pluggy import PluginManager, PluginValidationError

from flightlog.errors import PluginError
from flightlog.names import did_you_mean
from flightlog.plugins import hooks
from flightlog.plugins.hooks import HOOKS
from flightlog.plugins.manifests import Manifest

Functions = dict[str, tuple[Callable[..., Any], Sequence[str]]]
"""A plug-in's hooks by name: each function, and which arguments it takes."""


def load(manifest: Manifest) -> Functions:
    """Import a plug-in, and return its hooks.

    Args:
        manifest: what the plug-in says of itself.

    Raises:
        PluginError: its hooks are not what they have to be.
        BaseException: whatever the plug-in raises while it is imported.
    """
    module = importlib.import_module(manifest.module) if manifest.file is None else _of_file(manifest)
    _check(module, manifest)
    manager = _manager()
    try:
        manager.register(module, manifest.name)
    except PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from None
    functions: Functions = {}
    for hook in HOOKS:
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            functions[hook] = implementation.function, implementation.argnames
    return functions


def _manager() -> PluginManager:
    """Return what knows the hooks: one for each plug-in, since plug-ins are imported in threads of their own."""
    manager = PluginManager("flightlog")
    manager.add_hookspecs(hooks)
    return manager


def marked(module: ModuleType) -> set[str]:
    """Return the names of a module's functions that are marked as hooks."""
    manager = _manager()
    return {name for name in dir(module) if manager.parse_hookimpl_opts(module, name)}


def _check(module: ModuleType, manifest: Manifest) -> None:
    """Refuse a module whose hooks are not what its manifest says, or are no plain functions."""
    names = marked(module)
    if odd := sorted(names - set(HOOKS)):
        raise PluginError(f"it marks {odd[0]!r} as a hook, which there is not.{did_you_mean(odd[0], HOOKS)}")
    if missing := [hook for hook in manifest.hooks if hook not in names]:
        raise PluginError(
            f"it has no {missing[0]!r} that is marked with @hookimpl (from flightlog.plugins import hookimpl)"
        )
    for name in sorted(names):
        function = getattr(module, name)
        odd_kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
        if any(is_odd(function) for is_odd in odd_kinds):
            raise PluginError(f"its hook {name!r} is async or a generator; hooks are plain functions")


def _of_file(manifest: Manifest) -> ModuleType:
    """Import a plug-in of one file; once in a process, as it is with all modules."""
    known = sys.modules.get(manifest.module)
    if known is not None and known.__file__ == str(manifest.file):
        return known
    spec = importlib.util.spec_from_file_location(manifest.module, str(manifest.file))
    if spec is None or spec.loader is None:
        raise PluginError(f"{manifest.file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[manifest.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(manifest.module, None)
        raise
    return module
