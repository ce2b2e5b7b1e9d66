"""Transactions of processes that are killed: in the block, and between what is on record and the hooks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
from pathlib import Path
from flightlog import flow, resume_run, task
from flightlog.engine.runtime import current_engine
from flightlog.transactions import transaction

HERE = Path(__file__).parent

def witness(text):
    with (HERE / "witness").open("a") as file:
        file.write(text + "\\n")

def die(moment):
    if sys.argv[1] == moment:
        os.kill(os.getpid(), signal.SIGKILL)

@task
def write(name):
    witness(f"wrote {name}")
    return name

@write.on_commit
def publish(transaction):
    witness("published")
    die("committing")

@write.on_rollback
def undo(transaction):
    witness("undone")
    die("undoing")

@task
def send(broken):
    die("in the block")
    if sys.argv[1] == "undoing" or sys.argv[1] == "broken":
        raise ConnectionError

@flow
def f():
    with transaction():
        write("a")
        write("b")
        send(0)

if len(sys.argv) == 2:
    f(return_state=True)
else:
    run = next(current_engine().log.read_all(types=["flow_run.created"])).stream.partition("/")[2]
    resume_run(run, flow=f, return_state=True)
"""


def _run(program: Path, *arguments: str) -> list[str]:
    """Run the program; return what it did."""
    witness = program.with_name("witness")
    witness.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, str(program), *arguments], env=environment, timeout=60, check=False)
    return witness.read_text().splitlines() if witness.exists() else []


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that runs or resumes a flow, and kills itself at a moment."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


def test_E79_killed_in_the_block(program: Path) -> None:
    """The parts that had completed do not run again; they are undone if the block fails now."""
    assert _run(program, "in the block") == ["wrote a", "wrote b"]
    assert _run(program, "broken", "resume") == ["undone", "undone"]
    assert _run(program, "whole", "resume") == ["wrote a", "wrote b", "published", "published"]


def test_E79_killed_while_the_hooks_for_the_commit_are_called(program: Path) -> None:
    """It has committed, whatever the block does now; the hooks that were not called to their end are called."""
    assert _run(program, "committing") == ["wrote a", "wrote b", "published"]
    assert _run(program, "broken", "resume") == ["published", "published"]
    assert _run(program, "whole", "resume") == []


def test_E79_killed_while_what_was_done_is_being_undone(program: Path) -> None:
    """What is on record as rolled back is undone before it runs again; and what failed fails again, after a crash."""
    assert _run(program, "undoing") == ["wrote a", "wrote b", "undone"]
    assert _run(program, "whole", "resume") == ["undone", "wrote b", "undone", "undone"]
    assert _run(program, "whole", "resume") == ["wrote a", "wrote b", "published", "published"]
