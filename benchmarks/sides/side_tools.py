"""What all side scripts share. Standard library only: it runs in every environment."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

WARM_UP = 20
"""Items before the clock starts, so that caches, pools and connections are there."""

Answer = dict[str, Any]


def main(cases: Mapping[str, Callable[[int], Answer]]) -> None:
    """Run the case that the command line names and print its answer as one line of JSON."""
    case, n = sys.argv[1], int(sys.argv[2])
    if case not in cases:
        sys.exit(f"no such case: {case}")
    answer = cases[case](n)
    print(json.dumps(answer), flush=True)


def per_item(seconds: float, n: int) -> Answer:
    """Return the answer of a case that timed n items together."""
    return {"samples": [seconds / n]}


def die() -> None:
    """End this process the way the system's out-of-memory killer does: nothing gets to be flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def resident_bytes() -> int:
    """Return the memory that this process holds now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - the cheapest way
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
