"""Calls that give their value at once, and may be awaited all the same, as async code that was written for Prefect 2
does. What they return can bring its own ``__await__``; for None, booleans and other people's classes there is
`as_asked`.
"""

import dis
import inspect
import sys
from collections.abc import Generator
from functools import cache
from types import CodeType
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")
_ASYNC: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class _Given:
    """Gives a value to whoever awaits it."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()
        return self._value


def as_asked(value: T) -> T:
    """Return a value for whoever called our caller; where that call stands right behind an ``await``, to be awaited.

    None has no ``__await__``, so only the code that asks can tell which of the two it wants.
    """
    asking = sys._getframe(2)
    code = asking.f_code
    if code.co_flags & _ASYNC and _is_awaited(code, asking.f_lasti):
        return cast("T", _Given(value))
    return value


@cache
def _is_awaited(code: CodeType, place: int) -> bool:
    """Tell whether what the call at a place in some code returns is awaited at once."""
    following = next((step for step in dis.get_instructions(code) if step.offset > place), None)
    return following is not None and following.opname == "GET_AWAITABLE"


__all__ = ["as_asked"]
