"""How fast a log grows, and when the disk is full."""

from pathlib import Path

import pytest

from flightlog.cli.growth import Growth, growth
from flightlog.events.archiving import Archiver
from flightlog.events.opening import open_log
from flightlog.events.sealing import seal
from flightlog.testing.clocks import VirtualClock
from flightlog.testing.log_contract import new_event


def test_growth_is_that_of_the_last_week(tmp_path: Path) -> None:
    """A log that is young says nothing; later the last seven days count, whether or not the events have left since."""
    clock, path = VirtualClock(), tmp_path / "log.db"
    with open_log(f"sqlite:///{path}", clock=clock) as log:
        assert growth(log, path, tmp_path / "none") is None
        log.append("a", [new_event(text="x" * 500) for _ in range(1000)])
        clock.advance(60)
        assert growth(log, path, tmp_path / "none") is None
        clock.advance(86_340)
        found = growth(log, path, tmp_path / "none")
        assert found is not None
        assert found.events == pytest.approx(1000)
        assert 500_000 < found.bytes < 1_500_000
        clock.advance(9 * 86_400)
        log.append("b", [new_event(text="x" * 500) for _ in range(700)])
        found = growth(log, path, tmp_path / "none")
        assert found is not None
        assert found.events == pytest.approx(100)
        seal(log)
        with Archiver(log) as archiver:
            list(archiver.archive(["a"], "state"))
        after = growth(log, path, tmp_path / "none")
        assert after is not None
        assert after.events == pytest.approx(100, abs=1)
        assert after.bytes == pytest.approx(found.bytes, rel=0.5)


@pytest.mark.parametrize(("days", "text"), [(12.4, "in 12 days"), (5000, "not in ten years"), (float("inf"), "not in")])
def test_when_the_disk_is_full_is_said_in_words(days: float, text: str) -> None:
    """In days, or that it is far away."""
    assert text in str(Growth(10, 2048, days))
    assert "10 events and 2.0 KiB a day" in str(Growth(10, 2048, days))
    assert Growth(10, 2048, days).is_soon == (days < 30)
