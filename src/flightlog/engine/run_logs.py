"""Log lines: what flows and tasks say, on the console and in the log.

Loggers: ``flightlog.flow_runs`` and ``flightlog.task_runs`` for code in runs, ``flightlog.engine`` for the
engine itself. What state changes say is not stored as lines, see `flightlog.events.narration`.
"""

import builtins
import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from flightlog.engine.context import CURRENT, RunContext, TaskRunContext, get_run_context
from flightlog.engine.runs import FlowRun, Journal, Run, TaskRun
from flightlog.events.model import Append, NewEvent
from flightlog.events.subjects import NOBODY, Subjects
from flightlog.events.types import LOG_LINES, logs_stream
from flightlog.masking import MASKER

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine

ROOT = logging.getLogger("flightlog")
ENGINE = logging.getLogger("flightlog.engine")
FLOW_RUNS = logging.getLogger("flightlog.flow_runs")
TASK_RUNS = logging.getLogger("flightlog.task_runs")

_COLORS = {10: "\x1b[2m", 20: "", 30: "\x1b[33m", 40: "\x1b[31m", 50: "\x1b[1;31m"}
_RESET = "\x1b[0m"
_LONGEST = 10_000  # characters of one line on the console
_BATCH_SECONDS = 0.25
_BATCH_CHARACTERS = 16_000


class LogSettings(NamedTuple):
    """How lines are shown and kept.

    Attributes:
        level: the lowest level that is.
        colors: whether levels are coloured on a terminal.
        form: ``text``, or ``json`` for one JSON document a line.
        extra_loggers: loggers of libraries whose lines are shown and kept as a run's own are.
    """

    level: int = 20
    colors: bool = True
    form: str = "text"
    extra_loggers: tuple[str, ...] = ()


_NAMES = ("flow_run_id", "flow_run_name", "flow_name", "task_run_id", "task_run_name", "task_name")


class JSONFormatter(logging.Formatter):
    """Writes a line as one JSON document, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        text = record.getMessage()
        document: dict[str, Any] = {"time": moment, "level": record.levelname, "logger": record.name}
        document["message"] = MASKER.mask(text)
        if record.exc_info:
            document["traceback"] = MASKER.mask(self.formatException(record.exc_info))
        known = record.__dict__
        return json.dumps(document | {name: known[name] for name in _NAMES if name in known}, default=str)


class ConsoleFormatter(logging.Formatter):
    """Writes a line as Prefect 2 users know it: time, level, who says it, what.

    Args:
        colors: whether to colour levels on a terminal.
    """

    def __init__(self, colors: bool) -> None:
        super().__init__()
        self._colors = colors
        self._second = 0
        self._time = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return self.line(record.created, record.levelno, _speaker(record.name, record.__dict__), text)

    def line(self, created: float, level: int, speaker: str, text: str) -> str:
        """Return a line.

        Args:
            created: when, in seconds since 1970.
            level: the level, 10 to 50.
            speaker: who says it.
            text: what.
        """
        second = int(created)
        if second != self._second:
            self._second, self._time = second, datetime.fromtimestamp(second).strftime("%H:%M:%S")  # noqa: DTZ006 - local time, for the person at the console
        word = _level_word(level)
        if self._colors and (color := _COLORS.get(level)) and _stderr_is_terminal():
            word = f"{color}{word}{_RESET}"
        text = MASKER.mask(text)
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]} ... ({len(text)} characters; the log has all of them)"
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair cannot be written
        return f"{self._time}.{int(created * 1000) % 1000:03d} | {word} | {speaker} - {text}"


@cache
def _level_word(level: int) -> str:
    return f"{logging.getLevelName(level):<7}"


def _speaker(name: str, values: dict[str, Any]) -> str:
    if name == TASK_RUNS.name:
        return f"Task run {values.get('task_run_name', '<unknown>')!r}"
    if name == FLOW_RUNS.name:
        return f"Flow run {values.get('flow_run_name', '<unknown>')!r}"
    return name


def _stderr_is_terminal() -> bool:
    return bool(getattr(sys.stderr, "isatty", lambda: False)())


class _ConsoleHandler(logging.StreamHandler[Any]):
    """Writes to whatever standard error is at the moment."""

    def __init__(self, colors: bool) -> None:
        logging.Handler.__init__(self)
        self.console: ConsoleFormatter | None = ConsoleFormatter(colors)
        self.setFormatter(self.console)

    def show_as(self, settings: LogSettings) -> None:
        """Write lines in another form."""
        self.console = None if settings.form == "json" else ConsoleFormatter(settings.colors)
        self.setFormatter(self.console or JSONFormatter())

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        pass


class _RecordingHandler(logging.Handler):
    """Puts the lines of runs into the log; a line that cannot be kept never fails a run."""

    def emit(self, record: logging.LogRecord) -> None:
        told = record.__dict__
        context: RunContext | Run | None = told.get(_CONTEXT) or CURRENT.get()
        if context is None or told.get("flightlog_told") or told.get("send_to_api") is False:
            return
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + logging.Formatter().formatException(record.exc_info)
            run = context if isinstance(context, Run) else _run_of(context)
            journal = run.journal
            task_run = run.key if isinstance(context, (TaskRunContext, TaskRun)) else None
            text = recorded_text(run, MASKER.mask(text))
            moment = journal.engine.clock.now()
            journal.engine.lines.add(journal, (moment, record.levelno, record.name, task_run, text))
        except Exception:  # noqa: BLE001 - logging's own way with errors: a note on stderr
            self.handleError(record)


def recorded_text(run: Any, text: str) -> str:
    """Return what the log is told of a line of a run: encrypted, if the run knows personal values."""
    subjects: Subjects = getattr(run, "subjects", NOBODY)  # a worker leaves it to the process that has the run
    return run.journal.engine.vault.close_text(subjects, text) if subjects else text


def _run_of(context: RunContext) -> Any:
    return context.task_run if isinstance(context, TaskRunContext) else context.flow_context.flow_run


_console = _ConsoleHandler(colors=True)
_ALONE = [_console]
_console_lock = threading.Lock()
_unshown: deque[str] = deque()
_extra: dict[str, tuple[logging.Handler, ...]] = {}
_CONTEXT = "_flightlog_context"
_UNKNOWN = "<unknown>"


def configure(settings: LogSettings) -> None:
    """Give our loggers their handlers, once, and their level."""
    ROOT.setLevel(settings.level)
    _console.show_as(settings)
    _take_in(settings)
    if _console not in ROOT.handlers:
        ROOT.addHandler(_console)
        ROOT.propagate = False
        for logger in (FLOW_RUNS, TASK_RUNS):
            logger.addHandler(_RecordingHandler())


def _take_in(settings: LogSettings) -> None:
    """Show and keep the lines of other libraries' loggers, and of no others any more."""
    for name in _extra.keys() - set(settings.extra_loggers):
        logger, handlers = logging.getLogger(name), _extra.pop(name)
        for handler in handlers:
            logger.removeHandler(handler)
    for name in settings.extra_loggers:
        logger = logging.getLogger(name)
        if name not in _extra:
            _extra[name] = (_console, _RecordingHandler())
            for handler in _extra[name]:
                logger.addHandler(handler)
        if logger.level == logging.NOTSET:
            logger.setLevel(settings.level)


