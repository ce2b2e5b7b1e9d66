"""Prefect's server as a child process: its own folder, a private port of 127.0.0.1, one at a time."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench_children import ChildError, settle, stop
from bench_sides import SIDES, Mode, Side

_START_SECONDS = 180.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PrefectServer:
    """Keeps at most one server, so that none takes the processor from another side.

    Args:
        side: Prefect.
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self._process: subprocess.Popen[bytes] | None = None
        self._serving: tuple[Path, Mode] | None = None
        self.url = ""

    def serve(self, home: Path, mode: Mode) -> str:
        """Return the address of a server that keeps its data in a folder.

        Raises:
            ChildError: it does not start.
        """
        if self._serving == (home, mode) and self._process is not None and self._process.poll() is None:
            return self.url
        self.stop()
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        # `commit` is what Prefect sets itself, so only `fsync` needs the wrapped start.
        start = [str(SIDES / "prefect_server.py")] if mode == "fsync" else ["-m", "prefect"]
        self._process = subprocess.Popen(
            [str(self._side.python), *start, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            env=self._side.env(home, mode) | {"PREFECT_API_URL": self.url, "BENCH_SYNCHRONOUS": "FULL"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._serving = (home, mode)
        self._wait()
        return self.url

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._healthy():
            process = self._process
            if process is None or process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ChildError("its server did not start")
            time.sleep(0.25)
        self.settle()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def settle(self) -> None:
        """Wait until the server has nothing left to do."""
        if self._process is not None:
            settle(self._process.pid)

    def stop(self) -> None:
        """End the server."""
        if self._process is not None:
            stop(self._process)
        self._process = self._serving = None
