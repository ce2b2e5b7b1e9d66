"""Tasks: functions whose every call in a flow is a task run."""

import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from flightlog.engine.bridge import ASYNC, SYNC, Waits, run_sync
from flightlog.engine.cache_policies import NO_CACHE, CacheKeyFnPolicy, CachePolicy
from flightlog.engine.context import RunContext, current
from flightlog.engine.definitions import Definition, P, R, finish
from flightlog.engine.depth import awaited_with_room
from flightlog.engine.futures import AsyncFuture, BaseFuture, Future
from flightlog.engine.gathering import FutureList, FutureListToCome
from flightlog.engine.names import checked_template
from flightlog.engine.options import Hook, TaskOptions, checked_function, checked_jitter, checked_tags
from flightlog.engine.states import State
from flightlog.engine.streams import stream
from flightlog.engine.submissions import split, submit
from flightlog.engine.task_calls import TaskCall, new_call
from flightlog.engine.task_runs import run_task
from flightlog.engine.upstream import settled_state, value_of
from flightlog.errors import MissingContextError
from flightlog.later import running_loop

T = TypeVar("T")


class Task(Definition[P, R]):
    """A function whose every call in a flow is a task run. Make one with `task`.

    Attributes:
        fn: the function itself; calling it leaves no trace.
        name: the task's name.
        isasync: whether the function is a coroutine function.
        key: what tells the function apart: module and qualified name.
    """

    kind = "task"
    known_options = TaskOptions
    hook_kinds = (*Definition.hook_kinds, "on_commit", "on_rollback")
    absent = dict.fromkeys(
        ("delay", "apply_async", "serve"), "tasks run in flows; there is no queue of tasks beside them"
    )

    def __init__(self, fn: Callable[P, R], **options: Unpack[TaskOptions]) -> None:
        super().__init__(fn, options)
        self.task_run_name = checked_template(options.get("task_run_name"), "task_run_name", self.signature.names)
        self.result_storage_key = options.get("result_storage_key")
        self.cache_policy = _cache_policy(self.name, options)
        self._needs_values |= self.cache_policy is not None or self.result_storage_key is not None
        self.cache_key_fn = options.get("cache_key_fn")
        self.cache_expiration = _expiration(options.get("cache_expiration"))
        self.refresh_cache = options.get("refresh_cache")
        self.tags = checked_tags(options.get("tags"))
        self.retry_jitter_factor = checked_jitter(options.get("retry_jitter_factor"))
        self.retry_condition_fn = checked_function(options.get("retry_condition_fn"), "retry_condition_fn")

    def with_options(self, **options: Unpack[TaskOptions]) -> Self:
        """Return a task like this one with some options changed; this one stays as it is.

        An option that is None stays as it is, too; but None resets run-name templates, `persist_result`,
        `log_prints`, and where and how results are stored. `timeout_seconds=0` and `retries=0` mean none.

        Raises:
            TypeError: there is no such option.
        """
        return self._with(options)

    def on_commit(self, hook: Hook) -> Hook:
        """Call a function as ``hook(transaction)`` when the transaction that a run is part of commits."""
        return self._add_hook("on_commit", hook)

    def on_rollback(self, hook: Hook) -> Hook:
        """Call a function as ``hook(transaction)`` to undo a completed run whose transaction failed."""
        return self._add_hook("on_rollback", hook)

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
        if (relay := context.flow_context.relay) is not None:
            return relay.call(self, args, {**kwargs, "return_state": return_state, "wait_for": wait_for})
        call = new_call(self, context, self.bind(args, kwargs), wait_for)
        if self.isgenerator and not return_state:
            return stream(call, run_task, isasync=self.isasync)
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
        context = self._context()
        if (relay := context.flow_context.relay) is not None:
            return relay.submit(self, args, {**kwargs, "wait_for": wait_for})
        future = submit(self, context, self.bind(args, kwargs), wait_for)
        return future.wait() if return_state else future  # type: ignore[attr-defined]

    @overload
    def map(
        self, /, *args: Any, return_state: Literal[True], wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> list[Any]: ...
    @overload
    def map(
        self, /, *args: Any, return_state: Literal[False] = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> FutureList: ...

    def map(
        self, /, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Submit one call for each item of the iterable arguments; return a `FutureList` of the futures, in order.

        What is not iterable, strings and bytes, and what stands in `unmapped(...)`, every call gets whole.
        Futures and states among the arguments are waited for first, to know how many items there are. For async
        tasks in async code the list may be awaited, and has to be if such a future runs in the same event loop.

        Args:
            args, kwargs: the arguments.
            return_state: wait for the ends and return the final states instead; awaitable as `FutureList.wait` is.
            wait_for: futures or states that have to complete before.

        Raises:
            BlockedLoop: a sync task is mapped over a future that runs in the event loop which this would block.
            MappingLengthMismatch: the iterables differ in length.
            MappingMissingIterable: no argument is iterable.
        """
        context = self._context()
        if (relay := context.flow_context.relay) is not None:
            return relay.map(self, args, {**kwargs, "wait_for": wait_for})  # type: ignore[no-any-return]
        parameters = self.bind(args, kwargs)
        first = len(self.bound)
        given = set(self.signature.names[first : first + len(args)]) | (set(kwargs) & set(self.signature.names))
        in_async = self.isasync and context.isasync
        if in_async and (to_come := _first_to_come(parameters.values())) is not None:
            later = partial(self._mapped, ASYNC, context, parameters, given, wait_for)
            futures: FutureList = FutureListToCome(self.name, to_come.name, later)
        else:
            futures = run_sync(self._mapped(SYNC, context, parameters, given, wait_for))
            futures.in_async = in_async
        return futures.wait() if return_state else futures

    async def _mapped(
        self,
        waits: Waits,
        context: RunContext,
        parameters: dict[str, Any],
        given: set[str],
        wait_for: Iterable[Any] | None,
    ) -> FutureList:
        """Submit the calls of a `map`, once it is known how many there are."""
        tracker = context.flow_context.tracker
        values: dict[str, Any] = {}
        for name, value in parameters.items():
            values[name] = value
            if isinstance(value, (BaseFuture, State)):
                state = await settled_state(waits, value)
                if not state.is_completed():
                    # Nothing to split: one call says why nothing ran.
                    return FutureList([submit(self, context, parameters, wait_for)])
                values[name] = value_of(value)
                if state.state_details.task_run_id and isinstance(value, BaseFuture) and value.task_run:
                    tracker.add(values[name], value.task_run.key)
        children = split(self, self._spread(values, given), given)
        return FutureList(submit(self, context, self._gathered(child), wait_for) for child in children)

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
            strange = threading.current_thread() is not threading.main_thread()
            thread = f" (a thread of your own is not in it: use `{self.name}.submit`)" if strange else ""
            raise MissingContextError(
                f"The task {self.name!r} was called outside a flow. Call it in a flow{thread}, "
                f"or call `{self.name}.fn()`, the plain function."
            )
        return context

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"


def _first_to_come(values: Iterable[Any]) -> BaseFuture[Any] | None:
    """Return the first of some futures that the event loop of this thread has to settle; None if there is none."""
    futures = [value for value in values if isinstance(value, BaseFuture)]
    loop = running_loop() if futures else None
    if loop is None:
        return None
    return next((needed for future in futures if (needed := future.needed_from(loop)) is not None), None)


def _cache_policy(name: str, options: Mapping[str, Any]) -> CachePolicy | None:
    """Return what the cache key of a task is made of; None if its results are not cached.

    Raises:
        TypeError: it is no cache policy.
    """
    policy, function = options.get("cache_policy"), checked_function(options.get("cache_key_fn"), "cache_key_fn")
    if policy is not None and not isinstance(policy, CachePolicy):
        raise TypeError(f"`cache_policy` is a CachePolicy, such as INPUTS, not {type(policy).__name__}.")
    if function is not None:
        if policy is not None:
            warnings.warn(f"The task {name!r} has a cache_key_fn, so its cache_policy does not count.", stacklevel=5)
        policy = CacheKeyFnPolicy(function)
    return None if policy is NO_CACHE else policy


def _expiration(given: Any) -> timedelta | None:
    """Return how long a cached value counts.

    Raises:
        TypeError: it is no timedelta.
    """
    if given is not None and not isinstance(given, timedelta):
        raise TypeError(f"`cache_expiration` is a timedelta, not {type(given).__name__}.")
    return given


async def _finish_async(call: TaskCall, return_state: bool) -> Any:
    return finish(await awaited_with_room(run_task(ASYNC, call)), return_state)


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(fn: "classmethod[Any, P, R]", /) -> Task[P, R]: ...
@overload
def task(fn: "staticmethod[P, R]", /) -> Task[P, R]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a task of a function: ``@task`` or ``@task(retries=3)``.

    Args:
        name: the task's name; the function's by default.
        description: what it does; the docstring by default.
        version: its version, for people.
        task_run_name: names of its runs: a template over the parameters (``"load {table}"``) or a function.
        tags: labels of its runs, besides those of `flightlog.tags` and of the flow run.
        cache_policy: what the cache key of a call is made of, such as ``INPUTS + TASK_SOURCE``; a call whose key has a
            value already does not run. None (default): nothing is cached.
        cache_key_fn: instead of a policy, ``fn(context, parameters)`` that returns the key, or None not to cache.
        cache_expiration: how long a value counts; for ever by default.
        refresh_cache: True to compute values anew and store them; None as FLIGHTLOG_TASKS_REFRESH_CACHE says.
        retries: how often a failed attempt is tried again: a number, or a budget for each cause class, such as
            ``{"user_error": 1, "lost_worker": 5}``; by default what FLIGHTLOG_TASK_DEFAULT_RETRIES says.
        retry_delay_seconds: seconds before each retry: a number, a list, or a function of `retries`.
        retry_jitter_factor: makes each delay a random one, at most so much longer or shorter: 0.5 for half of it.
        retry_condition_fn: asked after each failure, as ``fn(task, task_run, state)``, whether to try again.
        timeout_seconds: how long an attempt may take; None for ever.
        persist_result: False to leave its values out of the log; such a call runs again on resume.
        result_storage: where values are kept: a folder, an fsspec URL, a storage, or the slug of a saved one
            (``local-file-system/results``); as the flow has it by default, which is in the log.
        result_storage_key: under which name: a template over ``parameters``, ``flow_run`` and ``task_run``; one made
            of the value's SHA-256 by default.
        result_serializer: ``pickle`` (default), ``json``, ``compressed/json``, ..., or a serializer.
        cache_result_in_memory: False to let go of values once they are recorded, and load them when asked for.
        log_prints: whether prints become log lines; None as the flow has it.
        on_running: functions that are called as ``hook(task, task_run, state)`` once a run starts running.
        on_completion: the same for a run that has completed.
        on_failure: the same for a run that has failed and will not be tried again.
        on_commit: called as ``hook(transaction)`` when the transaction that a run is part of commits.
        on_rollback: called as ``hook(transaction)`` to undo a completed run whose transaction failed.
        viz_return_value: what stands for the task's value when its flow is drawn; see `Flow.visualize`.

    Raises:
        InvalidNameError: the name has one of ``/ % & > <``.
        ReservedArgumentError: a parameter is called ``return_state`` or ``wait_for``.
        TypeError: there is no such option, or what it is given is of the wrong kind.
    """
    if fn is None:
        return partial(_make, options)
    return Task(fn, **options)


def _make(options: dict[str, Any], fn: Any) -> Task[Any, Any]:
    return Task(fn, **options)
