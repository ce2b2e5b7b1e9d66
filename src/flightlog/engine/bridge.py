"""Where sync meets async: the engine is written once, as coroutines, and waits through one of these.

In sync code a coroutine of the engine is stepped without an event loop: every wait of `SyncWaits` blocks
and returns, so the coroutine runs from its start to its end in one step. In async code it is awaited, and
the waits of `AsyncWaits` let other coroutines run.
"""

import concurrent.futures
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from inspect import iscoroutinefunction
from types import GeneratorType
from typing import Any, Generic, Protocol, TypeVar

from flightlog.clock import Clock
from flightlog.engine.context import CURRENT, Abandoned, RunContext, check, inside_async
from flightlog.engine.depth import is_deep, on_fresh_stack, start_above
from flightlog.engine.promises import Promise
from flightlog.events.log import Log
from flightlog.events.store import Unit
from flightlog.later import asyncio

T = TypeVar("T")
_LOOK_SECONDS = 0.2
_THREADS = 64


class TimedOut(BaseException):
    """A function did not end within its time. Not `TimeoutError`, which user code may raise itself."""


def check_time(until: float | None) -> None:
    """Raise `TimedOut` if a time is over."""
    if until is not None and time.monotonic() >= until:
        raise TimedOut


class Stopped(BaseException):
    """Carries a `StopIteration` of user code through coroutines, which Python would turn into a RuntimeError.

    Attributes:
        error: what the user's code raised (PEP 479 says why it cannot go through by itself).
    """

    def __init__(self, error: StopIteration) -> None:
        super().__init__()
        self.error = error


def is_async(function: Any) -> bool:
    """Tell whether calling a function, or an object that can be called, gives a coroutine."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004


class Waits(Protocol):
    """All that the engine ever waits for.

    Attributes:
        partial: whether a generator was left before its end: whoever takes its pieces wants no more.
    """

    partial: bool

    async def commit(self, log: Log, unit: Unit) -> None:
        """Wait until a unit is committed."""
        ...

    async def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None, *, isasync: bool
    ) -> Any:
        """Call a user's function, sync or async, and return its value.

        Raises:
            TimedOut: it did not end within `timeout` seconds.
        """
        ...

    async def aside(self, function: Callable[..., Any], args: Any, kwargs: Any, seconds: float) -> Any:
        """Call a user's function that stands beside the run (a hook), in a thread of its own if it is sync.

        Raises:
            TimedOut: it did not end within `seconds`.
        """
        ...

    async def elsewhere(self, function: Callable[[], T]) -> T:
        """Call a function of ours that blocks: a storage's."""
        ...

    async def sleep(self, clock: Clock, seconds: float, wake: threading.Event) -> None:
        """Wait for a time, or until `wake` is set (sync code; a coroutine is cancelled instead)."""
        ...

    async def settled(
        self, promise: Promise[T], help_out: Callable[[], object], watched: RunContext | None = None
    ) -> T:
        """Wait for a promise; `help_out` does its work here and now if nobody has begun it.

        Args:
            promise: what to wait for.
            help_out: does its work.
            watched: the run whose being cancelled ends the wait; the one that this code is in by default.
        """
        ...

    async def until(self, promise: Promise[T], seconds: float | None) -> bool:
        """Wait for a promise, so long at the most; tell whether it is settled."""
        ...

    async def give(self, pieces: list[Any]) -> bool:
        """Give the pieces that are on record of a generator which was left before its end; tell if more are wanted."""
        ...


class SyncWaits:
    """Blocks the calling thread."""

    partial = False

    async def commit(self, log: Log, unit: Unit) -> None:
        """Wait until a unit is committed."""
        log.commit(unit)

    async def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None, *, isasync: bool
    ) -> Any:
        """Call a function in this thread; in one of its own if it has a time limit."""
        if isasync:
            return run_in_loop(_ASYNC.call(function, args, kwargs, timeout, isasync=True))
        if timeout is None:
            try:
                value = function(*args, **kwargs)
                return list(value) if type(value) is GeneratorType else value
            except StopIteration as error:
                raise Stopped(error) from None
        return _call_in_thread(function, args, kwargs, timeout)

    async def aside(self, function: Callable[..., Any], args: Any, kwargs: Any, seconds: float) -> Any:
        """Call a function in a thread of its own, or in the background loop, and wait so long at the most."""
        if is_async(function):
            return run_in_loop(_ASYNC.aside(function, args, kwargs, seconds))
        return _call_in_thread(function, args, kwargs, seconds)

    async def elsewhere(self, function: Callable[[], T]) -> T:
        """Call a function here."""
        return function()

    async def sleep(self, clock: Clock, seconds: float, wake: threading.Event) -> None:
        """Block for a time."""
        clock.sleep(seconds, wake)

    async def settled(
        self, promise: Promise[T], help_out: Callable[[], object], watched: RunContext | None = None
    ) -> T:
        """Block until a promise is settled."""
        if not promise.done():
            help_out()
            while not promise.wait(_LOOK_SECONDS):
                if (context := watched or CURRENT.get()) is not None:
                    check(context)
        return promise.value()

    async def until(self, promise: Promise[T], seconds: float | None) -> bool:
        """Block until a promise is settled, or the time is over."""
        end = None if seconds is None else time.monotonic() + seconds
        while not promise.wait(_LOOK_SECONDS if end is None else min(_LOOK_SECONDS, end - time.monotonic())):
            if (context := CURRENT.get()) is not None:
                check(context)
            if end is not None and time.monotonic() >= end:
                return promise.done()
        return True

    async def give(self, pieces: list[Any]) -> bool:
        """Tell that all pieces are wanted."""
        return True


