"""The command line, as people and programs use it: real processes on a real log."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FLOWS = '''\
"""Some flows."""
import os, time
from flightlog import flow, get_run_logger, task

@task
def double(n):
    return n * 2

@task(retries=1)
def shaky(path):
    if not os.path.exists(path):
        open(path, "w").close()
        raise ValueError("not yet")
    return "there"

@flow
def works(n: int = 2, name: str = "x"):
    get_run_logger().warning("careful with %s", name)
    return double(n)

@flow(name="fails-always")
def fails():
    double(1)
    raise RuntimeError("this flow fails")

@flow
def leaves():
    raise SystemExit(4)

@flow
async def is_async(word: str):
    return word.upper()

@flow
def long(path: str):
    shaky(path)
    for n in range(4000):
        double(n)
        time.sleep(0.01)
        if os.path.exists(path + ".stop"):
            break
'''


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """Return a file with some flows."""
    path = tmp_path / "flows.py"
    path.write_text(FLOWS)
    return path


def flightlog(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "flightlog", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip


def on_terminal(*arguments: str, seconds: float = 30) -> str:
    """Run the command line on a terminal and return what it shows."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="120", LINES="40")
        os.environ.pop("CI", None)
        os.environ.pop("NO_COLOR", None)
        os.execv(sys.executable, [sys.executable, "-m", "flightlog", *arguments])
    shown, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(terminal)
    os.waitpid(process, 0)
    return shown.decode(errors="replace")


@pytest.mark.parametrize(
    ("target", "code"),
    [("works", 0), ("is_async", 0), ("fails-always", 10), ("fails", 10), ("leaves", 11), ("nope", 3)],
)
def test_run_exits_with_how_it_ended(flows: Path, target: str, code: int) -> None:
    """The exit code of ``flightlog run`` says how the run ended."""
    done = flightlog("run", f"{flows}:{target}", *(["-p", "word=hi"] if target == "is_async" else []))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr or target in ("fails-always", "fails", "leaves")
    if target == "is_async":
        assert done.stdout == "HI\n"
    if target == "nope":
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "FILE:wrks"], "Did you mean FILE:works?"),
        (["run", "FILE"], "has several flows; say which one"),
        (["run", "nowhere.py:x"], "There is no file nowhere.py"),
        (["run", "no_such_module:x"], "no_such_module cannot be loaded: ModuleNotFoundError"),
        (["run", "FILE:works", "-p", "n"], "is not NAME=JSON"),
        (["run", "FILE:works", "-p", "n=[1"], "n is no JSON"),
        (["run", "FILE:works", "-p", "m=1"], "has no parameter 'm'. There are: n, name."),
        (["rus"], "Did you mean flightlog runs?"),
        (["runs", "show", "nope"], "There is no log at"),
        (["events", "ls", "--limit", "0"], "0 is not in the range"),
    ],
)
def test_mistakes_get_one_clear_sentence(flows: Path, arguments: list[str], message: str) -> None:
    """A mistake is told in one sentence, with the nearest match; never a traceback."""
    done = flightlog(*[argument.replace("FILE", str(flows)) for argument in arguments])
    assert done.returncode in (1, 2, 3)
    assert message.replace("FILE", str(flows)) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_parameters_that_do_not_fit_fail_the_run(flows: Path) -> None:
    """Wrong types make a Failed run, and the message names the parameter."""
    done = flightlog("run", f"{flows}:works", "-p", "n=many")
    assert done.returncode == 10
    assert "n: Input should be a valid integer" in done.stderr


def test_json_everywhere(flows: Path) -> None:
    """Every command that shows something prints one JSON document when asked to."""
    run = json.loads(flightlog("run", f"{flows}:works", "--param", "n=21", "--json").stdout)
    assert run["result"] == 42
    assert run["state"]["type"] == "COMPLETED"
    runs = json.loads(flightlog("runs", "ls", "--json").stdout)
    assert [(r["id"], r["flow"], r["parameters"], r["task_runs"]) for r in runs] == [
        (run["flow_run_id"], "works", {"n": 21, "name": "x"}, {"COMPLETED": 1})
    ]
    shown = json.loads(flightlog("runs", "show", "@last", "--json").stdout)
    assert [task["task"] for task in shown["task_runs"]] == ["double"]
    assert shown["task_runs"][0]["attempts"][0]["state_type"] == "COMPLETED"
    lines = json.loads(flightlog("runs", "logs", "@last", "--json").stdout)
    assert "careful with x" in [line["message"] for line in lines]
    events = json.loads(flightlog("events", "ls", "--run", "@last", "--json").stdout)
    assert [event["type"] for event in events if event["type"].startswith("task_run")] == [
        "task_run.created", "task_run.running", "task_run.completed",
    ]  # fmt: skip
    assert json.loads(flightlog("version", "--json").stdout)["flightlog"]
    doctor = json.loads(flightlog("doctor", "--json").stdout)
    assert {finding["what"]: finding["status"] for finding in doctor}["verify"] == "ok"
    jsonl = flightlog("events", "tail", "--no-follow", "--jsonl", "-n", "3").stdout.splitlines()
    assert len([json.loads(line) for line in jsonl]) == 3


