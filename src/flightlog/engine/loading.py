"""Loading a flow from where a user says it is: ``path/to/file.py:name`` or ``module:name``."""

import hashlib
import importlib
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flightlog.engine.names import SCRIPT_MODULE
from flightlog.errors import ScriptError
from flightlog.names import did_you_mean

if TYPE_CHECKING:
    from flightlog.engine.flows import Flow

SCRIPTS: set[str] = set()
"""The module names of the files that were loaded by their path. No other process finds them."""
_state = threading.local()
_OURS = str(Path(__file__).parent)


def is_loading() -> bool:
    """Tell whether this thread is loading a file to find the flows in it, or this process that of its parent."""
    processes = sys.modules.get("multiprocessing.process")
    # What a user's own use of multiprocessing spawns loads the script first; multiprocessing asks for this, too.
    starting = processes is not None and getattr(processes.current_process(), "_inheriting", False)
    return starting or getattr(_state, "loading", False)


@contextmanager
def loading() -> Iterator[None]:
    """Have no flow run that a file calls while this thread loads it."""
    before, _state.loading = getattr(_state, "loading", False), True
    try:
        yield
    finally:
        _state.loading = before


def load_flow(target: str) -> "Flow[Any, Any]":
    """Return the flow that is named by ``file.py:name``, ``file.py`` (if it has just one) or ``module:name``.

    Raises:
        ScriptError: there is no such file or flow, or the file cannot be loaded.
    """
    from flightlog.engine.flows import Flow

    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if not place.strip("."):
        raise ScriptError(f"{target!r} names no file or module. Name a flow as FILE.py:FLOW, or MODULE:FLOW.")
    module = load_module(place)
    flows = {key: value for key, value in vars(module).items() if isinstance(value, Flow)}
    if not flows:
        raise ScriptError(f"{place} has no flow. Decorate a function with @flow.")
    if not name:
        if len({id(found) for found in flows.values()}) == 1:
            return next(iter(flows.values()))
        raise ScriptError(f"{place} has several flows; say which one: {_options(place, flows)}.")
    for key, found in flows.items():
        if name in (key, found.name):
            return found
    names = [*flows, *(found.name for found in flows.values())]
    hint = did_you_mean(name, names, before=f"{place}:", else_say=f" It has {_options(place, flows)}.")
    raise ScriptError(f"{place} has no flow {name!r}.{hint}")


def _options(place: str, flows: dict[str, Any]) -> str:
    return ", ".join(f"{place}:{key}" for key in sorted(flows))


def load_module(place: str) -> ModuleType:
    """Return what is at a place: the path of a file, or the name of a module.

    Raises:
        ScriptError: there is no such file, or it cannot be loaded.
    """
    return _load_file(Path(place)) if place.endswith(".py") or "/" in place else _load_module(place)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ScriptError(f"There is no file {path}.")
    path = path.absolute()
    # Without a dot: pickle imports a module by its name, and would look for a package of the part before it.
    name = SCRIPT_MODULE + re.sub(r"\W", "_", path.stem)
    if name in sys.modules and sys.modules[name].__file__ != str(path):
        name += hashlib.md5(str(path).encode(), usedforsecurity=False).hexdigest()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ScriptError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    # Pickles and pydantic look a class's module up by its name; imports beside the script work as in a run of it.
    sys.modules[name] = module
    SCRIPTS.add(name)
    sys.path.insert(0, str(path.parent))
    try:
        with loading():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ScriptError(_trouble(str(path), error)) from error
    return module


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        with loading():
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ScriptError(_trouble(name, error)) from error


def _trouble(place: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return (
            f"{place} ends the process while it is loaded: it calls sys.exit(). Put what it does as a program under "
            '`if __name__ == "__main__":`.'
        )
    trace, where = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(("<frozen", _OURS)):  # the user's own code, at whatever depth of imports
            where = f" ({'' if file == place else f'{file}, '}line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{place} cannot be loaded: {type(error).__name__}: {error}{where}"