class HandedOver:
    """Awaited, hands a unit to whoever drives the coroutine, who commits it before he goes on."""

    __slots__ = ("unit",)

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def __await__(self) -> Generator[Unit, None, None]:
        yield self.unit


class PooledWaits(SyncWaits):
    """Blocks the calling thread, but leaves commits to the pool that drives it: one for many coroutines."""

    async def commit(self, log: Log, unit: Unit) -> None:
        """Wait until the pool has committed a unit."""
        await HandedOver(unit)
        if unit.error is not None:
            raise unit.error


class AsyncWaits:
    """Lets other coroutines of the event loop run."""

    partial = False

    async def commit(self, log: Log, unit: Unit) -> None:
        """Wait until a unit is committed, without blocking the loop when others are writing."""
        await asyncio.sleep(0)  # coroutines that are ready too put their events in line: one commit for all
        if not log.try_commit(unit):
            await _in_thread(partial(log.commit, unit))

    async def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None, *, isasync: bool
    ) -> Any:
        """Await a coroutine function, within its time limit if it has one."""
        if timeout is None:
            return await awaited(function(*args, **kwargs))
        with limited(timeout) as scope:
            async with scope:
                return await awaited(function(*args, **kwargs))

    async def aside(self, function: Callable[..., Any], args: Any, kwargs: Any, seconds: float) -> Any:
        """Await a function, or have it called in a thread of its own, and wait so long at the most."""
        if not is_async(function):
            return await _in_thread(partial(_call_in_thread, function, args, kwargs, seconds))
        # As a task of its own: what it does to itself is not done to us.
        task = asyncio.ensure_future(function(*args, **kwargs))
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            done = task.done()
            task.cancel()
        if not done:
            raise TimedOut
        return task.result()

    async def elsewhere(self, function: Callable[[], T]) -> T:
        """Call a function in a thread."""
        return await _in_thread(function)

    async def sleep(self, clock: Clock, seconds: float, wake: threading.Event) -> None:
        """Wait for a time."""
        await clock.sleep_async(seconds)

    async def settled(
        self, promise: Promise[T], help_out: Callable[[], object], watched: RunContext | None = None
    ) -> T:
        """Wait for a promise that may be settled by another thread."""
        return await promise.settled()

    async def until(self, promise: Promise[T], seconds: float | None) -> bool:
        """Wait for a promise, so long at the most."""
        try:
            async with asyncio.timeout(seconds):
                await promise.settled()
        except TimeoutError:
            return promise.done()
        return True

    async def give(self, pieces: list[Any]) -> bool:
        """Tell that all pieces are wanted."""
        return True


_limits: "dict[RunContext | None, asyncio.Timeout]" = {}


@contextmanager
def limited(seconds: float | None) -> "Iterator[asyncio.Timeout]":
    """Give the run that this code belongs to a time limit; while it is being stopped, `out_of_time` knows.

    Raises:
        TimedOut: the time is over.
    """
    context, scope = CURRENT.get(), asyncio.timeout(seconds)
    _limits[context] = scope
    try:
        yield scope
    except TimeoutError:
        if scope.expired():
            raise TimedOut from None
        raise
    finally:
        del _limits[context]


def out_of_time(context: RunContext | None) -> RunContext | None:
    """Return the run that is being cancelled because its time is over, of a run and those that it was called in."""
    while context is not None:
        if context in _limits and _limits[context].expired():
            return context
        context = context.parent
    return None


_executor_lock = threading.Lock()
_executor: "concurrent.futures.ThreadPoolExecutor | None" = None


async def _in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of ours: those of the event loop's own executor may all wait for this very call."""
    global _executor  # noqa: PLW0603 - one for the process
    with _executor_lock:
        if _executor is None:
            _executor = concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="flightlog-wait")
    return await asyncio.get_running_loop().run_in_executor(_executor, copy_context().run, function)


async def awaited(value: Any) -> Any:
    """Return what a coroutine returns; of an async generator, itself or returned, all that it yields."""
    if not isinstance(value, AsyncGenerator):
        value = await value
    return [piece async for piece in value] if isinstance(value, AsyncGenerator) else value


