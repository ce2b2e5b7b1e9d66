"""The command line of the flight recorder: resume, why, the past, projections, moving the log."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FLOWS = """
import os, time
from pathlib import Path
from flightlog import flow, task
from pydantic import SecretStr

@task
def extract(n: int) -> list[int]:
    print("extracting")
    return list(range(n))

@task
def load(rows: list[int], place: str) -> int:
    if not Path(place, "whole").exists():
        raise ConnectionError("no database")
    return len(rows)

@task
def after(count: int) -> int:
    return count

@flow
def etl(place: str, n: int = 3) -> int:
    future = load.submit(extract(n), place)
    return after.submit(future).result()

@flow
def endless(flag: str) -> None:
    extract(1)
    Path(flag).touch()
    time.sleep(60)

@flow
def secretive(place: str, password: SecretStr) -> int:
    return load([1], place)
"""


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A file with flows."""
    file = tmp_path / "flows.py"
    file.write_text(FLOWS)
    return file


def flightlog(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and return how it went."""
    command = [sys.executable, "-m", "flightlog", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def ok(*arguments: str, **environment: str) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = flightlog(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def document(*arguments: str, **environment: str) -> Any:
    """Run a command with ``--json``, and return the document."""
    return json.loads(ok(*arguments, "--json", **environment))


def run_etl(flows: Path, place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the flow that needs a whole place."""
    return flightlog("run", f"{flows}:etl", "-p", f"place={place}", *more)


def test_I12_a_failed_run_is_explained_and_resumed(flows: Path, tmp_path: Path) -> None:
    """From the failure to the result with `why` and `resume` alone."""
    assert run_etl(flows, tmp_path).returncode == 10
    why = document("runs", "why")
    assert why["state_type"] == "FAILED"
    assert "The first task run that did not end well: 'load-" in why["text"]
    assert "user_error (the code raised an error)" in why["text"]
    assert why["event_type"] == "task_run.failed"
    assert "runs resume" in why["hint"]
    waiting = next(t["name"] for t in document("runs", "show", "@last")["task_runs"] if t["task"] == "after")
    told = document("runs", "why", f"@last/{waiting}")
    assert told["state_name"] == "NotReady"
    assert "It rests on 'load-" in told["text"]
    near = flightlog("runs", "why", "@last/loda")
    assert near.returncode == 3
    assert "Did you mean 'load'" in near.stderr
    assert document("runs", "why", "@last/load")["state_type"] == "FAILED"
    (tmp_path / "whole").touch()
    resumed = flightlog("runs", "resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines() == ["3"]
    shown = document("runs", "show", "@last")
    assert (shown["state_type"], shown["run_count"]) == ("COMPLETED", 2)
    assert [t["run_count"] for t in shown["task_runs"]] == [1, 2, 1]
    actors = {event["actor"].partition(":")[0] for event in document("events", "ls", "--run", "@last")}
    assert actors == {"engine", "cli"}
    again = flightlog("runs", "resume", "@last")
    assert again.returncode == 1
    assert "nothing is left to do" in again.stderr


def test_a_killed_run_is_resumed_by_whoever_looks(flows: Path, tmp_path: Path) -> None:
    """Its process is found gone; `resume` goes on, in a process of its own, with the code from where it was."""
    flag = tmp_path / "flag"
    command = [sys.executable, "-m", "flightlog", "run", f"{flows}:endless", "-p", f"flag={flag}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not flag.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    alive = flightlog("runs", "resume", "@last")
    assert alive.returncode == 1
    assert "still going" in alive.stderr
    assert "outside of any task" in document("runs", "why")["text"]
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert "lost_worker" in document("runs", "why")["text"]
    flows.write_text(flows.read_text().replace("time.sleep(60)", "pass"))
    assert ok("runs", "resume", "@last-failed") == ""
    counts = [t["run_count"] for t in document("runs", "show", "@last")["task_runs"]]
    assert counts == [1]


SCRIPT = """
import sys
from dataclasses import dataclass
from pathlib import Path
from flightlog import flow, task

@dataclass
class Point:
    x: int

@task
def make(x: int) -> Point:
    print("making")
    return Point(x)

@task
def use(point: Point, place: str) -> int:
    if not Path(place, "whole").exists():
        raise ConnectionError("no database")
    return point.x

@flow
def points(place: str) -> int:
    return use(make(7), place)

if __name__ == "__main__":
    points(sys.argv[1])
"""


def test_a_script_is_resumed_by_the_command_line(tmp_path: Path) -> None:
    """Values of the script's own classes are matched and loaded, though the script is a module of another name now."""
    script = tmp_path / "points.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 1
    (tmp_path / "whole").touch()
    resumed = flightlog("runs", "resume")
    assert resumed.stdout.splitlines() == ["7"], resumed.stderr
    assert "1 calls returned what is recorded, 1 ran again, 0 are new" in resumed.stderr
    again = flightlog("runs", "fork", "@last")
    assert again.stdout.splitlines() == ["7"], again.stderr


def test_changed_code_stops_the_run(flows: Path, tmp_path: Path) -> None:
    """The difference is one clear sentence; `--on-change rerun` goes on."""
    run_etl(flows, tmp_path)
    (tmp_path / "whole").touch()
    flows.write_text(flows.read_text().replace("extract(n)", "extract(n + 1)"))
    stopped = flightlog("runs", "resume")
    assert stopped.returncode == 1
    assert "calls 'extract' with other arguments" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert ok("runs", "resume", "--on-change", "rerun").splitlines()[-1] == "4"


def test_restart_and_fork(flows: Path, tmp_path: Path) -> None:
    """The same run from a task on; another run from an event on, with another parameter."""
    (tmp_path / "whole").touch()
    run_etl(flows, tmp_path)
    assert ok("runs", "restart", "--from", "load").splitlines() == ["3"]
    assert [t["run_count"] for t in document("runs", "show", "@last")["task_runs"]][:2] == [1, 2]
    assert ok("runs", "fork", "-p", "n=5").splitlines()[-1] == "5"
    first, second = document("runs", "ls")
    assert first["id"] != second["id"]
    wrong = flightlog("runs", "restart", "--from", "laod")
    assert wrong.returncode == 3
    assert "Did you mean 'load'" in wrong.stderr
    nowhere = flightlog("runs", "fork", "--at", "99999")
    assert nowhere.returncode == 3


def test_secrets_are_asked_for(flows: Path, tmp_path: Path) -> None:
    """What is not on record is given again on the command line."""
    flightlog("run", f"{flows}:secretive", "-p", f"place={tmp_path}", "-p", "password=hunter2-hunter2")
    (tmp_path / "whole").touch()
    refused = flightlog("runs", "resume")
    assert "needs password again" in refused.stderr
    assert ok("runs", "resume", "-p", "password=hunter2-hunter2").splitlines() == ["1"]


def test_the_past_is_as_it_was(flows: Path, tmp_path: Path) -> None:
    """By position and by time; what was, what followed, and why."""
    run_etl(flows, tmp_path)
    events = document("events", "ls")
    failed = next(e for e in events if e["type"] == "flow_run.failed")
    (tmp_path / "whole").touch()
    ok("runs", "resume")
    assert document("runs", "ls")[0]["state_type"] == "COMPLETED"
    assert document("runs", "ls", "--as-of", str(failed["position"]))[0]["state_type"] == "FAILED"
    assert document("runs", "ls", "--as-of", failed["recorded_at"])[0]["state_type"] == "FAILED"
    assert document("runs", "ls", "--as-of", "1")[0]["state_type"] == "PENDING"
    assert document("runs", "show", "@last", "--as-of", str(failed["position"]))["run_count"] == 1
    then = document("runs", "why", "@last", "--as-of", str(failed["position"]))
    assert (then["state_type"], then["position"] <= failed["position"]) == ("FAILED", True)
    assert document("runs", "why", "@last")["state_type"] == "COMPLETED"
    counts = [row["completed"] for row in document("metrics", "--as-of", failed["recorded_at"]) if not row["task"]]
    assert counts == [0]
    assert [row["completed"] for row in document("metrics") if not row["task"]] == [1]
    for moment, words in (("tomorrow", "neither a position"), ("2999-01-01", "still to come"), ("999999", "ends at")):
        refused = flightlog("runs", "ls", "--as-of", moment)
        assert refused.returncode == 2
        assert words in refused.stderr
    chain = document("events", "why", str(failed["position"]))
    assert [e["type"] for e in chain] == ["flow_run.failed", "flow_run.running", "flow_run.created"]
    followers = document("events", "ls", "--follows", chain[-1]["id"])
    assert failed["id"] in {e["id"] for e in followers}
    assert all(e["actor"].startswith("cli") for e in document("events", "ls", "--actor", "cli"))
    late = document("events", "ls", "--since", str(failed["position"]))
    assert late[0]["position"] == failed["position"] + 1
    early = document("events", "ls", "--until", "2")
    assert [e["position"] for e in early] == [1, 2]
    assert flightlog("events", "why", "999999").returncode == 3


def test_a_replay_is_read_like_any_log(flows: Path, tmp_path: Path) -> None:
    """All of it or one run's, up to a moment; nothing can be run there."""
    run_etl(flows, tmp_path)
    first = document("runs", "ls")[0]["id"]
    middle = len(document("events", "ls"))
    run_etl(flows, tmp_path)
    printed = ok("replay", "--to", str(middle), "-o", str(tmp_path / "then.db"))
    url = printed.partition("=")[2].split()[0]
    assert [run["id"] for run in document("runs", "ls", FLIGHTLOG_LOG_URL=url)] == [first]
    ok("replay", "--run", "@last", "-o", str(tmp_path / "one.db"))
    one = f"sqlite:///{tmp_path}/one.db"
    assert len(document("runs", "ls", FLIGHTLOG_LOG_URL=one)) == 1
    assert ok("projections", "check", FLIGHTLOG_LOG_URL=one)
    refused = flightlog("run", f"{flows}:etl", "-p", f"place={tmp_path}", FLIGHTLOG_LOG_URL=url)
    assert refused.returncode == 3
    assert "takes no runs" in refused.stderr
    assert flightlog("replay", "-o", str(tmp_path / "then.db")).returncode == 2


def test_projections_are_seen_checked_and_made_anew(flows: Path, tmp_path: Path) -> None:
    """Status, check with the first difference, repair, rebuild; and the metrics they feed."""
    import sqlite3

    run_etl(flows, tmp_path)
    listed = [p["name"] for p in document("projections", "ls")]
    folded = ["runs", "logs", "metrics", "artifacts"]
    assert listed == [*folded, "result_cache", "concurrency", "variables", "blocks", "outbox"]
    assert [state["behind"] > 0 for state in document("projections", "status")] == [True] * 4 + [False] * 5
    document("runs", "ls")
    assert all(state["behind"] == 0 for state in document("projections", "status"))
    assert [found["difference"] for found in document("projections", "check")] == [None] * 9
    with sqlite3.connect(Path(os.environ["FLIGHTLOG_HOME"], "flightlog.db.projections")) as connection:
        connection.execute("UPDATE task_runs SET state_name = 'Splendid'")
    connection.close()
    wrong = flightlog("projections", "check")
    assert wrong.returncode == 1
    assert "Splendid" in wrong.stdout
    assert ok("projections", "check", "runs", "--repair")
    assert ok("projections", "check")
    ok("projections", "rebuild", "logs")
    unknown = flightlog("projections", "rebuild", "log")
    assert "Did you mean 'logs'" in unknown.stderr
    metrics = document("metrics")
    assert {(m["flow"], m["task"], m["failed"]) for m in metrics} == {
        ("etl", "", 1),
        ("etl", "extract", 0),
        ("etl", "load", 1),
    }
    assert 'flightlog_runs_total{flow="etl",task="load",state="failed"} 1' in ok("metrics", "--prometheus")
    assert "etl" in ok("metrics", "--by-hour")


def test_limits_are_made_seen_and_taken_away(tmp_path: Path) -> None:
    """`concurrency set`, `ls`, `show` and `delete`; what is kept of them can be checked, mended, made anew."""
    import sqlite3

    ok("concurrency", "set", "tag:db", "--limit", "2")
    ok("concurrency", "set", "api", "--limit", "10", "--decay", "0.5")
    assert [(limit["name"], limit["limit"], limit["decay"]) for limit in document("concurrency", "ls")] == [
        ("api", 10, 0.5),
        ("tag:db", 2, 0.0),
    ]
    assert document("concurrency", "show", "tag:db")["holders"] == []
    wrong = flightlog("concurrency", "show", "tag:d")
    assert (wrong.returncode, "Did you mean 'tag:db'?" in wrong.stderr) == (3, True)
    with sqlite3.connect(Path(os.environ["FLIGHTLOG_HOME"], "flightlog.db")) as connection:
        connection.execute("DELETE FROM inline_states")
    connection.close()
    broken = flightlog("projections", "check", "concurrency")
    assert broken.returncode == 1
    assert "concurrency-limit/api" in broken.stdout
    ok("projections", "check", "concurrency", "--repair")
    ok("projections", "check")
    ok("projections", "rebuild", "concurrency")
    ok("concurrency", "delete", "api")
    assert flightlog("concurrency", "delete", "api").returncode == 3
    assert [limit["name"] for limit in document("concurrency", "ls")] == ["tag:db"]


def test_artifacts_and_variables_from_the_shell(tmp_path: Path) -> None:
    """What a flow left is listed and printed; variables are set, read and taken away."""
    file = tmp_path / "leaves.py"
    file.write_text(
        "from flightlog import flow\nfrom flightlog.artifacts import create_markdown_artifact\n"
        "from flightlog.variables import Variable\n\n@flow\ndef leaves():\n"
        "    create_markdown_artifact('# Report', key='report')\n    return Variable.get('limit').value + 1\n"
    )
    ok("variables", "set", "limit", "41")
    assert flightlog("variables", "set", "limit", "1").returncode == 2
    assert ok("run", str(file)).strip() == "42"
    assert [(a["key"], a["data"]) for a in document("artifacts", "ls", "--run", "@last")] == [("report", "# Report")]
    assert ok("artifacts", "show", "report").strip() == "# Report"
    assert "Did you mean 'report'" in flightlog("artifacts", "show", "reprt").stderr
    assert ok("variables", "get", "limit").strip() == "41"
    assert document("variables", "ls") == [{"name": "limit", "value": 41, "tags": []}]
    ok("variables", "unset", "limit")
    assert flightlog("variables", "get", "limit").returncode == 3


PAUSING = """
import sys, time
from flightlog import flow, pause_flow_run, suspend_flow_run, task

@task
def step() -> int:
    return 1

@flow
def pausing() -> str:
    step()
    return f"on with {pause_flow_run(wait_for_input=int, timeout=60)}"

@flow
def suspending() -> str:
    step()
    return f"on with {suspend_flow_run(wait_for_input=int, timeout=60)}"

@flow
def blocking() -> None:
    step()
    time.sleep(60)
"""


def _start(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flightlog", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _until(state: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        listed = flightlog("runs", "ls", "-n", "1", "--json")
        if listed.returncode == 0 and state in [run["state_name"] for run in json.loads(listed.stdout)]:
            return
        time.sleep(0.05)
    pytest.fail(f"no run came to be {state}")


def test_runs_are_paused_suspended_and_cancelled_from_outside(tmp_path: Path) -> None:
    """A paused run goes on in its process, a suspended one in that of whoever resumes it; a cancelled one stops."""
    file = tmp_path / "waits.py"
    file.write_text(PAUSING)
    started = _start("run", f"{file}:pausing")
    _until("Paused")
    refused = flightlog("runs", "resume", "@last", "--input", '"x"')
    assert refused.returncode == 1
    assert "does not fit" in refused.stderr
    assert "waits for" in ok("runs", "why", "@last")
    ok("runs", "resume", "@last", "--input", "3")
    assert "on with 3" in started.communicate(timeout=60)[0]
    first = flightlog("run", f"{file}:suspending")
    assert first.returncode == 0
    assert "Suspended" in first.stderr
    assert "flightlog runs resume" in ok("runs", "why", "@last")
    asked = document("runs", "why", "@last")
    assert "  value: integer" in asked["text"].splitlines()
    unanswered = flightlog("runs", "resume", "@last")
    assert unanswered.returncode == 1
    assert "waits for input (value: integer): give it as --input 1" in unanswered.stderr
    assert asked["hint"] in ok("runs", "show", "@last")
    assert "on with 1" in ok(*shlex.split(asked["hint"])[1:])
    started = _start("run", f"{file}:blocking")
    _until("Running")
    assert document("runs", "cancel", "@last", "--reason", "enough")["state"]["name"] == "Cancelled"
    started.communicate(timeout=60)
    assert started.returncode == 12
    assert "Cancelled by cli:" in ok("runs", "why", "@last")
    assert "enough" in ok("runs", "why", "@last")
    assert flightlog("runs", "cancel", "@last").returncode == 1


def test_the_log_moves(flows: Path, tmp_path: Path, postgres_url: str) -> None:
    """To PostgreSQL, where runs are read, resumed and made as in a file; and back into one; a backup besides."""
    run_etl(flows, tmp_path)
    copied = document("log", "copy", "--to", postgres_url)
    assert copied["verified"] == copied["events"] > 0
    there = {"FLIGHTLOG_LOG_URL": postgres_url}
    assert document("runs", "ls", **there)[0]["state_type"] == "FAILED"
    (tmp_path / "whole").touch()
    home = Path(os.environ["FLIGHTLOG_HOME"])
    key = (home / "flightlog.db.key").read_bytes().hex()
    missing = flightlog("runs", "resume", **there)
    assert missing.returncode == 1
    assert "key" in missing.stderr
    assert ok("runs", "resume", **there, FLIGHTLOG_LOG_KEY=key).splitlines() == ["3"]
    assert ok("projections", "check", **there)
    assert document("metrics", **there)
    found = {finding["what"]: finding for finding in document("doctor", **there, FLIGHTLOG_LOG_KEY=key)}
    assert "postgresql://" in found["log"]["found"]
    assert "every chain holds" in found["verify"]["found"]
    ok("log", "copy", "--to", str(tmp_path / "back.db"), **there)
    back = {"FLIGHTLOG_LOG_URL": f"sqlite:///{tmp_path}/back.db"}
    assert document("runs", "ls", **back)[0]["state_type"] == "COMPLETED"
    ok("log", "backup", str(tmp_path / "backup.db"))
    assert document("runs", "ls", FLIGHTLOG_LOG_URL=f"sqlite:///{tmp_path}/backup.db")[0]["state_type"] == "FAILED"
    assert "GRANT" in ok("log", "role", "writer")
    same = flightlog("log", "copy", "--to", str(home / "flightlog.db"))
    assert same.returncode == 2
    nobody = flightlog("runs", "ls", FLIGHTLOG_LOG_URL="postgresql://app:secret-word@127.0.0.1:1/none")
    assert nobody.returncode == 3
    assert "secret-word" not in nobody.stderr
    assert "Traceback" not in nobody.stderr


def test_an_upgrade_is_rehearsed(flows: Path) -> None:
    """Nothing is changed by it; what differs is said, with the exit code; `upgrade` itself makes it right."""
    flightlog("run", f"{flows}:etl", "-p", f"place={flows.parent}")
    ok("runs", "ls")
    assert "events read" in ok("upgrade", "--rehearse")
    found = document("upgrade", "--rehearse")
    assert found["reading"]["wrong"] == {}
    assert {one["name"]: one["changed"] for one in found["projections"]}["runs"] == 0
    ok("upgrade")
