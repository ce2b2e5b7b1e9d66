"""Two recorded runs side by side: what went into each, what each did, and where their ways part."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flightlog.engine.history import FLOW, History, RecordedCall, apply_all
from flightlog.errors import RunNotFound
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.narration import state_of
from flightlog.events.subjects import HIDDEN, hidden
from flightlog.events.types import STATES, TERMINAL, flow_run_stream
from flightlog.ids import id_text

_FACTS = ("flow", "version", "entrypoint", "directory", "python", "task_runner", "retries")
_MOST_TIMES = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same in both runs.

    Attributes:
        what: what it is, such as ``parameter day``, ``inputs`` or ``outcome``.
        call: the task run, by its name in the first run that has it; None for the flow run itself.
        a: as the one has it; None for not at all.
        b: as the other has it.
        event_a: the position and type of the event of the one that says so; None if it has none.
        event_b: the same of the other.
    """

    what: str
    call: str | None
    a: str | None
    b: str | None
    event_a: tuple[int, str] | None = None
    event_b: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One of two runs.

    Attributes:
        id: its id.
        flow: its flow.
        name: its name.
        state: the name of its state.
        state_type: the type of its state.
        took: from its first start to its last event, in microseconds; None if it never started.
        calls: how many calls it made.
    """

    id: str
    flow: str
    name: str
    state: str
    state_type: str
    took: int | None
    calls: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        a: the one.
        b: the other.
        given: what went into them that differs: parameters, code, environment.
        done: what they did that differs, in the order in which it happened: the first is where their ways part.
        same: how many calls are the same in both.
        times: the calls whose times differ most, by name, in microseconds; None where one has no end.
    """

    a: Side
    b: Side
    given: list[Difference]
    done: list[Difference]
    same: int
    times: list[tuple[str, int | None, int | None]]

    @property
    def first(self) -> Difference | None:
        """Where their ways part; None if both went the same way."""
        return self.done[0] if self.done else None


@dataclass(slots=True)
class _Run:
    """A run with its events by call; those of the flow run itself under None."""

    history: History
    events: defaultdict[bytes | None, list[Event]] = field(default_factory=lambda: defaultdict(list))

    def find(self, call: RecordedCall | None, wanted: Callable[[Event], bool]) -> Event | None:
        """Return the last event of a call, or of the flow run itself, that is wanted."""
        events = self.events[None if call is None else call.key]
        return next((event for event in reversed(events) if wanted(event)), None)

    def took(self, call: RecordedCall | None) -> int | None:
        """Return how long a call, or the run, took from its first start to its last event."""
        events = self.events[None if call is None else call.key]
        started = next((event for event in events if event.type.endswith(".running")), None)
        return None if started is None else events[-1].occurred_at - started.occurred_at


def compare(log: Log, a: bytes, b: bytes) -> Comparison:
    """Compare two flow runs.

    Calls are matched as resuming does it: by the call that made them, the function and the digest of the arguments,
    the k-th equal one with the k-th; what is left then, by function alone, since its arguments differ.

    Args:
        log: the log.
        a: the one flow run's id, 16 bytes.
        b: the other's.

    Raises:
        RunNotFound: there is no such run.
    """
    one, other = _read(log, a), _read(log, b)
    pairs = list(_matched(one.history, other.history))
    done = [*_calls_differ(one, other, pairs), *_ends_differ(one, other)]
    equal = [pair for pair in pairs if None not in pair and not list(_call_differs(one, other, *pair))]
    return Comparison(
        _side(one), _side(other), list(_given(log, one, other)), done, len(equal), _times(one, other, pairs)
    )


def _read(log: Log, run: bytes) -> _Run:
    found = _Run(History(run))
    events = list(log.read(flow_run_stream(id_text(run))))
    apply_all(found.history, events, None)
    if not found.history.created:
        raise RunNotFound(f"There is no flow run {id_text(run)} in this log.")
    for event in events:
        if event.type.partition(".")[2] in STATES:
            found.events[event.data.get("task_run_id")].append(event)
    return found


def _side(run: _Run) -> Side:
    history, last = run.history, run.events[None][-1]
    type_, name = state_of(last.type, last.data)
    return Side(history.text, history.created["flow"], history.name, name, type_, run.took(None), len(history.calls))


# --- what went in ---------------------------------------------------------------------------------------


def _given(log: Log, a: _Run, b: _Run) -> Iterator[Difference]:
    one, other = a.history.created, b.history.created
    events = (_place(a.events[None][0]), _place(b.events[None][0]))
    for what, left, right in _facts(log, one, other):
        if left != right:
            yield Difference(what, None, left, right, *events)


def _facts(log: Log, a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, str | None, str | None]]:
    given, other = json.loads(a.get("parameters", "{}")), json.loads(b.get("parameters", "{}"))
    for name in given | other:
        yield f"parameter {name}", _shown(given, name), _shown(other, name)
    if given == other:
        yield "parameters, in what is not shown of them", _digest(a.get("exact")), _digest(b.get("exact"))
    for name in _FACTS:
        yield name.replace("_", " "), _text(a.get(name)), _text(b.get(name))
    yield "tags", _text(a.get("tags")), _text(b.get("tags"))
    yield "code", _text(a.get("code")), _text(b.get("code"))
    here, there = _packages(log, a), _packages(log, b)
    for name in sorted(here | there):
        yield f"package {name}", here.get(name), there.get(name)


def _shown(values: dict[str, Any], name: str) -> str | None:
    return json.dumps(values[name]) if name in values else None


def _digest(reference: dict[str, Any] | None) -> str | None:
    if reference is not None and "personal" in reference:
        return HIDDEN
    return None if reference is None else _text(reference.get("digest"))


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.hex()[:16]
    return ", ".join(value) if isinstance(value, list) else None if value is None else str(value)


