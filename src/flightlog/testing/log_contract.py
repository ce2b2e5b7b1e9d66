"""What every log must do, whatever keeps it: inherit from `LogContract`, give it logs, and run it with pytest."""

import hashlib
import threading
from abc import ABC, abstractmethod
from itertools import islice
from typing import Any

import pytest

from flightlog.errors import LogCorrupt, LogError, TakenOver, VersionConflict
from flightlog.events import merkle
from flightlog.events.codec import MAX_RECORD
from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.model import Append, Event, NewEvent
from flightlog.events.sealing import (
    Seal,
    latest_seal,
    leaf_hashes,
    record_hashes,
    seal,
    seal_at,
    seal_of,
    seal_over,
    seals,
)
from flightlog.events.store import GENESIS
from flightlog.ids import RandomIds

_IDS = RandomIds()


def new_event(type_: str = "thing.happened", /, **data: Any) -> NewEvent:
    """Return an event with a new id."""
    return NewEvent(_IDS.new(), type_, data, occurred_at=1_767_225_600_000_000)


class Slots:
    """An inline projection for the tests: who holds a slot of a stream, and how many have so far."""

    name = "test-slots"

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.types = frozenset({"slot.acquired", "slot.released"})

    def apply(self, state: Any, event: Event, /) -> Any:
        """Return the holder and the count; nothing once the last holder has released it twice."""
        if event.data.get("holder") == "nobody":
            raise ValueError("nobody holds nothing")
        count = (state or {}).get("count", 0)
        if event.type == "slot.acquired":
            return {"holder": event.data["holder"], "count": count + self.version}
        return None if event.data.get("last") else {"holder": None, "count": count}


def acquired(holder: str) -> NewEvent:
    """Return the event that somebody has the slot."""
    return new_event("slot.acquired", holder=holder)


