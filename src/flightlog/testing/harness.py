"""A place to run flows in tests: nothing on disk, no server, nothing left behind."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flightlog.clock import Clock
from flightlog.engine.run_logs import recording_disabled
from flightlog.engine.runtime import Engine
from flightlog.events.model import Event
from flightlog.testing.clocks import VirtualClock
from flightlog.testing.engines import memory_engine


class FlowTest:
    """What a test sees of the flows that it runs.

    Attributes:
        engine: gives log, clock and ids.
        clock: the clock; it moves when somebody waits, and never else.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock

    def events(self, *types: str) -> list[Event]:
        """Return what was recorded so far, oldest first: events of some types, or all."""
        self.engine.log.flush()
        return list(self.engine.log.read_all(types=types or None))

    def data(self, type_: str) -> list[dict[str, Any]]:
        """Return the payloads of the events of one type, oldest first."""
        return [event.data for event in self.events(type_)]

    def states(self, name: str) -> list[list[str]]:
        """Return the state names that each run of a flow or task went through, in the order of their creation."""
        from flightlog.events.narration import state_of
        from flightlog.events.types import STATES

        runs: dict[Any, list[str]] = {}
        for event in self.events():
            kind, _, suffix = event.type.partition(".")
            if kind not in ("flow_run", "task_run") or suffix not in STATES:
                continue
            data = event.data
            key = (kind, event.stream, data.get("task_run_id"))
            if suffix == "created" and name == data.get("task" if kind == "task_run" else "flow"):
                runs[key] = []
            if key in runs:
                runs[key].append(state_of(event.type, data)[1])
        return list(runs.values())

    def call(self, flow: Callable[..., Any], /, *args: Any, **parameters: Any) -> Any:
        """Call a flow, whether it is sync or async, and return its value."""
        value = flow(*args, **parameters)
        return asyncio.run(value) if asyncio.iscoroutine(value) else value

    def log_lines(self) -> list[str]:
        """Return the texts of the log lines of all runs, oldest first."""
        return [line[4] for data in self.data("log.lines") for line in data["lines"]]


@contextmanager
def flightlog_test_harness(clock: Clock | None = None, *, plugins: Sequence[str | Path] = ()) -> Iterator[FlowTest]:
    """Run flows on a log in memory, under a clock that nobody waits for, while this is open.

    Args:
        clock: another clock, such as `flightlog.clock.SystemClock`; a `VirtualClock` by default.
        plugins: the plug-ins that run beside the flows: names of installed ones, or files; none by default. When the
            harness is closed, all that is committed was handed to them.

    Yields:
        FlowTest: what was recorded.
    """
    chosen = clock or VirtualClock()
    with memory_engine(chosen, plugins=plugins) as engine:
        yield FlowTest(engine, chosen)


disable_run_logger = recording_disabled
"""While ``with disable_run_logger():`` is open, `get_run_logger` works outside of runs too, and says nothing."""
