"""Submitting calls: each becomes a future that a task runner or an event loop settles."""

import time
from collections.abc import Coroutine, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from flightlog.engine.annotations import Annotation, allow_failure, unmapped
from flightlog.engine.bridge import ASYNC, Waits, start_in_loop
from flightlog.engine.context import RunContext
from flightlog.engine.futures import AsyncFuture, BaseFuture, Future, working_in_pool
from flightlog.engine.outcomes import interrupt_of
from flightlog.engine.states import State, StateType
from flightlog.engine.task_calls import TaskCall, new_call
from flightlog.engine.task_runs import cancelled, interrupted, run_task
from flightlog.engine.upstream import open_sources, sources
from flightlog.errors import MappingLengthMismatch, MappingMissingIterable
from flightlog.later import asyncio

if TYPE_CHECKING:
    from flightlog.engine.context import FlowRunContext
    from flightlog.engine.tasks import Task


def submit(
    task: "Task[Any, Any]", context: RunContext, parameters: dict[str, Any], wait_for: Iterable[Any] | None
) -> BaseFuture[Any]:
    """Submit a call of a task to its flow run's task runner and return its future."""
    call = new_call(task, context, parameters, wait_for)
    call.submitted = True
    flow = call.flow
    in_async = task.isasync and context.isasync
    name = task.name if call.run is None else call.run.name
    kind: type[BaseFuture[Any]] = AsyncFuture if in_async else Future
    future: BaseFuture[Any] = kind(name, call.run)
    flow.open_futures.add(future)
    future.add_done_callback(flow.open_futures.discard)
    if call.pending:
        call.run.journal.put(call.pending)  # type: ignore[union-attr]
        call.pending = []
    future.carry(_Work(call, future), lent=flow.task_runner.lends)
    try:
        if task.isasync and flow.task_runner.runs_coroutines:
            _start_async(call, future, in_async)
        else:
            _start_sync(call, future)
    except BaseException as error:
        _give_up(call, future, error)
        raise
    if flow.task_runner.sequential and not in_async and (interrupt := interrupt_of(future.state)) is not None:
        raise interrupt  # it struck in this very thread
    return future


def _give_up(call: TaskCall, future: BaseFuture[Any], error: BaseException) -> None:
    """Settle the future of a call that could not be started."""
    if future._claim.acquire(blocking=False):
        state = interrupted(call, error)
        call.flow.tally.add(state)
        future.task_run = call.run
        future.settle(state)


class _Work:
    """What a pool's thread does for a future; known by its call, so that it can be cancelled before."""

    __slots__ = ("call", "future")

    def __init__(self, call: TaskCall, future: BaseFuture[Any]) -> None:
        self.call = call
        self.future = future

    def __call__(self, waits: Waits) -> Coroutine[Any, Any, None]:
        return _settle(waits, self.call, self.future)

    def sources(self) -> list[BaseFuture[Any]]:
        """Return the futures that the call rests on."""
        return sources(self.call.parameters, self.call.wait_for)


async def _settle(waits: Waits, call: TaskCall, future: BaseFuture[Any]) -> None:
    """Run a call and settle its future, whatever happens."""
    try:
        state = await run_task(waits, call)
    except BaseException as error:  # noqa: BLE001 - the log refused: the state cannot be recorded, only told
        message = f"The task run could not be recorded: {error}"
        state = State(StateType.CRASHED, None, message, error)
        if call.run is not None:
            state.of_run(call.run.flow_run_id, call.run.key)
        call.flow.tally.add(state)
    future.task_run = call.run
    future.settle(state)


def _start_sync(call: TaskCall, future: BaseFuture[Any]) -> None:
    """Give a call to the task runner once what it rests on has ended, so that no thread is held up by waiting."""
    runner = call.flow.task_runner
    waiting = [] if runner.sequential else open_sources(call.parameters, call.wait_for)
    waiting = [source for source in waiting if not runner.orders(source)]
    if not waiting:
        runner.submit(future)
        return
    context = copy_context()
    remaining = set(waiting)
    future.rests_on = waiting

    def ended(source: BaseFuture[Any]) -> None:
        remaining.discard(source)
        if remaining:
            return
        future.rests_on = ()
        if not future.done():
            try:
                context.run(runner.submit, future)
            except RuntimeError:
                abandon(call.flow)

    for source in waiting:
        source.add_done_callback(ended)


