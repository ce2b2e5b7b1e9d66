"""Scripts and notebooks whose tasks run in worker processes: what they define travels, and no worker runs them again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).with_name("programs")
GUARD = '\n\nif __name__ == "__main__":\n    print(main())\n'
NO_GUARD = "\n\nprint(main())\n"
NOTEBOOK = """
import sys
cell = open({path!r}).read()
names = vars(sys.modules["__main__"])
names.pop("__file__", None)
exec(compile(cell, "<cell 1>", "exec"), names)
{then}
"""
WAYS = ["guarded", "unguarded", "run", "module", "stdin", "notebook"]


class Place:
    """A folder with a program in it, run in one of the ways.

    Args:
        folder: the folder.
        program: the program's name.
        way: how it is run.
    """

    def __init__(self, folder: Path, program: str, way: str) -> None:
        self.folder = folder
        self.way = way
        self.path = folder / "program.py"
        guard = {"guarded": GUARD, "module": GUARD, "run": "", "notebook": ""}.get(way, NO_GUARD)
        self.path.write_text((PROGRAMS / program).read_text() + guard)

    def python(self, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run Python in the folder."""
        environment = {**os.environ, "FLIGHTLOG_HOME": str(self.folder / "home"), "PYTHONWARNINGS": "error"}
        (self.folder / "home").mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, input=text,
            capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip

    def run(self, then: str = "print(main())") -> "subprocess.CompletedProcess[str]":
        """Run the program.

        Args:
            then: what comes after it in a notebook.
        """
        match self.way:
            case "run":
                return self.python("-m", "flightlog", "run", f"{self.path}:main")
            case "module":
                return self.python("-m", "program")
            case "stdin":
                return self.python("-", text=self.path.read_text())
            case "notebook":
                return self.python("-", text=NOTEBOOK.format(path=str(self.path), then=then))
        return self.python(str(self.path))


@pytest.mark.parametrize("way", WAYS)
def test_E109_what_a_script_defines_goes_to_workers_and_comes_back(tmp_path: Path, way: str) -> None:
    """Classes, models, enums, functions and tasks are what they were; the script itself runs once."""
    done = Place(tmp_path, "values.py", way).run()
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n") == ["the script runs", "all came back", ""]


@pytest.mark.parametrize("way", WAYS)
def test_E109_such_runs_are_resumed(tmp_path: Path, way: str) -> None:
    """What completed in worker processes returns what is recorded, and the rest runs in new ones."""
    place = Place(tmp_path, "stations.py", way)
    assert "the printer is broken" in place.run().stderr
    (tmp_path / "home" / "repaired").touch()
    if way == "notebook":
        told = place.python("-m", "flightlog", "runs", "resume")
        assert told.returncode == 1
        assert "was defined in a notebook or a shell" in told.stderr
        then = "from flightlog import flow\nfrom flightlog import resume_run\nprint(resume_run(%r))"
        found = place.python("-m", "flightlog", "runs", "ls", "--json")
        import json

        run = json.loads(found.stdout)["runs"][0]["id"]
        done = place.run(then % run)
    elif way == "stdin":
        return  # there is no file that the flow could be found in
    else:
        done = place.python("-m", "flightlog", "runs", "resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the mean is 20.0" in done.stdout
    assert sorted((tmp_path / "home" / "measured").read_text().split()) == ["1", "2", "3"]


FORKS = """
import os
from flightlog import flow, task
from flightlog.task_runners import ProcessPoolTaskRunner

with open("runs", "a") as file:
    file.write(f"{os.getpid()}\\n")

@task
def inc(n):
    return n + 1

@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def main():
    return inc.map(range(20)).result()

print(sum(main()))
"""


def test_a_script_without_a_guard_is_run_once(tmp_path: Path) -> None:
    """No worker runs it again, so it starts no others; its top level is run by one process."""
    (tmp_path / "script.py").write_text(FORKS)
    environment = {**os.environ, "FLIGHTLOG_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )  # fmt: skip
    assert done.stdout == "210\n", done.stderr[-2000:]
    assert len((tmp_path / "runs").read_text().split()) == 1


def test_a_script_that_ends_itself_is_told_where_to_put_that(tmp_path: Path) -> None:
    """`flightlog run` of a script that calls `sys.exit` at its top level says so, in a sentence."""
    path = tmp_path / "script.py"
    path.write_text("import sys\nfrom flightlog import flow\n\n@flow\ndef main(): ...\n\nsys.exit(main())\n")
    environment = {**os.environ, "FLIGHTLOG_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "flightlog", "run", str(path)], env=environment, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode != 0
    assert "it calls sys.exit()" in done.stderr
    assert "Traceback" not in done.stderr
