"""The place inside a value that cannot be pickled, in words that lead there: ``rows[3].lock``."""

import functools
import pickle
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from flightlog.engine.definitions import Definition

_DEEPEST = 100
_SHOWN = 40
_LONGEST = 200
_MODEL = ("__dict__", "__pydantic_extra__", "__pydantic_private__")
_OF_ITSELF = frozenset({"__dict__", "__weakref__", "_abc_impl"})
"""What a class gets anew when it is made again."""
_Part = tuple[str, Any]


def culprit(value: Any, dumps: Callable[[Any], bytes], error: BaseException) -> tuple[str, str]:
    """Return the place inside a value that cannot be pickled, such as ``.args[0]['lock']``, and why.

    Args:
        value: a value that cannot be pickled.
        dumps: what is to pickle it.
        error: what that has raised.
    """
    place, seen = "", set()
    for _ in range(_DEEPEST):
        if _too_deep(error):
            break
        seen.add(id(value))
        parts = [part for part in _parts(value) if id(part[1]) not in seen]
        found = _first(parts, dumps)
        if found is None:
            break
        (name, value), error = found
        place += name
    if len(place) > _LONGEST:
        place = f"{place[: _LONGEST // 2]} ... {place[-_LONGEST // 2 :]}"
    return place, "it is nested too deep" if _too_deep(error) else f"{type(error).__name__}: {error}"


def _too_deep(error: BaseException | None) -> bool:
    return isinstance(error, RecursionError) or isinstance(error and error.__cause__, RecursionError)


def _first(parts: list[_Part], dumps: Callable[[Any], bytes]) -> tuple[_Part, BaseException] | None:
    """Return the first part that cannot be pickled, and why; all of them together are pickled two or three times."""
    while len(parts) > 1:
        half = parts[: len(parts) // 2]
        parts = half if _error([value for _, value in half], dumps) is not None else parts[len(half) :]
    error = _error(parts[0][1], dumps) if parts else None
    return None if error is None else (parts[0], error)


def _error(value: Any, dumps: Callable[[Any], bytes]) -> BaseException | None:
    try:
        dumps(value)
    except Exception as error:  # noqa: BLE001 - pickling runs the object's own code
        return error
    return None


def _parts(value: Any) -> Iterator[_Part]:
    """Yield what a value is pickled from, and how each part is reached."""
    if isinstance(value, FunctionType):
        yield from _function(value)
    elif isinstance(value, MethodType):
        yield from ((".__self__", value.__self__), (" (its function)", value.__func__))
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, Definition):
        yield from (*((".__self__", bound) for bound in value.bound), (".fn", value.function))
        yield from _named(value.options)
    elif isinstance(value, type):
        yield from ((f".{name}", item) for name, item in list(vars(value).items()) if name not in _OF_ITSELF)
    elif type(value) is dict:
        yield from _items(value.items())
    elif type(value) in (list, tuple):
        yield from _numbered(value)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from ((f".{name}", item) for name, item in zip(value._fields, value, strict=False))
    elif type(value) in (set, frozenset):
        yield from ((f" (its item {_shown(item)})", item) for item in value)
    else:
        yield from _reduced(value)


def _function(function: FunctionType) -> Iterator[_Part]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" (its variable {name!r})", cell.cell_contents
        except ValueError:
            continue  # it has no value yet
    names = function.__globals__
    yield from ((f" (its global name {name!r})", names[name]) for name in _global_names(function.__code__, names))
    yield from ((f" (its default {_shown(item)})", item) for item in function.__defaults__ or ())
    named = function.__kwdefaults__ or {}
    yield from ((f" (its default {name}={_shown(item)})", item) for name, item in named.items())
    yield from _named(vars(function))


def _global_names(code: CodeType, names: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in code.co_names if name in names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant, names)


def _reduced(value: Any) -> Iterator[_Part]:
    """Yield the parts of an object: what its own pickling takes of it."""
    try:
        reduced = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001 - the object's own code: it is the culprit itself
        return
    if isinstance(reduced, str):
        return
    _, args, state, items, pairs = (*reduced, None, None, None)[:5]
    kind = type(value)
    yield f" (its class {kind.__name__})", kind
    if isinstance(value, BaseException):
        yield from ((f".args[{number}]", item) for number, item in enumerate(value.args))
    else:
        yield from _arguments(value, args)
    yield from _state(state)
    yield from _numbered(items or ())
    yield from _items(pairs or ())


def _arguments(value: Any, args: tuple[Any, ...]) -> Iterator[_Part]:
    """Yield what an object is made from, by the name of the attribute that holds it."""
    held = {id(item): f".{name}" for name, item in getattr(value, "__dict__", {}).items()}
    for number, item in enumerate(args):
        if item is not type(value):
            yield held.get(id(item), f" (what it is made from, {number})"), item


def _state(state: Any) -> Iterator[_Part]:
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        for names in state:
            yield from _state(names)
    elif isinstance(state, dict) and "__pydantic_fields_set__" in state:
        for names in _MODEL:
            yield from _named(state.get(names) or {})
    elif isinstance(state, dict):
        yield from _named(state)
    elif state is not None:
        yield " (its state)", state


def _named(names: dict[str, Any]) -> Iterator[_Part]:
    yield from ((f".{name}", item) for name, item in names.items())


def _numbered(items: Any) -> Iterator[_Part]:
    yield from ((f"[{number}]", item) for number, item in enumerate(items))


def _items(pairs: Any) -> Iterator[_Part]:
    for key, item in pairs:
        yield f"[{_shown(key)}]", item
        yield f" (its key {_shown(key)})", key


def _shown(value: Any) -> str:
    """Return a short text for a key or an item."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the user's own __repr__
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


__all__ = ["culprit"]
