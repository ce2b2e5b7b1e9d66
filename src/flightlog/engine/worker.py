"""The other side of the process runner: what runs in a worker process.

A worker calls functions and nothing else. All decisions and all that is recorded stay with the process that has the
flow run: log lines, and calls that a task makes of other tasks and flows, go there over the pipe and are answered.
"""

import asyncio
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from flightlog.clock import SystemClock
from flightlog.engine import run_logs
from flightlog.engine.bridge import run_in_loop
from flightlog.engine.context import CURRENT, TaskRunContext
from flightlog.engine.outcomes import traceback_of
from flightlog.engine.pickles import dumps_beside, unpicklable
from flightlog.ids import id_text

if TYPE_CHECKING:
    from flightlog.engine.definitions import Definition

RUN, DONE, RAISED, LINE, EVENT, CALL, ANSWER = "run", "done", "raised", "line", "event", "call", "answer"


class CannotTravel(TypeError):
    """A value cannot be sent to another process; the text names the place inside of it."""


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


def packed(value: Any, what: str, beside: Mapping[int, int] = {}) -> bytes:
    """Return a value as it travels between processes.

    Args:
        value: the value.
        what: what it is, for people.
        beside: the numbers of the objects in it that travel another way, by their `id`.

    Raises:
        CannotTravel: it cannot be pickled.
    """
    cloudpickle: Any = import_module("cloudpickle")
    try:
        content = dumps_beside(value, beside) if beside else cloudpickle.dumps(value, 5)
    except Exception as error:  # noqa: BLE001 - pickling runs the object's own code
        place, why = unpicklable(value, cloudpickle.dumps)
        raise CannotTravel(
            f"{what}{place} cannot be sent to another process: {why or f'{type(error).__name__}: {error}'}. "
            "Make it inside the task, or use a task runner with threads."
        ) from None
    return bytes(content)


class Relay:
    """A worker's way to the process that has the flow run.

    Args:
        pipe: the connection.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
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
        """Have a task or flow called by the process that has the flow run, and return what came of it."""
        self.send(CALL, packed((definition, args, kwargs), f"The call of {definition.name!r}"))
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
                return self.answer(content)

    @staticmethod
    def answer(content: bytes) -> Any:
        """Return what a call of another task or flow gave, or raise what it raised."""
        succeeded, value = pickle.loads(content)  # noqa: S301 - from the process that has the flow run
        if succeeded:
            return value
        raise value

    def _run(self, content: bytes) -> None:
        self.send(*self.outcome(content, pickle.loads))

    def outcome(self, content: bytes, loads: Callable[[bytes], Body]) -> tuple[str, bytes]:
        """Call a function; return how that ended, and its value or what it raised as they travel.

        Args:
            content: the function and its arguments, as they travel.
            loads: takes them out.
        """
        before = CURRENT.get()
        try:
            value = _called(self, loads(content))
            if os.getpid() != self.pid:
                os._exit(0)  # the user's code has forked, and come back twice
            return DONE, packed(value, "The result")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other side is told
            if os.getpid() != self.pid:
                os._exit(1)
            return RAISED, _packed_error(error)
        finally:
            CURRENT.set(before)
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()


def _called(relay: Relay, body: Body) -> Any:
    """Call a function inside its run's context."""
    context: Any = _context(relay, body)
    run_logs.configure(body.logging)
    CURRENT.set(context)
    with run_logs.logged_prints() if body.log_prints else nullcontext():
        if not body.isasync:
            value = body.function(*body.args, **body.kwargs)
            return list(value) if hasattr(value, "gi_frame") else value
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(body.function(*body.args, **body.kwargs))
        return run_in_loop(body.function(*body.args, **body.kwargs))


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
        self.stopped = None
        self.parent = None

    @property
    def flow_context(self) -> "WorkerFlowContext":
        """Itself."""
        return self


def _context(relay: Relay, body: Body) -> Any:
    journal = _Journal(_Engine(_Lines(relay)))
    key, name, tags, flow_name, _, count = body.flow_run
    flow_run = _Run(key, name, count, tags, flow_name, id_text(key), journal)
    flow: Any = WorkerFlowContext(relay, body, flow_run, {} if body.is_task else body.parameters)
    if not body.is_task:
        return flow
    task_key, task_run_name, run_count, task_tags, task_name = body.run
    task_run: Any = _Run(task_key, task_run_name, run_count, task_tags, task_name, id_text(key), journal)
    task = _Named(task_name, isasync=body.isasync)
    return TaskRunContext(flow, task, task_run, body.parameters, log_prints=body.log_prints)


def _packed_error(error: BaseException) -> bytes:
    """Return an exception as it travels, with its traceback as text; one like it, if it cannot travel itself."""
    cloudpickle: Any = import_module("cloudpickle")
    told = traceback_of(error)
    try:
        content: bytes = cloudpickle.dumps((error, told), 5)
        pickle.loads(content)  # noqa: S301 - our own, of this moment: many exceptions cannot be made again
    except Exception:  # noqa: BLE001 - the exception's own code
        stand_in = RuntimeError(f"{type(error).__name__}: {_text(error)}")
        content = cloudpickle.dumps((stand_in, told), 5)
    return content


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        return "<its text cannot be shown>"


def main(pipe: Connection, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Work until the process that started this one wants no more, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has the flow run
    threading.Thread(target=_end_with_parent, name="flightlog-parent", daemon=True).start()
    if initializer is not None:
        initializer(*initargs)
    try:
        Relay(pipe).serve(until_answer=False)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
