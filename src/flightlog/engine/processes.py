"""The process runner: submitted tasks run in worker processes, several at the same time on several cores.

Everything but the function itself stays in this process: a thread for each task that runs makes its transitions and
sends the function to a worker over a pipe. So a worker that dies takes no record with it: its task is Crashed, with the
cause ``lost_worker``, or tried again if its retries have a budget for that.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self

from flightlog.engine.bridge import PooledWaits, Stopped, TimedOut, run_sync
from flightlog.engine.context import Abandoned, FlowRunContext, RunContext, TaskRunContext, get_run_context
from flightlog.engine.futures import BaseFuture
from flightlog.engine.outcomes import FROM_WORKER, too_late
from flightlog.engine.privacy import check_open
from flightlog.engine.reductions import send_whole
from flightlog.engine.run_logs import recorded_text
from flightlog.engine.runtime import log_settings
from flightlog.engine.task_runners import Pool, TaskRunner
from flightlog.engine.travel import CannotTravel, Way, packed, unpacked
from flightlog.engine.worker import ANSWER, BROKEN, CALL, DONE, EVENT, LACKS, LINE, RAISED, Body, Raised
from flightlog.engine.worker_process import Worker
from flightlog.errors import LostWorker
from flightlog.events.model import Append, NewEvent
from flightlog.masking import MASKER

_END_SECONDS = 5.0


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
        way: how values travel to it.
        returned: what the last call in it has returned.
    """

    way: Way
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
            raise Stopped(error) if isinstance(error, StopIteration) else error
        return value

    def _in(self, worker: Peer, body: Body, timeout: float | None) -> tuple[Any, BaseException | None]:
        """Have a worker call a function; return its value, or what it raised."""
        own = _Limit(math.inf if timeout is None else time.monotonic() + timeout, get_run_context())
        limit = min(own, _LIMIT.get() or own, key=_moment)
        token = _LIMIT.set(limit)
        number = worker.begin(body)
        try:
            return self._followed(worker, body, None if limit.moment == math.inf else limit.moment)
        except BaseException as error:
            worker.stop(number)  # it may be in the middle of something
            if isinstance(error, (TimedOut, Abandoned)) and limit.is_over:
                raise (TimedOut() if limit is own else too_late(limit.context)) from None
            raise
        finally:
            _LIMIT.reset(token)

    def _followed(self, worker: Peer, body: Body, until: float | None) -> tuple[Any, BaseException | None]:
        """Do what a call in a worker asks for, until it has ended."""
        while True:
            kind, message = worker.receive(until)
            if kind == DONE:
                return _result(worker, message)
            if kind == RAISED:
                return None, _raised(Raised(*message))
            if kind == BROKEN:
                raise LostWorker(f"The initializer of the worker process failed: {message}")
            if kind == LACKS:
                if not send_whole(message):
                    return None, CannotTravel(f"Workers cannot import the module {message!r}, which the task needs.")
                worker.begin(body)
            elif kind == LINE:
                _take_line(message)
            elif kind == EVENT:
                _append(*message)
            elif kind == CALL:
                worker.send(ANSWER, self._answer(message, worker.way))

    def _answer(self, content: bytes, way: Way) -> bytes:
        """Make the call that a task in a worker makes; return what came of it, as it travels."""
        try:
            definition, args, kwargs = unpacked(content, "The call")
            value = run_sync(_nested(_NestedWaits(self._workers), definition, args, kwargs))
            return packed((True, value), f"The result of {definition.name!r}", way)
        except Exception as error:  # noqa: BLE001 - it is raised again where the call was made
            try:
                return packed((False, error), "The exception", way)
            except CannotTravel:
                return packed((False, RuntimeError(f"{type(error).__name__}: {error}")), "The exception", way)


def _result(worker: Peer, content: bytes) -> tuple[Any, BaseException | None]:
    """Return the value that a call in a worker has returned, or why that cannot be had here."""
    try:
        worker.returned = unpacked(content, "The result")
    except CannotTravel as error:
        return None, error
    return worker.returned, None


def _raised(raised: Raised) -> BaseException:
    """Return an exception that code in a worker has raised; one like it, if it cannot travel itself."""
    error: BaseException = RuntimeError(raised.text)
    if raised.error is not None:
        with suppress(CannotTravel):
            error = unpacked(raised.error, "The exception")
    error.__cause__ = _FromWorker(raised.traceback)
    setattr(error, FROM_WORKER, raised.traceback)
    return error


def _take_line(line: Any) -> None:
    """Keep a line that code in a worker has logged."""
    context: Any = get_run_context()
    run = getattr(context, "task_run", context.flow_context.flow_run)
    run.journal.engine.lines.add(run.journal, (*line[:4], recorded_text(run, MASKER.mask(line[4]))))


def _append(stream: str, type_: str, data: dict[str, Any], occurred_at: int | None, follows: bytes | None) -> None:
    """Put an event in line that code in a worker made."""
    check_open(get_run_context(), type_)
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
        bool(run.subjects),
    )


class ProcessPoolTaskRunner(TaskRunner):
    """Runs submitted tasks in worker processes, which are started as they are needed and live as long as the flow run.

    Functions, arguments and results travel by cloudpickle: what a script defines goes along with the call, and no
    worker runs the script again. What a task in a worker logs, and the tasks and flows that it calls, are recorded as
    anywhere else; it cannot submit.

    Args:
        max_workers: how many processes at the most; as many as there are cores by default.
        initializer: called in each worker first, as ``initializer(*initargs)``; the global names that it sets stay.
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

    def __reduce__(self) -> Any:
        return type(self), (self.max_workers, self.initializer, self.initargs)

    @property
    def concurrency_type(self) -> str:
        """``PARALLEL``."""
        return "PARALLEL"

    @cached_property
    def _packed_initializer(self) -> bytes | None:
        if self.initializer is None:
            return None
        try:
            return packed((self.initializer, self.initargs), "The initializer", Way.TO_PROCESS)
        except CannotTravel:
            packed(self.initargs, "What the initializer is given", Way.TO_PROCESS)
            packed(self.initializer, "The initializer", Way.TO_PROCESS)
            raise

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
        return Worker(self._packed_initializer)

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
