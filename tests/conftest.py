"""What all tests share."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import Server, running

from flightlog.engine import bridge, runtime
from flightlog.events import log as log_module
from flightlog.plugins.host import close_host

_THREADS = ("flightlog-flush", "flightlog-loop")
_OF_PLUGINS = ("flightlog-plugin-", "flightlog-tail-", "flightlog-follower-", "flightlog-attendant-")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a home folder of its own."""
    home = tmp_path / "flightlog-home"
    for name in ("FLIGHTLOG_LOG_URL", "FLIGHTLOG_LOG_KEY", "FLIGHTLOG_LOG_DURABILITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLIGHTLOG_HOME", str(home))
    monkeypatch.setenv("FLIGHTLOG_PLUGINS_MODE", "safe")  # whatever is installed here; tests of plug-ins have their own
    return home


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, one for each process that runs tests."""
    with running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Server) -> str:
    """The URL of a new, empty database."""
    return postgres.database()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test no log is open, and no thread of ours runs."""
    yield
    runtime.close_engine()
    close_host()
    bridge.stop_background_loop()
    left = [log.store.location for log in log_module._OPEN]
    for log in list(log_module._OPEN):
        log.close()
    assert left == [], "these logs were left open"
    ours = [t.name for t in threading.enumerate() if t.name in _THREADS or t.name.startswith(_OF_PLUGINS)]
    assert ours == [], "these threads were left running"
