"""The other side of the process runner: what runs in a worker process.

A worker calls functions and nothing else. All decisions and all that is recorded stay with the process that has the
flow run: log lines, and calls that a task makes of other tasks and flows, go there over the pipe and are answered.
"""

import asyncio
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from flightlog.clock import SystemClock
from flightlog.engine import run_logs
from flightlog.engine.bridge import awaited, run_in_loop
from flightlog.engine.context import CURRENT, TaskRunContext
from flightlog.engine.depth import with_room
from flightlog.engine.outcomes import text_of, traceback_of
from flightlog.engine.travel import Arrivals, CannotTravel, Way, packed, unpacked
from flightlog.ids import id_text

if TYPE_CHECKING:
    from flightlog.engine.definitions import Definition

RUN, DONE, RAISED, LINE, EVENT, CALL, ANSWER = "run", "done", "raised", "line", "event", "call", "answer"
LACKS, BROKEN = "lacks", "broken"
_LOOK_SECONDS = 1.0


class Setup(NamedTuple):
    """What a worker process is told first.

    Attributes:
        argv: the command line of the process that starts it.
        authkey: with which processes that it starts know one another.
        initializer: the function that it calls first, and its arguments, packed; None for none.
    """

    argv: list[str]
    authkey: bytes
    initializer: bytes | None


class Raised(NamedTuple):
    """An exception, as it travels.

    Attributes:
        error: itself, packed; None if it cannot travel.
        text: its class and text.
        traceback: where it was raised.
    """

    error: bytes | None
    text: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Body:
    """A function that is to be called in a worker, and what it belongs to.

    Attributes:
        function: the function.
        args, kwargs: its arguments.
        isasync: whether it is a coroutine function.
        is_task: whether it is a task's; else it is a flow's.
        parameters: its arguments by name.
        run: the run's id (16 bytes), name, run_count, tags and task name.
        flow_run: the flow run's id (16 bytes), name, tags, flow name, flow version and run_count.
        created: when the flow run was created, in microseconds since 1970.
        log_prints: whether prints become log lines.
        logging: how log lines are shown and kept.
        timed: whether it has a time limit.
        personal: whether the run has personal values.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    isasync: bool
    is_task: bool
    parameters: Mapping[str, Any]
    run: tuple[bytes, str, int, frozenset[str], str]
    flow_run: tuple[bytes, str, frozenset[str], str, str | None, int]
    created: int
    log_prints: bool
    logging: run_logs.LogSettings
    timed: bool
    personal: bool = False


def packed_body(body: Body, way: Way, beside: Mapping[int, int] = {}) -> bytes:
    """Return a function and its arguments as they travel.

    Args:
        body: the function, and what goes with it.
        way: where to.
        beside: see `flightlog.engine.travel.packed`.

    Raises:
        CannotTravel: something in them cannot be pickled; the text names the argument, and the place inside of it.
    """
    try:
        return packed(body, "The task", way, beside)
    except CannotTravel:
        for name, value in body.parameters.items():
            packed(value, f"The argument {name}", way, beside)
        packed(body.function, f"The {'task' if body.is_task else 'flow'} {body.run[-1] or body.flow_run[3]!r}", way)
        raise


class Relay:
    """A worker's way to the process that has the flow run.

    Args:
        pipe: the connection.
        arrivals: makes what comes through it.
    """

    way = Way.FROM_PROCESS

    def __init__(self, pipe: Connection, arrivals: Arrivals) -> None:
        self._pipe = pipe
        self._arrivals = arrivals
        self._lock = threading.Lock()  # for sending: threads of the user's may log
        self.pid = os.getpid()

    def send(self, kind: str, content: Any) -> None:
        """Send a message; nothing from a process that the user's code has forked."""
        if os.getpid() == self.pid:
            with self._lock:
                self._pipe.send((kind, content))

    def record(self, *event: Any) -> None:
        """Have an event put on record: stream, type, payload, when, and what caused it."""
        self.send(EVENT, event)

    def call(self, definition: "Definition[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have a task or flow called by the process that has the flow run, and return what came of it.

        Awaitable, if an async function calls an async one.
        """
        context: Any = CURRENT.get()
        work = partial(self._call, context.flow_context.turn, definition, args, kwargs)
        return _later(work) if definition.isasync and context.isasync else work()

    def _call(self, turn: threading.Lock, definition: "Definition[..., Any]", args: Any, kwargs: Any) -> Any:
        content = _packed_call(self.way, definition, args, kwargs)
        with turn:  # one call at a time for each function that runs: the answer is for whoever reads
            return with_room(partial(self._asked, content))

    def _asked(self, content: bytes) -> Any:
        self.send(CALL, content)
        return self.serve(until_answer=True)

    def submit(self, definition: "Definition[..., Any]", *_: Any) -> Any:
        """Refuse to submit: only the process that has the flow run does.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"The task {definition.name!r} cannot be submitted from a worker process; call it there, or submit it "
            "from the flow."
        )

    map = submit

    def serve(self, *, until_answer: bool) -> Any:
        """Do what is asked, until there is nothing more or the answer is there."""
        while True:
            kind, content = self._pipe.recv()
            if kind == RUN:
                self._run(content)
            elif until_answer and kind == ANSWER:
                return answered(self._arrivals.loads(content))

    def _run(self, content: bytes) -> None:
        self.send(*self.outcome(content, self._arrivals.loads))

    def outcome(self, content: bytes, loads: Callable[[bytes], Any]) -> tuple[str, Any]:
        """Call a function; return how that ended, and its value or what it raised as they travel.

        Args:
            content: the function and its arguments, as they travel.
            loads: takes them out.
        """
        try:
            body: Body = loads(content)
        except ModuleNotFoundError as error:
            return LACKS, error.name or text_of(error)
        except Exception as error:  # noqa: BLE001 - unpickling runs the object's own code
            told = f"The call cannot be made again in a worker: {type(error).__name__}: {text_of(error)}"
            return RAISED, _packed_error(self.way, CannotTravel(told))
        return self._outcome_of(body)

    def _outcome_of(self, body: Body) -> tuple[str, Any]:
        before = CURRENT.get()
        try:
            value = _called(self, body)
            if os.getpid() != self.pid:
                os._exit(0)  # the user's code has forked, and come back twice
            return DONE, packed(value, "The result", self.way)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other side is told
            if os.getpid() != self.pid:
                os._exit(1)
            return RAISED, _packed_error(self.way, error)
        finally:
            CURRENT.set(before)
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()


