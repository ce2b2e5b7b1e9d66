"""The Ray runner: temporary instances, options of Ray, values that Ray has, and a flow run that is killed."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flightlog import flow, resume_run, task
from flightlog.clock import SystemClock
from flightlog.events.opening import open_log
from flightlog.testing import FlowTest, flightlog_test_harness
from flightlog_ray import RayTaskRunner, plugin, remote_options
from flightlog_ray.transport import RayTransport

ROOT = Path(__file__).parents[3]


HERE: dict[str, Any] = {
    "num_cpus": 2,
    "include_dashboard": False,
    "_node_ip_address": "127.0.0.1",
    "object_store_memory": 100_000_000,
    "log_to_driver": False,
}


@pytest.fixture
def test(instance: None) -> Iterator[FlowTest]:
    """Run the test's flows on a log in memory, and the session's Ray."""
    with flightlog_test_harness(SystemClock()) as test:
        yield test


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_E108_what_cannot_be_set_is_refused() -> None:
    """An address has its own argument, and how many values come back is the runner's matter."""
    with pytest.raises(ValueError, match="`init_kwargs` cannot set `address`"):
        RayTaskRunner(init_kwargs={"address": "auto"})
    with pytest.raises(ValueError, match="cannot set `num_returns`"), remote_options(num_returns=3):
        pass
    assert plugin.register_task_runners() == {"ray": RayTaskRunner}


def test_O137_options_of_ray_hold_where_tasks_are_submitted(test: FlowTest) -> None:
    """Those inside are added to those outside, and hold no longer than they are open."""

    @task
    def taken() -> Any:
        import ray

        return ray.get_runtime_context().get_assigned_resources().get("CPU")

    @flow(task_runner=RayTaskRunner())
    def f() -> Any:
        with remote_options(num_cpus=2):
            first = taken.submit()
            with remote_options(max_retries=1):
                second = taken.submit()
        return [future.result() for future in (first, second, taken.submit())]

    assert f() == [2.0, 2.0, 1.0]


class Weighing(RayTransport):
    """Notes how long the messages are."""

    heaviest = 0

    def send(self, worker: str, seat: str, message: bytes) -> None:
        """Send a message."""
        Weighing.heaviest = max(Weighing.heaviest, len(message))
        super().send(worker, seat, message)


class WeighingTaskRunner(RayTaskRunner):
    """Notes how long messages to workers are."""

    def _connect(self) -> RayTransport:
        super()._connect()
        return Weighing()


def test_values_that_ray_has_do_not_travel_again(test: FlowTest) -> None:
    """A worker gets what a task before has returned from Ray, not from the flow's process."""

    @task
    def make() -> Any:
        return b"x" * 1_000_000

    @task
    def use(x: Any) -> int:
        return len(x["a"][0])

    @flow(task_runner=WeighingTaskRunner())
    def f() -> Any:
        return use.submit({"a": [make.submit()]}).result()

    assert f() == 1_000_000
    assert 0 < Weighing.heaviest < 100_000


def test_nothing_is_reported_to_anybody(test: FlowTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody wants that, the runner turns off what Ray would report of its use."""
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")

    @flow(task_runner=RayTaskRunner())
    def f() -> Any:
        return os.environ["RAY_USAGE_STATS_ENABLED"]

    assert f() == "0"


@pytest.mark.parametrize("page", ["integrations/flightlog-ray/README.md", "docs/how-to/run-on-ray.md"])
def test_the_examples_of_the_documentation_run(test: FlowTest, page: str) -> None:
    """Each block of code, in order."""
    names = {"__name__": "__main__"}
    blocks = re.findall(r"```(?:python|\{code-block\} python)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)


SCRIPT = """
import sys, time
from pathlib import Path

from flightlog import flow, task
from flightlog_ray import RayTaskRunner

folder = Path(__file__).parent

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

@flow(task_runner=RayTaskRunner(init_kwargs=HERE))
def f():
    values = told.map([1, 2, 3])
    return blocks.submit(values).result()

if __name__ == "__main__":
    f()
"""


def test_a_flow_run_with_a_temporary_instance_that_is_killed_can_be_resumed(instance: None, tmp_path: Path) -> None:
    """On a log in a file: its Ray ends with it, and what had ended does not run again."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("HERE", repr(HERE)))
    home = tmp_path / "flightlog-home"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )
    wait_for(lambda: (tmp_path / "begun").exists() or process.poll() is not None)
    process.kill()
    _, told = process.communicate()
    assert "flightlog.task_runner.ray - Creating a local Ray instance" in told
    (tmp_path / "free").touch()
    (file,) = home.glob("*.db")
    with open_log(f"sqlite:///{file}", read_only=True) as log:
        (created,) = log.read_all(types=["flow_run.created"])
    assert resume_run(created.stream.removeprefix("flow-run/")) == [1, 2, 3]
    assert sorted((tmp_path / "calls").read_text().split()) == ["1", "2", "3"]
