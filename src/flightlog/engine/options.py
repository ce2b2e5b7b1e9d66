"""The options of flows and tasks: one list of each, for decorators, constructors and `with_options`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypedDict, get_args

from flightlog.events.types import Cause
from flightlog.names import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from flightlog.engine.cache_policies import CachePolicy
    from flightlog.engine.serializers import Serializer
    from flightlog.engine.storages import ResultStorage
    from flightlog.engine.task_runners import TaskRunner

Delays = float | Sequence[float] | Callable[[int], Sequence[float]]
Hook = Callable[..., Any]
Hooks = Iterable[Hook] | None
_MAX_DELAYS = 50
_LONGEST_TAG = 400
_CAUSES: Final = get_args(Cause)
_RESET_BY_NONE: Final = frozenset({
    "flow_run_name", "task_run_name", "log_prints", "persist_result", "result_serializer", "result_storage",
    "result_storage_key", "refresh_cache",
})  # fmt: skip


class SharedOptions(TypedDict, total=False):
    """What flows and tasks have in common; `flow` and `task` say what each option means."""

    name: str | None
    version: str | None
    description: str | None
    retries: int | Mapping[Cause, int] | None
    retry_delay_seconds: Delays | None
    timeout_seconds: float | None
    persist_result: bool | None
    result_storage: "ResultStorage | Path | str | None"
    result_serializer: "Serializer | str | None"
    cache_result_in_memory: bool | None
    log_prints: bool | None
    on_running: Hooks
    on_completion: Hooks
    on_failure: Hooks


class FlowOptions(SharedOptions, total=False):
    """The options of a flow; `flow` says what each one means."""

    flow_run_name: str | Callable[[], str] | None
    task_runner: "TaskRunner | type[TaskRunner] | str | None"
    validate_parameters: bool | None
    on_cancellation: Hooks
    on_crashed: Hooks


class TaskOptions(SharedOptions, total=False):
    """The options of a task; `task` says what each one means."""

    task_run_name: str | Callable[..., str] | None
    tags: Iterable[str] | None
    cache_policy: "CachePolicy | None"
    cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None
    cache_expiration: timedelta | None
    refresh_cache: bool | None
    result_storage_key: str | None
    retry_jitter_factor: float | None
    retry_condition_fn: Callable[..., Any] | None
    on_commit: Hooks
    on_rollback: Hooks
    viz_return_value: Any


def check_options(options: Mapping[str, Any], known: type, kind: str) -> None:
    """Refuse options that a flow or task does not have.

    Raises:
        TypeError: there is one; the message names the nearest.
    """
    names = list(known.__annotations__)
    for name in options:
        if name not in names:
            raise TypeError(f"@{kind} has no option {name!r}.{did_you_mean(name, names)}")


def changed(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with some changed; None leaves an option as it is, or resets it where None has a meaning."""
    told = {name: value for name, value in changes.items() if value is not None or name in _RESET_BY_NONE}
    return {**options, **told}


class Retries:
    """How often failed attempts of a run are tried again, and after which time.

    Args:
        retries: a number for what fails, whatever the cause; or a budget for each cause class; None for the
            setting's number.
        delays: seconds before each retry: a number, a list, or a function of `retries`; None for the setting's.

    Raises:
        TypeError: neither a whole number nor a mapping; or the delays are no numbers.
        ValueError: negative, an unknown cause, or more than 50 delays.
    """

    __slots__ = ("budgets", "count", "delays")

    def __init__(self, retries: Any, delays: Any) -> None:
        self.count: int | None = None
        self.budgets: dict[str, int] = {}
        if isinstance(retries, Mapping):
            self.budgets = {cause: _whole(number) for cause, number in retries.items()}
            for cause in self.budgets:
                if cause not in _CAUSES:
                    raise ValueError(f"`retries` has no cause {cause!r}.{did_you_mean(str(cause), _CAUSES)}")
            self.count = sum(self.budgets.values())
        elif retries is not None:
            self.count = _whole(retries)
        self.delays = None if delays is None else _delays(delays, self.count or 0)


def _whole(retries: Any) -> int:
    if not isinstance(retries, int) or isinstance(retries, bool):
        raise TypeError(f"`retries` is a whole number, not {type(retries).__name__}.")
    if retries < 0:
        raise ValueError(f"`retries` cannot be negative: {retries}.")
    return retries


def _delays(delays: Any, retries: int) -> tuple[float, ...]:
    """Return the seconds to wait before each retry; the last one goes for all that follow."""
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


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Return a `retry_delay_seconds` whose delays double: ``exponential_backoff(10)`` waits 10, 20, 40 ... seconds.

    Args:
        backoff_factor: the first delay, in seconds.
    """

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**i for i in range(min(retries, _MAX_DELAYS))]

    return delays


def checked_timeout(seconds: Any) -> float | None:
    """Return a time limit in seconds; None for none.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative.
    """
    try:
        limit = float(seconds or 0)
    except (TypeError, ValueError):
        raise TypeError(f"`timeout_seconds` is a number of seconds, not {seconds!r}.") from None
    if limit < 0:
        raise ValueError(f"`timeout_seconds` cannot be negative: {seconds}.")
    return limit or None


def checked_jitter(factor: Any) -> float | None:
    """Return a jitter factor.

    Raises:
        ValueError: it is negative.
    """
    if factor is not None and factor < 0:
        raise ValueError("`retry_jitter_factor` must be >= 0.")
    return None if factor is None else float(factor)


def checked_hooks(hooks: Any, name: str) -> list[Hook]:
    """Return a list of hooks.

    Raises:
        TypeError: it is none, or something in it cannot be called.
    """
    if hooks is None:
        return []
    if isinstance(hooks, (str, bytes)) or not isinstance(hooks, Iterable):
        raise TypeError(f"`{name}` is a list of functions, not {type(hooks).__name__}: write {name}=[my_hook].")
    found = list(hooks)
    for hook in found:
        if not callable(hook):
            raise TypeError(f"`{name}` is a list of functions; {hook!r} cannot be called.")
    return found


def checked_function(function: Any, name: str) -> Any:
    """Return a function, or None.

    Raises:
        TypeError: it cannot be called.
    """
    if function is not None and not callable(function):
        raise TypeError(f"`{name}` is a function, not {type(function).__name__}.")
    return function


def checked_tags(tags: Any) -> frozenset[str]:
    """Return tags as a set.

    Raises:
        TypeError: they are one string, or not all strings.
    """
    if tags is None:
        return frozenset()
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise TypeError(f"Tags are a list of strings, not {type(tags).__name__}: write tags=['a'].")
    given = list(tags)
    for tag in given:
        if not isinstance(tag, str):
            raise TypeError(f"Tags are strings; {tag!r} is none.")
    found: frozenset[str] = frozenset(given)
    for tag in found:
        if not tag.isprintable() or len(tag) > _LONGEST_TAG:
            raise ValueError(f"A tag has at most {_LONGEST_TAG} printable characters; {tag[:80]!r} does not fit.")
    return found


__all__ = [
    "Delays",
    "FlowOptions",
    "Hook",
    "Retries",
    "SharedOptions",
    "TaskOptions",
    "changed",
    "check_options",
    "checked_function",
    "checked_hooks",
    "checked_jitter",
    "checked_tags",
    "checked_timeout",
    "exponential_backoff",
]