def answered(answer: tuple[bool, Any]) -> Any:
    """Return what a call of another task or flow gave, or raise what it raised."""
    succeeded, value = answer
    if succeeded:
        return value
    raise value


async def _later(work: Callable[[], Any]) -> Any:
    """Do some work where it is awaited."""
    return work()


def _packed_call(way: Way, definition: "Definition[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return the call of a task or flow as it travels.

    Raises:
        CannotTravel: something in it cannot be pickled; the text names the argument, and the place inside of it.
    """
    try:
        return packed((definition, args, kwargs), f"The call of {definition.name!r}", way)
    except CannotTravel:
        given = {name: value for name, value in kwargs.items() if name not in ("return_state", "wait_for")}
        for name, value in definition.bind(args, given).items():
            packed(value, f"The argument {name}", way)
        raise


def _called(relay: Relay, body: Body) -> Any:
    """Call a function inside its run's context."""
    context: Any = _context(relay, body)
    run_logs.configure(body.logging)
    CURRENT.set(context)
    with run_logs.logged_prints() if body.log_prints else nullcontext():
        value = body.function(*body.args, **body.kwargs)
        if not body.isasync:
            return list(value) if hasattr(value, "gi_frame") else value
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(awaited(value))
        return run_in_loop(awaited(value))


@dataclass(slots=True)
class _Lines:
    """Takes log lines, and sends them on."""

    relay: Relay

    def add(self, _: Any, line: Any) -> None:
        self.relay.send(LINE, line)


@dataclass(slots=True)
class _Engine:
    """As much of an engine as log lines need."""

    lines: _Lines
    clock: SystemClock = field(default_factory=SystemClock)


@dataclass(slots=True)
class _Journal:
    engine: _Engine


@dataclass(slots=True)
class _Run:
    """A run, as code in a worker sees it."""

    key: bytes
    name: str
    run_count: int
    tags: frozenset[str]
    task_name: str
    flow_run_id: str
    journal: _Journal
    personal: bool

    @property
    def id(self) -> str:
        """The run's id in its usual form."""
        return id_text(self.key)


@dataclass(slots=True)
class _Named:
    """A flow or task, as code in a worker sees it."""

    name: str
    version: str | None = None
    isasync: bool = False


class WorkerFlowContext:
    """A flow run whose task runs here; the run itself is in another process."""

    def __init__(self, relay: Relay, body: Body, flow_run: _Run, parameters: Mapping[str, Any]) -> None:
        self.relay = relay
        self.engine = flow_run.journal.engine
        self.flow = _Named(body.flow_run[3], body.flow_run[4], body.isasync)
        self.flow_run = flow_run
        self.parameters = parameters
        self.tags = body.flow_run[2]
        self.created = body.created
        self.isasync = body.isasync
        self.log_prints = body.log_prints
        self.task_runner = None
        self.turn = threading.Lock()
        self.stopped = None
        self.parent = None

    @property
    def flow_context(self) -> "WorkerFlowContext":
        """Itself."""
        return self


def _context(relay: Relay, body: Body) -> Any:
    journal = _Journal(_Engine(_Lines(relay)))
    key, name, tags, flow_name, _, count = body.flow_run
    flow_run = _Run(key, name, count, tags, flow_name, id_text(key), journal, body.personal)
    flow: Any = WorkerFlowContext(relay, body, flow_run, {} if body.is_task else body.parameters)
    if not body.is_task:
        return flow
    task_key, task_run_name, run_count, task_tags, task_name = body.run
    task_run: Any = _Run(task_key, task_run_name, run_count, task_tags, task_name, id_text(key), journal, body.personal)
    task = _Named(task_name, isasync=body.isasync)
    return TaskRunContext(flow, task, task_run, body.parameters, log_prints=body.log_prints)


def _packed_error(way: Way, error: BaseException) -> Raised:
    """Return an exception as it travels, if it can."""
    content: bytes | None
    try:
        content = packed(error, "The exception", way)
        unpacked(content, "The exception")  # many exceptions cannot be made again
    except CannotTravel:
        content = None
    return Raised(content, f"{type(error).__name__}: {text_of(error)}", traceback_of(error))


def main(pipe: Connection, lifeline: int, tracker: int, parent: int) -> None:
    """Work until the process that started this one wants no more, or is gone.

    Args:
        pipe: the connection with it.
        lifeline: the reading end of a pipe whose other end only that process has.
        tracker: where shared memory is accounted for.
        parent: that process's id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has the flow run
    _end_with_parent(lifeline, parent)
    arrivals = Arrivals()
    try:
        setup = Setup(*pipe.recv())
        _prepare(setup, tracker)
        if setup.initializer is not None:
            try:
                initializer, args = arrivals.loads(setup.initializer)
                initializer(*args)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the other side is told
                sys.stderr.write(traceback_of(error))
                pipe.send((BROKEN, f"{type(error).__name__}: {text_of(error)}"))
                return
        Relay(pipe, arrivals).serve(until_answer=False)
    except EOFError:
        return
    except OSError:  # that process is gone, or a task has closed all files
        os._exit(1)


def _prepare(setup: Setup, tracker: int) -> None:
    """Make this process what `multiprocessing` would make of it, but for running the script again."""
    sys.argv = setup.argv
    process = multiprocessing.current_process()
    process.name, process.authkey = "flightlog-worker", setup.authkey
    tracking: Any = resource_tracker
    tracking._resource_tracker._fd = tracker  # as multiprocessing.spawn does


def _end_with_parent(lifeline: int, parent: int) -> None:
    """Have this process and all that it starts killed as soon as the one that started it is gone."""
    with suppress(AttributeError, OSError):
        # Linux does so itself, even while a library keeps all threads from running.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_watch, args=(lifeline, parent), name="flightlog-parent", daemon=True).start()


def _watch(lifeline: int, parent: int) -> None:
    """Wait for the end of the process that started this one; a fork of it may hold the other end of the pipe."""
    while os.getppid() == parent and not wait([lifeline], _LOOK_SECONDS):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)
