"""What is logged besides: libraries' loggers, threads of one's own, JSON lines, lines that stay local."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flightlog import flow, get_run_logger, task
from flightlog.engine import run_logs
from flightlog.engine.runtime import Engine, using
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.settings import load


@contextmanager
def configured(tmp_path: Path, **environ: str) -> Iterator[Engine]:
    """Run on an engine with other settings."""
    engine = Engine(Log(MemoryStore()), b"k" * 32, load({"FLIGHTLOG_HOME": str(tmp_path), **environ}))
    try:
        with using(engine):
            yield engine
    finally:
        engine.log.close()
        run_logs.configure(run_logs.LogSettings())


def lines(engine: Engine) -> list[tuple[str, Any, str]]:
    """Return the recorded lines: logger, task run, text."""
    engine.log.flush()
    events = engine.log.read_all(types=["log.lines"])
    return [(line[2], line[3], line[4]) for event in events for line in event.data["lines"]]


def test_E134_lines_of_library_loggers_belong_to_the_run_they_are_in(tmp_path: Path) -> None:
    """Named loggers are recorded with the ids of the run; outside of runs they are shown only; others are not."""
    library, other = logging.getLogger("some.library"), logging.getLogger("another.library")

    @task
    def t() -> None:
        library.info("in a task")
        other.warning("not wanted")

    @flow
    def f() -> None:
        library.debug("too low")
        library.warning("in a flow")
        t()

    with configured(tmp_path, FLIGHTLOG_LOGGING_EXTRA_LOGGERS="some.library, x") as engine:
        library.warning("outside")
        f()
        (task_run,) = [event.data["task_run_id"] for event in engine.log.read_all(types=["task_run.created"])]
        assert lines(engine) == [
            ("some.library", None, "in a flow"),
            ("some.library", task_run, "in a task"),
        ]
    assert not library.handlers
    library.setLevel(logging.NOTSET)


def test_E139_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With FLIGHTLOG_LOGGING_FORMAT=json every line on standard error is one JSON document with the run's names."""

    @task
    def t() -> None:
        try:
            raise ValueError("boom")
        except ValueError:
            get_run_logger().exception("something")

    @flow
    def f() -> None:
        t()

    with configured(tmp_path, FLIGHTLOG_LOGGING_FORMAT="json"):
        f()
    documents = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (logged,) = [document for document in documents if document["message"] == "something"]
    assert logged["level"] == "ERROR"
    assert logged["task_name"] == "t"
    assert logged["flow_name"] == "f"
    assert "ValueError: boom" in logged["traceback"]
    assert {"Finished in state Completed()"} <= {document["message"] for document in documents}
    assert all(document["time"].endswith("+00:00") for document in documents)


def test_threads_of_the_users_own_log_for_their_run(tmp_path: Path) -> None:
    """A run's logger that is handed to a thread goes on speaking for that run."""

    @task
    def t() -> None:
        logger = get_run_logger()
        thread = threading.Thread(target=lambda: logger.info("from a thread"))
        thread.start()
        thread.join()

    @flow
    def f() -> None:
        t()

    with configured(tmp_path) as engine:
        f()
        (task_run,) = [event.data["task_run_id"] for event in engine.log.read_all(types=["task_run.created"])]
        assert lines(engine) == [("flightlog.task_runs", task_run, "from a thread")]


def test_E135_a_line_can_stay_local(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`extra={"send_to_api": False}` shows a line, and does not record it; long lines are recorded whole."""

    @flow
    def f() -> None:
        get_run_logger().info("local", extra={"send_to_api": False})
        get_run_logger().info("x" * 1_500_000)

    with configured(tmp_path) as engine:
        f()
        assert [len(text) for _, _, text in lines(engine)] == [1_500_000]
    assert "local" in capsys.readouterr().err


def test_E133_the_level_is_a_setting(tmp_path: Path) -> None:
    """Lines below the level are neither shown nor recorded; DEBUG lets all through."""

    @flow
    def f() -> None:
        for level in ("debug", "info", "warning"):
            getattr(get_run_logger(), level)(level)

    for level, expected in (("DEBUG", 3), ("INFO", 2), ("warning", 1), ("40", 0)):
        with configured(tmp_path, FLIGHTLOG_LOGGING_LEVEL=level) as engine:
            f()
            assert len(lines(engine)) == expected


def test_E140_lines_are_recorded_without_a_server(tmp_path: Path) -> None:
    """They stand in the log, with level, time, run and text."""

    @flow
    def f() -> None:
        get_run_logger().error("kept")

    with configured(tmp_path) as engine:
        f()
        engine.log.flush()
        (line,) = [line for event in engine.log.read_all(types=["log.lines"]) for line in event.data["lines"]]
    assert line[1:] == [40, "flightlog.flow_runs", None, "kept"]