class LogContract(ABC):
    """The contract of a log, as tests. Override `log`, a fixture that yields a new, empty one."""

    @pytest.fixture
    @abstractmethod
    def log(self) -> Any:
        """Yield a new log; close it afterwards."""

    def test_an_append_returns_versions_from_one_on(self, log: Log) -> None:
        """The versions of a stream run 1, 2, 3 ... without gaps."""
        assert log.append("a", [new_event(), new_event()]) == [1, 2]
        assert log.append("a", [new_event()]) == [3]
        assert log.append("b", [new_event()]) == [1]
        assert [event.version for event in log.read("a")] == [1, 2, 3]

    def test_what_was_appended_is_read_back(self, log: Log) -> None:
        """An event comes back with all that it was given."""
        cause = new_event()
        event = NewEvent(
            _IDS.new(),
            "thing.happened",
            {"none": None, "yes": True, "n": -5, "x": 1.5, "s": "ä\ud800", "b": b"\0\1", "l": [1, {"k": []}]},
            occurred_at=123_456_789,
            follows=cause.id,
            schema=7,
            actor="cli:ann",
        )
        log.append("a", [cause, event], epoch=3)
        read = next(iter(log.read("a", after=1)))
        assert (read.stream, read.version, read.id, read.type) == ("a", 2, event.id, "thing.happened")
        assert (read.occurred_at, read.actor, read.follows, read.epoch) == (123_456_789, "cli:ann", cause.id, 3)
        assert read.envelope.schema == 7
        assert read.envelope.log_id == log.log_id
        assert read.data == event.data

    def test_positions_are_dense_over_all_streams(self, log: Log) -> None:
        """Positions run 1, 2, 3 ... over the whole log, and `read_all` goes by them."""
        for number in range(5):
            log.append(f"s{number % 2}", [new_event(), new_event()])
        assert [event.position for event in log.read_all()] == list(range(1, 11))
        assert [event.position for event in log.read_all(after=7)] == [8, 9, 10]
        assert log.head().position == 10

    def test_read_all_takes_types_and_a_limit(self, log: Log) -> None:
        """A reader may ask for some types, and for so many at the most."""
        log.append("a", [new_event("x.done"), new_event("y.done"), new_event("x.done"), new_event("z.done")])
        assert [event.position for event in log.read_all(types=["x.done"])] == [1, 3]
        assert [event.position for event in log.read_all(types=["x.done", "z.done"], limit=2)] == [1, 3]
        assert [event.position for event in log.read_all(limit=3)] == [1, 2, 3]
        assert list(log.read_all(types=["never.seen"])) == []
        assert list(log.read_all(limit=0)) == []

    def test_many_events_are_read_in_order(self, log: Log) -> None:
        """Reading goes on past the size of a page."""
        log.append("a", [new_event(n=n) for n in range(2500)])
        assert [event.data["n"] for event in log.read("a")] == list(range(2500))
        assert [event.position for event in log.read_all()] == list(range(1, 2501))

    def test_an_unknown_stream_is_empty(self, log: Log) -> None:
        """Reading a stream that was never written yields nothing."""
        assert list(log.read("nowhere")) == []
        assert log.head() == (0, 0)

    def test_recorded_at_never_decreases(self, log: Log) -> None:
        """The log's clock does not go back."""
        for _ in range(20):
            log.append("a", [new_event()])
        moments = [event.recorded_at for event in log.read_all()]
        assert moments == sorted(moments)
        assert log.head().recorded_at == moments[-1]

    def test_i4_every_event_carries_the_hash_of_the_one_before(self, log: Log) -> None:
        """Each stream is a chain of SHA-256 over the stored records."""
        for stream in "abab":
            log.append(stream, [new_event(), new_event()])
        for stream in "ab":
            previous = GENESIS
            for event in log.read(stream):
                assert event.envelope.previous == previous
                previous = hashlib.sha256(event.record).digest()
                assert event.hash == previous

    def test_expected_version_is_a_condition(self, log: Log) -> None:
        """An append with another version than the stream's is refused and leaves no trace."""
        log.append("a", [new_event()], expected_version=0)
        with pytest.raises(VersionConflict) as caught:
            log.append("a", [new_event()], expected_version=0)
        assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("a", 0, 1)
        assert log.append("a", [new_event()], expected_version=1) == [2]
        assert log.head().position == 2

    def test_i7_one_of_many_wins(self, log: Log) -> None:
        """Of many that append under the same condition at once, one wins."""
        winners: list[int] = []
        barrier = threading.Barrier(8)

        def claim(number: int) -> None:
            barrier.wait()
            try:
                log.append("claim", [new_event(n=number)], expected_version=0)
                winners.append(number)
            except VersionConflict:
                pass

        _together(claim, 8)
        assert len(winners) == 1
        assert [event.data["n"] for event in log.read("claim")] == winners

    def test_i7_a_stale_owner_is_refused(self, log: Log) -> None:
        """A higher epoch takes a stream over; what its old owner writes late is refused."""
        log.append("a", [new_event()], epoch=1)
        log.append("a", [new_event()], epoch=2)
        with pytest.raises(TakenOver) as caught:
            log.append("a", [new_event()], epoch=1)
        assert (caught.value.epoch, caught.value.current) == (1, 2)
        assert not isinstance(caught.value, Exception)
        assert log.append("a", [new_event()]) == [3]
        assert log.append("a", [new_event()], epoch=2) == [4]

    def test_appending_again_changes_nothing(self, log: Log) -> None:
        """An append is idempotent by its events' ids, whatever was appended in between."""
        first, second = [new_event(n=1), new_event(n=2)], new_event(n=3)
        assert log.append("a", first, expected_version=0) == [1, 2]
        log.append("a", [second])
        assert log.append("a", first, expected_version=0) == [1, 2]
        assert log.append("a", first) == [1, 2]
        assert [event.data["n"] for event in log.read("a")] == [1, 2, 3]

    def test_an_event_id_is_for_one_event(self, log: Log) -> None:
        """An id that is recorded already is refused in another append, which leaves no trace."""
        event = new_event()
        log.append("a", [event])
        with pytest.raises(LogError):
            log.append("b", [new_event(), event])
        with pytest.raises(LogError):
            log.append("b", [event])
        assert log.head().position == 1
        assert log.append("b", [new_event()]) == [1]

    def test_a_condition_holds_without_events_too(self, log: Log) -> None:
        """An append of nothing still says whether the stream is where it was expected."""
        log.append("a", [new_event()])
        assert log.append("a", [], expected_version=1) == []
        with pytest.raises(VersionConflict):
            log.append("a", [], expected_version=0)

    def test_several_streams_are_all_or_nothing(self, log: Log) -> None:
        """An append to several streams is refused whole if one condition fails."""
        assert log.append_all([Append("a", [new_event()]), Append("b", [new_event(), new_event()])]) == [[1], [1, 2]]
        with pytest.raises(VersionConflict):
            log.append_all([Append("a", [new_event()]), Append("b", [new_event()], expected_version=0)])
        assert len(list(log.read("a"))) == 1
        assert log.head().position == 3

    def test_a_refused_append_does_not_hinder_the_others(self, log: Log) -> None:
        """In one commit, what is refused leaves no trace and the rest is appended."""
        units = [
            log.enqueue([Append("a", [new_event()])]),
            log.enqueue([Append("a", [new_event()], expected_version=0)]),
            log.enqueue([Append("a", [new_event()])]),
        ]
        log.commit(units[2])
        with pytest.raises(VersionConflict):
            log.commit(units[1])
        log.commit(units[0])
        assert [event.version for event in log.read("a")] == [1, 2]

    def test_i8_a_long_payload_spills_into_blobs(self, log: Log) -> None:
        """No record is longer than 64 KiB; what is too long is a blob, and comes back in its place."""
        data: dict[str, Any] = {"text": "x" * 200_000, "small": 1, "list": list(range(50_000))}
        log.append("a", [new_event(**data)])
        event = next(log.read("a"))
        assert len(event.record) <= MAX_RECORD
        assert event.data == data

    def test_i8_many_small_fields_spill_together(self, log: Log) -> None:
        """Also a payload of very many fields fits."""
        data: dict[str, Any] = {f"field {n}": n for n in range(20_000)}
        log.append("a", [new_event(**data)])
        event = next(log.read("a"))
        assert len(event.record) <= MAX_RECORD
        assert event.data == data

    def test_blobs_are_kept_by_their_digest(self, log: Log) -> None:
        """A blob is stored with its events, once, and found by its SHA-256."""
        content = b"result" * 1000
        digest = hashlib.sha256(content).digest()
        for _ in range(2):
            log.append("a", [new_event()], blobs={digest: content})
        assert log.blob(digest) == content
        with pytest.raises(LogCorrupt):
            log.blob(bytes(32))

    def test_i9_unknown_types_are_carried_along(self, log: Log) -> None:
        """A type or schema version that nobody here knows is kept and given back as it is."""
        event = NewEvent(_IDS.new(), "plugin.gone", {"x": [1]}, 1, schema=99)
        log.append("a", [event])
        read = next(log.read("a"))
        assert (read.type, read.envelope.schema, read.data) == ("plugin.gone", 99, {"x": [1]})

    def test_i5_a_reader_sees_every_event_once_and_in_order(self, log: Log) -> None:
        """While many append, a reader with a cursor skips nothing and sees nothing twice."""
        per_writer, writers = 60, 4
        stop = threading.Event()
        seen: list[Event] = []

        def read() -> None:
            for event in islice(log.subscribe(stop=stop), per_writer * writers):
                seen.append(event)

        reader = threading.Thread(target=read)
        reader.start()

        def write(number: int) -> None:
            for n in range(per_writer):
                log.append(f"s{number}", [new_event(n=n)])

        _together(write, writers)
        reader.join(60)
        stop.set()
        reader.join()
        assert [event.position for event in seen] == list(range(1, per_writer * writers + 1))
        for number in range(writers):
            own = [event.data["n"] for event in seen if event.stream == f"s{number}"]
            assert own == list(range(per_writer))

    def test_what_is_in_line_is_committed_soon(self, log: Log) -> None:
        """What nobody waits for is committed all the same."""
        log.enqueue([Append("a", [new_event()])])
        stop = threading.Event()
        assert next(log.subscribe(stop=stop)).stream == "a"

    def test_one_commit_takes_all_that_is_in_line(self, log: Log) -> None:
        """Committing an append commits everything before it, in order."""
        for n in range(10):
            log.enqueue([Append("a", [new_event(n=n)])])
        log.append("a", [new_event(n=10)])
        assert [event.data["n"] for event in log.read("a")] == list(range(11))

    def test_facts_are_kept_once(self, log: Log) -> None:
        """The first value of a fact about the log stays."""
        assert log.store.set_fact("key_id", b"one") == b"one"
        assert log.store.set_fact("key_id", b"two") == b"one"
        assert log.store.facts()["key_id"] == b"one"
        assert log.store.facts()["log_id"] == log.log_id

    def test_a_log_verifies(self, log: Log) -> None:
        """What was appended verifies: chains, columns, blobs and ends."""
        for number in range(30):
            log.append(f"s{number % 3}", [new_event(text="x" * 70_000 if number == 5 else "")], epoch=number // 10)
        found = verify(log.store)
        assert found.problems == []
        assert (found.events, found.streams, found.blobs) == (30, 3, 1)

    def test_a_sealed_log_verifies(self, log: Log) -> None:
        """A seal has the Merkle head over all in front of it, the next one goes on; what is behind is unproved."""
        log.append("a", [new_event(n=n) for n in range(11)])
        first = seal(log)
        assert first is not None
        assert seal(log) is None  # there is nothing but the seal itself
        log.append("b", [new_event(n=n) for n in range(4)])
        second = seal(log)
        assert second is not None
        assert (first.first, first.last, first.position) == (1, 11, 12)
        assert (second.first, second.last, second.position) == (12, 16, 17)
        rows = log.store.read_all(0, None, 16)
        assert second.root == merkle.root(leaf_hashes(rows, record_hashes(rows)))
        assert (latest_seal(log), seal_at(log, 11), seal_at(log, 12)) == (second, first, None)
        assert [seal_over(log, position) for position in (1, 11, 12, 17)] == [first, first, second, None]
        found = verify(log.store, known=[first.checkpoint(log.log_id)])
        assert found.problems == []
        assert (found.seals, found.sealed, found.unproved, found.known) == (2, 16, 1, 11)

    def test_of_those_who_seal_at_once_one_wins(self, log: Log) -> None:
        """A seal is one conditional append: no event is sealed twice, and no seal is lost."""
        barrier = threading.Barrier(4)
        made: list[Seal | None] = []

        def work(_: int) -> None:
            barrier.wait(10)
            made.append(seal(log))

        for number in range(5):
            log.append("a", [new_event(n=number) for _ in range(20)])
            _together(work, 4)
        covered = [(one.first, one.last) for one in (seal_of(row, log.blob) for row in seals(log.store))]
        assert [first for first, _ in covered] == [1, *(last + 1 for _, last in covered[:-1])]
        assert sum(one is not None for one in made) == len(covered) >= 5
        assert verify(log.store).problems == []

    def test_names_have_a_limit(self, log: Log) -> None:
        """A stream's or type's name that would not fit is refused with a clear error."""
        with pytest.raises(LogError, match="512"):
            log.append("s" * 600, [new_event()])
        with pytest.raises(LogError, match="512"):
            log.append("s", [new_event("t" * 600)])
        assert log.append("s", [new_event()]) == [1]

    # --- inline projections -----------------------------------------------------------------------

    def test_an_inline_projection_moves_in_the_commit(self, log: Log) -> None:
        """What a stream has come to can be read as soon as the append returns, with the version to expect."""
        log.keep([Slots()])
        assert log.state("test-slots", "limit/a") == (0, None)
        log.append_all([Append("limit/a", [acquired("ann"), new_event()]), Append("limit/b", [acquired("bob")])])
        assert log.state("test-slots", "limit/a") == (2, {"holder": "ann", "count": 1})
        log.append("limit/a", [new_event("slot.released"), acquired("cat")])
        assert log.states("test-slots") == {
            "limit/a": {"holder": "cat", "count": 2},
            "limit/b": {"holder": "bob", "count": 1},
        }
        log.append("limit/b", [new_event("slot.released", last=True)])
        assert log.state("test-slots", "limit/b") == (2, None)
        assert log.states("test-slots").keys() == {"limit/a"}

    def test_an_inline_projection_follows_what_is_appended_and_nothing_else(self, log: Log) -> None:
        """A refused append leaves its value, and a repeated one does not count twice."""
        log.keep([Slots()])
        event = acquired("ann")
        log.append("limit/a", [event])
        log.append("limit/a", [event])
        with pytest.raises(VersionConflict):
            log.append("limit/a", [acquired("bob")], expected_version=0)
        assert log.state("test-slots", "limit/a") == (1, {"holder": "ann", "count": 1})

    def test_an_inline_projection_that_fails_refuses_its_unit_only(self, log: Log) -> None:
        """A mistake in a fold does not stop the log: what it fails on is not appended, all else in the commit is."""
        log.keep([Slots()])
        units = [
            log.enqueue([Append("limit/a", [acquired("ann")])]),
            log.enqueue([Append("s", [new_event()]), Append("limit/a", [acquired("bob"), acquired("nobody")])]),
            log.enqueue([Append("limit/a", [acquired("cat")])]),
        ]
        log.commit(units[2])
        with pytest.raises(LogError, match="ValueError: nobody holds nothing"):
            log.commit(units[1])
        with pytest.raises(LogError, match="nobody holds nothing"):
            log.append("limit/b", [acquired("nobody")])
        assert log.append("limit/a", [acquired("dan")]) == [3]
        assert log.state("test-slots", "limit/a") == (3, {"holder": "dan", "count": 3})
        assert list(log.read("s")) == []
        assert verify(log.store).problems == []

    def test_what_the_log_does_not_keep_is_no_inline_projection(self, log: Log) -> None:
        """Asking for what nobody keeps is an error, not an empty answer."""
        with pytest.raises(LogError, match="keeps no inline projection 'nothing'"):
            log.state("nothing", "s")
        with pytest.raises(LogError, match="keeps no inline projection 'nothing'"):
            log.states("nothing")

    def test_an_inline_projection_made_anew_keeps_nothing_of_the_old_one(self, log: Log) -> None:
        """What an older version had come to is gone with it."""
        log.keep([Slots()])
        log.append("limit/a", [acquired("ann")])
        fewer = Slots(version=2)
        fewer.types = frozenset({"slot.released"})
        log.keep([fewer])
        assert log.states("test-slots") == {}

    def test_i7_one_winner_by_a_conditional_append(self, log: Log) -> None:
        """Of many who saw the same free slot, one gets it; the others see who."""
        log.keep([Slots()])
        won: list[str] = []
        barrier = threading.Barrier(8)

        def claim(number: int) -> None:
            name = f"t{number}"
            kept = log.state("test-slots", "limit/a")
            barrier.wait()
            try:
                log.append("limit/a", [acquired(name)], expected_version=kept.version)
            except VersionConflict:
                return
            won.append(name)

        _together(claim, 8)
        assert len(won) == 1
        assert log.state("test-slots", "limit/a").state == {"holder": won[0], "count": 1}

    def test_i6_an_inline_projection_is_made_anew_from_the_log(self, log: Log) -> None:
        """Kept from the first event on, made later, or made anew: the values are those that the events lead to."""
        log.append("limit/a", [acquired("ann"), new_event("slot.released"), acquired("bob")])
        log.append("limit/b", [acquired("x" * 200_000), new_event("slot.released")])
        log.append("limit/c", [acquired("cat"), new_event("slot.released", last=True)])
        log.keep([Slots()])
        made = log.states("test-slots")
        assert made == {"limit/a": {"holder": "bob", "count": 2}, "limit/b": {"holder": None, "count": 1}}
        assert log.folded(Slots()) == made
        log.keep([Slots()], anew=True)
        assert log.states("test-slots") == made
        log.keep([Slots(version=2)])
        assert log.state("test-slots", "limit/a").state == {"holder": "bob", "count": 4}
        log.append("limit/a", [acquired("dan")])
        assert log.state("test-slots", "limit/a").state == {"holder": "dan", "count": 6}


def _together(work: Any, count: int) -> None:
    """Run a function in so many threads, and raise what any of them raised."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
