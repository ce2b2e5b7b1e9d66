"""Names of flows, tasks and their runs, and where a function is."""

import hashlib
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from flightlog.errors import InvalidNameError
from flightlog.events.subjects import HIDDEN
from flightlog.masking import MASKER

_RESERVED = "/%&><"
SCRIPT_MODULE = "__flightlog_script__"
"""The module's name under which a script is loaded that was named by its path."""


def checked_name(name: Any, default: str, kind: str) -> str:
    """Return the name of a flow or task, or its default.

    Raises:
        InvalidNameError: it has one of the characters ``/ % & > <``.
        TypeError: it is not a string.
    """
    if name is None:
        return default
    if not isinstance(name, str):
        hint = f" Write @{kind} with keyword arguments, or without any." if callable(name) else ""
        raise TypeError(f"A {kind}'s name is a string, not {type(name).__name__}.{hint}")
    if not name:
        raise InvalidNameError(f"A {kind}'s name cannot be empty.")
    if found := [character for character in name if character in _RESERVED]:
        raise InvalidNameError(f"The {kind} name {name!r} has {found[0]!r}; names are free of / % & > <")
    return name


def module_name(module: str | None) -> str:
    """Return a module's name; the script that is run has the same one, whether it was run or loaded by its path."""
    return "__main__" if module is None or module.startswith(SCRIPT_MODULE) else module


def function_key(function: Callable[..., Any]) -> str:
    """Return what tells a function apart: module and qualified name.

    The script that is run has the module ``__main__``, also when it was loaded by its path, so that both
    ways of running it give the same keys.
    """
    module = module_name(getattr(function, "__module__", None))
    qualname = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}.{qualname}"


def key_hash(key: str) -> str:
    """Return the eight hexadecimal digits that stand for a function in the names of its runs."""
    return hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()[:8]


def source_file(function: Callable[..., Any]) -> Path | None:
    """Return the file that a function is written in; None if there is none (a notebook, a shell)."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        return None
    return Path(file).absolute() if file and Path(file).exists() else None


def entrypoint(function: Callable[..., Any]) -> str:
    """Return where a function can be found again: ``/path/to/file.py:name``, or ``module:name``."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    file = source_file(function)
    module = getattr(function, "__module__", "__main__")
    if file is not None and (module == "__main__" or module.startswith(SCRIPT_MODULE)):
        return f"{file}:{name}"
    return f"{module}:{name}"


def run_name(template: Any, parameters: Mapping[str, Any], personal: Collection[str] = ()) -> str | None:
    """Return a run's name from its template (`str.format` over the parameters) or function; None if it has none.

    Args:
        template: the template or function.
        parameters: the values by parameter.
        personal: parameters whose values are in no name. A function is not asked then: it might name any of them.

    Raises:
        TypeError: the template is neither, or the function returns no string.
    """
    if template is None:
        return None
    if callable(template):
        if personal:
            return None
        name = template(parameters=dict(parameters)) if _asks_for_parameters(template) else template()
        if not isinstance(name, str):
            raise TypeError(f"The function that gives a run's name returned {type(name).__name__}, not a string.")
        return MASKER.mask(name)
    try:
        values = {**parameters, **dict.fromkeys(personal, HIDDEN)} if personal else parameters
        return MASKER.mask(str(template.format(**values)))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidNameError(f"The run-name template {template!r} cannot be filled in: {error}.") from None


def _asks_for_parameters(function: Any) -> bool:
    try:
        return "parameters" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def checked_template(template: Any, what: str, parameters: Sequence[str]) -> Any:
    """Return a run-name template as it is.

    Raises:
        TypeError: it is neither a string nor a function.
        InvalidNameError: it names something that is no parameter.
    """
    for _, field, _, _ in Formatter().parse(template) if isinstance(template, str) else ():
        name = re.split(r"[.\[]", field)[0] if field is not None else None
        if name is not None and name not in parameters:
            raise InvalidNameError(f"{what} {template!r} names {name!r}; there are the parameters {list(parameters)}.")
    if template is not None and not isinstance(template, str) and not callable(template):
        raise TypeError(f"{what} is a string or a function, not {type(template).__name__}.")
    return template
