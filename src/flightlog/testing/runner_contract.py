"""What every task runner must do: inherit from `RunnerContract`, give it runners, and run it with pytest.

Nothing here looks into this process's memory from a task: tasks of some runners run in other processes.
"""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flightlog.cache_policies import INPUTS
from flightlog.engine.annotations import allow_failure
from flightlog.engine.artifacts import create_markdown_artifact
from flightlog.engine.concurrency import set_limit
from flightlog.engine.context import get_run_context
from flightlog.engine.custom_events import emit_event
from flightlog.engine.flows import Flow, flow
from flightlog.engine.run_logs import get_run_logger
from flightlog.engine.runtime import Engine, open_engine, using
from flightlog.engine.tags import tags
from flightlog.engine.task_runners import TaskRunner
from flightlog.engine.tasks import Task, task
from flightlog.events.opening import open_log
from flightlog.runtime import flow_run, task_run
from flightlog.settings import Settings
from flightlog.testing.engines import memory_engine


@task
def give(x: Any) -> Any:
    """Return what it is given."""
    return x


@task
def add(x: int, y: int = 1) -> int:
    """Return a sum."""
    return x + y


@task
def fail(text: str) -> None:
    """Fail."""
    raise LookupError(text)


@task
async def give_async(x: Any) -> Any:
    """Return what it is given, from a coroutine."""
    return x


@task(log_prints=True)
def speak(text: str) -> int:
    """Log a line and print another; return the process."""
    get_run_logger().warning("logged %s", text)
    print(f"printed {text}")
    return os.getpid()


@task
def call_another(x: int) -> int:
    """Call a task and catch what another one raises."""
    try:
        fail("inside")
    except LookupError:
        return add(x, 10)
    return -1


@flow
def subflow(x: int) -> int:
    """Call a task."""
    return add(x, 100)


@task
def call_flow(x: int) -> int:
    """Call a flow."""
    return subflow(x)


@task
def recorded(url: str, _: Any = None) -> list[str]:
    """Return which events of task runs are committed while this one runs."""
    with open_log(url, read_only=True) as log:
        return [event.type.partition(".")[2] for event in log.read_all() if event.type.startswith("task_run.")]


@task
def leave_things() -> None:
    """Leave an event of one's own, and an artifact."""
    emit_event("file.arrived", {"flightlog.resource.id": "file"})
    create_markdown_artifact("# It arrived", key="arrival")


@task(tags=["own"])
def facts(x: int) -> dict[str, Any]:
    """Return what a task knows of its run."""
    context: Any = get_run_context()
    return {
        "names": (context.task.name, task_run.name, flow_run.name, flow_run.flow_name),
        "ids": (task_run.id, flow_run.id),
        "rest": (task_run.tags, task_run.parameters, task_run.run_count),
    }


@task
def count_up(folder: str, seconds: float = 0.0) -> int:
    """Return how many had begun with this when it began, and take some time."""
    path = Path(folder) / f"{time.time_ns()}-{os.getpid()}-{threading.get_ident()}"
    path.touch()
    time.sleep(seconds)
    return len(list(Path(folder).iterdir()))


@task
def how_many_at_once(folder: str) -> int:
    """Return how many of these run at the same time."""
    path = Path(folder) / f"{os.getpid()}-{threading.get_ident()}"
    path.touch()
    time.sleep(0.05)
    found = len(list(Path(folder).iterdir()))
    path.unlink()
    return found


