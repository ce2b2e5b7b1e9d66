"""Generator functions as tasks and flows: what they yield reaches the caller piece by piece, while the run is going.

The run begins when the first piece is asked for. It completes when the generator ends, or when the caller wants no
more; its value is the list of the pieces, which is what resuming the run gives again. When an attempt fails half
way, the next one begins anew, and the pieces that the caller has already are not given twice.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextvars import copy_context
from typing import Any

from flightlog.engine.bridge import SYNC, AsyncWaits, SyncWaits, TimedOut, Waits, run_sync
from flightlog.engine.context import CURRENT, TaskRunContext, inside_async
from flightlog.engine.definitions import finish
from flightlog.engine.states import State

_Run = Callable[[Waits, Any], Coroutine[Any, Any, State[Any]]]


def stream(call: Any, run: _Run, *, isasync: bool) -> Any:
    """Return an iterator over what a call of a generator function yields; an async one in async code.

    Args:
        call: the call.
        run: takes a call to its final state.
        isasync: whether the function is an async generator function.
    """
    if not isasync:
        return _stream(call, run)
    return _stream_async(call, run) if inside_async() or CURRENT.get() is None else _collected(call, run)


class _Given:
    """Awaited, hands a piece to whoever drives the coroutine; tells whether more is wanted."""

    __slots__ = ("piece",)

    def __init__(self, piece: Any) -> None:
        self.piece = piece

    def __await__(self) -> Generator[Any, bool, bool]:
        return (yield self.piece)


class _Pieces:
    """What a generator has yielded, and the time that it has taken for it."""

    def __init__(self, timeout: float | None) -> None:
        self.all: list[Any] = []
        self.left = timeout

    def add(self, piece: Any, began: float) -> None:
        self.all.append(piece)
        context = CURRENT.get()
        if isinstance(context, TaskRunContext):
            context.flow_context.tracker.add(piece, context.task_run.key)
        if self.left is not None:
            self.left -= time.monotonic() - began
            if self.left < 0:
                raise TimedOut


class _StreamedWaits(SyncWaits):
    """Hands out what the function yields, by way of the coroutine's own steps."""

    def __init__(self) -> None:
        self._given = 0

    async def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None, *, isasync: bool
    ) -> Any:
        pieces = _Pieces(timeout)
        generator = function(*args, **kwargs)
        try:
            while True:
                began = time.monotonic()
                try:
                    piece = next(generator)
                except StopIteration:
                    break
                pieces.add(piece, began)
                if len(pieces.all) > self._given:
                    self._given += 1
                    if not await _Given(piece):
                        break
        finally:
            generator.close()
        return pieces.all


def _stream(call: Any, run: _Run) -> Iterator[Any]:
    work = run(_StreamedWaits(), call)
    context = copy_context()  # the run's context is its own, not the caller's
    more: bool | None = None
    try:
        while True:
            piece = context.run(work.send, more)
            more = False
            yield piece
            more = True
    except StopIteration as end:
        finish(end.value, return_state=False)
    finally:
        if more is False:
            try:
                context.run(work.send, False)
            except StopIteration as end:
                finish(end.value, return_state=True)


def _collected(call: Any, run: _Run) -> Iterator[Any]:
    """In sync code an async generator is run to its end first."""
    yield from finish(run_sync(run(SYNC, call)), return_state=False)


class _AsyncStreamedWaits(AsyncWaits):
    """Hands out what the function yields, one piece for each that is asked for."""

    def __init__(self) -> None:
        self._given = 0
        self.asked = asyncio.Semaphore(0)
        self.pieces: asyncio.Queue[tuple[Any] | None] = asyncio.Queue()
        self.stopped = False

    async def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None, *, isasync: bool
    ) -> Any:
        pieces = _Pieces(timeout)
        generator = function(*args, **kwargs)
        try:
            while True:
                began = time.monotonic()
                try:
                    async with asyncio.timeout(pieces.left) as scope:
                        piece = await anext(generator)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    if scope.expired():
                        raise TimedOut from None
                    raise
                pieces.add(piece, began)
                if len(pieces.all) > self._given:
                    self._given += 1
                    self.pieces.put_nowait((piece,))
                    await self.asked.acquire()
                    if self.stopped:
                        break
        finally:
            await generator.aclose()
        return pieces.all


async def _stream_async(call: Any, run: _Run) -> AsyncIterator[Any]:
    waits = _AsyncStreamedWaits()
    task = asyncio.ensure_future(run(waits, call))
    task.add_done_callback(lambda _: waits.pieces.put_nowait(None))
    try:
        while (found := await waits.pieces.get()) is not None:
            yield found[0]
            waits.asked.release()
    finally:
        if not task.done():
            waits.stopped = True
            waits.asked.release()
        state = await task
    finish(state, return_state=False)
