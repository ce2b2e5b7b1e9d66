"""What all tests of the engine share: a fresh engine over a memory log, its history, and time that passes at once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flightlog import get_run_context
from flightlog.clock import Clock, SystemClock
from flightlog.engine.bridge import stop_background_loop
from flightlog.engine.history import read_history
from flightlog.engine.runtime import Engine, using
from flightlog.events.log import Log
from flightlog.events.model import Append, Event, NewEvent
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import STATES, flow_run_stream
from flightlog.settings import load


class VirtualClock:
    """Time that passes at once when somebody sleeps, and never else."""

    def __init__(self) -> None:
        self.microseconds = 1_700_000_000_000_000
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> int:
        """Return the present in microseconds since 1970."""
        return self.microseconds

    def sleep(self, seconds: float, wake: threading.Event | None = None) -> None:
        """Let the time pass at once."""
        with self._lock:
            self.slept.append(seconds)
            self.microseconds += round(seconds * 1_000_000)

    async def sleep_async(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.sleep(seconds)


class History:
    """What the log says of the runs of one test."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def events(self, *types: str) -> list[Event]:
        """Return the events of some types, or all."""
        self._engine.log.flush()
        return [event for event in self._engine.log.read_all() if not types or event.type in types]

    def data(self, *types: str) -> list[dict[str, Any]]:
        """Return the payloads of the events of some types."""
        return [event.data for event in self.events(*types)]

    def flow_runs(self, flow: str) -> list[str]:
        """Return the ids of the runs of a flow, in order of creation."""
        created = self.events("flow_run.created")
        return [event.stream.removeprefix("flow-run/") for event in created if event.data["flow"] == flow]

    def flow_states(self, flow_run_id: str) -> list[str]:
        """Return the names of the states that a flow run went through."""
        stream = f"flow-run/{flow_run_id}"
        own = [e for e in self.events() if e.stream == stream and e.type.startswith("flow_run.")]
        return [self._name(e) for e in own if e.type.partition(".")[2] in STATES]

    def task_runs(self, task: str) -> list[dict[str, Any]]:
        """Return the payloads of the creation of a task's runs, in order."""
        return [data for data in self.data("task_run.created") if data["task"] == task]

    def task_states(self, task_run_id: bytes) -> list[str]:
        """Return the names of the states that a task run went through."""
        return [
            self._name(event)
            for event in self.events()
            if event.type.startswith("task_run.") and event.data["task_run_id"] == task_run_id
        ]

    def states(self, task: str) -> list[list[str]]:
        """Return the names of the states of each run of a task."""
        return [self.task_states(run["task_run_id"]) for run in self.task_runs(task)]

    def log_lines(self) -> list[str]:
        """Return the texts of all recorded log lines."""
        return [line[4] for data in self.data("log.lines") for line in data["lines"]]

    @staticmethod
    def _name(event: Event) -> str:
        subject, _, verb = event.type.partition(".")
        if verb == "created":
            return "Pending"
        if event.data.get("name"):
            return str(event.data["name"])
        if verb == "running" and subject == "task_run" and event.data.get("attempt", 1) > 1:
            return "Retrying"
        return STATES[verb][1]


def lose_run(engine: Engine) -> None:
    """Put on record that the run which this code is in crashed, as if it were killed here: no more of it is taken."""
    run = get_run_context().flow_context.flow_run
    engine.log.flush()
    history = read_history(engine.log, run.key)
    event = NewEvent(engine.ids.new(), "flow_run.crashed", {"cause": "lost_worker"}, engine.clock.now(), actor="test")
    engine.log.append_all([Append(flow_run_stream(run.id), [event], history.version, history.epoch + 1)])


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """Return the engine's clock, whose time passes at once."""
    return VirtualClock()


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Run the test on a fresh engine over a memory log, and see that it leaves no threads."""
    before = set(threading.enumerate())
    virtual = "virtual_clock" in request.fixturenames
    clock: Clock = request.getfixturevalue("virtual_clock") if virtual else SystemClock()
    settings = load({"FLIGHTLOG_HOME": str(tmp_path)})
    engine = Engine(Log(MemoryStore()), b"k" * 32, settings, clock=clock)
    with using(engine):
        yield engine
    engine.log.close()
    stop_background_loop()
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(10)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture
def history(engine: Engine) -> History:
    """Return what the log says of the test's runs."""
    return History(engine)