def test_piped_output_is_plain(flows: Path) -> None:
    """Piped, tables are tab-separated, without headers, colours or art."""
    flightlog("run", f"{flows}:works")
    for arguments in (
        ["runs", "ls"],
        ["events", "ls"],
        ["runs", "show", "@last"],
        ["doctor"],
        ["runs", "logs", "@last"],
    ):
        output = flightlog(*arguments).stdout
        assert "\x1b" not in output
        assert output.strip()
    row = flightlog("runs", "ls").stdout.rstrip("\n").split("\t")
    assert row[0] == "✓ Completed"
    assert row[1] == "works"
    quiet = flightlog("runs", "ls", "-q").stdout.split()
    assert len(quiet) == 1
    assert re.fullmatch(r"[0-9a-f-]{36}", quiet[0])


def test_on_a_terminal_there_are_headers_and_colours(flows: Path) -> None:
    """On a terminal tables have headers and states have colours; NO_COLOR takes them away."""
    flightlog("run", f"{flows}:works")
    shown = on_terminal("runs", "ls")
    assert "STATE" in shown
    assert "\x1b[32m✓ Completed" in shown
    assert "\x1b[32m" not in on_terminal("runs", "ls", "--color", "never")


def test_filters(flows: Path) -> None:
    """Runs are filtered by flow and state, events by run, type and position, lines by level."""
    for target in ("works", "fails", "works"):
        flightlog("run", f"{flows}:{target}")
    assert len(flightlog("runs", "ls", "--flow", "works", "-q").stdout.split()) == 2
    assert len(flightlog("runs", "ls", "--state", "failed", "-q").stdout.split()) == 1
    failed = flightlog("runs", "show", "@last-failed").stdout
    assert "RuntimeError: this flow fails" in failed
    types = flightlog("events", "ls", "--type", "flow_run.failed", "--type", "flow_run.completed", "--jsonl").stdout
    assert [json.loads(line)["type"] for line in types.splitlines()] == [
        "flow_run.completed", "flow_run.failed", "flow_run.completed",
    ]  # fmt: skip
    errors = flightlog("runs", "logs", "@last-failed", "--level", "error").stdout
    assert "this flow fails" in errors
    assert "| INFO" not in errors


def test_before_the_first_run(tmp_path: Path) -> None:
    """With no log yet, reading says so, and doctor finds nothing wrong."""
    done = flightlog("runs", "ls")
    assert done.returncode == 3
    assert "There is no log at" in done.stderr
    assert flightlog("doctor").returncode == 0


def test_doctor_finds_what_is_wrong(flows: Path, own_home: Path) -> None:
    """Doctor names a damaged log, a key that others can read, and a misspelt setting, and says how to mend them."""
    flightlog("run", f"{flows}:works")
    (own_home / "flightlog.db.key").chmod(0o644)
    done = flightlog("doctor", env={"FLIGHTLOG_LOGING_LEVEL": "x"})
    assert done.returncode == 1
    assert "Did you mean 'FLIGHTLOG_LOGGING_LEVEL'?" in done.stdout
    done = flightlog("doctor")
    assert done.returncode == 1
    assert "chmod 600" in done.stdout
    path = own_home / "flightlog.db"
    path.write_bytes(path.read_bytes()[:-9000])
    done = flightlog("doctor")
    assert done.returncode == 1
    assert "damaged" in done.stdout or "missing" in done.stdout
    assert "Traceback" not in done.stderr