def _show(line: str) -> None:
    """Write a line to the console; one that cannot be written (closed, full, gone) never affects a run."""
    _unshown.append(line)
    # Whoever is writing takes the lines of the others with it: nobody waits for the console's lock.
    while _unshown and _console_lock.acquire(blocking=False):
        try:
            text = _unshown.popleft()
            while _unshown:
                text += _unshown.popleft()
            sys.stderr.write(text)
        except Exception:  # noqa: BLE001, S110 - the stream may be anybody's; the log has what the line says
            pass
        finally:
            _console_lock.release()


def show_plainly(logger: logging.Logger, level: int, speaker: str, text: str) -> bool:
    """Show a line if nobody but our console listens; tell if so. A tenth of the time that a `LogRecord` takes."""
    if ROOT.handlers != _ALONE or ROOT.filters or logger.filters or len(logger.handlers) > 1:
        return False
    if _console.console is None:
        return False
    _show(_console.console.line(time.time(), level, speaker, text) + "\n")
    return True


def say(logger: logging.Logger, level: int, text: str, names: dict[str, Any]) -> None:
    """Show a line that the log need not keep: an event already tells of it."""
    if show_plainly(logger, level, _speaker(logger.name, names), text):
        return
    record = logging.LogRecord(logger.name, level, __file__, 0, text, None, None)
    record.__dict__.update(names)
    record.__dict__["flightlog_told"] = True
    logger.handle(record)


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that knows which run it speaks for, also in a thread that the run's code has started.

    Args:
        logger: where its lines go.
        extra: values to put on every record.
        context: the run.
    """

    def __init__(self, logger: logging.Logger, extra: dict[str, Any], context: RunContext | Run | None = None) -> None:
        super().__init__(logger, extra)
        self._context = context

    def process(self, msg: Any, kwargs: Any) -> Any:
        """Join the call's extra values with the run's."""
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {}), _CONTEXT: self._context}
        return msg, kwargs


_SILENT: ContextVar[bool] = ContextVar("flightlog_silent", default=False)


def _silence() -> logging.Logger:
    logger = logging.getLogger("flightlog.silent")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


@contextmanager
def recording_disabled() -> Iterator[None]:
    """While this is open, `get_run_logger` works outside of runs too, and what is logged there goes nowhere."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def get_run_logger(context: RunContext | None = None, **extra: Any) -> RunLogger:
    """Return the logger of the run that this code belongs to; its lines are shown, and kept with the run.

    Args:
        context: the run; the present one by default.
        **extra: values to put on every record.

    Raises:
        MissingContextError: there is no run here.
    """
    if context is None and _SILENT.get() and CURRENT.get() is None:
        return RunLogger(_silence(), extra)
    context = context or get_run_context()
    flow_run = context.flow_context.flow_run
    names: dict[str, Any] = {
        "flow_run_id": flow_run.id,
        "flow_run_name": flow_run.name,
        "flow_name": context.flow_context.flow.name,
    }
    if not isinstance(context, TaskRunContext):
        return RunLogger(FLOW_RUNS, names | extra, context)
    run = context.task_run
    names |= {"task_run_id": run.id, "task_run_name": run.name, "task_name": run.task_name}
    return RunLogger(TASK_RUNS, names | extra, context)