class RunnerContract(ABC):
    """The contract of a task runner, as tests. Override `runner`, a fixture that returns a new one.

    Attributes:
        in_order: whether submitted tasks run one after the other.
    """

    in_order = False

    @pytest.fixture
    @abstractmethod
    def runner(self) -> Any:
        """Return a runner that has not been started."""

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        """Run on a log in memory."""
        with memory_engine() as engine:
            yield engine

    @staticmethod
    def _run(runner: TaskRunner, function: Any, *args: Any) -> Any:
        return Flow(function, name="contract", task_runner=runner)(*args)

    @staticmethod
    def _states(engine: Engine, of: Task[..., Any]) -> list[list[str]]:
        """Return the event types of each run of a task, in order."""
        engine.log.flush()
        runs: dict[bytes, list[str]] = {}
        for event in engine.log.read_all():
            kind, _, suffix = event.type.partition(".")
            if kind == "task_run" and suffix == "created" and event.data["task"] == of.name:
                runs[event.data["task_run_id"]] = []
            if kind == "task_run" and (run := runs.get(event.data["task_run_id"])) is not None:
                run.append(suffix)
        return list(runs.values())

    def test_it_is_named_and_duplicated(self, runner: TaskRunner) -> None:
        """It has a name and a kind; a duplicate is another one of its class."""
        assert runner.name
        assert runner.concurrency_type in ("SEQUENTIAL", "CONCURRENT", "PARALLEL")
        other = runner.duplicate()
        assert other is not runner
        assert type(other) is type(runner)

    def test_it_takes_nothing_before_it_is_started_and_starts_once(self, runner: TaskRunner) -> None:
        """Both are a RuntimeError."""
        with pytest.raises(RuntimeError):
            runner.submit(None)  # type: ignore[arg-type]
        with runner.start(), pytest.raises(RuntimeError), runner.start():
            pass

    def test_results_come_back(self, runner: TaskRunner, engine: Engine) -> None:
        """Values go to the task and come back, many of them."""

        def f() -> Any:
            values = [1, "a", None, {"k": [1.5, b"x"]}, (1, 2)]
            return [future.result() for future in give.map(values)], add.map(range(20)).result()

        assert self._run(runner, f) == ([1, "a", None, {"k": [1.5, b"x"]}, (1, 2)], list(range(1, 21)))
        assert self._states(engine, add) == [["created", "running", "completed"]] * 20

    def test_futures_are_resolved_before_the_task_runs(self, runner: TaskRunner, engine: Engine) -> None:
        """A future as an argument, also nested, becomes its value."""

        def f() -> Any:
            first = add.submit(1)
            second = add.submit(first, y=first)
            return give.submit({"a": [first, second]}).result()

        assert self._run(runner, f) == {"a": [2, 4]}

    def test_a_failure_is_the_tasks_own(self, runner: TaskRunner, engine: Engine) -> None:
        """The exception arrives with class and text, and where it was raised is on record."""

        def f() -> str:
            error = fail.submit("not here").result(raise_on_failure=False)
            return f"{type(error).__name__}: {error}"

        state = Flow(f, name="contract", task_runner=runner)(return_state=True)
        assert state.result(raise_on_failure=False) == "LookupError: not here"
        (failed,) = [event.data for event in engine.log.read_all(types=["task_run.failed"])]
        assert failed["error"]["type"] == "LookupError"
        assert "raise LookupError(text)" in failed["error"]["traceback"]
        assert "flightlog/engine" not in failed["error"]["traceback"]

    def test_what_rests_on_a_failure_is_not_ready(self, runner: TaskRunner, engine: Engine) -> None:
        """A failed upstream keeps a task from running, unless it is allowed to fail."""

        def f() -> Any:
            failed = fail.submit("no")
            state: Any = give.submit(failed).wait()
            return state.name, str(give.submit(allow_failure(failed)).result())

        assert self._run(runner, f) == ("NotReady", "no")
        assert self._states(engine, give)[0] == ["created", "not_ready"]

    def test_retries_are_made(self, runner: TaskRunner, engine: Engine) -> None:
        """A failed attempt is tried again as often as the task says."""

        def f() -> Any:
            state: Any = fail.with_options(retries=2).submit("again").wait()
            return state.name

        assert self._run(runner, f) == "Failed"
        attempt = ["running", "awaiting_retry"]
        assert self._states(engine, fail) == [["created", *attempt, *attempt, "running", "failed"]]

    def test_a_time_limit_holds(self, runner: TaskRunner, engine: Engine) -> None:
        """A task that takes longer than it may ends as TimedOut, and the flow goes on."""

        def sleep() -> None:
            time.sleep(30)

        slow = Task(sleep, timeout_seconds=0.2)

        def f() -> Any:
            state: Any = slow.submit().wait()
            return state.name, give.submit(1).result()

        assert self._run(runner, f) == ("TimedOut", 1)

    def test_async_tasks_run_too(self, runner: TaskRunner, engine: Engine) -> None:
        """Tasks of coroutine functions can be submitted by sync flows."""

        def f() -> Any:
            futures: list[Any] = [give_async.submit(n) for n in range(3)]
            return [future.result() for future in futures]

        assert self._run(runner, f) == [0, 1, 2]

    def test_log_lines_and_prints_reach_the_log(self, runner: TaskRunner, engine: Engine) -> None:
        """With the task run that they belong to."""

        def f() -> Any:
            return speak.submit("this").result()

        self._run(runner, f)
        engine.log.flush()
        (run,) = [event.data["task_run_id"] for event in engine.log.read_all(types=["task_run.created"])]
        lines = [line for event in engine.log.read_all(types=["log.lines"]) for line in event.data["lines"]]
        assert [(line[1], line[3], line[4]) for line in lines] == [(30, run, "logged this"), (20, run, "printed this")]

    def test_a_task_may_call_tasks(self, runner: TaskRunner, engine: Engine) -> None:
        """Calls that a task makes are task runs of the same flow run, and raise what they raise."""

        def f() -> Any:
            return call_another.submit(1).result()

        assert self._run(runner, f) == 11
        assert self._states(engine, add) == [["created", "running", "completed"]]
        assert self._states(engine, fail) == [["created", "running", "failed"]]

    def test_a_flow_waits_for_what_it_submitted(self, runner: TaskRunner, engine: Engine) -> None:
        """Nobody asked for the result, and the task has ended all the same when the flow has."""

        def f() -> int:
            give.map(range(5))
            return 1

        assert self._run(runner, f) == 1
        assert [states[-1] for states in self._states(engine, give)] == ["completed"] * 5

    def test_what_is_needed_is_committed_before_a_task_begins(self, runner: TaskRunner, tmp_path: Path) -> None:
        """That it runs, and how all that it rests on ended: a task that looks into the log's file finds it."""
        url = f"sqlite:///{tmp_path}/log.db"

        def f() -> Any:
            return recorded.submit(url, give.submit(1)).result()

        engine = open_engine(Settings(home=tmp_path, log_url=url))
        try:
            with using(engine):
                found = self._run(runner, f)
                assert (found.pop(), sorted(found)) == ("running", ["completed", "created", "created", "running"])
        finally:
            engine.close()

    def test_a_task_knows_what_it_runs_for(self, runner: TaskRunner, engine: Engine) -> None:
        """Names, ids, tags, parameters and attempt are those of the run."""

        def f() -> Any:
            with tags("outer"):
                future = facts.submit(3)
            found = future.result()
            return (
                found["names"] == ("facts", future.name, flow_run.name, "contract"),
                found["ids"]
                == (
                    future.task_run_id,
                    flow_run.id,
                ),
                found["rest"],
            )

        assert self._run(runner, f) == (True, True, (["outer", "own"], {"x": 3}, 1))

    def test_events_and_artifacts_reach_the_log(self, runner: TaskRunner, engine: Engine) -> None:
        """With the task run that left them."""

        def f() -> None:
            leave_things.submit()

        self._run(runner, f)
        engine.log.flush()
        events = list(engine.log.read_all())
        (run,) = [event.data["task_run_id"] for event in events if event.type == "task_run.created"]
        left = [event for event in events if event.type.partition(".")[0] not in ("flow_run", "task_run", "log")]
        assert len(left) == 2
        assert [event.data["task_run_id"] for event in left] == [run, run]

    def test_a_task_may_call_flows(self, runner: TaskRunner, engine: Engine) -> None:
        """They are subflows, with runs of their own."""

        def f() -> Any:
            return call_flow.submit(1).result()

        assert self._run(runner, f) == 101
        engine.log.flush()
        assert [event.data["flow"] for event in engine.log.read_all(types=["flow_run.created"])] == [
            "contract",
            "subflow",
        ]

    def test_values_in_the_cache_are_not_computed_again(
        self, runner: TaskRunner, engine: Engine, tmp_path: Path
    ) -> None:
        """A call that is in the cache ends without its function being called."""
        cached = count_up.with_options(cache_policy=INPUTS)

        def f() -> Any:
            return [cached.submit(str(tmp_path)).result() for _ in range(2)]

        assert self._run(runner, f) == [1, 1]
        assert self._states(engine, cached) == [["created", "running", "completed"], ["created", "completed"]]

    def test_limits_of_tags_hold(self, runner: TaskRunner, engine: Engine, tmp_path: Path) -> None:
        """No more tasks of a tag run at the same time than its limit says."""
        set_limit("tag:one", 1)
        limited = how_many_at_once.with_options(tags=["one"])

        def f() -> Any:
            return [future.result() for future in [limited.submit(str(tmp_path)) for _ in range(4)]]

        assert self._run(runner, f) == [1, 1, 1, 1]