def start_long(flows: Path, path: Path) -> "subprocess.Popen[bytes]":
    """Start a flow that goes on until it is told to stop."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flightlog", "run", f"{flows}:long", "-p", f'path="{path}"'], stderr=subprocess.DEVNULL
    )
    for _ in range(200):
        if "▶ Running" in flightlog("runs", "ls").stdout:
            return process
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise AssertionError("the flow did not start")


def test_watch_follows_a_run_to_its_end(flows: Path, tmp_path: Path) -> None:
    """Watching prints a line for each change, ends with the run, and exits as it ended."""
    process = start_long(flows, tmp_path / "flag")
    watching = subprocess.Popen(
        [sys.executable, "-m", "flightlog", "runs", "watch", "@last"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(1)
    (tmp_path / "flag.stop").touch()
    shown, _ = watching.communicate(timeout=30)
    process.wait(30)
    assert watching.returncode == 0
    assert "↻ AwaitingRetry shaky-" in shown
    assert "▶ Retrying shaky-" in shown
    assert shown.splitlines()[-1].split(" ", 1)[1].startswith("✓ Completed")


def test_watch_draws_on_a_terminal(flows: Path, tmp_path: Path) -> None:
    """On a terminal watching draws a line for each task, with a bar and counts."""
    process = start_long(flows, tmp_path / "flag")
    (tmp_path / "flag.stop").touch()
    shown = on_terminal("runs", "watch")
    process.wait(30)
    assert "double" in shown
    assert "✓ Completed" in shown
    assert "━" in shown


def test_a_killed_run_is_told_from_a_running_one(flows: Path, tmp_path: Path) -> None:
    """When a run's process is killed, the next command puts on record that the run crashed, and why."""
    process = start_long(flows, tmp_path / "flag")
    assert "Running" in flightlog("runs", "ls").stdout
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert "Crashed" in flightlog("runs", "ls").stdout
    assert flightlog("runs", "watch", "@last").returncode == 11
    shown = json.loads(flightlog("runs", "show", "@last-failed", "--json").stdout)
    assert shown["attempts"][0]["cause"] == "lost_worker"
    assert f"process {process.pid}" in shown["message"]
    crashed = json.loads(flightlog("events", "ls", "--type", "flow_run.crashed", "--json").stdout)
    assert crashed[0]["actor"].startswith("cli")


@pytest.mark.parametrize(
    ("number", "message", "code"),
    [(signal.SIGTERM, "termination signal", 11), (signal.SIGINT, "interrupt signal", 130)],
)
def test_E39_signals_crash_the_run_and_are_recorded(
    flows: Path, tmp_path: Path, number: signal.Signals, message: str, code: int
) -> None:
    """SIGTERM and Ctrl-C end the run as Crashed, with the reason in the log."""
    process = start_long(flows, tmp_path / "flag")
    process.send_signal(number)
    assert process.wait(30) == code
    assert message in flightlog("runs", "show", "@last").stdout


def test_E39_a_terminated_script_exits_with_143(flows: Path, tmp_path: Path) -> None:
    """A script that is ended by SIGTERM while a flow runs exits with 143, and the run is Crashed."""
    script = tmp_path / "script.py"
    script.write_text(FLOWS + f"\nlong({str(tmp_path / 'flag')!r})\n")
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        if "▶ Running" in flightlog("runs", "ls").stdout:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the run did not begin")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert "! Crashed" in flightlog("runs", "ls").stdout


def test_E39_a_terminated_script_of_async_code_says_so(tmp_path: Path) -> None:
    """The loop only cancels its flow; what is recorded of flow and task is the signal, and hooks are called."""
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\nfrom flightlog import flow, task\n\n"
        "@task\nasync def waits():\n    print('ready', flush=True)\n    await asyncio.sleep(60)\n\n"
        "@flow(on_crashed=[lambda flow, flow_run, state: print(state.message, flush=True)])\n"
        "async def f():\n    await waits()\n\nasyncio.run(f())\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=30)
    assert (process.returncode, told) == (143, "Execution was aborted by a termination signal.\n")
    shown = json.loads(flightlog("runs", "show", "@last", "--json").stdout)
    assert shown["message"] == told.strip()


def test_every_command_has_help_with_an_example() -> None:
    """The help of every command says what it does and shows how it is called."""
    from flightlog.cli.main import cli

    def walk(command: Any, path: list[str]) -> None:
        commands = getattr(command, "list_commands", None)
        if commands is None:
            shown = flightlog(*path, "--help").stdout
            assert "Examples:" in shown, path
            assert f"flightlog {path[0]}" in shown
            return
        import click

        context = click.Context(command)
        for name in commands(context):
            walk(command.get_command(context, name), [*path, name])

    walk(cli, [])


