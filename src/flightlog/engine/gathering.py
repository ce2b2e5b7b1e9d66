"""Waiting for several futures: all of them, each as it comes, or the list that `map` returns."""

import queue
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any, Generic, NamedTuple, Self, TypeVar

from flightlog.engine.futures import AsyncFuture, BaseFuture
from flightlog.errors import BlockedLoop
from flightlog.later import asyncio

R = TypeVar("R")


class DoneAndNotDone(NamedTuple, Generic[R]):
    """The futures whose runs have ended, and those whose runs have not."""

    done: set[BaseFuture[R]]
    not_done: set[BaseFuture[R]]


class FutureList(list[Any]):
    """The futures of a `map`, in order.

    Awaited, it is itself: ``await task.map(...)`` is what users of Prefect 2 write for async tasks.

    Attributes:
        in_async: whether they are of an async task in async code, so that `wait` and `result` are awaited.
    """

    in_async = False

    def __await__(self) -> Generator[Any, None, Self]:
        for future in self:
            if isinstance(future, AsyncFuture):
                yield from future.__await__()
        return self

    def __hash__(self) -> int:  # type: ignore[override]  # asyncio.gather asks for one
        return id(self)

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


class FutureListToCome(FutureList):
    """The futures of a `map` over what this event loop is still computing: there are none until it is awaited.

    Args:
        task: the name of the task that is mapped.
        source: the name of what is waited for.
        mapped: gives the futures.
    """

    in_async = True

    def __init__(self, task: str, source: str, mapped: Callable[[], Awaitable[FutureList]]) -> None:
        super().__init__()
        self._names = task, source
        self._mapped: Callable[[], Awaitable[FutureList]] | None = mapped
        self._lock = asyncio.Lock()

    async def _arrived(self) -> None:
        async with self._lock:
            if self._mapped is not None:
                self.extend(await self._mapped())
                self._mapped = None

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self._arrived().__await__()
        return (yield from super().__await__())

    async def wait(self, timeout: float | None = None) -> list[Any]:
        """Wait until all runs have ended and return their states; see `FutureList.wait`."""
        states: list[Any] = await self._asked("wait", timeout)
        return states

    async def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[Any]:
        """Wait until all runs have ended and return their values; see `FutureList.result`."""
        values: list[Any] = await self._asked("result", timeout, raise_on_failure)
        return values

    async def _asked(self, what: str, timeout: float | None, *more: Any) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        async with asyncio.timeout(timeout):
            await self._arrived()
        left = None if end is None else max(0.0, end - time.monotonic())
        return await _one_after_the_other(self, what, left, *more)

    def __iter__(self) -> Iterator[Any]:
        self._refuse_to_guess()
        return super().__iter__()

    def __len__(self) -> int:
        self._refuse_to_guess()
        return super().__len__()

    def __getitem__(self, index: Any) -> Any:
        self._refuse_to_guess()
        return super().__getitem__(index)

    def _refuse_to_guess(self) -> None:
        if self._mapped is not None:
            task, source = self._names
            raise BlockedLoop(
                f"{task}.map waits for {source!r}, which runs in this event loop, to know how many runs to make: "
                f"write `await {task}.map(...)`."
            )


def _one_after_the_other(futures: FutureList, what: str, timeout: float | None, *more: Any) -> Any:
    end = None if timeout is None else time.monotonic() + timeout

    def left() -> float | None:
        return None if end is None else max(0.0, end - time.monotonic())

    async def awaited() -> list[Any]:
        return [
            await asked if isinstance(asked := getattr(future, what)(left(), *more), Awaitable) else asked
            for future in futures
        ]

    if futures.in_async or any(isinstance(future, AsyncFuture) for future in futures):
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
        waiting: Any = _wait_async(given, timeout)
        waiting.__qualname__ = "wait"  # which Python names, if it is not awaited
        return waiting
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
    """Iterate over futures in the order in which their runs end.

    In async code use ``async for``. A plain ``for`` blocks the event loop meanwhile, which goes where sync tasks in
    threads are waited for.

    Args:
        futures: what `submit` and `map` return.
        timeout: seconds to wait in all; None for as long as it takes.

    Raises:
        TimeoutError: some runs have not ended in that time; they go on.
        ValueError: the timeout is negative.
        BlockedLoop: a plain ``for`` would wait for ever, since one of them runs in the event loop that it blocks.
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
            future.help_out(self._left())
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


__all__ = ["DoneAndNotDone", "FutureList", "FutureListToCome", "as_completed", "wait"]
