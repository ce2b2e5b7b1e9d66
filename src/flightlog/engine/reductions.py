"""How functions, classes and exceptions are pickled, where cloudpickle leaves something out.

What a script defines goes along itself, by cloudpickle; some kinds of it cloudpickle leaves to pickle, which looks them
up by name in the script.
"""

import dataclasses
import enum
import functools
import re
import sys
import typing
import weakref
from collections.abc import Callable
from importlib import import_module
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from flightlog.engine.definitions import Definition, found_by_name, remade
from flightlog.engine.names import module_name

CACHED = type(functools.lru_cache(len))
"""The class of functions with a cache."""
BY_CONTENT = 6
"""So many parts has what cloudpickle makes of a function or class that goes along itself."""
_NAMES_OF_CLASS = 3
"""Where in it the names are that a class is made with."""
_NAME = re.compile(r"[^\W\d]\w*")
_OF_TYPES = frozenset({"types", "typing", "typing_extensions"})


def send_whole(module: str) -> bool:
    """Send what a module defines along with what refers to it, from now on; tell whether that is possible, and new.

    Args:
        module: the name of a module that workers cannot import.
    """
    found = sys.modules.get(module)
    if found is None or module in _WHOLE:
        return False
    cloudpickle.register_pickle_by_value(found)
    _WHOLE.add(module)
    return True


_WHOLE = {"__main__"}


def goes_along(module: str | None) -> bool:
    """Tell whether what a module defines goes along itself: it is a script, or workers cannot import it."""
    if module is None or module_name(module) == "__main__":
        return True
    return any(module == name or module.startswith(f"{name}.") for name in _WHOLE)


def with_all_of_class(value: type[Any], made: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return how a class goes along itself, where cloudpickle leaves something out."""
    generic = vars(value).get("__pydantic_generic_metadata__")
    if generic and generic["origin"] is not None:
        return _subscripted, (generic["origin"], generic["args"])  # `Box[int]` has no name of its own
    if "__slots__" in vars(value) and not issubclass(value, (tuple, enum.Enum)):
        made[1][_NAMES_OF_CLASS]["__slots__"] = value.__slots__  # or its objects get a __dict__
    return made


def completed(value: type[Any]) -> bool:
    """Have a pydantic model find what it names, as its first use would; tell if it has. Before, none can be pickled."""
    if vars(value).get("__pydantic_complete__") is not False or not hasattr(value, "model_rebuild"):
        return False
    return value.model_rebuild(raise_errors=False) is True


def named_in(value: type[Any]) -> dict[str, Any]:
    """Return the types that the annotations of a class name, be it in texts, by their global names."""
    names = vars(sys.modules[value.__module__])
    texts = map(str, vars(value).get("__annotations__", {}).values())
    found = {name: names[name] for text in texts for name in _NAME.findall(text) if name in names}
    return {name: item for name, item in found.items() if _is_type(item)}


def _is_type(value: Any) -> bool:
    return isinstance(value, (type, ModuleType)) or type(value).__module__ in _OF_TYPES


def undecorated(function: FunctionType) -> Any:
    """Return how the function of a task or flow goes by the name of that, if it can."""
    place = function.__module__, function.__qualname__
    if goes_along(place[0]):
        return None
    found = found_by_name(*place)
    return (_function_of, place) if isinstance(found, Definition) and found.function is function else None


def _function_of(module: str, name: str) -> Any:
    import_module(module)
    return found_by_name(module, name).function


def of_definition(definition: Definition[..., Any]) -> Any:
    """Return how a task or flow goes: by name, or by function and options."""
    return definition.by_content() if goes_along(definition.function.__module__) else definition.__reduce__()


def of_error(error: BaseException) -> tuple[Any, ...] | None:
    """Return how an exception goes whose class has an ``__init__`` of its own, which wants other arguments; or None."""
    kind: Any = type(error)
    own = (kind.__reduce__, kind.__reduce_ex__) != (BaseException.__reduce__, BaseException.__reduce_ex__)
    if own or not isinstance(kind.__init__, FunctionType):
        return None
    reduced: Any = error.__reduce__()
    return _error, (kind, reduced[1]), *reduced[2:]


def _error(kind: Any, args: tuple[Any, ...]) -> Any:
    """Make an exception with what the built-in class that it rests on is given by its own ``__init__``."""
    error = kind.__new__(kind, *args)
    next(base for base in kind.__mro__ if base.__module__ == "builtins").__init__(error, *args)
    return error


def _reduce_code(value: CodeType) -> Any:
    """Keep the file's name, which cloudpickle leaves out from 3.1.3 on: tracebacks show lines by it."""
    make, parts = cloudpickle.Pickler.dispatch_table[CodeType](value)
    return make, tuple(value.co_filename if part == "<dynamic-code>" else part for part in parts)


def _reduce_cached(value: Any) -> Any:
    if not goes_along(value.__module__):
        return None
    return cached, (value.__wrapped__, value.cache_parameters())


def cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Return a function with a cache; in a worker the one that is there stays, with what it holds."""
    return functools.lru_cache(**parameters)(function)


def _reduce_cached_property(value: Any) -> Any:
    state = {name: item for name, item in vars(value).items() if name != "lock"}  # Python 3.11 has one in it
    return functools.cached_property, (value.func,), state


def _reduce_weak(value: Any) -> Any:
    return type(value), (dict(value),)


def _reduce_new_type(value: Any) -> Any:
    if not goes_along(value.__module__):
        return None
    return typing.NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}


def _reduce_parameter(value: Any) -> Any:
    return (type(value), (value.__name__,)) if goes_along(value.__module__) else None


def _reduce_alias(value: Any) -> Any:
    if not goes_along(value.__module__):
        return None
    return _alias, (value.__name__, value.__value__, value.__type_params__)


def _alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    return typing.TypeAliasType(name, value, type_params=parameters)  # type: ignore[attr-defined]  # Python 3.12


MAKERS = (cached, remade, typing.NewType)


def _subscripted(origin: Any, args: tuple[Any, ...]) -> Any:
    return origin[args]


SPECIAL: dict[Any, Callable[[Any], Any]] = {
    CodeType: _reduce_code,
    CACHED: _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    weakref.WeakKeyDictionary: _reduce_weak,
    weakref.WeakValueDictionary: _reduce_weak,
    type(dataclasses.MISSING): lambda _: "MISSING",  # there is but one
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_parameter,
    typing.TypeVarTuple: _reduce_parameter,
}
if hasattr(typing, "TypeAliasType"):
    SPECIAL[typing.TypeAliasType] = _reduce_alias


__all__ = [
    "BY_CONTENT",
    "CACHED",
    "MAKERS",
    "SPECIAL",
    "cached",
    "completed",
    "goes_along",
    "named_in",
    "of_definition",
    "of_error",
    "send_whole",
    "undecorated",
    "with_all_of_class",
]
