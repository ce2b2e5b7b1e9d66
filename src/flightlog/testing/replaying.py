"""Running a flow on what a recorded run's calls returned: what `flightlog runs to-test` writes rests on it."""

import base64
import pickle
import threading
import zlib
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from flightlog.engine.calls import Call, CallMemory
from flightlog.engine.states import State, StateType
from flightlog.testing.harness import FlowTest, flightlog_test_harness


class _Runs:
    def __repr__(self) -> str:
        return "RUNS"


RUNS: Final = _Runs()
"""Stands for a call that runs, since it failed or its value is not on record."""


@contextmanager
def replayed(returned: Mapping[str, Sequence[Any]]) -> Iterator[FlowTest]:
    """Run flows in a test's log in memory; calls return what recorded ones did, and do not run.

    Tasks run one after the other, so that the k-th call of a function is the k-th that was recorded. Calls that are
    not among them run.

    Args:
        returned: by function (module and qualified name; ``flow:`` in front of a subflow's), what its calls returned,
            in order; `RUNS` for one that runs.

    Yields:
        FlowTest: what was recorded in the test.
    """
    script = _Script(returned)
    with flightlog_test_harness() as test:
        test.engine.script = lambda: _Memory(script)
        yield test


def not_recorded(name: str) -> Any:
    """Stand in a test for a parameter that is not on record: to be replaced by a value.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"The parameter {name!r} is not on record: put a value into PARAMETERS.")


def pickled(text: str) -> Any:
    """Return the value that `flightlog runs to-test` has put into a test: pickled, compressed, in base 64.

    Loading it can run any code, as running the test can.
    """
    return pickle.loads(zlib.decompress(base64.b85decode(text)))  # noqa: S301 - a part of the test, as its code is


class _Script:
    """What the calls of all flow runs of a test are to return."""

    def __init__(self, returned: Mapping[str, Sequence[Any]]) -> None:
        self._lock = threading.Lock()
        self._returned: defaultdict[str, deque[Any]] = defaultdict(deque)
        for function, values in returned.items():
            self._returned[function].extend(values)

    def next(self, function: str) -> Any:
        """Return what the next call of a function is to return."""
        with self._lock:
            return self._returned[function].popleft() if self._returned[function] else RUNS


class _Memory(CallMemory):
    """Remembers calls for a flow run that nobody has made in this process."""

    def __init__(self, script: _Script) -> None:
        super().__init__()
        self.has_past = True
        self._script = script

    def take(self, parent: bytes | None, function: str, digest: bytes | None) -> Call | None:
        """Return what the script says of a call; of one that a retried flow makes again, what it ended in before."""
        if (earlier := super().take(parent, function, digest)) is not None:
            return earlier
        value = self._script.next(function)
        return None if value is RUNS else Call(state=State(StateType.COMPLETED, data=value))

    def take_unstarted(self, parent: bytes | None, function: str) -> Call | None:
        """Skip what the script says of a call that cannot start."""
        self._script.next(function)
        return None