def _packages(log: Log, created: dict[str, Any]) -> dict[str, str]:
    reference = created.get("packages") or {}
    if "digest" not in reference:
        return {}
    lines = log.blob(reference["digest"]).decode().splitlines()
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


# --- what was done --------------------------------------------------------------------------------------

_Pair = tuple[RecordedCall | None, RecordedCall | None]


def _matched(a: History, b: History) -> Iterator[_Pair]:
    """Yield the calls of both, those that match together, in the order of the one, what only the other has after it."""
    yield from _children(a, b, None, None)


def _children(a: History, b: History, parent_a: bytes | None, parent_b: bytes | None) -> Iterator[_Pair]:
    here = [call for call in a.calls.values() if call.parent == parent_a]
    there = [call for call in b.calls.values() if call.parent == parent_b]
    partner: dict[bytes, RecordedCall] = {}
    for key in (lambda call: (call.function, call.digest), lambda call: call.function):
        waiting = defaultdict[Any, list[RecordedCall]](list)
        taken = {call.key for call in partner.values()}
        for call in there:
            if call.key not in taken:
                waiting[key(call)].append(call)
        for call in here:
            if call.key not in partner and waiting[key(call)]:
                partner[call.key] = waiting[key(call)].pop(0)
    for call in here:
        yield call, partner.get(call.key)
        if call.key in partner:
            yield from _children(a, b, call.key, partner[call.key].key)
    taken = {call.key for call in partner.values()}
    yield from ((None, call) for call in there if call.key not in taken)


def _calls_differ(a: _Run, b: _Run, pairs: list[_Pair]) -> list[Difference]:
    """Return how calls differ, in the order in which it happened."""
    found = [(difference, pair) for pair in pairs for difference in _call_differs(a, b, *pair)]
    ends = {two.number: one.ended for one, two in pairs if one is not None and two is not None}

    def when(item: tuple[Difference, _Pair]) -> tuple[float, int]:
        difference, (_, two) = item
        if difference.event_a is not None:
            return difference.event_a[0], 0
        assert two is not None
        assert difference.event_b is not None
        # What only the other has comes after what it did before that, as far as the one did that too.
        before = [end for number, end in ends.items() if number < two.number]
        return max(before, default=0) + 0.5, difference.event_b[0]

    return [difference for difference, _ in sorted(found, key=when)]


def _call_differs(a: _Run, b: _Run, one: RecordedCall | None, two: RecordedCall | None) -> Iterator[Difference]:
    if one is None or two is None:
        call = one or two
        assert call is not None
        told = f"{'subflow' if call.function.startswith(FLOW) else 'task'} {call.task}"
        event = _place((a if two is None else b).events[call.key][0])
        sides = (told, None, event, None) if two is None else (None, told, None, event)
        yield Difference("call", call.name, *sides)
        return
    if one.digest != two.digest:
        yield _differ("inputs", a, b, (one, two), (_hex(one.digest), _hex(two.digest)), _begins)
    outcomes = _outcome(a, one), _outcome(b, two)
    results = _result(one.result), _result(two.result)
    if outcomes[0] != outcomes[1]:
        yield _differ("outcome", a, b, (one, two), outcomes, _ends)
    elif results[0] != results[1]:
        yield _differ("result", a, b, (one, two), results, _ends)
    if one.attempt != two.attempt:
        yield _differ("attempts", a, b, (one, two), (str(one.attempt), str(two.attempt)), _begins)


def _differ(
    what: str,
    a: _Run,
    b: _Run,
    calls: tuple[RecordedCall, RecordedCall],
    values: tuple[str | None, str | None],
    wanted: Callable[[Event], bool],
) -> Difference:
    events = (
        _place(run.find(call, wanted) or run.events[call.key][-1]) for run, call in zip((a, b), calls, strict=True)
    )
    return Difference(what, calls[0].name, *values, *events)


def _ends_differ(a: _Run, b: _Run) -> Iterator[Difference]:
    outcomes = _outcome(a, None), _outcome(b, None)
    ends = a.events[None][-1], b.events[None][-1]
    results = _result(ends[0].data.get("result")), _result(ends[1].data.get("result"))
    places = _place(ends[0]), _place(ends[1])
    if outcomes[0] != outcomes[1]:
        yield Difference("outcome", None, *outcomes, *places)
    elif results[0] != results[1]:
        yield Difference("result", None, *results, *places)


def _outcome(run: _Run, call: RecordedCall | None) -> str:
    event = run.events[None if call is None else call.key][-1]
    _, name = state_of(event.type, event.data)
    error = event.data.get("error")
    return f"{name}: {error['type']}: {hidden(error['message'])}" if error else name


def _result(reference: dict[str, Any] | None) -> str | None:
    reference = reference or {}
    if "personal" in reference:
        return HIDDEN  # what is encrypted twice never looks the same
    return str(reference["value"]) if "value" in reference else _hex(reference.get("digest"))


def _begins(event: Event) -> bool:
    return event.type.endswith(".running")


def _ends(event: Event) -> bool:
    return STATES[event.type.partition(".")[2]][0] in TERMINAL


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()[:16]


def _place(event: Event) -> tuple[int, str]:
    return event.position, event.type


def _times(a: _Run, b: _Run, pairs: list[_Pair]) -> list[tuple[str, int | None, int | None]]:
    rows = [(one.name, a.took(one), b.took(two)) for one, two in pairs if one is not None and two is not None]
    rows.sort(key=lambda row: abs((row[1] or 0) - (row[2] or 0)), reverse=True)
    return rows[:_MOST_TIMES]
