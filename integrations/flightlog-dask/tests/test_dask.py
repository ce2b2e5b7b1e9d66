"""The Dask runner: clusters of every kind, dependencies that Dask knows, and everything that may be lost."""

import asyncio
import json
import logging
import os
import runpy
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest

from flightlog import flow, task
from flightlog.clock import SystemClock
from flightlog.engine.runtime import open_engine, using
from flightlog.errors import MissingContextError
from flightlog.events.integrity import verify
from flightlog.events.opening import open_log
from flightlog.settings import Settings
from flightlog.testing import FlowTest, flightlog_test_harness
from flightlog_dask import DaskTaskRunner, get_async_dask_client, get_dask_client
from flightlog_dask.transport import DaskTransport

HERE: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}


@pytest.fixture
def test() -> Iterator[FlowTest]:
    """Run the test's flows on a log in memory."""
    with flightlog_test_harness(SystemClock()) as test:
        yield test


def local(**options: Any) -> DaskTaskRunner:
    """Return a runner with a temporary cluster of one worker."""
    return DaskTaskRunner(cluster_kwargs={**HERE, **options})


# --- clusters ---------------------------------------------------------------------------------------


def test_E107_the_address_of_a_cluster_excludes_options_of_a_new_one() -> None:
    """And so does a cluster that is given; how to wait is the runner's own choice."""
    for options in (
        {"cluster": object()},
        {"cluster_class": "x.Y"},
        {"cluster_kwargs": {"a": 1}},
        {"adapt_kwargs": {"b": 1}},
    ):
        with pytest.raises(ValueError, match="Cannot specify `address` and"):
            DaskTaskRunner(address="tcp://127.0.0.1:1", **options)
    for options in ({"cluster_class": "x.Y"}, {"cluster_kwargs": {"a": 1}}):
        with pytest.raises(ValueError, match="Cannot specify `cluster` and"):
            DaskTaskRunner(cluster=object(), **options)
    for name in ("cluster_kwargs", "client_kwargs"):
        with pytest.raises(ValueError, match=f"`{name}` cannot set `asynchronous`"):
            DaskTaskRunner(**{name: {"asynchronous": True}})


class Heard(logging.Handler):
    """Keeps what the runner says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append((record.levelno, record.getMessage()))


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Listen to the runner's logger."""
    logger, heard = logging.getLogger("flightlog.task_runner.dask"), Heard()
    logger.addHandler(heard)
    yield heard
    logger.removeHandler(heard)


def test_E107_a_flow_run_has_a_temporary_cluster(test: FlowTest, heard: Heard) -> None:
    """It is made at the start of the flow run, which says so, and is gone at its end."""

    @task
    def double(x: int) -> int:
        return 2 * x

    @flow(task_runner=local())
    def f() -> Any:
        return double.map([1, 2, 3]).result(), get_address()

    values, address = f()
    assert values == [2, 4, 6]
    created, dashboard = heard.lines
    assert created == (20, "Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`")
    assert dashboard[0] == 20
    assert dashboard[1].startswith("The Dask dashboard is available at http://127.0.0.1:")
    with pytest.raises(OSError, match=r"Timed out|refused"):
        distributed.Client(address, timeout=0.5)


def get_address() -> str:
    """Return the address of the present flow run's scheduler."""
    with get_dask_client() as client:
        address: str = client.scheduler.address
        return address


def test_E107_a_class_may_be_named_and_a_cluster_given(test: FlowTest) -> None:
    """A cluster that is given stays as it is."""

    @task
    def one() -> int:
        return 1

    @flow
    def f() -> Any:
        return one.submit().result(), get_address()

    named = DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs={**HERE, "processes": False})
    assert f.with_options(task_runner=named)()[0] == 1
    with distributed.LocalCluster(**HERE, processes=False) as cluster:
        for _ in range(2):
            assert f.with_options(task_runner=DaskTaskRunner(cluster))() == (1, cluster.scheduler_address)


def test_E107_a_cluster_is_adaptive_with_adapt_kwargs_only(test: FlowTest) -> None:
    """It starts with no worker, and one comes when there is something to do."""

    @task
    def workers() -> int:
        with get_dask_client() as client:
            return len(client.nthreads())

    @flow
    def f() -> Any:
        return workers.submit().result()

    adaptive = DaskTaskRunner(
        cluster_kwargs={**HERE, "n_workers": 0}, adapt_kwargs={"minimum": 0, "maximum": 1, "interval": "100ms"}
    )
    assert f.with_options(task_runner=adaptive)() == 1


