"""What becomes of a flow run on Dask when something dies: workers with and without a nanny, the scheduler, the flow."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import distributed
import pytest

from flightlog import flow, task
from flightlog.clock import SystemClock
from flightlog.errors import LostWorker
from flightlog.testing import FlowTest, flightlog_test_harness
from flightlog_dask import DaskTaskRunner
from flightlog_dask.transport import DaskTransport


@pytest.fixture
def test() -> Iterator[FlowTest]:
    """Run the test's flows on a log in memory."""
    with flightlog_test_harness(SystemClock()) as test:
        yield test


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@task
def stay(flag: str) -> None:
    """Write down which process this is, and stay for a minute."""
    Path(flag).write_text(str(os.getpid()))
    for _ in range(6000):
        time.sleep(0.01)


@task
def one(_: Any = None) -> int:
    """Return 1."""
    return 1


def killed(flag: Path) -> None:
    """Kill the process that a file names, once it does."""
    wait_for(lambda: flag.exists() and flag.read_text())
    os.kill(int(flag.read_text()), signal.SIGKILL)


def test_a_worker_without_nanny_that_is_killed_crashes_its_task(
    test: FlowTest, own_cluster: Any, tmp_path: Path
) -> None:
    """At once, though Dask itself waits for another worker; when one comes, tasks run there."""
    own_cluster.add()

    @flow(task_runner=DaskTaskRunner(address=own_cluster.address))
    def f() -> Any:
        future, waiting = stay.submit(str(tmp_path / "flag")), one.submit()
        killed(tmp_path / "flag")
        with pytest.raises(LostWorker, match=r"The worker tcp://127.0.0.1:[0-9]+ was lost while the task ran in it"):
            future.result()
        own_cluster.add()
        return waiting.result(), one.submit().result()

    assert f() == (1, 1)
    assert test.states("stay") == [["Pending", "Running", "Crashed"]]
    assert test.data("task_run.crashed")[0]["cause"] == "lost_worker"


def test_a_worker_that_dask_replaces_crashes_its_task_or_has_it_tried_again(
    test: FlowTest, cluster: Any, tmp_path: Path
) -> None:
    """Dask runs the task again on its own account; only if its retries say so it really is."""

    @task(retries={"lost_worker": 1})
    def twice(flag: str) -> str:
        if Path(flag).exists():
            return "done"
        Path(flag).write_text(str(os.getpid()))
        time.sleep(60)
        return "never"

    @flow(task_runner=DaskTaskRunner(address=cluster.address))
    def f() -> Any:
        once, again = stay.submit(str(tmp_path / "once")), twice.submit(str(tmp_path / "again"))
        after = one.submit(again)
        killed(tmp_path / "once")
        killed(tmp_path / "again")
        return str(once.wait()), again.result(), after.result()

    state, value, after = f()
    assert state.startswith("Crashed('The worker tcp://127.0.0.1:")
    assert (value, after) == ("done", 1)
    assert test.states("stay") == [["Pending", "Running", "Crashed"]]


def test_values_that_are_lost_with_a_worker_are_not_computed_again(
    test: FlowTest, own_cluster: Any, tmp_path: Path
) -> None:
    """The flow's process has them, and sends them along."""
    own_cluster.add()

    @task
    def count(folder: str) -> tuple[int, str]:
        (Path(folder) / f"{time.time_ns()}").touch()
        return os.getpid(), "x" * 10

    @task
    def length(x: Any) -> int:
        return len(x[1])

    @flow(task_runner=DaskTaskRunner(address=own_cluster.address))
    def f(folder: str) -> Any:
        first = count.submit(folder)
        os.kill(first.result()[0], signal.SIGKILL)
        own_cluster.add()
        return length.submit(first).result()

    folder = tmp_path / "calls"
    folder.mkdir()
    assert f(str(folder)) == 10
    assert len(list(folder.iterdir())) == 1
    assert test.states("count") == [["Pending", "Running", "Completed"]]


