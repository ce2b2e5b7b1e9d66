"""The process runner: workers that die, what cannot travel, forks, exits, cancellation, and nothing left over."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.engine.conftest import History

from flightlog import cancel_run, flow, get_run_context, get_run_logger, tags, task
from flightlog.context import FlowRunContext, TaskRunContext
from flightlog.engine.runtime import Engine
from flightlog.errors import LostWorker
from flightlog.runtime import flow_run, task_run
from flightlog.task_runners import ProcessPoolTaskRunner

TWO = ProcessPoolTaskRunner(max_workers=2)


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Any:
    yield
    assert not _workers()


def _workers() -> list[int]:
    """Return the worker processes that this process has."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and b"flightlog-worker" in (place / "cmdline").read_bytes() and state != "Z":
                found.append(int(place.name))
    return found


@task
def kill_itself(once: str | None = None) -> str:
    """Be killed; with a file's name, only as long as there is no such file."""
    if once is None or not Path(once).exists():
        if once is not None:
            Path(once).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@task
def pid() -> int:
    """Return the process."""
    return os.getpid()


def test_E110_a_worker_that_dies_crashes_its_task_and_not_the_flow(history: History) -> None:
    """Crashed, with the signal and the cause class `lost_worker`; the flow goes on, and others find new workers."""

    @flow(task_runner=TWO)
    def f() -> Any:
        future = kill_itself.submit()
        with pytest.raises(LostWorker, match="killed by SIGKILL"):
            future.result()
        return str(future.state), [one.result() for one in [pid.submit() for _ in range(3)]]

    state, pids = f()
    assert state.startswith("Crashed('The worker process ")
    assert os.getpid() not in pids
    (crashed,) = history.data("task_run.crashed")
    assert crashed["cause"] == "lost_worker"


def test_E110_an_exit_of_a_worker_is_no_exit_of_the_flow(history: History) -> None:
    """`os._exit` in a task ends the worker; `sys.exit` crashes task and flow, as in every runner."""

    @task
    def leave(hard: bool) -> None:
        os._exit(7) if hard else sys.exit(7)

    @flow(task_runner=TWO)
    def hard() -> str:
        return str(leave.submit(True).wait())

    @flow(task_runner=TWO)
    def soft() -> None:
        leave.submit(False).wait()

    assert "ended with exit code 7" in hard()
    state = soft(return_state=True)
    assert state.is_failed()
    assert history.data("task_run.crashed")[1]["message"] == "Execution was aborted by Python system exit call."


def test_a_lost_worker_has_a_budget_of_its_own(tmp_path: Path, history: History) -> None:
    """With `retries={"lost_worker": 2}` the task is tried again in another worker; failures of the code are not."""
    once = kill_itself.with_options(retries={"lost_worker": 2})

    @flow(task_runner=TWO)
    def f() -> str:
        return once.submit(str(tmp_path / "flag")).result()

    assert f() == "alive"
    assert history.states("kill_itself") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]]
    assert history.data("task_run.awaiting_retry")[0]["cause"] == "lost_worker"


class Holder:
    """Holds what cannot travel."""

    def __init__(self) -> None:
        self.inner = {"locks": [threading.Lock()]}


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (threading.Lock, "argument x cannot be sent"),
        (lambda: {"a": [1, threading.Lock()]}, "argument x['a'][1] cannot be sent"),
        (Holder, "argument x.inner['locks'][0] cannot be sent"),
        (lambda: (n for n in [1]), None),
    ],
)
def test_what_cannot_travel_is_named_with_its_place(make: Any, place: str | None) -> None:
    """The error names the argument, and the way inside it; generators are made lists, and travel."""

    @task
    def take(x: Any) -> Any:
        return 1

    @flow(task_runner=TWO)
    def f() -> Any:
        return str(take.submit(make()).wait())

    assert (place or "Completed") in f()


def test_a_result_that_cannot_travel_is_named_with_its_place() -> None:
    """The same for what the task returns; the worker goes on working."""

    @task
    def give() -> Any:
        return {"k": Holder()}

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def f() -> Any:
        return str(give.submit().wait()), pid.submit().result()

    state, _ = f()
    assert "The result['k'].inner['locks'][0] cannot be sent" in state
    assert "_thread.lock" in state


