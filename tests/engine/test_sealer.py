"""Processes that run flows seal the log as the settings say."""

from pathlib import Path

import pytest
from tests.postgres import Server

from flightlog import flow, task
from flightlog.clock import SystemClock
from flightlog.engine.runtime import open_engine, using
from flightlog.engine.sealer import Sealer
from flightlog.errors import SettingsError
from flightlog.events.integrity import verify
from flightlog.events.opening import open_log
from flightlog.events.sealing import latest_seal, seal
from flightlog.ids import RandomIds
from flightlog.plugins.host import close_host
from flightlog.settings import load
from flightlog.testing.log_contract import new_event


@task
def one(n: int) -> int:
    """Return what is given."""
    return n


@flow
def some(count: int) -> None:
    """Run some tasks."""
    for number in range(count):
        one(number)


def sealed(url: str, policy: str, runs: int = 1, count: int = 2) -> tuple[int, int]:
    """Run flows under a policy; return how many seals there are, and how many events they do not cover."""
    settings = load({"FLIGHTLOG_LOG_URL": url, "FLIGHTLOG_LOG_SEAL": policy})
    engine = open_engine(settings)
    with using(engine):
        for _ in range(runs):
            some(count)
    engine.close()
    close_host()
    with open_log(url) as log:
        found = verify(log.store)
        assert found.sound
        return found.seals, found.unproved


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a new log is made."""
    if request.param == "postgres":
        made: str = request.getfixturevalue("postgres_url")
        return made
    return f"sqlite:///{tmp_path}/log.db"


def test_a_log_is_sealed_when_the_process_lets_go_of_it(url: str) -> None:
    """All that the process has recorded is covered; the seal itself is the next one's."""
    assert sealed(url, "exit") == (1, 1)
    assert sealed(url, "exit") == (2, 1)


@pytest.mark.parametrize(("policy", "seals"), [("never", 0), ("15", 0), ("9", 1), ("exit,100000", 1), ("100s", 1)])
def test_the_policy_says_when(tmp_path: Path, policy: str, seals: int) -> None:
    """A run of two tasks has nine events; the first seal's time has come from the beginning."""
    assert sealed(f"sqlite:///{tmp_path}/log.db", policy)[0] == seals


@pytest.mark.parametrize("policy", ["sometimes", "exit never", "never,5", "0", "-3", "0.5s", "exit,"])
def test_a_policy_that_makes_no_sense_is_refused(policy: str) -> None:
    """In one sentence that names the setting."""
    if policy == "exit,":
        assert load({"FLIGHTLOG_LOG_SEAL": policy}).log_seal.at_exit
        return
    with pytest.raises(SettingsError, match=r"^The setting FLIGHTLOG_LOG_SEAL cannot be .*: say never, or"):
        load({"FLIGHTLOG_LOG_SEAL": policy})


def test_a_log_is_sealed_while_flows_run(tmp_path: Path) -> None:
    """Once so many events are not covered, in a thread of its own."""
    settings = load({"FLIGHTLOG_LOG_SEAL": "10"})
    with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        sealer = Sealer(log, settings, SystemClock(), RandomIds())
        for number, expected in ((9, 0), (1, 10), (8, 10), (3, 22)):
            log.append("s", [new_event() for _ in range(number)])
            sealer._look()
            assert sealer._thread is not None
            sealer._thread.join(10)
            last = latest_seal(log)
            assert (0 if last is None else last.last) == expected


def test_a_seal_that_takes_too_long_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process does not wait for it; nothing half is left."""
    monkeypatch.setattr("flightlog.engine.sealer.EXIT_SECONDS", 0.0)
    assert sealed(f"sqlite:///{tmp_path}/log.db", "exit") == (0, 9)


def test_a_lost_or_damaged_key_does_not_end_a_process(tmp_path: Path) -> None:
    """The run is what counts: it ends as it ends, and the log is not sealed."""
    path = tmp_path / "log.db"
    with open_log(f"sqlite:///{path}") as log:
        assert seal(log) is None
    path.with_name("log.db.audit-key").write_text("nonsense")
    assert sealed(f"sqlite:///{path}", "exit") == (0, 9)


def test_the_end_of_a_process_does_not_wait_for_a_server_that_is_away(postgres: Server) -> None:
    """It is asked once whether it answers; to wait until it is given up would take as long as a test may."""
    with open_log(postgres.database()) as log:
        assert log.store.answers()
        log.store.url = log.store.url.set(port=1)  # type: ignore[attr-defined]
        log.store.close()
        log.store._engine = log.store._connect()  # type: ignore[attr-defined]
        sealer = Sealer(log, load({"FLIGHTLOG_LOG_SEAL": "exit"}), SystemClock(), RandomIds())
        sealer.start()
        assert not log.store.answers()
        sealer.stop()
