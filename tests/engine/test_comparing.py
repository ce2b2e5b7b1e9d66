"""Two runs side by side: what differs is found and named, what does not is not."""

from collections.abc import Iterator
from typing import Any

import pytest

from flightlog import flow, task
from flightlog.engine.comparing import Comparison, Difference, compare
from flightlog.errors import RunNotFound
from flightlog.events.model import Append, NewEvent
from flightlog.ids import parse_id
from flightlog.testing import FlowTest, flightlog_test_harness


@pytest.fixture
def place() -> Iterator[FlowTest]:
    """Return a log in memory."""
    with flightlog_test_harness() as test:
        yield test


@task
def extract(day: str) -> list[int]:
    """Return rows."""
    return [1, 2, len(day)]


@task(retries=1)
def clean(row: int, most: int) -> int:
    """Refuse what is too big."""
    if row > most:
        raise ValueError(f"row {row} is too big")
    return row


@task
def extra(total: int) -> int:
    """Do what only some runs do."""
    return total


@flow
def etl(day: str = "2026-01-01", most: int = 20, more: bool = False) -> int:
    """Extract and clean."""
    total = sum(future.result() for future in clean.map(extract(day), most))
    return extra(total) if more else total


def run(**parameters: Any) -> bytes:
    """Run the flow; return the run's id."""
    state = etl(**parameters, return_state=True)
    return parse_id(str(state.state_details.flow_run_id))


def compared(place: FlowTest, a: dict[str, Any], b: dict[str, Any]) -> Comparison:
    """Run the flow twice, and compare."""
    one, other = run(**a), run(**b)
    place.engine.log.flush()
    return compare(place.engine.log, one, other)


def named(difference: Difference) -> tuple[str, str]:
    """Return what differs, and in which task."""
    return "" if difference.call is None else difference.call.partition("-")[0], difference.what


def test_the_same_twice(place: FlowTest) -> None:
    """Nothing differs, though ids, names and times do."""
    found = compared(place, {}, {})
    assert (found.given, found.done, found.first, found.same) == ([], [], None, 4)
    assert found.a.name != found.b.name


def test_where_ways_part(place: FlowTest) -> None:
    """Other parameters, then the first call that they reach, then what follows from it, each with its events."""
    found = compared(place, {}, {"day": "2026-01-01T12:00:00+01:00"})
    assert [(one.what, one.a, one.b) for one in found.given] == [
        ("parameter day", '"2026-01-01"', '"2026-01-01T12:00:00+01:00"')
    ]
    assert [named(one) for one in found.done] == [
        ("extract", "inputs"), ("extract", "result"), ("clean", "inputs"), ("clean", "attempts"), ("clean", "outcome"),
        ("", "outcome"),
    ]  # fmt: skip
    assert found.first is not None
    events = {event.position: event.type for event in place.events()}
    for one in found.done:
        for event in (one.event_a, one.event_b):
            assert event is not None
            assert events[event[0]] == event[1]
    assert found.first.event_a is not None
    assert found.first.event_a[1] == "task_run.running"
    ends = [one for one in found.done if one.what == "outcome"]
    assert ends[0].b == "Failed: ValueError: row 25 is too big"
    assert found.same == 2


def test_a_call_that_only_one_run_made(place: FlowTest) -> None:
    """It comes in the order in which it was made, on whichever side."""
    found = compared(place, {}, {"more": True})
    assert [named(one) for one in found.done] == [("extra", "call")]
    assert found.first is not None
    assert (found.first.a, found.first.event_a) == (None, None)
    turned = compared(place, {"more": True}, {})
    assert turned.first is not None
    assert (turned.first.b, turned.first.event_b) == (None, None)


def test_code_and_environment(place: FlowTest) -> None:
    """Digests, versions and packages are told, one by one; the way is the same."""
    one = run()
    log = place.engine.log
    log.flush()
    first, *others = log.read(f"flow-run/{_text(one)}")
    blob = b"numpy==1.0\nmsgpack==9\n"
    from flightlog.engine.results import blob_of

    reference, contents = blob_of(blob, "text")
    data = {**first.data, "code": b"\1" * 32, "python": "2.7", "packages": reference}
    copy = place.engine.ids.new()
    events = [NewEvent(place.engine.ids.new(), first.type, data, first.occurred_at)]
    events += [NewEvent(place.engine.ids.new(), event.type, event.data, event.occurred_at) for event in others]
    log.append_all([Append(f"flow-run/{_text(copy)}", events, blobs=contents)])
    found = compare(log, one, copy)
    given = {difference.what: (difference.a, difference.b) for difference in found.given}
    assert given["python"][1] == "2.7"
    assert given["code"][1] == "01" * 8
    assert given["package numpy"] == (None, "1.0")
    assert given["package msgpack"][1] == "9"
    assert found.first is None


def _text(run: bytes) -> str:
    from flightlog.ids import id_text

    return id_text(run)


def test_a_run_that_there_is_not(place: FlowTest) -> None:
    """It is said."""
    with pytest.raises(RunNotFound, match="There is no flow run"):
        compare(place.engine.log, run(), bytes(16))
