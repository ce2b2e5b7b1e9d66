"""Programs as tutorials for Prefect 2 users have them, with our import: run as users run them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TUTORIALS = Path(__file__).parent / "tutorials"


class Api(BaseHTTPRequestHandler):
    """An API that fails each path's first request, and counts the others."""

    asked: dict[str, int] = {}  # noqa: RUF012 - the server makes an object for each request

    def do_GET(self) -> None:
        """Answer a request."""
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        self.send_response(200 if self.asked[self.path] > 1 else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"stars": 7, "issues": 2}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    """Yield the address of a local server."""
    Api.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def python(name: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program."""
    command = [sys.executable, str(TUTORIALS / name)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def flightlog(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command."""
    command = [sys.executable, "-m", "flightlog", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def document(*arguments: str) -> Any:
    """Return what a command prints with ``--json``."""
    done = flightlog(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_repository_statistics(api: str, tmp_path: Path) -> None:
    """Retries, a cache with expiry, ordinary code, nested tasks, prints as log lines, a name from a template."""
    done = python("repository_statistics.py", API=api)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"stars": 7, "issues": 6}
    assert Api.asked["/owner/project"] == 2
    assert "Flow run 'statistics of owner/project' - Stars: 7" in done.stderr
    assert "The second answer came from the cache: True" in done.stderr
    again = python("repository_statistics.py", API=api)
    assert json.loads(again.stdout) == {"stars": 7, "issues": 6}
    assert sum(Api.asked.values()) == 8, "the second run asks nothing"
    assert "why" in flightlog("runs", "why", "--help").stdout
    assert "came from the cache" in flightlog("runs", "why", "@last/get_url").stdout


def test_states_and_failures() -> None:
    """States of flows are decided as in Prefect 2."""
    done = python("states_and_failures.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Failed('1/1 states failed.')",
        "Completed()",
        "Failed('How did this happen!?')",
        "Completed('I am happy with this result')",
        "cleaned up after ValueError",
        "foo",
    ]


def test_async_and_mapped() -> None:
    """Gathered, awaited, submitted and mapped, with a runner for each flow."""
    done = python("async_and_mapped.py")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "greetings": ["hello Ann", "hello Bob", "hello Cat", "hello Dan"],
        "sum": 36,
        "each": [1, 2, 3, 4, 5],
    }


def test_a_release_waits_for_an_approval() -> None:
    """Suspended, without a process; approved from the shell; what completed is not done again."""
    script = str(TUTORIALS / "approval.py")
    first = flightlog("run", script, "-p", 'version="1.0"')
    assert (first.returncode, first.stdout) == (0, "")
    assert "built 1.0" in first.stderr
    assert "Shall image:1.0 go out?" in flightlog("runs", "why", "@last").stdout
    second = flightlog("runs", "resume", "@last", "--input", '{"approved": true, "reason": "all green"}')
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines() == ["deployed image:1.0", "released"]
    assert "built 1.0" not in second.stderr
    assert document("variables", "ls")[0]["value"] == "1.0"
    assert {one["key"] for one in document("artifacts", "ls")} == {"release-notes", "releases"}
    assert "all green" in flightlog("artifacts", "show", "release-notes").stdout


def test_a_release_that_fails_is_undone() -> None:
    """The deployed image is taken away again, and the run failed; refused, nothing is done."""
    script = str(TUTORIALS / "approval.py")
    flightlog("run", script, "-p", 'version="2.0"', "-p", "healthy=false")
    failed = flightlog("runs", "resume", "@last", "--input", '{"approved": true}')
    assert failed.returncode == 10
    assert failed.stdout.splitlines() == ["deployed image:2.0", "took image:2.0 away"]
    tasks = {task["task"]: task["state_name"] for task in document("runs", "show", "@last")["task_runs"]}
    assert tasks == {"build": "Completed", "deploy": "RolledBack", "check": "Failed"}
    flightlog("run", script, "-p", 'version="3.0"')
    refused = flightlog("runs", "resume", "@last", "--input", '{"approved": false}')
    assert refused.stdout.splitlines() == ["not released"]


def test_the_first_pages() -> None:
    """Options, names, tags, retries, a cache, loggers, hooks with types, states by hand; under Prefect's own paths."""
    done = python("quickstart.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "My Flow with {'name': 'marvin', 'fail': False} is Completed",
        "True Completed I am happy with this result 42 42",
        "[1, 2, 3] ['a']",
        "My Flow with {'name': 'world', 'fail': True} is Failed",
        "failed: How did this happen!?",
    ]
    assert (
        "Flow run 'My Flow-for-marvin' - ('hello-marvin-on-Sunday', ['nightly', 'tag-test', 'tutorial'])" in done.stderr
    )
    assert "Task run 'hello-marvin-on-Sunday' - Hello marvin" in done.stderr


def test_the_later_pages_in_async_code() -> None:
    """Everything that Prefect 2 awaits can be awaited, maps over futures of the same loop too."""
    done = python("leaving_things.py")
    assert done.returncode == 0, done.stderr
    kinds = ["int", "int", "int", "ValueError"]
    assert done.stdout.splitlines() == [str([kinds, [0, 1, 4], 4, 0, "hush", 2, True])]
    assert {one["key"] for one in document("artifacts", "ls")} == {"values", "table", "more"}
    assert "never awaited" not in done.stderr