def test_the_runner_has_a_name_for_flows(test: FlowTest) -> None:
    """The plug-in says so: ``@flow(task_runner="dask")``."""
    from flightlog_dask import plugin

    assert plugin.register_task_runners() == {"dask": DaskTaskRunner}
    if not _is_installed():
        pytest.skip("flightlog-dask is not installed, only importable")
    assert isinstance(flow(lambda: None, name="f", task_runner="dask").task_runner, DaskTaskRunner)


def _is_installed() -> bool:
    try:
        return bool(distribution("flightlog-dask").entry_points)
    except PackageNotFoundError:
        return False


# --- whole flows ------------------------------------------------------------------------------------


@task
def words(line: str) -> dict[str, int]:
    """Count the words of a line."""
    counts: dict[str, int] = {}
    for word in line.split():
        counts[word] = counts.get(word, 0) + 1
    return counts


@task
def merged(counts: list[dict[str, int]]) -> dict[str, int]:
    """Add counts up."""
    total: dict[str, int] = {}
    for each in counts:
        for word, count in each.items():
            total[word] = total.get(word, 0) + count
    return total


@pytest.mark.parametrize("where", ["processes", "local"])
def test_E107_a_mapped_word_count_is_on_record_in_a_file(cluster: Any, tmp_path: Path, where: str) -> None:
    """On a cluster of separate processes and on a temporary one: one import and one argument; the log verifies."""
    lines = [f"to be or not to be {number % 3}" for number in range(12)]
    runner = local(n_workers=2) if where == "local" else DaskTaskRunner(address=cluster.address)

    @flow(task_runner=runner)
    def word_count() -> Any:
        halves = [merged.submit(words.map(lines[:6])), merged.submit(words.map(lines[6:]))]
        return merged.submit(halves).result()

    url = f"sqlite:///{tmp_path}/log.db"
    engine = open_engine(Settings(home=tmp_path, log_url=url))
    try:
        with using(engine):
            assert word_count() == {"to": 24, "be": 24, "or": 12, "not": 12, "0": 4, "1": 4, "2": 4}
    finally:
        engine.close()
    with open_log(url, read_only=True) as log:
        assert verify(log.store).sound
        events = [event for event in log.read_all() if event.type.startswith("task_run.")]
    assert Counter(event.type for event in events) == {
        "task_run.created": 15, "task_run.running": 15, "task_run.completed": 15,
    }  # fmt: skip
    edges = [len(event.data["inputs"]["counts"]) for event in events if event.data.get("task") == "merged"]
    assert edges == [6, 6, 2]


class Api(BaseHTTPRequestHandler):
    """Answers as api.github.com does, as far as the example asks; fails each path's first request."""

    failed: set[str] = set()  # noqa: RUF012 - the server makes an object for each request

    def do_GET(self) -> None:
        """Answer a request."""
        first = self.path not in self.failed
        self.failed.add(self.path)
        self.send_response(503 if first else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"stargazers_count": len(self.path)}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the example talk to a local server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("GITHUB_API", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def test_E107_the_first_example_with_its_runner_swapped(test: FlowTest, api: None) -> None:
    """Its task, mapped over repositories, with the failures that it tries again."""
    folder = Path(__file__).parents[3] / "examples"
    names = runpy.run_path(str(folder / "github_stars.py"), run_name="github_stars_example")
    get_stars = names["get_stars"]

    @flow(task_runner=local())
    def github_stars(repos: list[str]) -> Any:
        return get_stars.map(repos).result()

    assert github_stars(["python/cpython", "pallets/click"]) == [
        len("/repos/python/cpython"),
        len("/repos/pallets/click"),
    ]
    assert test.states("get_stars") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]] * 2


# --- what Dask knows --------------------------------------------------------------------------------


def own_folder() -> Path:
    """Return a folder of the test's own."""
    folder = Path(os.environ["FLIGHTLOG_HOME"]) / "test"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _tasks(dask_scheduler: Any) -> dict[str, list[str]]:
    """Return which tasks the scheduler knows, and which ones each rests on."""

    def name(key: Any) -> str:
        return str(key).rpartition("-")[0]

    return {
        name(key): sorted(name(above.key) for above in state.dependencies)
        for key, state in dask_scheduler.tasks.items()
    }


