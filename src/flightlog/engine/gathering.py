"""Waiting for several futures: all of them, each as it comes, or the list that `map` returns."""

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from flightlog.engine.futures import AsyncFuture, BaseFuture
from flightlog.engine.states import State

R = TypeVar("R")


class DoneAndNotDone(NamedTuple, Generic[R]):
    """The futures whose runs have ended, and those whose runs have not."""

    done: set[BaseFuture[R]]
    not_done: set[BaseFuture[R]]


class FutureList(list[Any]):
    """The futures of a `map`, in order."""

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until all runs have ended and return their states, in order; awaitable for async tasks in async code.

        Args:
            timeout: seconds to wait in all; a future that is not done by then has None in its place.
        """
        return _one_after_the_other(self, "wait", timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """Wait until all runs have ended and return their values, in order; awaitable as `wait` is.

        Args:
            timeout: seconds to wait in all; None for as long as it takes.
            raise_on_failure: whether to raise the first exception; else exceptions stand in the place of values.

        Raises:
            TimeoutError: some runs have not ended in that time; they go on.
        """
        return _one_after_the_other(self, "result", timeout, raise_on_failure)


def _one_after_the_other(futures: list[Any], what: str, timeout: float | None, *more: Any) -> Any:
    end = None if timeout is None else time.monotonic() + timeout

    def left() -> float | None:
        return None if end is None else max(0.0, end - time.monotonic())

    async def awaited() -> list[Any]:
        return [
            await asked if isinstance(asked := getattr(future, what)(left(), *more), Awaitable) else asked
            for future in futures
        ]

    if any(isinstance(future, AsyncFuture) for future in futures):
        return awaited()
    return [getattr(future, what)(left(), *more) for future in futures]


def wait(futures: Iterable[BaseFuture[R]], timeout: float | None = None) -> Any:
    """Wait until all runs have ended, or the time is over; never raise.

    Args:
        futures: what `submit` and `map` return.
        timeout: seconds to wait at the most; None for as long as it takes.

    Returns:
        DoneAndNotDone: the futures in two sets, `done` and `not_done`; for async tasks in async code, an awaitable
        of it.
    """
    given = list(futures)
    if any(isinstance(future, AsyncFuture) for future in given):
        return _wait_async(given, timeout)
    try:
        for _ in as_completed(given, timeout):
            pass
    except TimeoutError:
        pass
    return _sorted_out(given)


async def _wait_async(futures: list[BaseFuture[R]], timeout: float | None) -> DoneAndNotDone[R]:
    try:
        async for _ in as_completed(futures, timeout):
            pass
    except TimeoutError:
        pass
    return _sorted_out(futures)


def _sorted_out(futures: list[BaseFuture[R]]) -> DoneAndNotDone[R]:
    done = {future for future in futures if future.done()}
    return DoneAndNotDone(done, set(futures) - done)


class as_completed(Generic[R]):  # noqa: N801 - it is called like a function
    """Iterate over futures in the order in which their runs end; with ``async for`` in async code.

    Args:
        futures: what `submit` and `map` return.
        timeout: seconds to wait in all; None for as long as it takes.

    Raises:
        TimeoutError: some runs have not ended in that time; they go on.
        ValueError: the timeout is negative.
    """

    def __init__(self, futures: Iterable[BaseFuture[R]], timeout: float | None = None) -> None:
        if timeout is not None and timeout < 0:
            raise ValueError("The timeout cannot be negative.")
        self._futures = list(dict.fromkeys(futures))
        self._end = None if timeout is None else time.monotonic() + timeout

    def _left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def _late(self) -> TimeoutError:
        unfinished = sum(not future.done() for future in self._futures)
        return TimeoutError(f"{unfinished} (of {len(self._futures)}) futures unfinished")

    def __iter__(self) -> Iterator[Any]:
        ended: queue.SimpleQueue[BaseFuture[R]] = queue.SimpleQueue()
        for future in self._futures:
            future.add_done_callback(ended.put)
        for future in self._futures:
            future.help_out()
        for _ in self._futures:
            try:
                yield ended.get(timeout=self._left())
            except queue.Empty:
                raise self._late() from None

    async def __aiter__(self) -> AsyncIterator[Any]:
        ended: asyncio.Queue[BaseFuture[R]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(future: BaseFuture[R]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.put_nowait, future)

        waiting = [future for future in self._futures if not future.done()]
        for future in waiting:
            future.add_done_callback(put)
        for future in self._futures:
            if future not in waiting:
                yield future
        for _ in waiting:
            try:
                async with asyncio.timeout(self._left()):
                    future = await ended.get()
            except TimeoutError:
                raise self._late() from None
            yield future


def waited_for(futures: list[Any]) -> list[State[Any]]:
    """Return the final states of futures, in order; awaitables of them for async tasks in async code."""
    return [future.wait() for future in futures]


__all__ = ["DoneAndNotDone", "FutureList", "as_completed", "wait", "waited_for"]
