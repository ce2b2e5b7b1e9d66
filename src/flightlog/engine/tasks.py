"""Tasks: functions whose every call in a flow is a task run."""

import functools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Literal, TypeVar, overload

from flightlog.engine.bridge import ASYNC, SYNC, run_sync
from flightlog.engine.context import RunContext, current
from flightlog.engine.definitions import KEEP, Definition, Delays, P, R, default_name, finish
from flightlog.engine.futures import AsyncFuture, BaseFuture, Future
from flightlog.engine.names import checked_template
from flightlog.engine.states import State
from flightlog.engine.submissions import split, submit
from flightlog.engine.task_runs import TaskCall, new_call, run_task
from flightlog.engine.upstream import settled_state, value_of
from flightlog.errors import MissingContextError

T = TypeVar("T")


class Task(Definition[P, R]):
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
        super().__init__(
            fn,
            kind="task",
            default_name=default_name(fn),
            name=name,
            version=version,
            description=description,
            retries=retries,
            retry_delay_seconds=retry_delay_seconds,
            timeout_seconds=timeout_seconds,
            persist_result=persist_result,
            log_prints=log_prints,
        )
        self.task_run_name = checked_template(task_run_name, "task_run_name", self.signature.names)

    def with_options(  # noqa: PLR0913 - the options that users know
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        task_run_name: Any = KEEP,
        retries: int | None = None,
        retry_delay_seconds: Delays | None = None,
        timeout_seconds: float | None = None,
        persist_result: bool | None = KEEP,
        log_prints: bool | None = KEEP,
    ) -> "Task[P, R]":
        """Return a task like this one with some options changed; this one stays as it is.

        `timeout_seconds=0` takes the time limit away; None resets `task_run_name`, `persist_result`, `log_prints`.
        """
        return Task(
            self.fn,
            name=name or self.name,
            description=description or self.description,
            version=version or self.version,
            task_run_name=self.task_run_name if task_run_name is KEEP else task_run_name,
            retries=self.retries if retries is None else retries,
            retry_delay_seconds=self.retry_delay_seconds if retry_delay_seconds is None else retry_delay_seconds,
            timeout_seconds=self.timeout_seconds if timeout_seconds is None else timeout_seconds,
            persist_result=self.persist_result if persist_result is KEEP else persist_result,
            log_prints=self.log_prints if log_prints is KEEP else log_prints,
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


async def _finish_async(call: TaskCall, return_state: bool) -> Any:
    return finish(await run_task(ASYNC, call), return_state)


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
