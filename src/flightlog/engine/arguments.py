"""What calls are given: futures and states among the arguments, at any depth, and what becomes of them."""

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from flightlog.engine.annotations import Annotation, allow_failure, quote
from flightlog.engine.futures import BaseFuture
from flightlog.engine.states import State
from flightlog.engine.tracking import Tracker
from flightlog.ids import parse_id

_SCALARS = frozenset({type(None), bool, int, float, str, bytes, complex})
_CONTAINERS = frozenset({list, tuple, set, frozenset})
MAX_DEPTH = 150
"""Arguments are looked into so deep; what lies deeper is passed on as it is."""


class Upstream(NamedTuple):
    """A run that an argument rests on."""

    source: "BaseFuture[Any] | State[Any]"
    may_fail: bool


class Found:
    """What is among some arguments.

    Attributes:
        upstream: the runs they rest on.
        marked: whether anything in them has to be replaced before the call.
        seen: the containers that were looked into, by identity: some contain themselves.
    """

    __slots__ = ("marked", "seen", "upstream")

    def __init__(self) -> None:
        self.upstream: list[Upstream] = []
        self.marked = False
        self.seen: set[int] = set()


def are_plain(values: Iterable[Any]) -> bool:
    """Tell whether there is nothing to look for: all values are numbers, strings and the like."""
    for value in values:  # noqa: SIM110 - `all` with a generator takes twice as long, three times in each call
        if type(value) not in _SCALARS:
            return False
    return True


def look(value: Any, found: Found, may_fail: bool = False, depth: int = 0) -> None:
    """Find futures, states and marks in a value, down to `MAX_DEPTH` levels."""
    if isinstance(value, (BaseFuture, State)):
        found.upstream.append(Upstream(value, may_fail))
        found.marked = True
    elif isinstance(value, Annotation):
        found.marked = True
        if not isinstance(value, quote):
            look(value.value, found, may_fail or isinstance(value, allow_failure), depth)
    elif type(value) not in _SCALARS and id(value) not in found.seen and depth < MAX_DEPTH:
        items = items_of(value)
        if items:
            found.seen.add(id(value))
        for item in items:
            if type(item) not in _SCALARS:
                look(item, found, may_fail, depth + 1)


def items_of(value: Any) -> Collection[Any]:
    """Return what a container holds; nothing for any other value, and for one that does not let itself be read."""
    try:
        if isinstance(value, (list, tuple, set, frozenset)):
            return value if type(value) in _CONTAINERS else list(value)
        if isinstance(value, dict):
            return [*value.keys(), *value.values()]
        return list(_fields(value).values())
    except Exception:  # noqa: BLE001 - a container may be the user's own class
        return ()


def replace(value: Any, result_of: Callable[[Any], Any], within: frozenset[int] = frozenset()) -> Any:
    """Return a value with futures and states in it replaced; copies are made only where something is replaced.

    Args:
        value: any value.
        result_of: gives what stands in for a future or state.
        within: the containers around the value, by identity.
    """
    if type(value) in _SCALARS or id(value) in within or len(within) >= MAX_DEPTH:
        return value
    if isinstance(value, (BaseFuture, State)):
        return result_of(value)
    if isinstance(value, Annotation):
        return value.value if isinstance(value, quote) else replace(value.value, result_of, within)
    if not items_of(value):
        return value
    inside = within | {id(value)}
    return _rebuilt(value, lambda item: replace(item, result_of, inside))


def _rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a container with each item changed, or itself if no item did."""
    if isinstance(value, dict):
        pairs = [(change(key), change(item)) for key, item in value.items()]
        same = all(a is c and b is d for (a, b), (c, d) in zip(pairs, value.items(), strict=True))
        return value if same else _filled(value, pairs)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [change(item) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    fields = _fields(value)
    changed = {name: new for name, old in fields.items() if (new := change(old)) is not old}
    if not changed:
        return value
    result = copy.copy(value)
    for name, new in changed.items():
        object.__setattr__(result, name, new)
    return result


def _filled(value: dict[Any, Any], pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = copy.copy(value)
    result.clear()
    result.update(pairs)
    return result


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return dict(vars(value)) if hasattr(type(value), "__pydantic_fields__") else {}


def sources(value: Any, tracker: Tracker) -> list[bytes]:
    """Return the task runs whose results are in a value: by future, by state, or by the result's identity."""
    if type(value) in _SCALARS:
        run = tracker.find(value)
        return [] if run is None else [run]
    runs: list[bytes] = []
    seen: set[int] = set()

    def visit(item: Any, depth: int) -> None:
        run = _source(item, tracker)
        if run is not None:
            if run not in runs:
                runs.append(run)
        elif type(item) not in _SCALARS and not isinstance(item, quote) and id(item) not in seen and depth < MAX_DEPTH:
            seen.add(id(item))
            for inner in (item.value,) if isinstance(item, Annotation) else items_of(item):
                visit(inner, depth + 1)

    visit(value, 0)
    return runs


def _source(item: Any, tracker: Tracker) -> bytes | None:
    if isinstance(item, BaseFuture):
        return None if item.task_run is None else item.task_run.key
    if isinstance(item, State):
        text = item.state_details.task_run_id
        return None if text is None else parse_id(text)
    return tracker.find(item)
