"""Tasks: functions whose every call in a flow is a task run."""

import functools
import inspect
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from flightlog.engine.bridge import ASYNC, SYNC, is_async, run_sync
from flightlog.engine.context import RunContext, current
from flightlog.engine.futures import AsyncFuture, BaseFuture, Future
from flightlog.engine.names import checked_name, checked_template, function_key, key_hash
from flightlog.engine.outcomes import interrupt_of
from flightlog.engine.parameters import Signature
from flightlog.engine.states import State
from flightlog.engine.submissions import split, submit
from flightlog.engine.task_runs import TaskCall, new_call, run_task
from flightlog.engine.upstream import settled_state, value_of
from flightlog.errors import MissingContextError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_MAX_DELAYS = 50
_RESERVED = ("return_state", "wait_for")
_KEEP: Any = object()
Delays = float | Sequence[float] | Callable[[int], Sequence[float]]


class Task(Generic[P, R]):
    """A function whose every call in a flow is a task run. Make one with `task`.

    Attributes:
        fn: the function itself; calling it leaves no trace.
        name: the task's name.
        isasync: whether the function is a coroutine function.
        key: what tells the function apart: module and qualified name.
    """

    def __init__(  # noqa: PLR0913 - the options that users know
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        task_run_name: str | Callable[[], str] | None = None,
        retries: int = 0,
        retry_delay_seconds: Delays = 0,
        timeout_seconds: float | None = None,
        persist_result: bool | None = None,
        log_prints: bool | None = None,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"'fn' must be callable, not {type(fn).__name__}.")
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.isasync = is_async(fn)
        self.signature = Signature(fn, _RESERVED)
        self.name = checked_name(name, getattr(fn, "__name__", type(fn).__name__), "task")
        self.description = description or inspect.getdoc(fn) or None
        self.version = version
        self.task_run_name = checked_template(task_run_name, "task_run_name", self.signature.names)
        self.retries = checked_retries(retries)
        self.retry_delay_seconds = retry_delay_seconds
        self.delays = checked_delays(retry_delay_seconds, self.retries)
        self.timeout_seconds = checked_timeout(timeout_seconds)
        self.persist_result = persist_result
        self.log_prints = log_prints
        self.key = function_key(fn)
        self.key_hash = key_hash(self.key)

    def with_options(  # noqa: PLR0913 - the options that users know
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        task_run_name: Any = _KEEP,
        retries: int | None = None,
        retry_delay_seconds: Delays | None = None,
        timeout_seconds: float | None = None,
        persist_result: bool | None = _KEEP,
        log_prints: bool | None = _KEEP,
    ) -> "Task[P, R]":
        """Return a task like this one with some options changed; this one stays as it is.

        `timeout_seconds=0` takes the time limit away; None resets `task_run_name`, `persist_result`, `log_prints`.
        """
        return Task(
            self.fn,
            name=name or self.name,
            description=description or self.description,
            version=version or self.version,
            task_run_name=self.task_run_name if task_run_name is _KEEP else task_run_name,
            retries=self.retries if retries is None else retries,
            retry_delay_seconds=self.retry_delay_seconds if retry_delay_seconds is None else retry_delay_seconds,
            timeout_seconds=self.timeout_seconds if timeout_seconds is None else timeout_seconds,
            persist_result=self.persist_result if persist_result is _KEEP else persist_result,
            log_prints=self.log_prints if log_prints is _KEEP else log_prints,
        )

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(
        self: "Task[..., Coroutine[Any, Any, T]]",
        /,
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...
    @overload
    def __call__(
        self, /, *args: Any, return_state: Literal[True], wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> State[R]: ...
    @overload
    def __call__(
        self, /, *args: Any, return_state: Literal[False] = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> R: ...

    def __call__(  # type: ignore[misc]  # the marks `return_state` and `wait_for` are reserved names
        self, /, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> Any:
        """Run the task here and now, and return its value; awaitable if the function is async.

        Args:
            args, kwargs: the arguments; futures and states among them are awaited and replaced by their values.
            return_state: return the final `State` instead, and do not raise for a task that failed.
            wait_for: futures or states that have to complete before.

        Raises:
            MissingContextError: outside a flow. `fn` is the plain function.
            ParameterBindError: the arguments do not fit the signature.
        """
        context = self._context()
        parameters = self.signature.bind(args, kwargs)
        call = new_call(self, context, parameters, wait_for)
        if self.isasync and context.isasync:
            return _finish_async(call, return_state)
        return finish(run_sync(run_task(SYNC, call)), return_state)

    @overload
    def submit(  # type: ignore[overload-overlap]  # a coroutine function's future is another class
        self: "Task[P, Coroutine[Any, Any, T]]", /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncFuture[T]: ...
    @overload
    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    @overload
    def submit(
        self, /, *args: Any, return_state: Literal[True], wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> State[R]: ...
    @overload
    def submit(
        self: "Task[..., Coroutine[Any, Any, T]]",
        /,
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> AsyncFuture[T]: ...
    @overload
    def submit(
        self, /, *args: Any, return_state: Literal[False] = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> Future[R]: ...

    def submit(  # type: ignore[misc]  # the marks `return_state` and `wait_for` are reserved names
        self, /, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> Any:
        """Give the call to the flow's task runner and return its future at once.

        Args:
            args, kwargs: the arguments; futures and states among them are awaited before the task starts.
            return_state: wait for the end and return the final `State` instead.
            wait_for: futures or states that have to complete before.

        Raises:
            MissingContextError: outside a flow.
            ParameterBindError: the arguments do not fit the signature.
        """
        future = submit(self, self._context(), self.signature.bind(args, kwargs), wait_for)
        return future.wait() if return_state else future  # type: ignore[attr-defined]

    def map(
        self, /, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Submit one call for each item of the iterable arguments; return the futures, in order.

        What is not iterable, strings and bytes, and what stands in `unmapped(...)`, every call gets whole.
        Futures and states among the arguments are waited for first, to know how many items there are.

        Args:
            args, kwargs: the arguments.
            return_state: wait for the ends and return the final states instead.
            wait_for: futures or states that have to complete before.

        Raises:
            MappingLengthMismatch: the iterables differ in length.
            MappingMissingIterable: no argument is iterable.
        """
        context = self._context()
        parameters = self.signature.bind(args, kwargs)
        given = set(self.signature.names[: len(args)]) | (set(kwargs) & set(self.signature.names))
        tracker = context.flow_context.tracker
        values: dict[str, Any] = {}
        for name, value in parameters.items():
            values[name] = value
            if isinstance(value, (BaseFuture, State)):
                state = run_sync(settled_state(SYNC, value))
                if not state.is_completed():
                    # Nothing to split: one call says why nothing ran.
                    futures = [submit(self, context, parameters, wait_for)]
                    return [future.wait() for future in futures] if return_state else futures  # type: ignore[attr-defined]
                values[name] = value_of(value)
                if state.state_details.task_run_id and isinstance(value, BaseFuture) and value.task_run:
                    tracker.add(values[name], value.task_run.key)
        children = split(self, self._spread(values, given), given)
        futures = [submit(self, context, self._gathered(child), wait_for) for child in children]
        return [future.wait() for future in futures] if return_state else futures  # type: ignore[attr-defined]

    def _spread(self, values: dict[str, Any], given: set[str]) -> dict[str, Any]:
        """Take ``**kwargs`` apart, so that what is iterable in it is split too."""
        variable = self.signature.keywords
        if variable is None:
            return values
        given.update(values[variable])
        return {**{name: value for name, value in values.items() if name != variable}, **values[variable]}

    def _gathered(self, values: dict[str, Any]) -> dict[str, Any]:
        """Put ``**kwargs`` together again."""
        variable = self.signature.keywords
        if variable is None:
            return values
        names = set(self.signature.names)
        rest = {name: value for name, value in values.items() if name not in names}
        return {**{name: value for name, value in values.items() if name in names}, variable: rest}

    def _context(self) -> RunContext:
        context = current()
        if context is None:
            raise MissingContextError(
                f"The task {self.name!r} was called outside a flow. Call it in a flow, "
                f"or call `{self.name}.fn()`, the plain function."
            )
        return context

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"


def finish(state: State[Any], return_state: bool) -> Any:
    """Return what a call gives: the state, or the value; raise what has to be raised."""
    interrupt = interrupt_of(state)
    if interrupt is not None:
        raise interrupt
    return state if return_state else state.result()


async def _finish_async(call: TaskCall, return_state: bool) -> Any:
    return finish(await run_task(ASYNC, call), return_state)


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


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    task_run_name: str | Callable[[], str] | None = None,
    retries: int = 0,
    retry_delay_seconds: Delays = 0,
    timeout_seconds: float | None = None,
    persist_result: bool | None = None,
    log_prints: bool | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a task of a function: ``@task`` or ``@task(retries=3)``.

    Args:
        name: the task's name; the function's by default.
        description: what it does; the docstring by default.
        version: its version, for people.
        task_run_name: names of its runs: a template over the parameters (``"load {table}"``) or a function.
        retries: how often a failed attempt is tried again.
        retry_delay_seconds: seconds before each retry: a number, a list, or a function of `retries`.
        timeout_seconds: how long an attempt may take; None for ever.
        persist_result: False to leave its values out of the log; such a call runs again on resume.
        log_prints: whether prints become log lines; None as the flow has it.

    Raises:
        InvalidNameError: the name has one of ``/ % & > <``.
        ReservedArgumentError: a parameter is called ``return_state`` or ``wait_for``.
    """
    if fn is None:
        return functools.partial(_make, options)
    return Task(fn, **options)


def _make(options: dict[str, Any], fn: Any) -> Task[Any, Any]:
    return Task(fn, **options)