def test_help_topics() -> None:
    """Exit codes and settings are explained."""
    assert "10   the run failed" in flightlog("help", "exit-codes").stdout
    assert "FLIGHTLOG_LOG_URL" in flightlog("help", "environment").stdout


def test_version_and_help_load_no_engine_and_no_database() -> None:
    """Start-up stays quick: ``--version`` and ``--help`` import neither the engine nor SQLAlchemy nor pydantic."""
    code = (
        "import sys; from flightlog.cli.main import main\n"
        "try: main(['{}'])\nexcept SystemExit: pass\n"
        "heavy = [m for m in ('sqlalchemy', 'pydantic', 'rich', 'flightlog.engine.flows') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    for option in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", code.format(option)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_reader_that_has_gone_is_no_failure(flows: Path) -> None:
    """`flightlog events ls | head -1` succeeds, as shells with pipefail see it."""
    for _ in range(3):
        flightlog("run", f"{flows}:works")
    command = f"set -o pipefail; {sys.executable} -m flightlog events ls --json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[\n")


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "2>&1 | head -1"])
def test_a_console_that_cannot_be_written_never_affects_a_run(flows: Path, redirect: str) -> None:
    """With standard error closed, full or gone the run completes, and is recorded."""
    subprocess.run(
        ["bash", "-c", f"{sys.executable} -m flightlog run {flows}:works {redirect}"], timeout=60, check=False
    )
    assert flightlog("runs", "ls").stdout.startswith("✓ Completed")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["runs", "ls", "-n", "9223372036854775808"], 2),
        (["events", "ls", "--after", "9223372036854775808"], 2),
        (["run", "FILE:works", "-p", "n=" + "9" * 5000], 10),
        (["run", "FILE:works", "-p", "return_state=true"], 2),
        (["run", ":works"], 3),
        (["run", "."], 3),
        (["runs", "show", b"\xff\xfe".decode(errors="surrogateescape")], 2),
    ],
)
def test_odd_arguments_get_no_traceback(flows: Path, arguments: list[str], code: int) -> None:
    """Huge numbers, bytes that are no text and the like are told in one sentence."""
    flightlog("run", f"{flows}:works")
    done = flightlog(*[argument.replace("FILE", str(flows)) for argument in arguments])
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """What flows put into names and lines cannot steer the terminal of whoever looks."""
    script = tmp_path / "odd.py"
    script.write_text(
        "from flightlog import flow, get_run_logger\n"
        "@flow(flow_run_name='a\\nb\\x1b]0;title\\x07')\n"
        "def odd():\n    get_run_logger().info('x\\x1b[2J')\n"
    )
    flightlog("run", str(script))
    for arguments in (["runs", "ls"], ["runs", "logs", "@last"], ["runs", "show", "@last"], ["events", "ls"]):
        shown = flightlog(*arguments).stdout
        assert "\x1b" not in shown
        assert "\x07" not in shown


def test_doctor_knows_the_right_key_from_a_wrong_one(flows: Path, own_home: Path) -> None:
    """A key that is another log's, and a log that was emptied, are found."""
    flightlog("run", f"{flows}:works")
    key = own_home / "flightlog.db.key"
    right = key.read_bytes()
    key.write_bytes(bytes(32))
    done = flightlog("doctor")
    assert done.returncode == 1
    assert "is not the key of the log" in done.stdout
    key.write_bytes(right)
    assert flightlog("doctor").returncode == 0
    (own_home / "flightlog.db").write_bytes(b"")
    assert flightlog("doctor").returncode == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("flow-run", "List, show, watch, explain and resume flow runs"),
        ("artifact", "See what runs left to look at"),
        ("gcl", "Limit how much runs at the same time"),
        ("concurrency-limit", "Limit how much runs at the same time"),
        ("deployment", "There is no command 'deployment'. It comes with deployments."),
        ("server", "There is no command 'server'. There is no server, and none is needed"),
        ("task-run", "flightlog runs show RUN"),
        ("artifcts", "There is no command 'artifcts'. Did you mean flightlog artifacts?"),
    ],
)
def test_commands_of_prefect_are_found_or_explained(command: str, told: str) -> None:
    """Nouns that are called otherwise here lead to ours; those that are to come, or are not needed, say so."""
    done = flightlog(command, "--help")
    assert told in (done.stdout + done.stderr).replace("\n", " ")
