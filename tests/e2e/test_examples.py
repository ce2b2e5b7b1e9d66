"""The examples, run as users run them, against a local server where they talk to one."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
STARS = {"/repos/python/cpython": 60_000, "/repos/pallets/click": 15_000}


class Api(BaseHTTPRequestHandler):
    """Answers as api.github.com does, as far as the examples ask; fails each path's first request."""

    failed: set[str] = set()  # noqa: RUF012 - the server makes an object for each request

    def do_GET(self) -> None:
        """Answer a request."""
        first = self.path not in self.failed
        self.failed.add(self.path)
        self.send_response(503 if first and "click" in self.path else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"stargazers_count": STARS[self.path]}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    """Yield the address of a local server."""
    Api.failed.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def run_example(name: str, api: str = "") -> "subprocess.CompletedProcess[str]":
    """Run an example."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env={**os.environ, "GITHUB_API": api}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def lines_of(text: str) -> list[str]:
    """Return the console's lines without their times, the run's name as NAME."""
    found = [line.split(" | ", 1)[1] for line in text.splitlines() if re.match(r"\d\d:\d\d:\d\d\.\d{3} \| ", line)]
    name = re.findall(r"flow run '(.*?)'", found[0])[0]
    return [line.replace(f"'{name}'", "'NAME'") for line in found]


def test_E160_the_basic_example_prints_what_users_know(api: str) -> None:
    """The console lines of the basic example, in order, word by word."""
    Api.failed.update(STARS)  # nothing fails this time
    done = run_example("github_stars.py", api)
    assert done.stdout == "python/cpython has 60000 stars!\npallets/click has 15000 stars!\n"
    assert lines_of(done.stderr) == [
        "INFO    | flightlog.engine - Created flow run 'NAME' for flow 'github-stars'",
        "INFO    | Flow run 'NAME' - Using task runner 'ConcurrentTaskRunner'",
        "INFO    | Flow run 'NAME' - Created task run 'get_stars-2ca9fbe1-0' for task 'get_stars'",
        "INFO    | Task run 'get_stars-2ca9fbe1-0' - Finished in state Completed()",
        "INFO    | Flow run 'NAME' - Created task run 'get_stars-2ca9fbe1-1' for task 'get_stars'",
        "INFO    | Task run 'get_stars-2ca9fbe1-1' - Finished in state Completed()",
        "INFO    | Flow run 'NAME' - Finished in state Completed('All states completed.')",
    ]


def test_the_basic_example_retries(api: str) -> None:
    """A request that fails once is tried again."""
    done = run_example("github_stars.py", api)
    assert "pallets/click has 15000 stars!" in done.stdout
    assert "Received non-final state 'AwaitingRetry'" in done.stderr


def test_the_async_example_runs(api: str) -> None:
    """The async example asks for all at once, and ends like the basic one."""
    done = run_example("github_stars_async.py", api)
    assert sorted(done.stdout.splitlines()) == ["pallets/click has 15000 stars!", "python/cpython has 60000 stars!"]
    assert (
        lines_of(done.stderr)[-1] == "INFO    | Flow run 'NAME' - Finished in state Completed('All states completed.')"
    )


def test_the_demo_runs_on_real_input() -> None:
    """The demo surveys the packages of this environment, and its retry really happens."""
    done = run_example("package_survey.py")
    assert re.match(r"\n?\d+ packages, [\d.]+ MB of Python", done.stdout)
    assert "largest:" in done.stdout
    assert "licenses:" in done.stdout
    assert "Received non-final state 'AwaitingRetry'" in done.stderr
    assert "Finished in state Completed()" in done.stderr
