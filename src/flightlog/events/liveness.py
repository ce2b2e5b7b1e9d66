"""Which processes are alive: so that a run whose process is gone is not called running for ever.

A process id says nothing, since it is given again and a killed process may linger; with the boot and the start
time it is unique (proc(5)). Where the process is somewhere else (another machine, another container), the beats
that it leaves in the log's database tell: `BEAT_SECONDS` apart, and believed for `PATIENCE_SECONDS`.
"""

import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 60.0


def this_process() -> dict[str, Any]:
    """Return what tells this process from every other one: host, boot, pid namespace, process id, start time."""
    return dict(_process(os.getpid()))


@cache
def _process(pid: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"host": platform.node(), "pid": pid}
    try:
        facts["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts["namespace"] = _namespace()
        facts["started"] = _stat(pid)[0]
    except (OSError, ValueError, IndexError):
        pass  # not Linux: such a process is known by its beats alone
    return facts


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _stat(pid: int) -> tuple[int, str]:
    """Return when a process started, in clock ticks since boot, and what it does; the name may hold blanks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]), fields[0]


def is_gone(process: Mapping[str, Any]) -> bool | None:
    """Tell whether a process is gone; None if that cannot be told from here.

    Args:
        process: what `this_process` gave there.
    """
    here = this_process()
    if "started" not in here or process.get("started") is None:
        return None
    if process.get("boot") != here.get("boot") or process.get("namespace") not in (None, here.get("namespace")):
        return None
    if process.get("namespace") is None and process.get("host") != here["host"]:
        return None
    try:
        started, doing = _stat(process["pid"])
    except FileNotFoundError:
        return _is_unknown(process["pid"])
    except (OSError, ValueError, IndexError):
        return None
    return started != process["started"] or doing in "ZX"


def _is_unknown(pid: int) -> bool | None:
    """Tell whether there is no such process, where /proc shows none; it may hide those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return None


def key_of(process: Mapping[str, Any]) -> str:
    """Return the name under which a process leaves its beats."""
    return "/".join(str(process.get(name, "")) for name in ("host", "boot", "namespace", "pid", "started"))
