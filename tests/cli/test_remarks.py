"""What the command line says of task runs that are not kept as one might think: not recorded, or not cached."""

from pathlib import Path

import pytest
from tests.cli.test_recorder import document, flightlog, ok

from flightlog import emit_event
from flightlog.engine.runtime import close_engine

FLOWS = """
import threading
from flightlog import flow, task
from flightlog.cache_policies import INPUTS
from flightlog.transactions import transaction

@task(persist_result=False)
def load(n): return n

@task
def connect(): return threading.Lock()

@task
def use(connection, n): return n

@task(cache_policy=INPUTS)
def embed(connection): return 1

@task
def fine(n): return n

@task
def undone(n): return n

@task
def broken(): raise ValueError("broken")

@flow(persist_result=False)
def child(): return 1

@flow(persist_result=False)
def whole(): return fine(1)

@flow
def etl():
    for n in range(3):
        load(n)
    connection = connect()
    use(connection, 1)
    embed(connection)
    fine(1)
    child()
    try:
        with transaction():
            undone(1)
            raise KeyError
    except KeyError:
        pass
    broken()
"""

AGAIN = [
    "Runs again on resume, restart or fork, though it has completed:",
    "  load (3 task runs): its result was not recorded (persist_result=False)",
    "  connect: its result was not recorded (TypeError: cannot pickle '_thread.lock' object)",
    "  use: its arguments cannot be compared with those of another process",
    "  embed: its arguments cannot be compared with those of another process",
    "  child: its result was not recorded (persist_result=False)",
    "  undone: what it did was rolled back",
]
UNCACHED = [
    "Not cached, though it was to be:",
    "  embed: The argument 'connection' (lock) cannot be compared with those of other runs",
]


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A file with flows."""
    file = tmp_path / "flows.py"
    file.write_text(FLOWS)
    return file


def test_what_runs_again_and_what_was_not_cached_is_said(flows: Path) -> None:
    """`runs show` and `runs why` name the tasks, with the reasons; those that are kept are not named."""
    assert flightlog("run", f"{flows}:etl").returncode == 10
    shown = ok("runs", "show", "@last").splitlines()
    start = shown.index(AGAIN[0])
    assert shown[start : start + 9] == AGAIN + UNCACHED
    told = document("runs", "why", "@last")["text"].splitlines()
    assert told[-9:] == AGAIN + UNCACHED
    tasks = {task["task"]: task for task in document("runs", "show", "@last")["task_runs"]}
    assert tasks["use"]["runs_again"] == "its arguments cannot be compared with those of another process"
    assert tasks["fine"]["runs_again"] is tasks["fine"]["uncached"] is None
    assert tasks["embed"]["uncached"].startswith("The argument 'connection'")


def test_a_task_run_says_what_it_means_for_a_resume(flows: Path) -> None:
    """`runs why RUN/TASK` says that it runs again and that it was not cached; and so it does run again."""
    flightlog("run", f"{flows}:etl")
    why = document("runs", "why", "@last/load")["text"]
    assert "It runs again on resume, restart or fork: its result was not recorded (persist_result=False)." in why
    why = document("runs", "why", "@last/embed")["text"]
    assert "It was not cached, though it was to be: The argument 'connection' (lock) cannot be compared" in why
    assert "It runs again on resume" in why
    assert "again" not in document("runs", "why", "@last/fine")["text"]
    flightlog("runs", "resume", "@last")
    counts = {task["task"]: task["run_count"] for task in document("runs", "show", "@last")["task_runs"]}
    assert counts == {
        "load": 2, "connect": 2, "use": 2, "embed": 2, "fine": 1, "child": 2, "undone": 2, "broken": 2
    }  # fmt: skip


def test_the_value_of_a_flow_that_is_not_recorded(flows: Path) -> None:
    """A run whose own value is not recorded says so and why; one whose value is says nothing of it."""
    ok("run", f"{flows}:whole")
    assert "  result      not recorded: persist_result=False" in ok("runs", "show", "@last").splitlines()
    assert document("runs", "show", "@last")["not_recorded"] == "persist_result=False"
    assert "Runs again" not in ok("runs", "show", "@last")


def test_events_of_ones_own_are_told_apart_in_the_list() -> None:
    """The list of events shows what each was called."""
    emit_event("order.paid", {"prefect.resource.id": "order-7"})
    close_engine()
    assert "event.emitted" in ok("events", "ls")
    assert "order.paid" in ok("events", "ls")
