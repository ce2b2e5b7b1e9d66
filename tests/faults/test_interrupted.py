"""Processes that are interrupted, terminated, killed while tasks of all kinds run in them: nothing is left Running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import asyncio, signal, sys, time
from pathlib import Path
from flightlog import flow, task
from flightlog.task_runners import ProcessPoolTaskRunner

HERE = Path(__file__).parent
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts this in the background ignores it

@task
def in_thread():
    (HERE / "in_thread").touch()
    time.sleep(60)

@task
def calls():
    in_thread()

@task
async def in_loop():
    (HERE / "in_loop").touch()
    await asyncio.sleep(60)

@task
def in_process():
    (HERE / "in_process").touch()
    time.sleep(60)

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def child():
    in_process.submit().result()

@task
def calls_flow():
    child()

@flow
def f():
    calls.submit()
    calls_flow.submit()
    in_loop.submit().result()

if __name__ == "__main__":
    f()
"""
TASKS = ("in_thread", "in_loop", "in_process")


def _shown(run: str) -> Any:
    """Return what the command line shows of a run."""
    command = [sys.executable, "-m", "flightlog", "runs", "show", run, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("number", "cause"),
    [(signal.SIGINT, "cancelled"), (signal.SIGTERM, "cancelled"), (signal.SIGKILL, "lost_worker")],
)
def test_E39_under_a_crashed_run_nothing_is_left_running(tmp_path: Path, number: signal.Signals, cause: str) -> None:
    """By the process itself, though its threads go on; or by whoever looks next, if it was killed."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, str(program)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not all((tmp_path / name).exists() for name in TASKS) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        while (shown := _shown("@last"))["state_type"] == "RUNNING" and time.monotonic() < end:
            time.sleep(0.2)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert shown["state_type"] == "CRASHED"
    (child,) = [run["child_flow_run_id"] for run in shown["task_runs"] if run["child_flow_run_id"]]
    runs = [*shown["task_runs"], _shown(child), *_shown(child)["task_runs"]]
    assert {run["name"].partition("-")[0] for run in runs} >= {*TASKS, "calls", "calls_flow", "child"}
    assert {run["state_type"] for run in runs} == {"CRASHED"}
    assert {attempt["cause"] for run in runs for attempt in run["attempts"]} == {cause}
