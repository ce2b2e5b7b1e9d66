"""What a flow run remembers of calls that were made before, so that what completed does not run again.

One mechanism for all: the earlier attempts of a flow that is retried, a run that is resumed or restarted (its
own recorded past), and a run that was forked (another run's past).
"""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flightlog.engine.history import FLOW, History, RecordedCall
from flightlog.engine.runs import TaskRun
from flightlog.engine.states import State
from flightlog.garbage import no_collections

if TYPE_CHECKING:
    from flightlog.engine.bridge import Waits
    from flightlog.engine.transaction_parts import Part

_Key = tuple[bytes | None, str, bytes | None]


@dataclass(slots=True)
class Call:
    """An earlier call: of this process, or as the log has it.

    Attributes:
        run: the task run; None until one is made of what is recorded.
        state: the state that it ended in; None until it is made of what is recorded.
        recorded: what the log has of it; None for a call of this process.
        child: for a subflow of this process, its flow run's id, 16 bytes.
        part: what it is to the transaction that it was made in, if it was made in one and completed.
        partial: whether it was a generator's, which was left before its end.
    """

    run: TaskRun | None = None
    state: State[Any] | None = None
    recorded: RecordedCall | None = None
    child: bytes | None = None
    part: "Part | None" = None
    partial: bool = False

    @property
    def completed(self) -> bool:
        """Whether it ended well, and was not undone."""
        if self.state is not None:
            return self.state.is_completed() and self.state.name != "RolledBack"
        return self.recorded is not None and self.recorded.completed

    @property
    def is_partial(self) -> bool:
        """Whether it was a generator's, which was left before its end; as it was told, or as it is on record."""
        return self.partial or (self.recorded is not None and self.recorded.partial)

    async def is_too_short(self, waits: "Waits") -> bool:
        """Give the pieces of a generator that was left before its end; tell if more of them are wanted."""
        return self.is_partial and self.state is not None and await waits.give(self.state.result())

    @property
    def counts(self) -> bool:
        """Whether its end is that of a repetition too: it completed, or failed in a past that is kept to."""
        return self.state is not None and (self.completed or self.recorded is not None)


@dataclass(slots=True)
class Past:
    """The recorded past that a resumed, restarted or forked run goes on from.

    Attributes:
        history: the run as the log has it.
        contents: the stored bytes of recorded values, by digest.
        keep_failures: whether calls that failed fail again as recorded (the run went on after them).
        restart: the position from which on calls run again, however they ended; None for none.
        strict: whether a call that differs from what is recorded stops the run.
        code_changed: whether the flow's source file has changed since.
        counts: how many calls were ``reused``, ran ``again``, and were ``new``; subflows' among them.
    """

    history: History
    contents: dict[bytes, bytes] = field(default_factory=dict)
    keep_failures: bool = False
    restart: int | None = None
    strict: bool = True
    code_changed: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def within(self, history: History) -> "Past":
        """Return the past of a subflow, which is gone on with in the same way."""
        history.foreign = self.history.foreign
        return Past(
            history,
            keep_failures=self.keep_failures,
            strict=self.strict,
            code_changed=self.code_changed,
            counts=self.counts,
        )

    def keeps_failure(self, call: RecordedCall) -> bool:
        """Tell whether a call that failed fails again as recorded: the run went on after it, in the same attempt."""
        return self.keep_failures and not call.forgotten and call.ended > self.history.retried


class CallMemory:
    """The calls of a flow run by parent, function and arguments, in the order in which they were made.

    A call of a later attempt is matched with the earlier one that had the same parent, function and input
    digest, the k-th equal one with the k-th. Tasks whose arguments have no digest match in the order in which they
    were called, and run again.

    Args:
        past: what is recorded of the run, if it goes on from there.
    """

    def __init__(self, past: Past | None = None) -> None:
        self._lock = threading.Lock()
        self._calls: defaultdict[_Key, deque[Call]] = defaultdict(deque)
        self._earlier: defaultdict[_Key, deque[Call]] = defaultdict(deque)
        self._unstarted: defaultdict[tuple[bytes | None, str], deque[Call]] = defaultdict(deque)
        self._missed: dict[bytes, RecordedCall] = {}
        self._stands_for: dict[bytes | None, bytes] = {}
        self.past = past
        self.has_past = past is not None
        self._counts: Counter[str] = Counter() if past is None else past.counts
        if past is not None:
            with no_collections():
                self._remember(past.history.calls.values())

    def _remember(self, calls: Iterable[RecordedCall]) -> None:
        for recorded in latest(calls):
            if recorded.digest is not None:
                self._earlier[recorded.parent, recorded.function, recorded.digest].append(Call(recorded=recorded))
                if recorded.completed:
                    self._missed[recorded.key] = recorded
            elif not recorded.attempt:
                # It never got as far as having arguments, so any call of the function may take its place.
                self._unstarted[recorded.parent, recorded.function].append(Call(recorded=recorded))
            elif not recorded.function.startswith(FLOW):
                self._earlier[recorded.parent, recorded.function, None].append(Call(recorded=recorded))

    def begin_attempt(self) -> None:
        """Make what was remembered so far the past, to be matched from here on."""
        with self._lock:
            self.has_past = True
            for key, calls in self._calls.items():
                # Calls that the last attempt did not come to again stay available to the next one.
                calls.extend(self._earlier.pop(key, ()))
                self._earlier[key] = calls
            self._calls = defaultdict(deque)

    def take(self, parent: bytes | None, function: str, digest: bytes | None) -> Call | None:
        """Return the earlier call that this one repeats, once."""
        with self._lock:
            parent = self._stands_for.get(parent, parent)
            calls = self._earlier.get((parent, function, digest)) or self._unstarted.get((parent, function))
            found = calls.popleft() if calls else None
            if found is not None and found.recorded is not None:
                self._missed.pop(found.recorded.key, None)
            return found

    def take_unstarted(self, parent: bytes | None, function: str) -> Call | None:
        """Return an earlier call of a function that never got as far as having arguments, once."""
        with self._lock:
            calls = self._unstarted.get((self._stands_for.get(parent, parent), function))
            return calls.popleft() if calls else None

    def stand_for(self, new: bytes, recorded: bytes) -> None:
        """Have what a new task run calls matched with what the recorded one called in another run's past."""
        with self._lock:
            self._stands_for[new] = recorded

    def add(self, parent: bytes | None, function: str, digest: bytes | None, call: Call) -> None:
        """Remember a call that has ended."""
        if digest is not None or not function.startswith(FLOW):
            with self._lock:
                self._calls[parent, function, digest].append(call)

    def count(self, what: str) -> None:
        """Count a call: it was ``reused``, ran ``again``, or is ``new``."""
        with self._lock:
            self._counts[what] += 1

    def missed(self, parent: bytes | None = None) -> list[RecordedCall]:
        """Return the recorded calls of one parent that completed and were not repeated so far."""
        with self._lock:
            parent = self._stands_for.get(parent, parent)
            return [call for call in self._missed.values() if call.parent == parent]


def latest(calls: Iterable[RecordedCall]) -> Iterator[RecordedCall]:
    """Yield calls in order; in the place of a subflow that failed and was called again, the latest of its task runs."""
    calls = list(calls)
    newer = {call.replaces: call for call in calls if call.replaces is not None}
    for call in calls:
        if call.replaces is None:
            while call.key in newer:
                call = newer[call.key]  # noqa: PLW2901 - the latest one stands for the first
            yield call
