"""Child processes: each in a session of its own, with a time limit, ended by its id."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GRACE_SECONDS = 15.0


class ChildError(Exception):
    """A child process did not do what was asked of it."""


@dataclass(frozen=True)
class Finished:
    """How a child process ended.

    Attributes:
        code: its exit code, negative for a signal.
        seconds: how long it took from its start to its end.
        output: what it wrote to its standard output.
    """

    code: int
    seconds: float
    output: str


def run(
    command: Sequence[str | Path],
    env: Mapping[str, str],
    timeout: float,
) -> Finished:
    """Run a command to its end; what it logs goes nowhere, at its default level.

    Raises:
        ChildError: it took too long.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        late = threading.Event()
        timer = threading.Timer(timeout, _end_late, (process.pid, late))
        timer.start()
        try:
            # Without a limit of its own: with one, `wait` looks only every 50 ms.
            process.wait()
            seconds = time.perf_counter() - start
        finally:
            timer.cancel()
            # Helpers that it left behind are in its session, so they end with it.
            _end_session(process.pid)
            process.wait()
        if late.is_set():
            raise ChildError(f"took longer than {timeout:.0f} s")
        output.seek(0)
        return Finished(process.returncode, seconds, output.read().decode())


def _end_late(pid: int, late: threading.Event) -> None:
    late.set()
    _end_session(pid)


def _end_session(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def answer(finished: Finished) -> dict[str, Any]:
    """Return the JSON that a side script printed last.

    Raises:
        ChildError: it failed, or printed none.
    """
    if finished.code != 0:
        raise ChildError(f"ended with exit code {finished.code}")
    try:
        found: dict[str, Any] = json.loads(finished.output.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise ChildError("printed no answer") from None
    return found


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, wait, and end it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settle(pid: int, timeout: float = 90.0) -> None:
    """Wait until a process is idle, so that what one side left undone does not slow the next one."""
    deadline = time.monotonic() + timeout
    before = cpu_seconds(pid)
    while before is not None and time.monotonic() < deadline:
        time.sleep(1.0)
        after = cpu_seconds(pid)
        if after is None or after - before < 0.1:
            return
        before = after
