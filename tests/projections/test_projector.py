"""Projections on disk: they follow the log, and can be thrown away."""

import json
import os
from pathlib import Path

import pytest

from flightlog import flow, get_run_logger, task
from flightlog.engine.runtime import current_engine
from flightlog.errors import RunNotFound
from flightlog.events.log import Log
from flightlog.projections import queries
from flightlog.projections.places import projections_path
from flightlog.projections.projector import Projector
from flightlog.projections.runs import RunsProjection


@task(retries=1)
def shaky(n: int) -> int:
    """Fail at the first attempt if the number is odd."""
    from flightlog.engine.context import TaskRunContext

    context = TaskRunContext.get()
    assert context is not None
    if n % 2 and context.task_run.run_count == 1:
        raise ValueError(f"odd: {n}")
    return n * 1000


@task
def total(numbers: list[int]) -> int:
    """Add up."""
    get_run_logger().info("adding %s numbers", len(numbers))
    return sum(numbers)


@flow
def sums(count: int) -> int:
    """Add up some numbers."""
    return total(shaky.map(range(count)))


def open_projector(home: Path) -> tuple[Log, Projector]:
    """Open the projections of the log in a home folder."""
    log = current_engine().log
    return log, Projector(log, projections_path(home / "flightlog.db"))


def test_a_run_is_shown_with_attempts_dependencies_and_lines(own_home: Path) -> None:
    """The runs projection knows the run, its task runs, their attempts, what went where, and what was logged."""
    assert sums(4) == 6000
    _, projector = open_projector(own_home)
    run = queries.find_flow_run(projector, "@last")
    assert (run.flow, run.state_type, run.run_count, json.loads(run.parameters or "")) == (
        "sums", "COMPLETED", 1, {"count": 4},
    )  # fmt: skip
    tasks = queries.list_task_runs(projector, run.id)
    assert sorted((task.task, task.run_count) for task in tasks) == [
        ("shaky", 1), ("shaky", 1), ("shaky", 2), ("shaky", 2), ("total", 1),
    ]  # fmt: skip
    attempts = [a for a in queries.list_attempts(projector, run.id) if a.cause is not None]
    assert [(a.attempt, a.state_type, a.cause, a.error_type) for a in attempts] == [
        (1, "FAILED", "user_error", "ValueError")
    ] * 2
    assert all(a.traceback and "odd:" in a.traceback for a in attempts)
    adder = next(task.id for task in tasks if task.task == "total")
    edges = queries.list_dependencies(projector, run.id)
    assert {(edge.task_run_id, edge.parameter) for edge in edges} == {(adder, "numbers")}
    assert {edge.upstream for edge in edges} == {task.id for task in tasks if task.task == "shaky"}
    lines = [line for _, line in queries.list_lines(projector, run.id)]
    assert [line.message for line in lines if line.task_run and line.task_run.startswith("total")] == [
        "adding 4 numbers",
        "Finished in state Completed()",
    ]
    assert lines[0].message == "Using task runner 'ConcurrentTaskRunner'"
    assert lines[-1].message == "Finished in state Completed()"
    projector.close()


def test_runs_are_found_by_id_prefix_and_name(own_home: Path) -> None:
    """A run is found by whatever a person has of it; what fits several, or none, is a clear error."""
    for _ in range(3):
        sums(1)
    _, projector = open_projector(own_home)
    runs = queries.list_flow_runs(projector)
    assert len(runs) == 3
    newest = runs[0]
    for wanted in (newest.id, newest.id[:23], newest.id.replace("-", "")[:26].upper(), newest.name, "@last"):
        assert queries.find_flow_run(projector, wanted).id == newest.id
    with pytest.raises(RunNotFound, match="fits several runs"):
        queries.find_flow_run(projector, newest.id[:8])
    near = ("b" if newest.name[0] != "b" else "c") + newest.name[1:]
    with pytest.raises(RunNotFound, match=f"Did you mean '{newest.name}'"):
        queries.find_flow_run(projector, near)
    with pytest.raises(RunNotFound):
        queries.find_flow_run(projector, "@last-failed")
    assert queries.list_flow_runs(projector, state="failed") == []
    assert len(queries.list_flow_runs(projector, state="Completed", flow="sums")) == 3
    projector.close()


def test_I6_projections_can_be_deleted_damaged_or_of_another_log(own_home: Path) -> None:
    """Whatever happens to their file, projections are made again from the log."""
    sums(2)
    log, projector = open_projector(own_home)
    expected = queries.list_flow_runs(projector)
    projector.close()
    path = projections_path(own_home / "flightlog.db")
    for spoil in (
        lambda: path.unlink(),
        lambda: path.write_bytes(b"not a database, but long enough to be taken for one" * 100),
        lambda: path.write_bytes(path.read_bytes()[:5000]),
        lambda: path.write_bytes(b""),
    ):
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        spoil()
        projector = Projector(log, path)
        assert queries.list_flow_runs(projector) == expected
        projector.close()


def test_I6_a_new_version_of_a_projection_is_made_again(own_home: Path) -> None:
    """When a projection's version is raised its tables are made anew."""
    sums(2)
    log, projector = open_projector(own_home)
    assert projector.catch_up() == log.head().position
    projector.close()
    newer = RunsProjection()
    newer.version += 1
    projector = Projector(log, projections_path(own_home / "flightlog.db"), [newer])
    assert projector.positions() == {}
    assert len(queries.list_flow_runs(projector)) == 1
    assert projector.positions() == {"runs": log.head().position}
    projector.close()


def test_I6_the_cursor_moves_with_the_rows(own_home: Path) -> None:
    """Catching up goes on where it stopped, event by event."""
    log, projector = open_projector(own_home)
    for expected in (1, 2, 3):
        sums(1)
        assert len(queries.list_flow_runs(projector)) == expected
        assert set(projector.positions().values()) == {log.head().position}
    projector.close()


def test_a_run_whose_process_is_gone_is_told_from_one_that_runs(own_home: Path) -> None:
    """A run that is called running is lost when its process, known by its start time, is gone."""
    _, projector = open_projector(own_home)
    seen = []

    @flow
    def looks_at_itself() -> None:
        current_engine().log.flush()
        run = queries.find_flow_run(projector, "@last")
        seen.append((run.state_type, run.pid, run.lost))

    looks_at_itself()
    assert seen == [("RUNNING", os.getpid(), False)]
    projector.close()
