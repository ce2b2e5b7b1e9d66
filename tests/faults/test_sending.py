"""Messages and processes that are killed, or many: none is lost, and a copy says that it is one."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.faults.sender import STEPS
from tests.notifications.receivers import Receiver

from flightlog.events.model import NewEvent
from flightlog.events.opening import open_log
from flightlog.events.types import flow_run_stream
from flightlog.ids import RandomIds, id_text
from flightlog.notifications.configuring import Configurator
from flightlog.notifications.ledger import Entry, entries
from flightlog.notifications.rules import Channel, Configuration, Rule
from flightlog.testing import VirtualClock

SENDER = Path(__file__).with_name("sender.py")
START = 1_767_225_600_000_000
MINUTE = 60_000_000

pytestmark = pytest.mark.timeout(300)


@dataclass
class Place:
    """A log that several processes use.

    Attributes:
        url: the log.
        receiver: who takes the messages.
    """

    url: str
    receiver: Receiver

    def fail(self, runs: int, channels: int = 1) -> None:
        """Have runs of as many flows fail, with a rule that tells of it through some channels."""
        clock, ids = VirtualClock(START), RandomIds()
        names = tuple(f"hook-{number}" for number in range(channels))
        settings = {"url": "env:HOOK_URL", "allow_private": True}
        wanted = Configuration(
            rules=(Rule(name="failures", channels=names),),
            channels=tuple(Channel(name=name, kind="webhook", settings=settings) for name in names),
        )
        with open_log(self.url, clock=clock) as log:
            Configurator(log, clock, ids).synchronise(wanted, "here")
            for number in range(runs):
                stream = flow_run_stream(id_text(ids.new()))
                created = {"flow": f"etl-{number}", "name": f"run-{number}"}
                for type_, data in (("flow_run.created", created), ("flow_run.failed", {})):
                    log.append(stream, [NewEvent(ids.new(), type_, data, START)])

    def command(self, now: int, step: str) -> list[str]:
        """Return the command that starts a sender."""
        return [sys.executable, str(SENDER), self.url, str(now), step]

    def send(self, now: int, step: str) -> int:
        """Have a process do what is due; return how it ended."""
        return subprocess.run(self.command(now, step), timeout=120, check=False).returncode

    def posted(self) -> list[tuple[str, bool]]:
        """Return what arrived: keys, and whether the message says that it may be a copy."""
        return [
            (posted.headers["webhook-id"], json.loads(posted.body)["data"]["repeat"]) for posted in self.receiver.posted
        ]

    def ledger(self) -> list[Entry]:
        """Return what became of the messages."""
        with open_log(self.url, clock=VirtualClock(START)) as log:
            return entries(log)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return an empty log in a file or on a server, and a server that takes messages."""
    is_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'log.db'}" if is_file else request.getfixturevalue("postgres_url")
    with Receiver() as receiver:
        monkeypatch.setenv("HOOK_URL", f"http://127.0.0.1:{receiver.port}/hook")
        yield Place(url, receiver)


@pytest.mark.parametrize("step", STEPS)
def test_a_sender_that_is_killed_loses_nothing(place: Place, step: str) -> None:
    """Whoever comes next sends what is missing; what may be a copy is marked, and nothing else is sent twice."""
    place.fail(1)
    assert place.send(START, step) == -9
    assert place.send(START + MINUTE, "never") == 0
    assert place.send(START + 2 * MINUTE, "never") == 0
    (entry,) = place.ledger()
    assert entry.status == "delivered"
    arrived = place.posted()
    assert len({key for key, _ in arrived}) == 1
    marks = {"claimed": [True], "sent": [False, True]}
    assert [is_repeat for _, is_repeat in arrived] == marks.get(step, [False])


def test_several_senders_send_every_message_once(place: Place) -> None:
    """Four processes at the same moment on one log: none is lost, none goes out twice."""
    place.fail(runs=25, channels=2)
    assert place.send(START, "folded") == -9  # all is queued, and nothing sent
    assert Counter(entry.status for entry in place.ledger()) == {"queued": 50}
    commands = [place.command(START + MINUTE, "race") for _ in range(4)]
    senders = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    try:
        for sender in senders:
            assert sender.stdout is not None
            assert sender.stdout.readline() == "ready\n"
        for sender in senders:
            assert sender.stdin is not None
            sender.stdin.write("go\n")
            sender.stdin.flush()
        assert [sender.wait(240) for sender in senders] == [0] * 4
    finally:
        for sender in senders:
            sender.kill()
            sender.communicate()
    found = place.ledger()
    assert Counter(entry.status for entry in found) == {"delivered": 50}
    assert sorted(place.posted()) == sorted((entry.key, False) for entry in found)
