"""Processes that are killed, and many processes at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NURSERY = Path(__file__).with_name("nursery.py")


def run_nursery(*arguments: str, timeout: float) -> dict[str, Any]:
    """Run one of the nursery's programs and return what it reports."""
    done = subprocess.run(
        [sys.executable, str(NURSERY), *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2])
def test_I1_I2_a_killed_process_loses_nothing_and_did_nothing_unrecorded(tmp_path: Path, seed: int) -> None:
    """After kill -9 at random moments the file opens and verifies, and holds every event that was acknowledged.

    No task's body ran whose start is not on record.
    """
    report = run_nursery("crash", str(tmp_path / "home"), str(seed), "100", timeout=380)
    assert report["wrong"] == []
    assert report["kills"] == 100
    assert report["started"] > 100, "the children were killed before they did anything"
    assert report["acknowledged"] > 10


@pytest.mark.timeout(200)
def test_fifty_processes_on_one_file(tmp_path: Path) -> None:
    """Fifty processes run flows on one SQLite file at once: no lock error, nothing lost."""
    report = run_nursery("many", str(tmp_path / "home"), "50", timeout=180)
    assert report["errors"] == ""
    assert report == {"codes": [0], "flows": 150, "tasks": 1200, "problems": [], "errors": ""}
