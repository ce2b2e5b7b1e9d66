"""What is running here: the flow run and task run that a piece of code belongs to."""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from flightlog.clock import to_datetime
from flightlog.errors import MissingContextError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator, Mapping

    from flightlog.engine.bridge import Started
    from flightlog.engine.calls import CallMemory
    from flightlog.engine.futures import BaseFuture
    from flightlog.engine.promises import Promise
    from flightlog.engine.results import Keeping
    from flightlog.engine.runs import FlowRun, TaskRun
    from flightlog.engine.runtime import Engine
    from flightlog.engine.states import Tally
    from flightlog.engine.task_runners import TaskRunner
    from flightlog.engine.tracking import Tracker
    from flightlog.engine.worker import Relay
    from flightlog.events.subjects import Subjects
    from flightlog.events.types import Cause


class Abandoned(BaseException):
    """Raised where code of a run goes on after the run, or one that it was called in, has ended: it may start no more.

    Attributes:
        cause: the class of what ended the run.
    """

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause: Cause = cause


class RunContext(Protocol):
    """What flow runs and task runs have in common.

    Attributes:
        isasync: whether the function is a coroutine function.
        log_prints: whether prints become log lines.
        stopped: raised where code of the run goes on that is to stop: the run has timed out, or is being cancelled.
    """

    isasync: bool
    log_prints: bool
    stopped: BaseException | None

    @property
    def parent(self) -> RunContext | None:
        """The run that it was called in; None for an outermost flow."""
        ...

    @property
    def flow_context(self) -> FlowRunContext:
        """The flow run that it belongs to."""
        ...


class FlowRunContext:
    """A flow run under way.

    Attributes:
        flow: the flow.
        flow_run: the run: id, name, run_count.
        parameters: what the function was given, by name.
        task_runner: where submitted tasks go.
        tags: the run's tags.
        relay: in a worker process, the way to the process that has the run; else None.
        keeping: how values are kept in it, where nobody says otherwise.
        personal_runs: whose values its task runs have returned, where these are personal.
        left_behind: what stops code of it that may go on in threads, and that nobody waits for; None for none.
    """

    relay: Relay | None = None
    left_behind: Abandoned | None = None

    def __init__(  # noqa: PLR0913 - what a run consists of, put together in one place
        self,
        engine: Engine,
        flow: Any,
        flow_run: FlowRun,
        parameters: Mapping[str, Any],
        task_runner: TaskRunner,
        *,
        tally: Tally,
        tracker: Tracker,
        memory: CallMemory | None,
        log_prints: bool,
        tags: frozenset[str],
        keeping: Keeping,
        parent: RunContext | None,
    ) -> None:
        self.engine = engine
        self.flow = flow
        self.flow_run = flow_run
        self.parameters = parameters
        self.task_runner = task_runner
        self.tally = tally
        self.tracker = tracker
        self.memory = memory
        self.log_prints = log_prints
        self.tags = tags
        self.keeping = keeping
        self.parent = parent
        flow_run.parameters, flow_run.tags = parameters, tags  # for hooks, which are given the run
        self.isasync: bool = flow.isasync
        self.stopped: BaseException | None = None
        self.wake = threading.Event()
        self.paused: Promise[None] | None = None
        self.pauses = count(1)
        self.created = engine.clock.now()
        self.numbers = count()
        self.counters: dict[str, count[int]] = {}
        self.loop_tasks: set[asyncio.Task[None]] = set()
        self.open_streams: dict[asyncio.Task[Any], Callable[[], None]] = {}
        self.open_generators: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()
        self.started: set[Started[Any]] = set()
        self.personal_runs: dict[bytes, Subjects] = {}
        self.open_futures: set[BaseFuture[Any]] = set()

    @property
    def flow_context(self) -> FlowRunContext:
        """Itself."""
        return self

    @property
    def start_time(self) -> datetime:
        """When the run was created (or gone on with), in UTC."""
        return to_datetime(self.created)

    @staticmethod
    def get() -> FlowRunContext | None:
        """Return the flow run that this code belongs to, or None."""
        context = CURRENT.get()
        return None if context is None else context.flow_context


class TaskRunContext:
    """A task run under way.

    Attributes:
        task: the task.
        task_run: the run: id, name, run_count.
        parameters: the resolved arguments, by name.
    """

    __slots__ = ("flow_context", "isasync", "log_prints", "parameters", "parent", "stopped", "task", "task_run")

    def __init__(
        self,
        flow_context: FlowRunContext,
        task: Any,
        task_run: TaskRun,
        parameters: Mapping[str, Any],
        *,
        log_prints: bool,
        parent: TaskRunContext | None = None,
    ) -> None:
        self.flow_context = flow_context
        self.parent: RunContext = parent or flow_context
        self.task = task
        self.task_run = task_run
        self.parameters = parameters
        self.isasync: bool = task.isasync
        self.log_prints = log_prints
        self.stopped: BaseException | None = None

    @staticmethod
    def get() -> TaskRunContext | None:
        """Return the task run that this code belongs to, or None."""
        context = CURRENT.get()
        return context if isinstance(context, TaskRunContext) else None


CURRENT: ContextVar[RunContext | None] = ContextVar("flightlog_run", default=None)
TAGS: ContextVar[frozenset[str]] = ContextVar("flightlog_tags", default=frozenset())
"""The tags of `flightlog.tags` that hold here."""
IN_HOOK: ContextVar[RunContext | None] = ContextVar("flightlog_in_hook", default=None)
"""The run that this code is a hook of: it may log for that run, but calls nothing in it."""


def get_run_context() -> RunContext:
    """Return the run that this code belongs to: a `TaskRunContext` in a task, else a `FlowRunContext`.

    Raises:
        MissingContextError: there is none.
    """
    context = CURRENT.get()
    if context is None:
        raise MissingContextError("There is no active flow or task run context.")
    return context


def inside_async() -> bool:
    """Tell whether this code belongs, at whatever depth, to a run of an async function."""
    context = CURRENT.get()
    while context is not None:
        if context.isasync:
            return True
        context = _above(context)
    return False


def _above(context: RunContext) -> RunContext | None:
    """Return the run that a run was called in."""
    return context.parent


def current() -> RunContext | None:
    """Return the run that this code belongs to, or None; refuse code whose run has ended.

    Raises:
        Abandoned, RunCancelled: see `check`.
    """
    context = CURRENT.get()
    if context is None or IN_HOOK.get() is context:
        return None
    check(context)
    return context


STRUCK: list[BaseException] = []
"""What signals have been raised as, while a flow runs in the main thread: coroutines there are only cancelled by it."""
DEFERRED: list[BaseException] = []
"""Interrupts that came while this process kept books, for the main thread to raise where it may stop."""


def check(context: RunContext) -> None:
    """Stop code whose run is to go on no more, or a run that this one was called in.

    Raises:
        Abandoned: the run has ended, though its code goes on.
        RunCancelled: somebody has cancelled it.
        KeyboardInterrupt, SystemExit: an interrupt came just before.
    """
    if DEFERRED and threading.current_thread() is threading.main_thread():
        raise DEFERRED.pop()
    if (stop := stop_of(context)) is not None:
        raise stop


def stop_of(context: RunContext) -> BaseException | None:
    """Return what stops the code of a run, or of one that it was called in; None if it may go on."""
    above: RunContext | None = context
    while above is not None:
        if above.stopped is not None:
            return above.stopped
        above = _above(above)
    return None


def is_within(context: RunContext | None, outer: RunContext) -> bool:
    """Tell whether code belongs to a run, or to one that was called in it."""
    while context is not None and context is not outer:
        context = _above(context)
    return context is outer
