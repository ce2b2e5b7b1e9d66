"""What task runners must do besides whose tasks run in other processes; see `RunnerContract`."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flightlog.engine.cancelling import cancel_run
from flightlog.engine.flows import Flow
from flightlog.engine.runtime import Engine
from flightlog.engine.task_runners import ConcurrentTaskRunner, TaskRunner
from flightlog.engine.tasks import Task, task
from flightlog.errors import LostWorker
from flightlog.testing.runner_contract import RunnerContract, add, give


@task
def kill_itself(once: str | None = None) -> str:
    """Be killed; with the name of a file, only as long as there is no such file."""
    if once is None or not Path(once).exists():
        if once is not None:
            Path(once).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@task
def process() -> int:
    """Return the process."""
    return os.getpid()


@task
def change(values: list[int]) -> list[int]:
    """Change what it is given."""
    values.append(len(values))
    return values


@task
def wait_for_ever(flag: str) -> None:
    """Say that this has begun, and go on for minutes."""
    Path(flag).touch()
    for _ in range(6000):
        time.sleep(0.01)


class Holder:
    """Holds what cannot travel."""

    def __init__(self) -> None:
        self.inner = {"locks": [threading.Lock()]}


@task
def hold() -> Any:
    """Return what cannot travel."""
    return {"k": Holder()}


class WorkerContract(RunnerContract):
    """The contract of a task runner with workers in other processes, as tests. Override `runner`."""

    def test_tasks_run_in_other_processes(self, runner: TaskRunner, engine: Engine) -> None:
        """Also when a thread of another runner waits for them, which does what it waits for itself elsewhere."""

        def f() -> int:
            return process.submit().result()

        def calls() -> int:
            found: int = self._run(runner, f)
            return found

        def outer() -> int:
            return Task(calls).submit().result()

        assert self._run(runner, f) != os.getpid()
        assert self._run(ConcurrentTaskRunner(), outer) != os.getpid()

    def test_a_worker_that_dies_crashes_its_task_and_not_the_flow(self, runner: TaskRunner, engine: Engine) -> None:
        """Crashed, with the cause class `lost_worker`; the flow goes on, and others find workers."""

        def f() -> Any:
            future = kill_itself.submit()
            after = add.submit(future)
            with pytest.raises(LostWorker):
                future.result()
            state: Any = after.wait()
            return future.state.name, state.name, add.map(range(3)).result()

        assert self._run(runner, f) == ("Crashed", "NotReady", [1, 2, 3])
        assert self._states(engine, kill_itself) == [["created", "running", "crashed"]]
        (crashed,) = [event.data for event in engine.log.read_all(types=["task_run.crashed"])]
        assert crashed["cause"] == "lost_worker"

    def test_a_lost_worker_has_a_budget_of_its_own(self, runner: TaskRunner, engine: Engine, tmp_path: Path) -> None:
        """With `retries={"lost_worker": 2}` the task is tried again in another worker, and what rests on it runs."""
        once = kill_itself.with_options(retries={"lost_worker": 2})

        def f() -> Any:
            return give.submit(once.submit(str(tmp_path / "flag"))).result()

        assert self._run(runner, f) == "alive"
        assert self._states(engine, once) == [["created", "running", "awaiting_retry", "running", "completed"]]
        (waited,) = [event.data for event in engine.log.read_all(types=["task_run.awaiting_retry"])]
        assert waited["cause"] == "lost_worker"

    @pytest.mark.parametrize(
        ("value", "place"),
        [
            ("lock", "argument x cannot be sent"),
            ("list", "x['a'][1] cannot be"),
            ("held", "x.inner['locks'][0] cannot"),
        ],
    )
    def test_what_cannot_travel_is_named_with_its_place(
        self, runner: TaskRunner, engine: Engine, value: str, place: str
    ) -> None:
        """The error names the argument, and the way inside it."""
        values: dict[str, Any] = {"lock": threading.Lock(), "list": {"a": [1, threading.Lock()]}, "held": Holder()}

        def f() -> str:
            return str(give.submit(values[value]).wait())

        assert place in self._run(runner, f)

    def test_a_result_that_cannot_travel_is_named_with_its_place(self, runner: TaskRunner, engine: Engine) -> None:
        """The same for what the task returns; workers go on working."""

        def f() -> Any:
            return str(hold.submit().wait()), add.submit(1).result()

        told, value = self._run(runner, f)
        assert "The result['k'].inner['locks'][0] cannot be sent" in told
        assert value == 2

    def test_tasks_do_not_share_what_they_are_given(self, runner: TaskRunner, engine: Engine) -> None:
        """Each gets a copy of its own of what another has returned."""

        def f() -> Any:
            values = give.submit([1])
            changed = change.submit(values)
            again = change.submit(values, wait_for=[changed])
            return values.result(), changed.result(), again.result()

        assert self._run(runner, f) == ([1], [1, 1], [1, 1])

    def test_tasks_in_workers_do_not_submit(self, runner: TaskRunner, engine: Engine) -> None:
        """Submitting there is a clear error."""

        def submits() -> Any:
            return process.submit()

        def f() -> str:
            return str(Task(submits).submit().result(raise_on_failure=False))

        assert "cannot be submitted from a worker process" in self._run(runner, f)

    def test_an_exit_of_the_code_is_no_loss_of_the_worker(self, runner: TaskRunner, engine: Engine) -> None:
        """`sys.exit` crashes the task, as in every runner."""

        def leave() -> None:
            raise SystemExit(7)

        def f() -> None:
            Task(leave).submit().wait()

        with pytest.raises(SystemExit):
            self._run(runner, f)
        (crashed,) = [event.data for event in engine.log.read_all(types=["task_run.crashed"])]
        assert crashed["message"] == "Execution was aborted by Python system exit call."

    def test_cancelling_ends_what_runs(self, runner: TaskRunner, engine: Engine, tmp_path: Path) -> None:
        """A cancelled flow run does not wait for what its tasks would still do; they are cancelled."""
        flag = tmp_path / "begun"

        def f() -> None:
            wait_for_ever.submit(str(flag)).wait()

        def cancel() -> None:
            end = time.monotonic() + 60
            while not flag.exists() and time.monotonic() < end:
                time.sleep(0.01)
            created = next(engine.log.read_all(types=["flow_run.created"]))
            cancel_run(created.stream.removeprefix("flow-run/"), engine=engine)

        thread = threading.Thread(target=cancel)
        thread.start()
        state: Any = Flow(f, name="contract", task_runner=runner)(return_state=True)
        thread.join()
        assert state.is_cancelled()
        assert self._states(engine, wait_for_ever) == [["created", "running", "cancelled"]]
