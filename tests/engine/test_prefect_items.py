"""What users of Prefect 2 know, where no other test says it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import History, VirtualClock

from flightlog import cancel_run, flow, get_run_logger, resume_run, suspend_flow_run, task, unmapped
from flightlog.cache_policies import INPUTS
from flightlog.concurrency import set_limit
from flightlog.engine.runtime import Engine
from flightlog.projections import queries
from flightlog.projections.projector import Projector


@task
def fails() -> None:
    """Fail."""
    raise ValueError("boom")


def test_E1_a_failed_task_fails_a_flow_that_returns_none() -> None:
    """Though the caller swallowed the exception; a flow that returns a value is Completed."""

    @flow
    def nothing() -> None:
        fails(return_state=True)

    @flow
    def something() -> int:
        fails(return_state=True)
        return 1

    assert nothing(return_state=True).is_failed()
    assert something() == 1


def test_E47_a_flow_that_is_called_while_its_file_is_loaded_runs_nothing(tmp_path: Path) -> None:
    """It returns None, and says that the call belongs under the `__main__` guard."""
    script = tmp_path / "script.py"
    script.write_text(
        "from flightlog import flow\n\n@flow\ndef f():\n    print('ran')\n    return 1\n\nprint('called:', f())\n"
    )
    command = [sys.executable, "-W", "always", "-m", "flightlog", "run", f"{script}:f"]
    environment = {**os.environ, "FLIGHTLOG_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == ["called: None", "ran", "1"]
    assert "__main__" in done.stderr


def test_E77_values_in_unmapped_are_shared() -> None:
    """Every child is given the very object."""
    seen = []

    @task
    def t(x: int, shared: list[int]) -> None:
        seen.append(id(shared))

    @flow
    def f() -> None:
        shared = [1]
        t.map([1, 2, 3], unmapped(shared))
        seen.append(id(shared))

    f()
    assert len(set(seen)) == 1


def test_E92_what_no_process_has_is_cancelled_directly(history: History) -> None:
    """A suspended run goes straight to Cancelled."""

    @flow
    def f() -> None:
        suspend_flow_run()

    f(return_state=True)
    (run,) = history.flow_runs("f")
    assert cancel_run(run) == "cancelled"
    assert history.flow_states(run)[-2:] == ["Suspended", "Cancelled"]


def test_E96_the_cache_comes_before_the_slots_and_these_before_the_run(history: History) -> None:
    """A hit needs no slot; a miss waits for one, and only then runs."""
    set_limit("tag:one", 1)

    @task(cache_policy=INPUTS, tags=["one"])
    def t(x: int) -> int:
        return x

    @flow
    def f() -> None:
        t(1)
        t(1)

    f()
    kinds = [event.type for event in history.events() if event.type.startswith(("slots.", "task_run.", "cache."))]
    assert kinds == [
        "task_run.created",
        "slots.acquired",
        "task_run.running",
        "task_run.completed",
        "cache.stored",
        "slots.released",
        "task_run.created",
        "task_run.completed",
    ]


def test_E97_a_run_that_is_gone_on_with_has_fresh_retries(history: History) -> None:
    """Retries that were used up are there again when a failed run is resumed."""
    attempts = []

    @task(retries=1)
    def t() -> None:
        attempts.append(1)
        raise ValueError

    @flow
    def f() -> None:
        t()

    f(return_state=True)
    resume_run(history.flow_runs("f")[0], flow=f, return_state=True)
    assert len(attempts) == 4
    assert len(history.task_runs("t")) == 1


def test_E98_what_is_kept_of_a_run(engine: Engine, virtual_clock: VirtualClock) -> None:
    """State type and name, when it was created, first ran and ended, and how often it ran."""

    @task(retries=1, retry_delay_seconds=60)
    def t() -> str:
        virtual_clock.sleep(5)
        if len(virtual_clock.slept) == 1:
            raise ValueError
        return "done"

    @flow
    def f() -> str:
        return t()

    start = virtual_clock.now()
    f()
    projector = Projector(engine.log, None)
    try:
        (run,) = queries.list_flow_runs(projector)
        (task_run,) = queries.list_task_runs(projector, run.id)
        attempts = queries.list_attempts(projector, run.id)
    finally:
        projector.close()
    assert (task_run.state_type, task_run.state_name, task_run.run_count) == ("COMPLETED", "Completed", 2)
    assert (task_run.created, task_run.started) == (start, start)
    assert task_run.ended == start + 70_000_000
    assert (run.run_count, run.ended) == (1, start + 70_000_000)
    assert [one.state_type for one in attempts if one.run_id == task_run.id] == ["FAILED", "COMPLETED"]


def test_E136_a_line_is_kept_with_time_level_and_runs(engine: Engine, history: History) -> None:
    """Flow run, task run or none, level, time and text; lines of states are told from their events."""

    @task
    def t() -> None:
        get_run_logger().warning("in the task")

    @flow
    def f() -> None:
        get_run_logger().error("in the flow")
        t()

    f()
    (created,) = history.events("flow_run.created")
    projector = Projector(engine.log, None)
    try:
        lines = queries.list_lines(projector, created.stream.partition("/")[2])
    finally:
        projector.close()
    found = {line.message: line for _, line in lines}
    assert (found["in the flow"].level, found["in the flow"].task_run) == (40, None)
    assert found["in the task"].level == 30
    assert found["in the task"].task_run == history.task_runs("t")[0]["name"]
    assert abs(found["in the task"].at - created.occurred_at) < 60_000_000
    assert "Finished in state Completed()" in found


def test_E165_the_line_of_a_hit(capsys: pytest.CaptureFixture[str]) -> None:
    """A cached task run says so on the console."""

    @task(cache_policy=INPUTS)
    def t(x: Any) -> Any:
        return x

    @flow
    def f() -> None:
        t(1)
        t(1)

    f()
    assert "Finished in state Cached(type=COMPLETED)" in capsys.readouterr().err