class Awkward(Exception):
    """An exception that holds what cannot travel."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.lock = threading.Lock()


def test_an_exception_that_cannot_travel_has_a_stand_in(history: History) -> None:
    """Its class and text are told; its traceback is on record."""

    @task
    def fail() -> None:
        raise Awkward(1, 2)

    @flow(task_runner=TWO)
    def f() -> str:
        return str(fail.submit().result(raise_on_failure=False))

    assert f() == "Awkward: 1 and 2"
    assert "raise Awkward(1, 2)" in history.data("task_run.failed")[0]["error"]["traceback"]


def test_a_task_that_forks_answers_once() -> None:
    """A forked child that comes back out of the task says nothing, and ends."""

    @task
    def forks() -> str:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return "parent" if child else "child"

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def f() -> Any:
        return [forks.submit().result() for _ in range(2)]

    assert f() == ["parent", "parent"]


def test_E109_a_worker_knows_what_it_runs_for() -> None:
    """Context, facts and tags are those of the run; the loggers say whose lines they are."""

    @task(tags=["own"])
    def look(x: int) -> dict[str, Any]:
        context = get_run_context()
        assert isinstance(context, TaskRunContext)
        assert FlowRunContext.get() is not None
        logger = get_run_logger()
        assert logger.extra is not None
        return {
            "task": context.task.name,
            "names": (task_run.name, flow_run.name, flow_run.flow_name),
            "ids": (task_run.id, flow_run.id, logger.extra["task_run_id"]),
            "tags": task_run.tags,
            "parameters": task_run.parameters,
            "count": task_run.run_count,
        }

    @flow(task_runner=TWO)
    def f() -> Any:
        with tags("outer"):
            future = look.submit(3)
        found = future.result()
        assert found["names"] == (future.name, flow_run.name, "f")
        assert found["ids"] == (future.task_run_id, flow_run.id, future.task_run_id)
        return found["task"], found["tags"], found["parameters"], found["count"]

    assert f() == ("look", ["outer", "own"], {"x": 3}, 1)


class Model(BaseModel):
    """A model of a test's own."""

    n: int


def test_E109_models_methods_and_closures_travel() -> None:
    """What cloudpickle can take along, arrives."""
    offset = 5

    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        @task
        def add(self, model: Model) -> Model:
            return Model(n=self.n + model.n + offset)

    @flow(task_runner=TWO)
    def f() -> Any:
        return Adder(10).add.submit(Model(n=1)).result()

    assert f() == Model(n=16)


