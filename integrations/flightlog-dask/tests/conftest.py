"""What the tests of the Dask runner share: a cluster of separate processes, and a place for logs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from flightlog.engine.bridge import stop_background_loop
from flightlog.engine.runtime import close_engine

_BIN = Path(sys.executable).parent
_LOCAL = ["--host", "127.0.0.1", "--no-dashboard"]


class Cluster:
    """A Dask cluster of processes of its own: a scheduler, and as many workers as a test wants.

    Args:
        folder: where it may write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self.with_nanny: list[subprocess.Popen[bytes]] = []
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(file), *_LOCAL)
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.02)
        self.file = str(file)
        with Client(scheduler_file=self.file, set_as_default=False) as client:
            self.address: str = client.scheduler.address

    def _start(self, what: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
        output = (self.folder / f"{what}-{time.time_ns()}.txt").open("wb")
        with output:
            return subprocess.Popen(
                [str(_BIN / "dask"), what, *arguments], env=known, cwd=self.folder, stdout=output, stderr=output
            )

    def add(self, *, threads: int = 1, nanny: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker and wait until the scheduler has it."""
        with Client(self.address, set_as_default=False) as client:
            before = len(client.nthreads())
            options = ["--nthreads", str(threads), "--nanny" if nanny else "--no-nanny", *_LOCAL]
            self.workers.append(self._start("worker", self.address, *options))
            end = time.monotonic() + 60
            while len(client.nthreads()) == before and time.monotonic() < end:
                time.sleep(0.05)
        if nanny:
            self.with_nanny.append(self.workers[-1])
        return self.workers[-1]

    def stop(self) -> None:
        """End all processes."""
        for process in [*self.workers, self.scheduler]:
            process.send_signal(signal.SIGTERM if process in self.with_nanny else signal.SIGKILL)
        for process in [*self.workers, self.scheduler]:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with two workers, each with a nanny that starts another one in its place."""
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    for _ in range(2):
        cluster.add(nanny=True)
    yield cluster
    cluster.stop()


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster for one test alone, without workers."""
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.stop()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give every test a home folder of its own, and leave nothing open."""
    home = tmp_path / "flightlog-home"
    monkeypatch.setenv("FLIGHTLOG_HOME", str(home))
    yield home
    close_engine()
    stop_background_loop()
