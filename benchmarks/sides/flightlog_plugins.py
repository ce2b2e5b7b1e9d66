"""What plug-ins and notifications cost: `python flightlog_plugins.py CASE N` prints one line of JSON."""

import http.server
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from side_tools import Answer, main

from flightlog import flow
from flightlog.engine.runtime import close_engine
from flightlog.events.model import Append, NewEvent
from flightlog.events.opening import open_log
from flightlog.events.types import flow_run_stream
from flightlog.ids import RandomIds, id_text
from flightlog.notifications.folding import Fold
from flightlog.notifications.following import Created
from flightlog.notifications.rules import Channel, Configuration, Rule

_HOME = Path(os.environ["FLIGHTLOG_HOME"])
_TURNS = 7
_OBSERVER = """
from collections import Counter
from flightlog.plugins import hookimpl

SEEN = Counter()


@hookimpl
def on_events(events):
    for event in events:
        SEEN[event.type] += 1
"""
_RULES = """
[[channels]]
name = "hook"
kind = "webhook"
[channels.settings]
url = "env:BENCH_URL"
allow_private = true

[[rules]]
name = "failures"
group_by = ["run"]
channels = ["hook"]
"""


def _observed(n: int) -> Answer:
    """Run the sequential case with and without a plug-in that observes everything, in turns; return the two medians."""
    folder = _HOME / "flightlog_plugins"
    folder.mkdir(parents=True)
    (folder / "counting.py").write_text(_OBSERVER)
    times: dict[str, list[float]] = {"false": [], "true": []}
    for turn in range(_TURNS):
        for wanted in sorted(times, reverse=bool(turn % 2)):
            home = _HOME / f"{turn}-{wanted}"
            env = {**os.environ, "FLIGHTLOG_HOME": str(home), "FLIGHTLOG_PLUGINS_FOLDER": wanted}
            script = Path(__file__).with_name("flightlog_side.py")
            command = [sys.executable, str(script), "sequential", str(n)]
            done = subprocess.run(command, env=env, cwd=_HOME, check=True, capture_output=True, text=True)
            times[wanted] += json.loads(done.stdout.splitlines()[-1])["samples"]
    without, with_it = statistics.median(times["false"]), statistics.median(times["true"])
    return {"samples": [without, with_it, with_it / without * 100]}


class _Arrivals(http.server.BaseHTTPRequestHandler):
    """Notes when each message arrives."""

    protocol_version = "HTTP/1.1"
    at: dict[str, float] = {}  # noqa: RUF012 - the server makes one object for each request

    def do_POST(self) -> None:
        """Note when the request came, by the run that it is about."""
        content = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.at.setdefault(content["data"]["run"]["id"], time.time())
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@flow
def failing() -> None:
    """Fail."""
    raise ConnectionError


def _notified(n: int) -> Answer:
    """Let flow runs fail, one after the other; return how long each message took to the wire: median, and p95."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Arrivals)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["BENCH_URL"] = f"http://127.0.0.1:{server.server_port}/hook"
    _HOME.mkdir(parents=True, exist_ok=True)
    os.chdir(_HOME)
    Path("notifications.toml").write_text(_RULES)
    failed = {}
    for _ in range(n):
        state = failing(return_state=True)
        failed[str(state.state_details.flow_run_id)] = time.time()
        time.sleep(0.05)
    close_engine()
    server.shutdown()
    took = [_Arrivals.at[run] - at for run, at in failed.items()]
    return {"samples": [statistics.median(took), statistics.quantiles(took, n=20)[-1]]}


def _folded(n: int) -> Answer:
    """Fold three rules over so many runs that fail, read from the log; return how many failures that were a second."""
    log, ids, now = open_log(f"sqlite:///{_HOME}/flightlog.db"), RandomIds(), 1_700_000_000_000_000
    appends = []
    for number in range(n):
        now += 1000
        created = {"flow": f"etl-{number % 50}", "name": f"run-{number}", "parameters": "{}"}
        error = {"type": "ValueError", "message": "no rows"}
        told: list[tuple[str, dict[str, Any]]] = [
            ("created", created),
            ("running", {"attempt": 1}),
            ("failed", {"attempt": 1, "error": error}),
        ]
        events = [NewEvent(ids.new(), f"flow_run.{suffix}", data, now) for suffix, data in told]
        appends.append(Append(flow_run_stream(id_text(ids.new())), events))
    for first in range(0, n, 500):
        log.append_all(appends[first : first + 500])
    often = {"failures": 3, "within": "10m"}
    rules = [
        Rule(name="all", channels=("ops",)),
        Rule.model_validate({"name": "some", "channels": "ops", "match": {"flow": "etl-1*", "tags": "prod"}}),
        Rule.model_validate({"name": "often", "channels": "ops", "match": {"flow": "etl-2*"}, "threshold": often}),
    ]
    channel = Channel(name="ops", kind="slack", can_update=True)
    fold = Fold(Created(log), only=Configuration(rules=tuple(rules), channels=(channel,)))
    types = fold.types
    start = time.perf_counter()
    for event in log.read_all(types=None if types is None else sorted(types)):
        fold.apply(event)
    seconds = time.perf_counter() - start
    log.close()
    return {"samples": [n / seconds]}


main({"observed": _observed, "notified": _notified, "folded": _folded})
