"""Iterators among the arguments of a call: what they give is looked into as the rest is, so it is put into lists."""

from types import GeneratorType
from typing import Any, Final

from flightlog.engine.annotations import Annotation, quote
from flightlog.engine.arguments import MAX_DEPTH, are_plain

_ITERATORS: Final[tuple[type[Any], ...]] = (
    GeneratorType,
    map,
    filter,
    zip,
    enumerate,
    reversed,
    *map(type, (iter(()), iter([]), iter(set()), iter(range(0)), reversed([]), reversed({}))),
    *map(type, (iter({}), iter({}.values()), iter({}.items()))),
)
"""Those of which it is known that nothing is lost by reading them to their end. Files are none."""
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})


def listed(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with a list in the place of each iterator: the same list wherever it is given."""
    if are_plain(parameters.values()):
        return parameters
    known: dict[int, tuple[Any, list[Any]]] = {}
    return {name: _listed(value, known, ()) for name, value in parameters.items()}


def listed_value(value: Any) -> Any:
    """Return a value with a list in the place of each iterator in it; itself if there is none."""
    return _listed(value, {}, ())


def _listed(value: Any, known: dict[int, tuple[Any, list[Any]]], within: tuple[int, ...]) -> Any:
    if isinstance(value, _ITERATORS):
        if id(value) not in known:
            known[id(value)] = (value, [])  # with the iterator, so that its id stays its own; first, for one in itself
            known[id(value)][1].extend(_listed(item, known, within) for item in value)
        return known[id(value)][1]
    if isinstance(value, Annotation) and not isinstance(value, quote):
        inner = _listed(value.value, known, within)
        return value if inner is value.value else type(value)(inner)
    kind = type(value)
    if (kind not in _CONTAINERS and kind is not dict) or id(value) in within or len(within) >= MAX_DEPTH:
        return value
    items = list(value.values() if kind is dict else value)
    if are_plain(items):
        return value
    changed = [_listed(item, known, (*within, id(value))) for item in items]
    if all(new is old for new, old in zip(changed, items, strict=True)):
        return value
    return dict(zip(value, changed, strict=True)) if kind is dict else kind(changed)


__all__ = ["listed", "listed_value"]
