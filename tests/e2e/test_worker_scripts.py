"""Scripts and notebooks whose tasks run in worker processes: what they define travels; no worker runs them again."""

import json
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


def python(folder: Path, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder, with a home of its own there."""
    (home := folder / "home").mkdir(exist_ok=True)
    environment = {**os.environ, "FLIGHTLOG_HOME": str(home)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, input=text,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


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
        self.program = (PROGRAMS / program).read_text()
        guard = {"guarded": GUARD, "module": GUARD, "unguarded": NO_GUARD}.get(way, "")
        self.path.write_text(self.program + guard)

    def run(self, then: str = "print(main())") -> "subprocess.CompletedProcess[str]":
        """Run the program; a warning of it or of ours fails it.

        Args:
            then: what comes after it in a notebook, or on standard input.
        """
        arguments, text = [str(self.path)], None
        match self.way:
            case "run":
                arguments = ["-m", "flightlog", "run", f"{self.path}:main"]
            case "module":
                arguments = ["-m", "program"]
            case "stdin":
                arguments, text = ["-"], f"{self.program}\n{then}\n"
            case "notebook":
                arguments, text = ["-"], NOTEBOOK.format(path=str(self.path), then=then)
        return python(self.folder, "-W", "error", *arguments, text=text)


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
    done = python(tmp_path, "-m", "flightlog", "runs", "resume")
    if way in ("notebook", "stdin"):  # there is no file that the flow could be found in
        assert done.returncode == 1
        assert "was defined in a notebook or a shell" in done.stderr
        run = json.loads(python(tmp_path, "-m", "flightlog", "runs", "ls", "--json").stdout)[0]["id"]
        done = place.run(f"from flightlog import resume_run\nprint(resume_run({run!r}, flow=main))")
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
    done = python(tmp_path, "script.py")
    assert done.stdout == "210\n", done.stderr[-2000:]
    assert len((tmp_path / "runs").read_text().split()) == 1


def test_a_module_that_calls_its_flow_does_so_in_no_worker(tmp_path: Path) -> None:
    """Workers import it, and say that the call belongs under a guard; else each would start workers of its own."""
    (tmp_path / "program.py").write_text(FORKS.replace("sum(main())", '"made", main()'))
    done = python(tmp_path, "-c", "import program")
    assert f"made {list(range(1, 21))}\n" in done.stdout, done.stderr[-2000:]
    assert done.stderr.count("Created flow run") == 1
    assert 'under `if __name__ == "__main__":`' in done.stderr


def test_a_script_that_ends_itself_is_told_where_to_put_that(tmp_path: Path) -> None:
    """`flightlog run` of a script that calls `sys.exit` at its top level says so, in a sentence."""
    text = "import sys\nfrom flightlog import flow\n\n@flow\ndef main(): ...\n\nsys.exit(main())\n"
    (tmp_path / "script.py").write_text(text)
    done = python(tmp_path, "-m", "flightlog", "run", "script.py")
    assert done.returncode != 0
    assert "it calls sys.exit()" in done.stderr
    assert "Traceback" not in done.stderr