def test_without_a_scheduler_tasks_crash(test: FlowTest, own_cluster: Any, tmp_path: Path) -> None:
    """Those that run, and those that wait; the flow run ends."""
    own_cluster.add()

    @flow(task_runner=DaskTaskRunner(address=own_cluster.address, client_kwargs={"timeout": 1}))
    def f() -> Any:
        futures = [stay.submit(str(tmp_path / "flag")), one.submit()]
        wait_for((tmp_path / "flag").exists)
        own_cluster.scheduler.kill()
        later = [future.wait() for future in futures]
        return [str(state) for state in [*later, one.submit().wait()]]

    assert all("he Dask scheduler is out of reach." in state for state in f())
    assert {data["cause"] for data in test.data("task_run.crashed")} == {"lost_worker"}


class Impatient(DaskTaskRunner):
    """Waits for workers of its own cluster for a second only."""

    def _connect(self) -> DaskTransport:
        super()._connect()
        transport = DaskTransport(self.client, grows=False)
        transport.patience = 1.0
        return transport


def test_a_cluster_of_its_own_whose_workers_are_all_gone_is_given_up(test: FlowTest, tmp_path: Path) -> None:
    """Without nannies nobody brings another worker: what waits for one crashes."""
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "processes": False}

    @flow(task_runner=Impatient(cluster_kwargs=options))
    def f() -> Any:
        waiting = [stay.submit(str(tmp_path / "flag")), one.submit()]
        wait_for((tmp_path / "flag").exists)
        runner: Any = flow_run_runner()
        runner._own_cluster.scale(0)
        return [str(future.wait()) for future in waiting]

    assert all("Crashed" in state for state in f())


def flow_run_runner() -> Any:
    """Return the present flow run's task runner."""
    from flightlog.context import FlowRunContext

    context = FlowRunContext.get()
    assert context is not None
    return context.task_runner


def test_an_address_where_nobody_is_crashes_the_flow_run(test: FlowTest) -> None:
    """The message names it."""

    @flow(task_runner=DaskTaskRunner(address="tcp://127.0.0.1:1", client_kwargs={"timeout": 0.2}))
    def f() -> None:
        pass

    state = f(return_state=True)
    assert state.is_crashed()
    assert "tcp://127.0.0.1:1" in str(state)


SCRIPT = """
import os, sys, time
from pathlib import Path

from flightlog import flow, resume_run, task
from flightlog_dask import DaskTaskRunner

folder = Path(sys.argv[1])

@task
def told(n):
    with (folder / "calls").open("a") as file:
        file.write(f"{n} ")
    return n

@task
def blocks(n):
    (folder / "begun").touch()
    while not (folder / "free").exists():
        time.sleep(0.01)
    return n

@flow(task_runner=DaskTaskRunner(address=sys.argv[2]))
def f():
    values = told.map([1, 2, 3])
    return blocks.submit(values).result()

if __name__ == "__main__":
    print(resume_run(sys.argv[3]) if len(sys.argv) > 3 else f())
"""


def test_a_flow_run_that_is_killed_can_be_resumed(cluster: Any, tmp_path: Path) -> None:
    """On a log in a file: what its process left in the workers ends, and what had ended does not run again."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    home = {**os.environ, "FLIGHTLOG_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(script), str(tmp_path), cluster.address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=home)
    wait_for((tmp_path / "begun").exists)
    process.kill()
    process.wait()
    with distributed.Client(cluster.address, set_as_default=False) as client:
        wait_for(lambda: not any(client.processing().values()) and not client.run_on_scheduler(_count))
        assert sum(client.nthreads().values()) == 2
    (tmp_path / "free").touch()
    (tmp_path / "begun").unlink()
    run = _only_run(tmp_path)
    done = subprocess.run([*command, run], capture_output=True, text=True, env=home, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1, 2, 3]"
    assert sorted((tmp_path / "calls").read_text().split()) == ["1", "2", "3"]


def _count(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def _only_run(home: Path) -> str:
    from flightlog.events.opening import open_log

    (file,) = home.glob("*.db")
    with open_log(f"sqlite:///{file}", read_only=True) as log:
        (created,) = log.read_all(types=["flow_run.created"])
        return created.stream.removeprefix("flow-run/")
