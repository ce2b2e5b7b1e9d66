"""``flightlog runs to-test``: the file that it writes is run by pytest, in a process of its own, without the log."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.test_recorder import document, flightlog, ok

HEAD = """
from pathlib import Path

from flightlog import allow_failure, flow, task


def note(text):
    with Path("calls.txt").open("a") as file:
        file.write(text + "\\n")


"""
ETL = (
    HEAD
    + """
class Table:
    def __init__(self, rows):
        self.rows = rows


@task
def extract(day):
    note("extract")
    return Table([1, 2, 10])


@task(retries=1, retry_delay_seconds=60)
def clean(row):
    note(f"clean {row}")
    if row > 9:
        raise ValueError(f"row {row} is too big")
    return row


@flow
def etl(day: str = "2026-01-01"):
    return sum(future.result() for future in clean.map(extract(day).rows))
"""
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLIGHTLOG_TASK_DEFAULT_RETRY_DELAY_SECONDS", "0")
    return tmp_path


def recorded(code: str, *options: str, exit_code: int) -> Path:
    """Run the flow of a file, make a test of the run, and forget all that the run itself did; return the test."""
    Path("flows.py").write_text(code)
    assert flightlog("run", "flows.py:etl", *options).returncode == exit_code
    ok("runs", "to-test", "@last", "-o", "test_it.py")
    Path("calls.txt").unlink(missing_ok=True)
    return Path("test_it.py")


def outcome(file: Path) -> "subprocess.CompletedProcess[str]":
    """Run a test, away from the log."""
    env = {**os.environ, "FLIGHTLOG_HOME": str(Path.cwd() / "elsewhere")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def calls() -> list[str]:
    """Return which functions ran."""
    file = Path("calls.txt")
    return file.read_text().split("\n")[:-1] if file.exists() else []


def test_it_fails_as_the_run_failed_and_passes_once_that_is_mended() -> None:
    """What completed does not run again: a value of a class of the script's own, and retries that take no time."""
    file = recorded(ETL.replace("seconds=60", "seconds=0"), exit_code=10)
    Path("flows.py").write_text(ETL)
    failed = outcome(file)
    assert failed.returncode == 1
    assert "ValueError: row 10 is too big" in failed.stdout
    assert calls() == ["clean 10", "clean 10"]
    Path("flows.py").write_text(ETL.replace("row > 9", "row > 99"))
    assert outcome(file).returncode == 0, failed.stdout
    assert not Path("elsewhere").exists()


def test_of_a_run_that_completed_it_wants_the_same() -> None:
    """And says so when something else comes out."""
    code = ETL.replace("seconds=60", "seconds=0").replace("row > 9", "row > 99")
    file = recorded(code, exit_code=0)
    assert outcome(file).returncode == 0
    assert calls() == []
    Path("flows.py").write_text(code.replace("return sum(", "return 1 + sum("))
    assert "assert 14 == 13" in outcome(file).stdout


def test_calls_that_could_not_start_do_not_shift_the_others() -> None:
    """The k-th call of a function gets what the k-th gave, though one before it was never made."""
    code = (
        HEAD
        + """
@task
def source(number):
    note(f"source {number}")
    if number == 1:
        raise ValueError("no source 1")
    return number


@task
def double(number):
    note(f"double {number}")
    return 2 * number


@flow
def etl():
    futures = [double.submit(source.submit(number)) for number in range(4)]
    kept = [future.result(raise_on_failure=False) for future in futures if not future.wait().is_pending()]
    assert kept == [0, 4, 6], kept
    return futures
"""
    )
    file = recorded(code, exit_code=10)
    failed = outcome(file)
    assert "AssertionError" not in failed.stdout
    assert calls() == ["source 1"]


def test_subflows_and_nested_calls() -> None:
    """A subflow that completed does not run; of one that failed, only what failed."""
    code = (
        HEAD
        + """
import asyncio


@task
async def load(number):
    note(f"load {number}")
    return number


@task
async def both(number):
    note("both")
    return await load(number) + await load(number + 1)


@flow
async def good():
    note("good")
    return await load(5)


@flow
async def bad(number):
    note("bad")
    if await both(number) > 2:
        raise ValueError("too much")


@flow
async def etl():
    await bad(await good())
"""
    )
    file = recorded(code, exit_code=10)
    failed = outcome(file)
    assert "ValueError: too much" in failed.stdout
    assert calls() == ["bad"]


def test_what_is_not_on_record_is_said() -> None:
    """A secret parameter is to be filled in; a value that was not kept is made again."""
    code = (
        HEAD
        + """
from pydantic import SecretStr


@task(persist_result=False)
def fresh():
    note("fresh")
    return 5


@flow
def etl(token: SecretStr):
    note(token.get_secret_value())
    assert fresh() == 6
"""
    )
    Path("flows.py").write_text(code)
    assert flightlog("run", "flows.py:etl", "-p", "token=hush").returncode == 10
    made = flightlog("runs", "to-test")
    assert made.returncode == 0
    assert "Not on record: token" in made.stderr
    assert "fresh-" in made.stderr
    (file,) = Path.cwd().glob("test_etl_*.py")
    assert "hush" not in file.read_text()
    assert "The parameter 'token' is not on record" in outcome(file).stdout
    file.write_text(file.read_text().replace("not_recorded('token')", "'shh'"))
    Path("calls.txt").unlink()
    assert "AssertionError" in outcome(file).stdout
    assert calls() == ["shh", "fresh"]


def test_a_file_that_is_there_is_kept() -> None:
    """Unless somebody says otherwise; names that there are not are said."""
    file = recorded(ETL.replace("seconds=60", "seconds=0"), exit_code=10)
    before = file.read_text()
    file.write_text("mine")
    refused = flightlog("runs", "to-test", "-o", "test_it.py")
    assert refused.returncode == 1
    assert "is there already" in refused.stderr
    assert file.read_text() == "mine"
    ok("runs", "to-test", "-o", "test_it.py", "--force")
    assert file.read_text() == before
    assert ok("runs", "to-test", "-o", "-") == before
    assert flightlog("runs", "to-test", "nothing").returncode == 3
    Path("flows.py").unlink()
    gone = flightlog("runs", "to-test", "-o", "-")
    assert gone.returncode == 3
    assert "There is no file" in gone.stderr


def test_two_runs_side_by_side() -> None:
    """``runs diff`` says where their ways part, for people and for programs."""
    Path("flows.py").write_text(ETL.replace("seconds=60", "seconds=0"))
    for _ in range(2):
        assert flightlog("run", "flows.py:etl").returncode == 10
    Path("flows.py").write_text(ETL.replace("row > 9", "row > 99"))
    ok("run", "flows.py:etl")
    ids = ok("runs", "ls", "-q").split()
    same = ok("runs", "diff", ids[2], ids[1])
    assert "Both went the same way" in same
    different = ok("runs", "diff", ids[1], ids[0])
    assert "code" in different
    assert "ValueError: row 10 is too big" in different
    assert "Their ways part at clean-" in different
    found = document("runs", "diff", ids[1], ids[0])
    assert found["first"] == found["done"][0]
    assert flightlog("runs", "diff", ids[0], "nothing").returncode == 3