SYNC = SyncWaits()
POOLED = PooledWaits()
_ASYNC = AsyncWaits()
ASYNC = _ASYNC


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the engine that waits through `SyncWaits`, in this thread, without a loop."""
    if is_deep():
        return _run_with_room(coroutine)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise AssertionError("a coroutine that was run in sync code waited for an event loop")


def _run_with_room(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        return on_fresh_stack(partial(run_sync, coroutine))
    except RecursionError:
        coroutine.close()  # it may not have begun
        raise


def _call_in_thread(function: Callable[..., Any], args: Any, kwargs: Any, timeout: float) -> Any:
    """Call a function in a thread of its own, which is left to itself when the time is over.

    Nothing can stop Python code in another thread safely; but it can start no further task of its run.
    """
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def work() -> None:
        try:
            value = function(*args, **kwargs)
            outcome.set_result(list(value) if type(value) is GeneratorType else value)
        except Abandoned:
            pass
        except StopIteration as error:
            outcome.set_exception(Stopped(error))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the calling thread
            outcome.set_exception(error)

    name = f"flightlog-{getattr(function, '__name__', 'call')}"
    start_above(work, name)
    try:
        return outcome.result(timeout)
    except TimeoutError:
        if outcome.done():
            raise
        raise TimedOut from None


# --- async code that is called from sync code -------------------------------------------------------

_loop_lock = threading.Lock()
_loop: "asyncio.AbstractEventLoop | None" = None
_loop_thread: threading.Thread | None = None


def background_loop() -> "asyncio.AbstractEventLoop":
    """Return the event loop that runs async tasks for sync flows, in a thread of its own."""
    global _loop, _loop_thread  # noqa: PLW0603 - one loop for the process
    with _loop_lock:
        if _loop_thread is None or not _loop_thread.is_alive():
            _loop = asyncio.new_event_loop()
            _loop_thread = threading.Thread(target=_loop.run_forever, name="flightlog-loop", daemon=True)
            _loop_thread.start()
        assert _loop is not None
        return _loop


def stop_background_loop() -> None:
    """End the background loop's thread, if there is one."""
    global _loop, _loop_thread, _executor  # noqa: PLW0603 - one loop for the process
    with _executor_lock:
        executor, _executor = _executor, None
    if executor is not None:
        executor.shutdown()
    with _loop_lock:
        if _loop is not None and _loop_thread is not None and _loop_thread.is_alive():
            _loop.call_soon_threadsafe(_loop.stop)
            _loop_thread.join()
            _loop.run_until_complete(_loop.shutdown_default_executor())
            _loop.close()
        _loop = _loop_thread = None


class Started(Generic[T]):
    """A coroutine that runs for sync code in an event loop of another thread.

    Attributes:
        outcome: what comes of it.
        loop: the loop, if others share it.
    """

    loop: "asyncio.AbstractEventLoop | None" = None

    def __init__(self) -> None:
        self.outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._task: asyncio.Task[T] | None = None
        self._stopped = False

    def begin(self, loop: "asyncio.AbstractEventLoop", awaitable: Coroutine[Any, Any, T], context: Context) -> None:
        """Start the coroutine; called in the loop."""
        self._task = task = loop.create_task(awaitable, context=context)
        task.add_done_callback(lambda done: _pass_on(done, self.outcome))
        if self._stopped:
            task.cancel()

    def stop(self) -> None:
        """Cancel the coroutine: nobody waits for it any more."""
        self._stopped = True
        if self._task is not None:
            with suppress(RuntimeError):  # the loop may be closed by then
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def start_in_loop(awaitable: Coroutine[Any, Any, T]) -> Started[T]:
    """Start a coroutine for sync code, in its context: on the background loop, or on a loop of its own.

    Sync code that some coroutine called may be what the background loop is waiting for.
    """
    started: Started[T] = Started()
    context = copy_context()
    if inside_async():
        try:
            start_above(partial(_run_alone, awaitable, started), "flightlog-own-loop", daemon=None)
        except RecursionError:
            awaitable.close()
            raise
        return started
    started.loop = loop = background_loop()
    loop.call_soon_threadsafe(started.begin, loop, awaitable, context)
    return started


def _run_alone(awaitable: Coroutine[Any, Any, T], started: Started[T]) -> None:
    async def work() -> None:
        started.begin(asyncio.get_running_loop(), awaitable, copy_context())
        while not started.outcome.done():
            await asyncio.wait([started._task] if started._task is not None else [])

    try:
        asyncio.run(work())
    except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
        if not started.outcome.done():
            started.outcome.set_exception(error)


def _pass_on(done: "asyncio.Task[T]", outcome: "concurrent.futures.Future[T]") -> None:
    if done.cancelled():
        outcome.set_exception(asyncio.CancelledError())
    elif error := done.exception():
        outcome.set_exception(error)
    else:
        outcome.set_result(done.result())


def run_in_loop(awaitable: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end while this thread waits, whatever loop may be running in it."""
    started = start_in_loop(awaitable)
    try:
        return started.outcome.result()
    finally:
        if not started.outcome.done():
            started.stop()  # this thread was interrupted