def _start_async(call: TaskCall, future: BaseFuture[Any], in_async: bool) -> None:
    """Start a call of an async task in the running loop, or in the background one for sync code."""

    async def work() -> None:
        if future._claim.acquire(blocking=False):
            await _settle(ASYNC, call, future)

    if in_async:
        future.loop = asyncio.get_running_loop()
        task = future.loop.create_task(work())
        call.flow.loop_tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(call.flow.loop_tasks.discard)
        if isinstance(future, AsyncFuture):
            future.eager = not call.flow.task_runner.sequential
        return
    started = start_in_loop(work())
    future.loop = started.loop
    call.flow.started.add(started)
    started.outcome.add_done_callback(lambda _: call.flow.started.discard(started))
    if call.flow.task_runner.sequential:
        started.outcome.result()


def abandon(flow: "FlowRunContext") -> None:
    """Cancel what a flow run submitted and nobody has begun: the flow run is ending early."""
    for future in list(flow.open_futures):
        work = future._work
        if isinstance(work, _Work) and future._claim.acquire(blocking=False):
            future._work = future._context = None
            future.settle(cancelled(work.call))


async def end_early(flow: "FlowRunContext") -> None:
    """Cancel what a flow run submitted: what nobody has begun, and what runs in its event loop."""
    abandon(flow)
    tasks: list[asyncio.Task[Any]] = [*flow.loop_tasks, *flow.open_streams]
    for task in tasks:
        task.cancel()
    for started in list(flow.started):
        started.stop()
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)


async def end_soon(waits: Waits, flow: "FlowRunContext", seconds: float) -> None:
    """End what a flow run submitted as `end_early` does; give what runs in threads some time to notice."""
    await end_early(flow)
    await waits.elsewhere(lambda: _given_time(flow, seconds))


def _given_time(flow: "FlowRunContext", seconds: float) -> None:
    end = time.monotonic() + seconds
    for future in list(flow.open_futures):
        future._outcome.wait(max(0.0, end - time.monotonic()))


async def wait_for_all(waits: Waits, flow: "FlowRunContext") -> None:
    """Wait until everything that a flow run submitted has ended; streams that nobody follows end now."""
    for pieces in list(flow.open_generators):
        pieces.close()
    streams = dict(flow.open_streams)
    for stop in streams.values():
        stop()
    if streams:
        await asyncio.wait(streams)
    while flow.open_futures:
        future = next(iter(flow.open_futures))
        await waits.settled(future._outcome, future.help_out if working_in_pool() else _nothing, flow)
        flow.open_futures.discard(future)


def _nothing() -> None:
    pass


# --- map --------------------------------------------------------------------------------------------


def split(task: "Task[Any, Any]", parameters: dict[str, Any], given: set[str]) -> list[dict[str, Any]]:
    """Return the parameters of each child of a `map`.

    Args:
        task: the task.
        parameters: the arguments by parameter, futures and states at their top level resolved.
        given: the parameters that the caller gave; defaults are never split.

    Raises:
        MappingLengthMismatch: the iterables differ in length.
        MappingMissingIterable: there is none.
    """
    splittable: dict[str, list[Any]] = {}
    lists: dict[int, list[Any]] = {}
    for name, value in parameters.items():
        inner = value.value if isinstance(value, allow_failure) else value
        if name in given and _is_split(inner):
            items = lists[id(inner)] = lists[id(inner)] if id(inner) in lists else list(inner)
            splittable[name] = [allow_failure(item) for item in items] if inner is not value else items
    if not splittable:
        raise MappingMissingIterable(
            f"No iterable was given to {task.name}.map; at least one argument has to be a list or the like."
        )
    lengths = {name: len(items) for name, items in splittable.items()}
    if len(set(lengths.values())) > 1:
        raise MappingLengthMismatch(
            f"The iterables given to {task.name}.map differ in length: {lengths}. Give lists of one length; "
            "wrap what every child is to get whole in unmapped(...)."
        )
    static = {name: _unwrapped(value) for name, value in parameters.items() if name not in splittable}
    return [
        {name: splittable[name][i] if name in splittable else static[name] for name in parameters}
        for i in range(next(iter(lengths.values())))
    ]


def _is_split(value: Any) -> bool:
    if isinstance(value, (str, bytes, bytearray, Annotation)) or hasattr(value, "read"):
        return False
    return isinstance(value, Iterable)


def _unwrapped(value: Any) -> Any:
    return value.value if isinstance(value, unmapped) else value


__all__ = ["abandon", "end_early", "end_soon", "split", "submit", "wait_for_all"]
