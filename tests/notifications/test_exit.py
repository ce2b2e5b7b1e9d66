"""A process that ends does not wait for channels that hang; what is left goes out with the next command."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.test_recorder import document
from tests.notifications.receivers import Receiver

SENDER = Path(__file__).parents[1] / "faults" / "sender.py"
SCRIPT = """
from flightlog import flow

@flow
def etl(number: int) -> None:
    raise ValueError("no rows")

for number in range(2):
    etl(number, return_state=True)
"""
RULES = """
[[channels]]
name = "hangs"
kind = "webhook"
settings = { url = "env:HANGING_URL", allow_private = true }

[[channels]]
name = "works"
kind = "webhook"
settings = { url = "env:WORKING_URL", allow_private = true }

[[rules]]
name = "failures"
group_by = ["run"]
channels = ["hangs", "works"]
"""


@pytest.fixture
def receivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Receiver, Receiver]]:
    """Return a server that leaves the first message without an answer, and one that works; both are configured."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "notifications.toml").write_text(RULES)
    with Receiver() as hanging, Receiver() as working:
        hanging.misbehave("slow")
        monkeypatch.setenv("HANGING_URL", f"http://127.0.0.1:{hanging.port}/hook")
        monkeypatch.setenv("WORKING_URL", f"http://127.0.0.1:{working.port}/hook")
        yield hanging, working


def marks(receiver: Receiver) -> list[bool]:
    """Return of each request if the message says that it may be a copy."""
    return [json.loads(posted.body)["data"]["repeat"] for posted in receiver.posted]


@pytest.mark.timeout(180)
def test_what_hangs_at_the_end_is_left_for_the_next_command(receivers: tuple[Receiver, Receiver]) -> None:
    """The process ends though a channel hangs; one of its messages is in the dark, one not begun, and none is lost."""
    hanging, working = receivers
    subprocess.run([sys.executable, "script.py"], check=True, timeout=30, capture_output=True)
    left = {(entry["channel"], entry["status"]) for entry in document("notify", "ledger")}
    # Had it waited for the answer, there would be a time-out on record.
    assert left == {("hangs", "sending"), ("hangs", "queued"), ("works", "delivered")}
    # That command, like any, has sent at its end what was never begun; the other one may be somebody's still.
    assert (marks(hanging), marks(working)) == ([False, False], [False, False])
    assert ("hangs", "delivered") in {(entry["channel"], entry["status"]) for entry in document("notify", "ledger")}
    url = f"sqlite:///{Path.cwd() / 'flightlog-home' / 'flightlog.db'}"
    later = (time.time_ns() // 1000) + 60_000_000
    subprocess.run([sys.executable, str(SENDER), url, str(later), "never"], check=True, timeout=60)
    assert sorted(marks(hanging)) == [False, False, True]
    assert {entry["status"] for entry in document("notify", "ledger")} == {"delivered"}


@pytest.mark.timeout(180)
def test_everything_that_can_go_out_has_when_the_process_ends(receivers: tuple[Receiver, Receiver]) -> None:
    """Where nothing hangs nothing is left."""
    hanging, working = receivers
    hanging._how.clear()
    subprocess.run([sys.executable, "script.py"], check=True, timeout=30, capture_output=True)
    assert {entry["status"] for entry in document("notify", "ledger")} == {"delivered"}
    assert (marks(hanging), marks(working)) == ([False, False], [False, False])
