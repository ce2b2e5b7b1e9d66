"""A process that is killed while it seals leaves a log that is whole, and that the next one goes on sealing."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from flightlog.events.integrity import verify
from flightlog.events.opening import open_log
from flightlog.events.sealing import seal

CHILD = """
import sys
from flightlog.events.opening import open_log
from flightlog.events.sealing import seal
from flightlog.testing.log_contract import new_event

with open_log(sys.argv[1]) as log:
    print("ready", flush=True)
    while True:
        log.append("s", [new_event(n=1) for _ in range(3)])
        seal(log)
"""


def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Six times, two processes at once that do nothing but append and seal."""
    url = f"sqlite:///{tmp_path}/log.db"
    chance = random.Random(20261125)
    before = 0
    for _ in range(6):
        command = [sys.executable, "-c", CHILD, url]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.0, 0.1))
        for child in children:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        with open_log(url) as log:
            found = verify(log.store)
            assert found.problems == []
            assert found.sealed >= before
            log.flush()
            seal(log)
            found = verify(log.store)
            assert (found.problems, found.unproved) == ([], 1 if found.sealed else 0)
            before = found.sealed
    assert before > 0
