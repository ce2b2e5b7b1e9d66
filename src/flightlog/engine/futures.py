"""Futures: task runs that were submitted and may not have ended yet."""

import threading
import warnings
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from flightlog.engine.bridge import ASYNC, SYNC, Waits, run_sync
from flightlog.engine.depth import HERE, check_room
from flightlog.engine.promises import Promise
from flightlog.engine.runs import TaskRun
from flightlog.engine.states import State, StateType
from flightlog.errors import BlockedLoop
from flightlog.later import asyncio, running_loop

R = TypeVar("R")
Work = Callable[[Waits], Coroutine[Any, Any, None]]
"""What settles a future, waiting in the way that it is given."""
_LATE = "Call timed out before task finished."


def enter_pool() -> None:
    """Make this thread known as one of a task runner's."""
    HERE.in_pool = True


def working_in_pool() -> bool:
    """Tell whether this thread is one of a task runner's."""
    return HERE.in_pool


class BaseFuture(Generic[R]):
    """What the futures of sync and async code have in common.

    Attributes:
        task_run: the task run; None until it is known (only when a flow is retried).
        loop: the event loop that does the work; None for threads.
        rests_on: what has to end before the work is given to a thread.
    """

    loop: "asyncio.AbstractEventLoop | None" = None
    rests_on: "Sequence[BaseFuture[Any]]" = ()

    def __init__(self, name: str, task_run: TaskRun | None) -> None:
        self.name = name
        self.task_run = task_run
        self._outcome: Promise[State[R]] = Promise()
        self._work: Work | None = None
        self._context: Context | None = None
        self._lent = True
        self._claim = threading.Lock()

    @property
    def task_run_id(self) -> str | None:
        """The task run's id."""
        return None if self.task_run is None else self.task_run.id

    @property
    def state(self) -> State[R]:
        """The state as it is now, without waiting."""
        if self._outcome.done():
            return self._outcome.value()
        running = self.task_run is not None and self.task_run.run_count > 0
        return State(StateType.RUNNING if running else StateType.PENDING)

    def get_state(self) -> State[R]:
        """Return the state as it is now, without waiting."""
        return self.state

    def add_done_callback(self, callback: Callable[[Self], object]) -> None:
        """Call `callback` with this future once the run has ended; at once if it has."""
        self._outcome.then(lambda: callback(self))

    def done(self) -> bool:
        """Tell whether the run has ended."""
        return self._outcome.done()

    # --- the engine's side ---

    def carry(self, work: Work, *, lent: bool = True) -> None:
        """Give the future the work that settles it; whoever does it, does it in the context of this code.

        Args:
            work: the work.
            lent: whether one who waits for the future may do it.
        """
        self._work, self._lent = work, lent
        self._context = copy_context()

    def run(self) -> None:
        """Do the work here and now, if nobody has begun it.

        Raises:
            RecursionError: there is no room for it on the stack.
        """
        check_room(self.name)
        taken = self.take(SYNC)
        if taken is None:
            return
        context, work = taken
        before = HERE.in_pool
        HERE.in_pool = True
        try:
            context.run(run_sync, work)
        finally:
            HERE.in_pool = before

    def take(self, waits: Waits) -> tuple[Context, Coroutine[Any, Any, None]] | None:
        """Return the work as a coroutine that waits in that way, and its context; None if somebody has begun it."""
        if not self._claim.acquire(blocking=False):
            return None
        work, self._work = self._work, None
        context, self._context = self._context, None
        assert work is not None
        assert context is not None
        return context, work(waits)

    def settle(self, state: State[R]) -> None:
        """Set the final state."""
        self._outcome.set(state)

    def help_out(self, seconds: float | None = None) -> None:
        """Do the work here if this is a pool's thread: a full pool whose threads wait would never end.

        Args:
            seconds: how long this thread is going to wait at the most.

        Raises:
            BlockedLoop: the event loop of this very thread is to do it, so that waiting would never end.
        """
        if self._work is not None and self._lent and working_in_pool():
            self.run()
        if seconds != 0 and not self.done():
            self._refuse_to_block()

    def needed_from(self, loop: "asyncio.AbstractEventLoop") -> "BaseFuture[Any] | None":
        """Return what that event loop has to settle first: this future, or one that it rests on; None for nothing."""
        waiting: list[BaseFuture[Any]] = [self]
        seen: set[int] = set()
        while waiting:
            one = waiting.pop()
            if one.done():
                continue
            if one.loop is loop:
                return one
            seen.add(id(one))
            waiting.extend(other for other in one.rests_on if id(other) not in seen)
        return None

    def _refuse_to_block(self) -> None:
        loop = running_loop()
        needed = None if loop is None else self.needed_from(loop)
        if needed is not None:
            who = f"{self.name!r}" if needed is self else f"{self.name!r} rests on {needed.name!r}, which"
            raise BlockedLoop(
                f"{who} runs in the event loop that this code is in, so blocking here would wait for ever: "
                "`await` it first, or use `async for` with as_completed."
            )

    def __bool__(self) -> bool:
        warnings.warn(
            f"The future {self.name!r} was used as a truth value; it is always true. Ask its result() instead.",
            stacklevel=2,
        )
        return True

    if not TYPE_CHECKING:  # a type checker is to find wrong names by itself

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"A {type(self).__name__} has no {name!r}; the task's value is what `result()` gives.")

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Future(BaseFuture[R]):
    """A task run that was submitted from sync code, or whose function is sync."""

    def wait(self, timeout: float | None = None) -> State[R] | None:
        """Block until the run has ended and return its state; None when `timeout` seconds are over."""
        if timeout is None:
            return run_sync(SYNC.settled(self._outcome, self.help_out))
        self.help_out(timeout)
        return self._outcome.value() if self._outcome.wait(timeout) else None

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Block until the run has ended and return its value.

        Args:
            timeout: seconds to wait at the most; None for as long as it takes.
            raise_on_failure: whether to raise the exception of a run that failed; else return it.

        Raises:
            TimeoutError: the run has not ended in that time; it goes on.
        """
        state = self.wait(timeout)
        if state is None:
            raise TimeoutError(_LATE)
        return state.result(raise_on_failure)


class AsyncFuture(BaseFuture[R]):
    """A task run of an async function that was submitted from async code."""

    eager = True

    async def wait(self, timeout: float | None = None) -> State[R] | None:
        """Wait until the run has ended and return its state; None when `timeout` seconds are over."""
        try:
            async with asyncio.timeout(timeout):
                return await ASYNC.settled(self._outcome, self.help_out)
        except TimeoutError:
            if self._outcome.done():
                raise
            return None

    async def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """Wait until the run has ended and return its value; see `Future.result`."""
        state = await self.wait(timeout)
        if state is None:
            raise TimeoutError(_LATE)
        return state.result(raise_on_failure)

    def __await__(self) -> Generator[Any, None, Self]:
        """Let ``await task.submit(...)`` give the future, as in Prefect 2; sequential runners end it first."""
        if not self.eager:
            yield from self.wait().__await__()
        return self
