"""What flows and tasks have in common: a function, a name, and how its runs go."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from flightlog.engine.bridge import is_async
from flightlog.engine.names import checked_name, function_key, key_hash
from flightlog.engine.outcomes import interrupt_of
from flightlog.engine.parameters import Signature
from flightlog.engine.states import State

P = ParamSpec("P")
R = TypeVar("R")
KEEP: Final[Any] = object()
"""As an option of `with_options`: leave it as it is. None has a meaning of its own there."""
_RESERVED = ("return_state", "wait_for")
_MAX_DELAYS = 50
Delays = float | Sequence[float] | Callable[[int], Sequence[float]]


class Definition(Generic[P, R]):
    """A function that was decorated, with the options that flows and tasks share."""

    __name__: str

    def __init__(  # noqa: PLR0913 - the options that users know
        self,
        fn: Callable[P, R],
        *,
        kind: str,
        default_name: str,
        name: str | None,
        version: str | None,
        description: str | None,
        retries: int,
        retry_delay_seconds: Delays,
        timeout_seconds: float | None,
        persist_result: bool | None,
        log_prints: bool | None,
    ) -> None:
        functools.update_wrapper(cast("Any", self), fn)
        self.fn = fn
        self.isasync = is_async(fn)
        self.signature = Signature(fn, _RESERVED)
        self.name = checked_name(name, default_name, kind)
        self.version = version
        self.description = description or inspect.getdoc(fn) or None
        self.retries = checked_retries(retries)
        self.retry_delay_seconds = retry_delay_seconds
        self.delays = checked_delays(retry_delay_seconds, self.retries)
        self.timeout_seconds = checked_timeout(timeout_seconds)
        self.persist_result = persist_result
        self.log_prints = log_prints
        self.key = function_key(fn)
        self.key_hash = key_hash(self.key)


def default_name(fn: Any) -> str:
    """Return what a function calls itself.

    Raises:
        TypeError: it is no function.
    """
    if not callable(fn):
        raise TypeError(f"'fn' must be callable, not {type(fn).__name__}.")
    name: str = getattr(fn, "__name__", type(fn).__name__)
    return name


def finish(state: State[Any], return_state: bool) -> Any:
    """Return what a call gives: the state, or the value; raise what has to be raised."""
    interrupt = interrupt_of(state)
    if interrupt is not None:
        raise interrupt
    return state if return_state else state.result()


def checked_retries(retries: Any) -> int:
    """Return a number of retries.

    Raises:
        ValueError: it is negative. TypeError: it is no whole number.
    """
    if not isinstance(retries, int) or isinstance(retries, bool):
        raise TypeError(f"`retries` is a whole number, not {type(retries).__name__}.")
    if retries < 0:
        raise ValueError(f"`retries` cannot be negative: {retries}.")
    return retries


def checked_delays(delays: Any, retries: int) -> tuple[float, ...]:
    """Return the seconds to wait before each retry; the last one goes for all that follow.

    Raises:
        TypeError: neither a number, nor a list of numbers, nor a function that returns one.
        ValueError: more than 50, or a negative one.
    """
    if callable(delays):
        delays = delays(retries)
    if isinstance(delays, (int, float)):
        delays = [delays]
    if not isinstance(delays, (list, tuple)) or not all(isinstance(delay, (int, float)) for delay in delays):
        raise TypeError("`retry_delay_seconds` is a number, a list of numbers, or a function that returns one.")
    if len(delays) > _MAX_DELAYS:
        raise ValueError(f"`retry_delay_seconds` has at most {_MAX_DELAYS} delays, not {len(delays)}.")
    if any(delay < 0 or not math.isfinite(delay) for delay in delays):
        raise ValueError("`retry_delay_seconds` cannot be negative or infinite.")
    return tuple(map(float, delays))


def checked_timeout(seconds: Any) -> float | None:
    """Return a time limit in seconds; None for none.

    Raises:
        ValueError: it is negative.
    """
    if seconds and seconds < 0:
        raise ValueError(f"`timeout_seconds` cannot be negative: {seconds}.")
    return float(seconds) if seconds else None
