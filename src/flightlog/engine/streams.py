"""Generator functions as tasks and flows: what they yield reaches the caller piece by piece, while the run is going.

The run begins when the first piece is asked for. It completes when the generator ends, or when the caller wants no
more; its value is the list of the pieces, which is what resuming the run gives again. When an attempt fails half
way, the next one begins anew, and the pieces that the caller has already are not given twice. So it is if somebody
wants more pieces of a recorded run than were taken of it.
"""

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from flightlog.engine.bridge import SYNC, AsyncWaits, SyncWaits, TimedOut, Waits, limited, run_sync
from flightlog.engine.context import CURRENT, FlowRunContext, RunContext, TaskRunContext, check, inside_async
from flightlog.engine.definitions import finish
from flightlog.engine.depth import with_room
from flightlog.engine.states import State
from flightlog.errors import TakenOver
from flightlog.later import asyncio

_Run = Callable[[Waits, Any], Coroutine[Any, Any, State[Any]]]


def stream(call: Any, run: _Run, *, isasync: bool) -> Any:
    """Return an iterator over what a call of a generator function yields; an async one in async code.

    Args:
        call: the call.
        run: takes a call to its final state.
        isasync: whether the function is an async generator function.
    """
    if not isasync:
        pieces = _stream(call, run)
        if (flow := _flow_of(call)) is not None:
            flow.open_generators.add(pieces)
        return pieces
    return _stream_async(call, run) if inside_async() or CURRENT.get() is None else _collected(call, run)


def _flow_of(call: Any) -> FlowRunContext | None:
    """Return the flow run that a call is made in; None for an outermost flow."""
    if isinstance(call.flow, FlowRunContext):
        return call.flow
    caller: RunContext | None = call.caller
    return None if caller is None else caller.flow_context


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
    """Hands out what the function yields, by way of the coroutine's own steps.

    Attributes:
        given: how many pieces the caller has.
        stopped: whether he wants no more; then an attempt that begins anew is not gone through.
    """

    def __init__(self) -> None:
        self.given = 0
        self.stopped = False

    async def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None, *, isasync: bool
    ) -> Any:
        pieces = _Pieces(timeout)
        generator = function(*args, **kwargs)
        try:
            while not self.stopped:
                began = time.monotonic()
                try:
                    piece = next(generator)
                except StopIteration:
                    break
                pieces.add(piece, began)
                if len(pieces.all) > self.given:
                    await self._hand_out(piece)
        finally:
            generator.close()
        self.partial = self.stopped
        return pieces.all

    async def give(self, pieces: list[Any]) -> bool:
        """Hand out recorded pieces; tell if more are wanted."""
        while self.given < len(pieces) and not self.stopped:
            await self._hand_out(pieces[self.given])
        return not self.stopped

    async def _hand_out(self, piece: Any) -> None:
        self.given += 1
        self.stopped = not await _Given(piece)
        if not self.stopped and (context := CURRENT.get()) is not None:
            check(context)  # it may be long since, and the run have ended


def _stream(call: Any, run: _Run) -> Generator[Any, None, None]:
    waits = _StreamedWaits()
    work = run(waits, call)
    context = copy_context()  # the run's context is its own, not the caller's
    more: bool | None = None
    try:
        while True:
            piece = with_room(partial(context.run, work.send, more))
            more = False
            yield piece
            more = True
    except StopIteration as end:
        more = True
        yield from _rest(end.value, waits.given)
    except RecursionError:
        work.close()  # there was no room for it to begin, or it has ended
        raise
    finally:
        if more is False:
            with suppress(TakenOver):  # the run has ended; whoever lets go of its pieces need not know
                finish(_driven_to_its_end(lambda: context.run(work.send, False)), return_state=True)


def _driven_to_its_end(step: Callable[[], Any]) -> State[Any]:
    """Let a run end whose pieces nobody wants; it gives none any more."""
    try:
        while True:
            step()
    except StopIteration as end:
        state: State[Any] = end.value
        return state


def _rest(state: State[Any], given: int) -> list[Any]:
    """Return the pieces that the caller has not: those of a run whose recorded value stands in for it."""
    value = finish(state, return_state=False)
    return value[given:] if isinstance(value, list) else []


def _collected(call: Any, run: _Run) -> Iterator[Any]:
    """In sync code an async generator is run to its end first."""
    yield from finish(run_sync(run(SYNC, call)), return_state=False)


class _AsyncStreamedWaits(AsyncWaits):
    """Hands out what the function yields, one piece for each that is asked for. See `_StreamedWaits`."""

    def __init__(self) -> None:
        self.given = 0
        self.stopped = False
        self.asked = asyncio.Semaphore(0)
        self.pieces: asyncio.Queue[tuple[Any] | None] = asyncio.Queue()

    async def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None, *, isasync: bool
    ) -> Any:
        pieces = _Pieces(timeout)
        generator = function(*args, **kwargs)
        try:
            while not self.stopped:
                began = time.monotonic()
                try:
                    with limited(pieces.left) as scope:
                        async with scope:
                            piece = await anext(generator)
                except StopAsyncIteration:
                    break
                pieces.add(piece, began)
                if len(pieces.all) > self.given:
                    await self._hand_out(piece)
        finally:
            await generator.aclose()
        self.partial = self.stopped
        return pieces.all

    async def give(self, pieces: list[Any]) -> bool:
        """Hand out recorded pieces; tell if more are wanted."""
        while self.given < len(pieces) and not self.stopped:
            await self._hand_out(pieces[self.given])
        return not self.stopped

    async def _hand_out(self, piece: Any) -> None:
        self.given += 1
        self.pieces.put_nowait((piece,))
        await self.asked.acquire()

    def stop(self) -> None:
        """Ask for no more pieces."""
        self.stopped = True
        self.asked.release()


async def _stream_async(call: Any, run: _Run) -> AsyncIterator[Any]:
    waits = _AsyncStreamedWaits()
    task = asyncio.ensure_future(run(waits, call))
    task.add_done_callback(lambda _: waits.pieces.put_nowait(None))
    if (flow := _flow_of(call)) is not None:
        streams = flow.open_streams
        streams[task] = waits.stop
        task.add_done_callback(lambda _: streams.pop(task, None))
    try:
        while (found := await waits.pieces.get()) is not None:
            yield found[0]
            waits.asked.release()
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        if not task.done():
            waits.stop()
        state = await task
    for piece in _rest(state, waits.given):
        yield piece