def test_E107_dependencies_of_tasks_are_dependencies_in_dask(test: FlowTest) -> None:
    """Futures as arguments at any depth, and in `wait_for`; Dask has them before the first has ended."""

    flag = own_folder() / "seen"

    @task
    def slow(x: Any = None) -> Any:
        wait_for(flag.exists)
        return x

    @task
    def second(x: Any) -> Any:
        return x

    @task
    def third(x: Any) -> Any:
        return x

    @task
    def fourth() -> int:
        return 4

    @flow(task_runner=local())
    def f() -> Any:
        a = slow.submit([1])
        b = second.submit(a)
        c = third.submit({"k": [b, a]})
        d = fourth.submit(wait_for=[c])
        with get_dask_client() as client:
            wait_for(lambda: len(client.run_on_scheduler(_tasks)) == 4)
            known = client.run_on_scheduler(_tasks)
        flag.touch()
        return known, c.result(), d.result()

    known, value, _ = f()
    assert known == {"slow": [], "second": ["slow"], "third": ["second", "slow"], "fourth": ["third"]}
    assert value == {"k": [[1], [1]]}


class Weighing(DaskTransport):
    """Notes how long the messages are."""

    heaviest = 0

    def send(self, worker: str, seat: str, message: bytes) -> None:
        """Send a message."""
        Weighing.heaviest = max(Weighing.heaviest, len(message))
        super().send(worker, seat, message)


class WeighingTaskRunner(DaskTaskRunner):
    """Notes how long messages to workers are."""

    def _connect(self) -> DaskTransport:
        super()._connect()
        return Weighing(self.client, grows=False)


def test_values_that_dask_has_do_not_travel_again(test: FlowTest) -> None:
    """A worker gets what a task before has returned from Dask, not from the flow's process."""

    @task
    def make() -> Any:
        return b"x" * 1_000_000

    @task
    def use(x: Any) -> int:
        return len(x["a"][0])

    @flow(task_runner=WeighingTaskRunner(cluster_kwargs=HERE))
    def f() -> Any:
        return use.submit({"a": [make.submit()]}).result()

    assert f() == 1_000_000
    assert 0 < Weighing.heaviest < 100_000


def test_annotations_of_dask_hold(test: FlowTest) -> None:
    """`dask.annotate` around a submission says which resources the task takes."""
    flag = own_folder() / "seen"

    @task
    def where() -> Any:
        wait_for(flag.exists)

    @flow(task_runner=local(resources={"GPU": 1}))
    def f() -> Any:
        with dask.annotate(resources={"GPU": 1}):
            future = where.submit()
        with get_dask_client() as client:
            wait_for(lambda: bool(client.run_on_scheduler(_restrictions)))
            limits = client.run_on_scheduler(_restrictions)
        flag.touch()
        future.wait()
        return limits

    assert f() == [{"GPU": 1}]


def _restrictions(dask_scheduler: Any) -> list[Any]:
    return [state.resource_restrictions for state in dask_scheduler.tasks.values()]


def test_O137_tasks_and_flows_have_a_client(test: FlowTest) -> None:
    """`get_dask_client` in sync and async code; outside of a cluster it says what is wrong."""

    @task
    def sums() -> Any:
        with get_dask_client() as client:
            distributed.secede()
            value = client.submit(sum, [1, 2, 3]).result()
            distributed.rejoin()
        return value

    @task
    async def sums_async() -> Any:
        async with get_async_dask_client(timeout=20) as client:
            return client.asynchronous, client.scheduler.address

    @flow(task_runner=local())
    def f() -> Any:
        with get_dask_client() as client:
            here = client.submit(sum, [1, 2]).result()
        return here, sums.submit().result(), sums_async.submit().result()[0]

    assert f() == (3, 6, True)
    with pytest.raises(MissingContextError, match="There is no Dask cluster here"), get_dask_client():
        pass


def test_async_flows_run_on_dask(test: FlowTest) -> None:
    """Their async tasks too."""

    @task
    async def double(x: int) -> int:
        return 2 * x

    @flow(task_runner=local())
    async def f() -> Any:
        first = await double.submit(1)
        second = await double.submit(first)
        return await second.result()

    assert asyncio.run(f()) == 4
