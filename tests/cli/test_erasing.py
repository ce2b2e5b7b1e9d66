"""``flightlog audit erase``: what it lists, what it leaves, and that it can be cut short anywhere."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ANN = "ann.personal@example.org"
FLOWS = """
import sys
from typing import Annotated

from flightlog import flow, task
from flightlog.privacy import Personal


@task(retries=1)
def greet(email: Annotated[str, Personal()], results: str) -> str:
    return f"Dear {email}"


@flow(log_prints=True)
def inner(text: str) -> str:
    print("inner", text)
    raise ValueError(text)


@flow(log_prints=True, result_storage="results")
def main(email: Annotated[str, Personal()]) -> str:
    text = greet(email, "a file")
    print("outer", text)
    inner(text, return_state=True)
    return text


if __name__ == "__main__":
    main(sys.argv[1])
"""
KILLED = """
import os
import sys

from flightlog.engine.runtime import current_engine
from flightlog.events.erasing import erase

engine, left = current_engine(), int(sys.argv[2])
subject = engine.vault.subject(sys.argv[1])


def step(event: str, arguments: object) -> None:
    global left
    if event in ("open", "os.rename", "os.remove", "os.scandir", "os.truncate") and "subject-keys" in repr(arguments):
        left -= 1
        if left == 0:
            os._exit(99)


sys.addaudithook(step)
erase(engine.log, engine.vault, subject, "test")
"""


@pytest.fixture
def place(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with flows in it, in which commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "killed.py").write_text(KILLED)
    return tmp_path


def run(*arguments: str | Path, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run Python with some arguments; see that it ends as it has to."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def command(*arguments: str | Path, code: int = 0) -> str:
    """Run a command, and return what it printed."""
    done = run("-m", "flightlog", *arguments, code=code)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def holders(folder: Path, text: str) -> list[str]:
    """Return the files that hold some text, but for the flows themselves."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if text.encode() in path.read_bytes()]


def keys(home: Path) -> list[Path]:
    """Return the files of subjects' keys."""
    return [path for folder in home.glob("*.subject-keys") for path in folder.iterdir()]


def test_erasing_somebody(place: Path, own_home: Path) -> None:
    """Every event is listed, nothing is readable afterwards, in bundles neither, and the sealed log still verifies."""
    run("flows.py", ANN)
    command("audit", "seal")
    assert ANN in command("runs", "logs", "@last")
    assert holders(place, ANN) == []
    assert len(list((place / "results").rglob("*"))) > 1
    assert oct(keys(own_home)[0].stat().st_mode)[-3:] == "600"
    listed = command("audit", "erase", ANN, "--dry-run")
    assert "Its key is there." in listed
    document = json.loads(run("-m", "flightlog", "audit", "erase", ANN, "--json").stdout)
    assert document["key_destroyed"]
    assert len(document["events"]) == listed.count("\t") // 3 > 10
    assert keys(own_home) == []
    shown = command("runs", "logs", "@last") + command("runs", "show", "@last") + command("events", "ls")
    assert "<erased>" in shown
    assert ANN not in shown
    assert "every record, chain and column" in command("audit", "verify")
    command("audit", "export", "@last", "-o", "run.zip")
    with zipfile.ZipFile("run.zip") as bundle:
        assert not any(ANN.encode() in bundle.read(name) for name in bundle.namelist())
    assert "personal data was erased" in command("runs", "fork", "@last", code=1)
    assert "Its key was gone already." in command("audit", "erase", ANN)


def test_erasing_somebody_whose_runs_are_archived(place: Path, own_home: Path) -> None:
    """Segments hold what is encrypted, too: all that is listed before is listed after, and nothing can be read."""
    run("flows.py", ANN)
    before = json.loads(run("-m", "flightlog", "audit", "erase", ANN, "--dry-run", "--json").stdout)
    command("log", "archive", "--older-than", "0s")
    assert list(own_home.rglob("*.segment"))
    assert ANN in command("runs", "logs", "@last")
    assert holders(place, ANN) == []
    document = json.loads(run("-m", "flightlog", "audit", "erase", ANN, "--json").stdout)
    assert document["events"] == before["events"]
    assert ANN not in command("runs", "logs", "@last")
    assert holders(place, ANN) == []
    command("audit", "verify")
    command("log", "restore", "--all")
    assert ANN not in command("runs", "logs", "@last")
    command("audit", "verify")


def test_a_test_made_of_a_run_says_that_it_is_out_of_reach(place: Path) -> None:
    """What is in a file of somebody's is theirs to look after; once the key is gone there is nothing to write."""
    run("flows.py", ANN)
    assert "which erasing somebody does not reach" in command("runs", "to-test", "@last", "-o", "test_it.py")
    command("audit", "erase", ANN)
    assert "personal data was erased" in command("runs", "to-test", "@last", "-o", "-", code=1)


def test_nobody_of_that_name(place: Path) -> None:
    """A name that nothing belongs to is told apart, also while there is other personal data."""
    run("flows.py", ANN)
    assert "Nothing in this log belongs to 'ann'." in command("audit", "erase", "ann", code=3)


def test_exports_stay_encrypted(place: Path) -> None:
    """What is exported while the key is there is as it is recorded: a file could not be erased."""
    run("flows.py", ANN)
    assert ANN not in command("audit", "export", "--jsonl")
    command("audit", "export", "@last", "-o", "run.zip")
    with zipfile.ZipFile("run.zip") as bundle:
        assert not any(ANN.encode() in bundle.read(name) for name in bundle.namelist())
        assert b"&lt;personal&gt;" in bundle.read("report.html") or b"<personal>" in bundle.read("report.html")
    assert "<personal>" in command("runs", "show", "--from", "run.zip")


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_cut_short(place: Path, own_home: Path, step: int) -> None:
    """Killed at any step, and repeated, the key is gone and it is on record once."""
    run("flows.py", ANN)
    run("killed.py", ANN, str(step), code=99 if step < 6 else 0)
    command("audit", "erase", ANN)
    assert keys(own_home) == []
    erased = [line for line in command("events", "ls", "--limit", "100").splitlines() if "subject.erased" in line]
    assert len(erased) == 1
    assert "<erased>" in command("runs", "logs", "@last")
    command("audit", "verify")


def test_processes_that_begin_at_once_share_a_key(place: Path, own_home: Path) -> None:
    """Four processes that need a subject's first key at the same time all use the one that counts."""
    started = [subprocess.Popen([sys.executable, "flows.py", ANN], stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    assert len(keys(own_home)) == 1
    runs = json.loads(run("-m", "flightlog", "runs", "ls", "--json", "--limit", "20").stdout)
    logs = [command("runs", "logs", found["id"]) for found in runs if found["flow"] == "main"]
    assert len(logs) == 4
    assert all(f"outer Dear {ANN}" in text for text in logs)