def get_logger(name: str | None = None) -> logging.Logger:
    """Return a logger of one's own below ``flightlog``, for lines outside of runs: shown as ours are, and kept nowhere.

    Args:
        name: what it is called; ``flightlog`` itself by default.
    """
    if ROOT.level == logging.NOTSET:
        from flightlog.engine.runtime import log_settings
        from flightlog.settings import load

        configure(log_settings(load()))
    return ROOT if name is None else logging.getLogger(name if name.startswith("flightlog.") else f"flightlog.{name}")


def flow_run_logger(flow_run: FlowRun, flow: Any = None, **extra: Any) -> RunLogger:
    """Return a logger that speaks for a flow run, such as one that a hook is given.

    Args:
        flow_run: the run.
        flow: its flow.
        **extra: values to put on every record.
    """
    names = {"flow_run_id": flow_run.id, "flow_run_name": flow_run.name, "flow_name": getattr(flow, "name", _UNKNOWN)}
    return RunLogger(FLOW_RUNS, names | extra, flow_run)


def task_run_logger(task_run: TaskRun, task: Any = None, **extra: Any) -> RunLogger:
    """Return a logger that speaks for a task run; see `flow_run_logger`."""
    names = {
        "flow_run_id": task_run.flow_run_id,
        "flow_run_name": task_run.journal.flow_run_name,
        "flow_name": _UNKNOWN,
        "task_run_id": task_run.id,
        "task_run_name": task_run.name,
        "task_name": getattr(task, "name", task_run.task_name),
    }
    return RunLogger(TASK_RUNS, names | extra, task_run)


Line = tuple[int, int, str, bytes | None, str]


class LineBuffer:
    """Holds lines back for a quarter of a second, so that many make one event.

    Args:
        engine: gives log, clock and ids.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._held: dict[str, tuple[list[Line], int]] = {}
        self._since = 0.0
        engine.log.add_source(self._offer)

    def add(self, journal: Journal, line: Line) -> None:
        """Take a line of a flow run."""
        line = (*line[:4], MASKER.mask(line[4]))
        run = journal.flow_run_id
        with self._lock:
            if not self._held:
                self._since = time.monotonic()
            lines, size = self._held.get(run, ([], 0))
            lines.append(line)
            size += len(line[4])
            self._held[run] = (lines, size)
        if size > _BATCH_CHARACTERS:
            self.put(run)
        elif len(lines) == 1:
            self._engine.log.wake()

    def put(self, flow_run_id: str) -> None:
        """Put what is held of a flow run in line for the next commit."""
        with self._lock:
            lines, _ = self._held.pop(flow_run_id, ((), 0))
        if lines:
            engine = self._engine
            data = {"lines": [list(line) for line in lines]}
            event = NewEvent(engine.ids.new(), LOG_LINES, data, engine.clock.now())
            engine.log.enqueue([Append(logs_stream(flow_run_id), [event])])

    def _offer(self, everything: bool) -> bool:
        if self._held and (everything or time.monotonic() - self._since >= _BATCH_SECONDS):
            for run in list(self._held):
                self.put(run)
        return bool(self._held)


# --- prints -----------------------------------------------------------------------------------------

_print_lock = threading.Lock()
_print_users = 0
_plain_print: Callable[..., None] = print


def _print(*values: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False) -> None:
    """Print, or log what would have been printed where a run wants that."""
    context = CURRENT.get()
    if context is None or not context.log_prints or file not in (None, sys.stdout, sys.stderr):
        _plain_print(*values, sep=sep, end=end, file=file, flush=flush)
        return
    text = (" " if sep is None else sep).join(map(str, values)) + ("\n" if end is None else end)
    if text := text.rstrip():
        get_run_logger(context).info("%s", text)


@contextmanager
def logged_prints() -> Iterator[None]:
    """While this is open, `print` looks whether the run it is called in wants prints logged."""
    global _print_users, _plain_print  # noqa: PLW0603 - `print` is global too
    with _print_lock:
        if _print_users == 0:
            _plain_print = builtins.print
            builtins.print = _print
        _print_users += 1
    try:
        yield
    finally:
        with _print_lock:
            _print_users -= 1
            if _print_users == 0 and builtins.print is _print:
                builtins.print = _plain_print
