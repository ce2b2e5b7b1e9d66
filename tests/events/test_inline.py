"""Inline projections, with several processes on one log: each has the same fold, or may not append what it folds."""

import random
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from flightlog.errors import LogWriteError, VersionConflict
from flightlog.events.log import Log
from flightlog.events.model import Append
from flightlog.events.moving import copy
from flightlog.events.opening import open_log
from flightlog.testing.log_contract import Slots, acquired, new_event


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a log may be, for each kind that several processes can share."""
    return f"sqlite:///{tmp_path}/log.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def test_an_older_writer_is_refused_and_its_other_events_are_not(url: str) -> None:
    """What a newer version folds, an older one may not append, also one that was open already; all else it may."""
    with open_log(url) as old, open_log(url) as unaware, open_log(url) as new:
        old.keep([Slots(version=1)])
        old.append("limit/a", [acquired("ann")])
        unaware.append("s", [new_event()])
        new.keep([Slots(version=2)])
        for log in (old, unaware):
            with pytest.raises(LogWriteError, match=r"'test-slots' in version 2.*pip install --upgrade"):
                log.append("limit/a", [acquired("bob")])
            assert log.append("s", [new_event()])
        new.append("limit/a", [acquired("cat")])
        assert new.state("test-slots", "limit/a") == (2, {"holder": "cat", "count": 4})
        assert new.folded(Slots(version=2)) == new.states("test-slots")
        with open_log(url) as late:
            late.keep([Slots(version=1)], anew=True)
            with pytest.raises(LogWriteError):
                late.append("limit/a", [acquired("dan")])
            with pytest.raises(LogWriteError, match="in version 2"):
                late.state("test-slots", "limit/a")


def test_an_older_version_folds_nothing_into_the_values_of_a_newer_one(url: str) -> None:
    """Not even events that only the older one folds: their values are the newer one's now."""
    newer = Slots(version=2)
    newer.types = frozenset({"slot.acquired"})
    with open_log(url) as old, open_log(url) as new:
        old.keep([Slots(version=1)])
        old.append("limit/a", [acquired("ann")])
        new.keep([newer])
        with pytest.raises(LogWriteError, match="in version 2"):
            old.append("limit/a", [new_event("slot.released")])
        assert new.state("test-slots", "limit/a") == (1, {"holder": "ann", "count": 2})
        with open_log(url) as late:
            late.keep([Slots(version=1)])
            with pytest.raises(LogWriteError, match="in version 2"):
                late.append("limit/a", [new_event("slot.released")])
        assert new.folded(newer) == new.states("test-slots")


def test_a_refused_unit_leaves_the_others_in_its_commit(url: str) -> None:
    """One commit holds units of several callers; only what may not be appended is refused."""
    with open_log(url) as new, open_log(url) as old:
        new.keep([Slots(version=2)])
        old.append("s", [new_event()])
        units = [old.enqueue([Append("s", [new_event()])]), old.enqueue([Append("limit/a", [acquired("ann")])])]
        old.commit(units[0])
        with pytest.raises(LogWriteError):
            old.commit(units[1])
        assert [event.version for event in old.read("s")] == [1, 2]
        assert new.head().position == 2


def test_a_copy_has_its_values_made_anew(url: str, tmp_path: Path) -> None:
    """What comes in with its positions is not folded on the way: whoever keeps values makes them anew."""
    with open_log(f"sqlite:///{tmp_path}/source.db") as source:
        source.append("limit/a", [acquired("ann"), new_event("slot.released"), acquired("bob")])
        copy(source, url)
        with open_log(url) as target:
            target.keep([Slots()])
            assert target.states("test-slots") == {"limit/a": {"holder": "bob", "count": 2}}
            source.append("limit/a", [new_event("slot.released"), acquired("cat")])
            copy(source, url)
            assert target.state("test-slots", "limit/a") == (5, {"holder": "cat", "count": 3})
            assert target.append("limit/a", [new_event("slot.released")]) == [6]
            assert target.folded(Slots()) == target.states("test-slots")


@pytest.mark.timeout(120)
def test_i6_values_are_what_the_events_lead_to_whoever_writes(url: str) -> None:
    """Many writers on the same streams at once, and one that makes the values anew meanwhile: nothing is lost."""
    seed = 20_261_123
    with ExitStack() as opened:
        _write_at_once(seed, url, [opened.enter_context(open_log(url)) for _ in range(4)])


def _write_at_once(seed: int, url: str, logs: list[Log]) -> None:
    for log in logs:
        log.keep([Slots()])

    def write(log: Log, number: int) -> None:
        chance = random.Random(seed + number)
        for step in range(60):
            stream = f"limit/{chance.randrange(3)}"
            event = acquired(f"{number}-{step}") if chance.random() < 0.6 else new_event("slot.released")
            try:
                log.append(stream, [event], expected_version=log.state("test-slots", stream).version)
            except VersionConflict:
                log.append(stream, [event])

    threads = [threading.Thread(target=write, args=(log, number)) for number, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    with open_log(url) as other:
        while any(thread.is_alive() for thread in threads):
            other.keep([Slots()], anew=True)
            threads[0].join(0.05)
    for thread in threads:
        thread.join()
    log = logs[0]
    assert log.head().position == 240
    assert log.states("test-slots") == log.folded(Slots())
