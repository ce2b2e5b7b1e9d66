"""Old events in today's shape: history is never migrated, it is lifted when it is read (invariant I9).

An upcaster takes the payload of one schema version and returns the payload of the next. Types that
nobody here knows, and schema versions that are newer than this program, are carried along as they are.
"""

from collections.abc import Callable
from typing import Any

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

_UPCASTERS: dict[tuple[str, int], Upcaster] = {}


def upcaster(type_: str, from_schema: int) -> Callable[[Upcaster], Upcaster]:
    """Register the decorated function as the step from `from_schema` to the next version of that type.

    Raises:
        ValueError: that step has an upcaster already.
    """

    def register(function: Upcaster) -> Upcaster:
        if (type_, from_schema) in _UPCASTERS:
            raise ValueError(f"{type_} has an upcaster from schema {from_schema} already")
        _UPCASTERS[type_, from_schema] = function
        return function

    return register


def learn(type_: str, from_schema: int, function: Upcaster) -> None:
    """Register the step from `from_schema` to the next version of somebody else's type; again is the same as once."""
    if _UPCASTERS.get((type_, from_schema)) != function:
        upcaster(type_, from_schema)(function)


def lift(type_: str, schema: int, data: dict[str, Any]) -> dict[str, Any]:
    """Return a payload in the newest shape that this program knows."""
    while step := _UPCASTERS.get((type_, schema)):
        data, schema = step(data), schema + 1
    return data
