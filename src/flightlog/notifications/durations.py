"""Spans of time as people write them: ``90s``, ``10m``, ``1h30m``, ``2d``; inside, whole microseconds."""

import re
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[wdhms])\s*")


def microseconds(value: Any) -> int:
    """Return a span of time in microseconds.

    Args:
        value: such as ``10m``; a number of seconds; or a `timedelta`.

    Raises:
        ValueError: it is none of these, or is not above 0.
    """
    if isinstance(value, timedelta):
        found = round(value.total_seconds() * 1e6)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = round(value * 1e6)
    else:
        parts = _PART.findall(str(value))
        if not parts or _PART.sub("", str(value)).strip():
            raise ValueError(f"{value!r} is no span of time; write it like 90s, 10m, 1h30m or 2d")
        found = round(sum(float(number) * _UNITS[unit] for number, unit in parts) * 1e6)
    if found <= 0:
        raise ValueError(f"a span of time is above 0, and {value!r} is not")
    return found


def text(value: int) -> str:
    """Return a span of time in the form that `microseconds` reads, exactly."""
    parts, left = [], value
    for unit, seconds in _UNITS.items():
        size = round(seconds * 1e6)
        if left >= size:
            count, left = divmod(left, size)
            parts.append(f"{count}{unit}")
    return "".join(parts) if not left else f"{value / 1e6!r}s"


Duration = Annotated[
    int,
    BeforeValidator(microseconds),
    PlainSerializer(text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["90s", "10m", "1h30m"]}),
]
"""A span of time: written like ``10m``, kept in microseconds."""
