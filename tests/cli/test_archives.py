"""``flightlog log archive|ls|restore``: what is archived is found by every command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flightlog.events.opening import open_log

FLOWS = """
from flightlog import flow, get_run_logger, task

@task
def double(n: int) -> list[int]:
    get_run_logger().info("doubling %d", n)
    return [n, n]

@flow
def child(n: int) -> int:
    return len(double(n))

@flow
def parent(n: int = 2, fail: bool = False) -> int:
    total = sum(child(i) for i in range(n))
    if fail:
        raise ValueError("as asked")
    return total
"""


def flightlog(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command, and return how it went."""
    command = [sys.executable, "-m", "flightlog", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def ok(*arguments: str | Path, **environment: str) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = flightlog(*arguments, **environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def document(*arguments: str | Path, **environment: str) -> Any:
    """Run a command with ``--json``, and return the document."""
    return json.loads(ok(*arguments, "--json", **environment))


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """Return a file with flows, of which one has failed and one is completed."""
    file = tmp_path / "flows.py"
    file.write_text(FLOWS)
    assert flightlog("run", f"{file}:parent", "-p", "fail=true").returncode == 10
    ok("run", f"{file}:parent")
    return file


def everything() -> list[Any]:
    """Return what commands say of the runs."""
    return [
        document("runs", "ls"),
        document("runs", "show", "@last"),
        document("runs", "show", "@last-failed"),
        ok("runs", "logs", "@last"),
        document("events", "ls", "--run", "@last"),
        document("events", "ls", "--type", "task_run.completed"),
        document("runs", "why", "@last-failed"),
    ]


def test_archived_runs_are_found_by_every_command(flows: Path, own_home: Path) -> None:
    """Shown, listed, explained, verified, made anew, gone on with, and restored: all as before."""
    before = everything()
    assert document("log", "ls") == []
    assert document("log", "archive", "--dry-run") == {"streams": 0, "events": 0, "size": 0}
    assert document("log", "archive", "--dry-run", FLIGHTLOG_RETENTION_TELEMETRY="0s")["streams"] == 4
    assert ok("log", "archive", "--dry-run", "--older-than", "0s").endswith("in 10 streams would be archived.\n")
    archived = document("log", "archive", "--older-than", "0s")
    assert [one["kind"] for one in archived] == ["state", "telemetry"]
    assert flightlog("log", "archive", "--older-than", "0s").stderr == "There is nothing to archive.\n"
    listed = document("log", "ls")
    assert [{**one, "present": True} for one in archived] == listed
    assert everything() == before
    ok("projections", "rebuild")
    assert everything() == before
    verified = document("audit", "verify")
    assert (verified["sound"], verified["segments"]) == (True, 2)
    assert "2, with" in ok("doctor")
    ok("audit", "export", "@last", "-o", flows.with_name("run.zip"))
    assert ok("runs", "show", "@last", "--from", flows.with_name("run.zip"))
    flows.write_text(FLOWS.replace("if fail", "if not fail"))
    resumed = flightlog("runs", "resume", "@last-failed")
    assert (resumed.returncode, resumed.stdout) == (0, "4\n"), resumed.stderr
    run = before[2]["id"]
    events = document("events", "ls", "--run", run)
    versions = [event["version"] for event in events if event["stream"].startswith("flow-run/")]
    assert versions == list(range(1, len(versions) + 1))
    assert flightlog("log", "restore", "9").returncode == 3
    assert flightlog("log", "restore").returncode == 2
    ok("log", "restore", "--all")
    assert document("log", "ls") == []
    assert document("events", "ls", "--run", run) == events
    assert document("audit", "verify")["sound"]
    assert list((own_home / "flightlog.db.archives").glob("*.segment")) == []


def test_a_missing_segment_is_said_clearly(flows: Path, own_home: Path) -> None:
    """By whatever command needs it; the others go on."""
    ok("log", "archive", "--older-than", "0s")
    folder = own_home / "flightlog.db.archives"
    shutil.move(folder, own_home / "elsewhere")
    assert [one["present"] for one in document("log", "ls")] == [False, False]
    for command in (["events", "ls"], ["events", "ls", "--run", "@last"], ["log", "restore", "--all"]):
        done = flightlog(*command)
        assert done.returncode == 1
        assert "is missing: put it back" in done.stderr
        assert "Traceback" not in done.stderr
    assert flightlog("audit", "verify").returncode == 1
    assert "is missing" in flightlog("doctor", "--quick").stdout
    assert len(document("runs", "ls")) == 6
    shutil.rmtree(folder)
    shutil.move(own_home / "elsewhere", folder)
    assert document("audit", "verify")["sound"]


def test_a_backup_takes_the_segments_along(flows: Path, own_home: Path, tmp_path: Path) -> None:
    """The copy stands for itself: it verifies, and restores."""
    ok("log", "archive", "--older-than", "0s")
    before = everything()
    ok("log", "backup", tmp_path / "b" / "copy.db")
    shutil.rmtree(own_home)
    there = {"FLIGHTLOG_LOG_URL": f"sqlite:///{tmp_path}/b/copy.db"}
    assert document("audit", "verify", **there)["sound"]
    assert document("runs", "show", "@last", **there) == before[1]
    ok("log", "restore", "--all", **there)
    assert document("audit", "verify", **there)["sound"]


def test_a_subscription_that_is_behind_is_named(flows: Path, own_home: Path) -> None:
    """What it has not dealt with stays, and the command says why."""
    with open_log(f"sqlite:///{own_home}/flightlog.db") as log:
        log.store.claim_cursor("mail", "me", 0, 1, 5)
    done = flightlog("log", "archive", "--older-than", "0s")
    assert done.returncode == 0
    assert "behind position 5 stays: the subscription 'mail' has not dealt with it yet" in done.stderr
    assert "There is nothing to archive" in done.stderr


@pytest.mark.parametrize("span", ["", "30", "d", "-1d", "1.5d", "9999999d", "30 days"])
def test_a_span_that_is_none_is_refused(flows: Path, span: str) -> None:
    """One sentence that says what a span looks like."""
    done = flightlog("log", "archive", "--older-than", span)
    assert done.returncode == 2
    assert "say a span of time, such as 30d, 12h, 90m or 10s" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_logs_are_not_archived(flows: Path, tmp_path: Path) -> None:
    """A replay of the past is to be read only."""
    ok("replay", "-o", tmp_path / "then.db")
    done = flightlog("log", "archive", "--older-than", "0s", FLIGHTLOG_LOG_URL=f"sqlite:///{tmp_path}/then.db")
    assert done.returncode == 2
    assert "is a replay of another one's past" in done.stderr
