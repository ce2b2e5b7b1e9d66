"""What the tests of the Ray runner share: one Ray for all of them. Run them with ``python alone.py -m pytest``."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flightlog.engine.bridge import stop_background_loop
from flightlog.engine.runtime import close_engine

HERE: dict[str, Any] = {
    "num_cpus": 2,
    "include_dashboard": False,
    "_node_ip_address": "127.0.0.1",
    "object_store_memory": 100_000_000,
    "log_to_driver": False,
}


def pytest_configure() -> None:
    """Refuse to run where Ray could be reached from outside; keep it from leaving files in the home folder."""
    names = [name for _, name in socket.if_nameindex()]
    if names != ["lo"]:
        pytest.exit(f"Ray listens on whatever address it finds, and there are {names}: run this by tests/alone.py.", 4)
    os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="session")
def instance() -> Iterator[None]:
    """Start Ray, and connect this process to it."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", **HERE)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give every test a home folder of its own, and leave nothing open."""
    home = tmp_path / "flightlog-home"
    monkeypatch.setenv("FLIGHTLOG_HOME", str(home))
    yield home
    close_engine()
    stop_background_loop()