def _initialize(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("x")


def test_E111_an_initializer_is_called_once_in_each_worker(tmp_path: Path) -> None:
    """`initializer(*initargs)` comes first in each worker, and workers are used again."""
    path = tmp_path / "initialized"

    @flow(task_runner=ProcessPoolTaskRunner(2, _initialize, (str(path),)))
    def f() -> int:
        return len({future.result() for future in [pid.submit() for _ in range(10)]})

    assert f() == len(path.read_text()) <= 2


def test_E111_tasks_in_workers_do_not_submit() -> None:
    """Submitting or mapping there is a clear error; calling is not."""

    @task
    def submits(how: str) -> Any:
        return getattr(pid, how)(*([[]] if how == "map" else []))

    @flow(task_runner=TWO)
    def f() -> Any:
        return [str(submits.submit(how).result(raise_on_failure=False)) for how in ("submit", "map")]

    assert all("cannot be submitted from a worker process" in text for text in f())


@flow
def subflow(n: int) -> int:
    """Call a task."""
    return n + len(str(pid()))


def test_a_task_in_a_worker_may_call_a_flow(history: History) -> None:
    """It is a subflow of the flow run, with runs of its own."""

    @task
    def calls() -> bool:
        return subflow(1) > 1

    @flow(task_runner=TWO)
    def f() -> bool:
        return calls.submit().result()

    assert f()
    assert len(history.flow_runs("subflow")) == 1


def test_E152_a_cancelled_flow_kills_its_workers(engine: Engine, history: History, tmp_path: Path) -> None:
    """Code in worker processes is ended hard, at once."""
    flag = tmp_path / "begun"

    @task
    def blocks() -> None:
        flag.touch()
        time.sleep(60)

    @flow(task_runner=TWO)
    def f() -> None:
        blocks.submit().wait()

    def cancel() -> None:
        end = time.monotonic() + 30
        while not flag.exists() and time.monotonic() < end:
            time.sleep(0.01)
        cancel_run(history.flow_runs("f")[0], engine=engine)

    thread = threading.Thread(target=cancel)
    thread.start()
    state = f(return_state=True)
    thread.join()
    assert state.is_cancelled()
    assert history.states("blocks")[0][-1] == "Cancelled"


SCRIPT = """
import os, signal, sys, time
from flightlog import flow, task
from flightlog.task_runners import ProcessPoolTaskRunner

@task
def told(n):
    print(os.getpid(), flush=True)
    time.sleep(60)

@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def f():
    told.map([1, 2])

if __name__ == "__main__":
    f()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    """However that ends: killed, terminated, interrupted."""
    import subprocess

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "FLIGHTLOG_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(number)
    process.wait(30)
    process.stdout.close()
    end = time.monotonic() + 20
    while any(_is_there(worker) for worker in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(_is_there(worker) for worker in workers)


def _is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


BUSY = """
import os, subprocess
from flightlog import flow, task
from flightlog.task_runners import ProcessPoolTaskRunner

@task
def busy():
    child = subprocess.Popen(["sleep", "300"])
    print(os.getpid(), child.pid, flush=True)
    sum(range(10**13))  # no other thread of this process runs meanwhile

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def f():
    busy.submit()

f()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell")
def test_a_worker_that_cannot_look_ends_all_the_same_and_with_it_what_it_has_started(tmp_path: Path) -> None:
    """A library that never lets go of the interpreter keeps no process alive whose flow was killed."""
    import subprocess

    script = tmp_path / "script.py"
    script.write_text(BUSY)
    environment = {**os.environ, "FLIGHTLOG_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout is not None
    found = [int(number) for number in process.stdout.readline().split()]
    process.kill()
    process.wait(30)
    process.stdout.close()
    end = time.monotonic() + 20
    while any(_is_there(one) for one in found) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(_is_there(one) for one in found)


def test_a_time_limit_ends_what_a_task_has_started(tmp_path: Path, history: History) -> None:
    """The worker is ended, and its own children with it."""
    import subprocess

    place = tmp_path / "child"

    @task(timeout_seconds=1)
    def starts() -> None:
        child = subprocess.Popen(["sleep", "300"])
        place.write_text(str(child.pid))
        child.wait()

    @flow(task_runner=TWO)
    def f() -> str:
        state: Any = starts.submit().wait()
        return str(state.name)

    assert f() == "TimedOut"
    end = time.monotonic() + 20
    while _is_there(int(place.read_text())) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _is_there(int(place.read_text()))


def test_a_worker_that_dies_leaves_nothing_behind(tmp_path: Path, history: History) -> None:
    """What its task has started ends, before the task is tried again."""
    import subprocess

    place = tmp_path / "child"

    @task(retries={"lost_worker": 1})
    def dies() -> Any:
        if place.exists():
            return _is_there(int(place.read_text()))
        place.write_text(str(subprocess.Popen(["sleep", "300"]).pid))
        os._exit(3)

    @flow(task_runner=TWO)
    def f() -> Any:
        return dies.submit().result()

    assert f() is False


def test_a_task_that_closes_all_files_is_a_lost_one(capfd: pytest.CaptureFixture[str], history: History) -> None:
    """No answer can come from there any more; standard error shows nothing of ours."""

    @task
    def closes() -> None:
        os.closerange(3, 256)

    @flow(task_runner=TWO)
    def f() -> str:
        return str(closes.submit().wait())

    assert f().startswith("Crashed('The worker process ")  # its own look-out may be quicker to end it
    assert "Traceback" not in capfd.readouterr().err


def test_a_killed_worker_costs_its_own_task_only(history: History) -> None:
    """Those that wait for a worker get another one, and all ends are on record."""

    @task
    def last(n: int) -> int:
        if n == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    @flow(task_runner=TWO)
    def f() -> Any:
        return [future.wait().name for future in last.map(range(10))]

    expected = ["Completed"] * 2 + ["Crashed"] + ["Completed"] * 7
    assert f() == expected
    assert [states[-1] for states in history.states("last")] == expected
