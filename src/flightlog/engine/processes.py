"""The process runner: submitted tasks run in worker processes, several at the same time on several cores.

Everything but the function itself stays in this process: a thread for each task that runs makes its transitions and
sends the function to a worker over a pipe. So a worker that dies takes no record with it: its task is Crashed, with the
cause ``lost_worker``, or tried again if its retries have a budget for that.
"""

import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from flightlog.engine.bridge import PooledWaits, TimedOut, run_sync
from flightlog.engine.context import (
    CURRENT,
    Abandoned,
    FlowRunContext,
    RunContext,
    TaskRunContext,
    check,
    get_run_context,
)
from flightlog.engine.futures import BaseFuture
from flightlog.engine.outcomes import FROM_WORKER, too_late
from flightlog.engine.runtime import log_settings
from flightlog.engine.task_runners import Pool, TaskRunner
from flightlog.engine.worker import ANSWER, CALL, DONE, EVENT, LINE, RAISED, RUN, Body, CannotTravel, main, packed
from flightlog.errors import LostWorker
from flightlog.events.model import Append, NewEvent

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_LOOK_SECONDS = 0.2
_END_SECONDS = 5.0


class Worker:
    """A worker process.

    Args:
        initializer: called in it first.
        initargs: with these arguments.
    """

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe: Connection
        self._pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=main, args=(theirs, initializer, initargs), name="flightlog-worker")
        self.process.start()
        theirs.close()
        self.returned: Any = None

    @property
    def is_alive(self) -> bool:
        """Whether it can be given something to do."""
        return self.process.is_alive()

    def send(self, kind: str, content: Any) -> None:
        """Send a message.

        Raises:
            LostWorker: it is gone.
        """
        try:
            self._pipe.send((kind, content))
        except (BrokenPipeError, ConnectionResetError, OSError):
            raise self._lost() from None

    def receive(self, until: float | None) -> tuple[str, Any]:
        """Wait for a message.

        Raises:
            LostWorker: the worker died.
            TimedOut: the time is over.
            RunCancelled, Abandoned: the run is to go on no more.
        """
        context = CURRENT.get()
        while True:
            left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, max(0.0, until - time.monotonic()))
            if self._pipe in wait([self._pipe, self.process.sentinel], left) or self._pipe.poll():
                try:
                    kind, content = self._pipe.recv()
                except (EOFError, ConnectionResetError, OSError):
                    raise self._lost() from None
                return kind, content
            if not self.process.is_alive():
                raise self._lost()
            if context is not None:
                check(context)
            check_time(until)

    def begin(self, body: Body) -> int:
        """Have a function called; return the number of the call.

        Raises:
            CannotTravel: something that goes with it cannot be pickled.
            LostWorker: the worker died.
        """
        self.send(RUN, packed_body(body))
        return 0

    def stop(self, number: int) -> None:
        """Have a call go on no more: nothing ends code in another process but the end of that process."""
        self.kill()

    def _lost(self) -> LostWorker:
        self.process.join(_END_SECONDS)
        code = self.process.exitcode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            with suppress(ValueError):
                how = f"was killed by {signal.Signals(-code).name}"
        return LostWorker(f"The worker process {self.process.pid} {how} while the task ran in it.")

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()
        self._pipe.close()

    def end(self) -> None:
        """Ask for nothing more; it ends by itself."""
        self._pipe.close()

    def join(self, until: float) -> None:
        """Wait until it has ended; end it if it takes too long."""
        self.process.join(max(0.0, until - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


def check_time(until: float | None) -> None:
    """Raise `TimedOut` if a time is over."""
    if until is not None and time.monotonic() >= until:
        raise TimedOut


class _Limit(NamedTuple):
    """When the time of a run is over."""

    moment: float
    context: RunContext

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.moment


def _moment(limit: _Limit) -> float:
    return limit.moment


_LIMIT: ContextVar[_Limit | None] = ContextVar("flightlog_limit", default=None)
"""The time limit of what is under way here: its own, or that of a run that it was called in."""
_WORKER: ContextVar["Peer | None"] = ContextVar("flightlog_worker", default=None)


class Lender(Protocol):
    """Has workers, and lends them to the calls that run in them."""

    def take(self) -> "Peer":
        """Return a worker for the present call."""
        ...

    def give_back(self, worker: Any) -> None:
        """Take a worker back."""
        ...


class Peer(Protocol):
    """A worker, seen from the process that has the flow run. See `Worker`.

    Attributes:
        returned: what the last call in it has returned.
    """

    returned: Any

    def begin(self, body: Body) -> int:
        """Have a function called."""
        ...

    def send(self, kind: str, content: Any) -> None:
        """Send a message to the call that is under way."""
        ...

    def receive(self, until: float | None) -> tuple[str, Any]:
        """Wait for a message of the call that is under way."""
        ...

    def stop(self, number: int) -> None:
        """Have a call, and those that were made in it, go on no more."""
        ...


class RelayedWaits(PooledWaits):
    """Waits as a pool's threads do, but has functions called by workers.

    Args:
        workers: whose workers.
    """

    def __init__(self, workers: Lender) -> None:
        self._workers = workers

    async def call(
        self, function: Callable[..., Any], args: Any, kwargs: Any, timeout: float | None, *, isasync: bool
    ) -> Any:
        """Call a function in a worker: in the one that asks for it, if a task that runs there does."""
        body = _body(function, args, kwargs, isasync=isasync, timed=timeout is not None)
        worker = _WORKER.get()
        if worker is not None:
            value, error = self._in(worker, body, timeout)
        else:
            worker = self._workers.take()
            token = _WORKER.set(worker)
            try:
                value, error = self._in(worker, body, timeout)
            finally:
                _WORKER.reset(token)
                self._workers.give_back(worker)
        if error is not None:
            raise error
        return value

    def _in(self, worker: Peer, body: Body, timeout: float | None) -> tuple[Any, BaseException | None]:
        """Have a worker call a function; return its value, or what it raised."""
        own = _Limit(math.inf if timeout is None else time.monotonic() + timeout, get_run_context())
        limit = min(own, _LIMIT.get() or own, key=_moment)
        token = _LIMIT.set(limit)
        number = worker.begin(body)
        try:
            return self._followed(worker, None if limit.moment == math.inf else limit.moment)
        except BaseException as error:
            worker.stop(number)  # it may be in the middle of something
            if isinstance(error, (TimedOut, Abandoned)) and limit.is_over:
                raise (TimedOut() if limit is own else too_late(limit.context)) from None
            raise
        finally:
            _LIMIT.reset(token)

    def _followed(self, worker: Peer, until: float | None) -> tuple[Any, BaseException | None]:
        """Do what a call in a worker asks for, until it has ended."""
        while True:
            kind, message = worker.receive(until)
            if kind == DONE:
                worker.returned = pickle.loads(message)  # noqa: S301 - from a process that runs our code
                return worker.returned, None
            if kind == RAISED:
                error, told = pickle.loads(message)  # noqa: S301 - the same
                error.__cause__ = _FromWorker(told)
                setattr(error, FROM_WORKER, told)
                return None, error
            if kind == LINE:
                journal = get_run_context().flow_context.flow_run.journal
                journal.engine.lines.add(journal, message)
            elif kind == EVENT:
                _append(*message)
            elif kind == CALL:
                worker.send(ANSWER, self._answer(message))

    def _answer(self, content: bytes) -> bytes:
        """Make the call that a task in a worker makes; return what came of it, as it travels."""
        try:
            definition, args, kwargs = pickle.loads(content)  # noqa: S301 - from a process that this one started
            value = run_sync(_nested(_NestedWaits(self._workers), definition, args, kwargs))
            return packed((True, value), f"The result of {definition.name!r}")
        except Exception as error:  # noqa: BLE001 - it is raised again where the call was made
            try:
                return packed((False, error), "The exception")
            except TypeError:
                return packed((False, RuntimeError(f"{type(error).__name__}: {error}")), "The exception")


def _append(stream: str, type_: str, data: dict[str, Any], occurred_at: int | None, follows: bytes | None) -> None:
    """Put an event in line that code in a worker made."""
    engine = get_run_context().flow_context.engine
    event = NewEvent(engine.ids.new(), type_, data, occurred_at or engine.clock.now(), follows)
    engine.log.enqueue([Append(stream, [event])])


class _FromWorker(Exception):
    """Shows where in the worker an exception was raised."""

    def __init__(self, told: str) -> None:
        super().__init__(f"\n{told}")


async def _nested(waits: "_NestedWaits", definition: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call a task or flow for a task that runs in a worker: its function is called in that worker too."""
    from flightlog.engine.definitions import finish
    from flightlog.engine.flow_calls import FlowCall
    from flightlog.engine.flow_runs import run_flow
    from flightlog.engine.task_calls import new_call
    from flightlog.engine.task_runs import run_task

    context = get_run_context()
    return_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
    parameters = definition.bind(args, kwargs)
    if definition.kind == "task":
        state = await run_task(waits, new_call(definition, context, parameters, wait_for))
    else:
        engine = context.flow_context.engine
        state = await run_flow(waits, FlowCall(definition, engine, context, parameters, wait_for))
    return finish(state, return_state)


class _NestedWaits(RelayedWaits):
    """Waits for a call that a task in a worker makes: its own thread drives it, and makes its commits."""

    async def commit(self, log: Any, unit: Any) -> None:
        """Commit a unit."""
        log.commit(unit)


def _body(function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], *, isasync: bool, timed: bool) -> Body:
    """Return a function with what a worker has to know of the run that it belongs to."""
    context: Any = get_run_context()
    flow: FlowRunContext = context.flow_context
    run: Any = context.task_run if isinstance(context, TaskRunContext) else flow.flow_run
    task_name = context.task.name if isinstance(context, TaskRunContext) else ""
    tags = run.tags if isinstance(context, TaskRunContext) else flow.tags
    flow_run = flow.flow_run
    return Body(
        function,
        args,
        dict(kwargs),
        isasync,
        isinstance(context, TaskRunContext),
        dict(context.parameters),
        (run.key, run.name, run.run_count, tags, task_name),
        (flow_run.key, flow_run.name, flow.tags, flow.flow.name, flow.flow.version, flow_run.run_count),
        flow.created,
        context.log_prints,
        log_settings(flow.engine.settings),
        timed,
    )


def packed_body(body: Body, beside: Mapping[int, int] = {}) -> bytes:
    """Return a function and its arguments as they travel.

    Args:
        body: the function, and what goes with it.
        beside: see `flightlog.engine.worker.packed`.

    Raises:
        CannotTravel: something in them cannot be pickled; the text names the argument, and the place inside of it.
    """
    try:
        return packed(body, "The task", beside)
    except CannotTravel:
        for name, value in body.parameters.items():
            packed(value, f"The argument {name!r}")
        packed(body.function, "What the function refers to")
        raise


class ProcessPoolTaskRunner(TaskRunner):
    """Runs submitted tasks in worker processes, which are started as they are needed and live as long as the flow run.

    Functions, arguments and results travel by cloudpickle. A script needs ``if __name__ == "__main__":`` around what it
    runs. What a task in a worker logs, and the tasks and flows that it calls, are recorded as anywhere else; it cannot
    submit.

    Args:
        max_workers: how many processes at the most; as many as there are cores by default.
        initializer: called in each worker first, as ``initializer(*initargs)``.
        initargs: its arguments.
    """

    runs_coroutines = False
    lends = False

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__()
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"A task runner has at least one worker, not {max_workers}.")
        self.max_workers = max_workers or os.cpu_count() or 1
        self.initializer = initializer
        self.initargs = initargs
        self._pool: Pool | None = None
        self._lock = threading.Lock()
        self._idle: list[Worker] = []

    @property
    def concurrency_type(self) -> str:
        """``PARALLEL``."""
        return "PARALLEL"

    def duplicate(self) -> Self:
        """Return a runner like this one that has not been started."""
        return type(self)(self.max_workers, self.initializer, self.initargs)

    def _submit(self, future: BaseFuture[Any]) -> None:
        if self._pool is None:
            self._pool = Pool(get_run_context().flow_context.engine.log, self.max_workers, RelayedWaits(self))
        self._pool.submit(future)

    def take(self) -> Worker:
        """Return a worker that nobody uses."""
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive:
                    return worker
        return Worker(self.initializer, self.initargs)

    def give_back(self, worker: Worker) -> None:
        """Let others use a worker, if it is still there."""
        worker.returned = None
        with self._lock:
            if worker.is_alive and self._started:
                self._idle.append(worker)
                return
        if worker.is_alive:
            worker.kill()

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool = None
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.end()
        until = time.monotonic() + _END_SECONDS
        for worker in workers:
            worker.join(until)


__all__ = ["ProcessPoolTaskRunner"]
