"""Channels do not wait for each other, and headers that are secrets stay where they are."""

import threading
from collections.abc import Iterator

import pytest
from tests.notifications.receivers import Receiver

from flightlog.clock import SystemClock
from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import NOTIFICATION_QUEUED, notification_stream
from flightlog.ids import RandomIds
from flightlog.notifications.channels import ChannelError, notifier_of
from flightlog.notifications.configuring import Configurator
from flightlog.notifications.delivery import Delivery
from flightlog.notifications.notifier import Message, Receipt
from flightlog.notifications.recording import MESSAGES
from flightlog.notifications.rules import Channel
from flightlog.notifications.sending import Senders
from flightlog.testing.notifier_contract import sample

PATIENCE = 60.0


class Hanging:
    """Blocks until it is let go: not even its event loop goes on."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.sent: list[str] = []

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Take a message, some time."""
        self.began.set()
        self.go_on.wait(PATIENCE)
        self.sent.append(message.key)
        return {}


class Quick:
    """Takes messages at once."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Take a message."""
        self.sent.append(message.key)
        return {}


@pytest.fixture
def log() -> Iterator[Log]:
    """Return an empty log."""
    with Log(MemoryStore()) as log:
        yield log


def queue(log: Log, key: str, channel: str, incident: str | None = None) -> None:
    """Queue a message."""
    now = SystemClock().now()
    message = MESSAGES.dump_json(sample(key=key)).decode()
    told = {"notification": key, "channel": channel, "kind": "opened", "rule": "r", "due": now, "message": message}
    if incident is not None:
        told["incident"] = incident
    log.append(notification_stream(key), [NewEvent(RandomIds().new(), NOTIFICATION_QUEUED, told, now)])


def configure(log: Log, *names: str) -> None:
    """Make channels."""
    configurator = Configurator(log, SystemClock(), RandomIds())
    for name in names:
        configurator.set_channel(Channel(name=name, kind="webhook", settings={"url": "env:U"}))


def test_a_notifier_that_hangs_holds_up_no_other(log: Log) -> None:
    """Others go out meanwhile, also those that come later; and nothing goes out twice through it."""
    slow, quick = Hanging(), Quick()
    notifiers = {"slow": slow, "quick": quick}
    configure(log, *notifiers)
    delivery = Delivery(log, SystemClock(), RandomIds(), notifier=lambda one: notifiers[one.name])  # type: ignore[arg-type, return-value]
    senders = Senders(delivery)
    try:
        queue(log, "s1", "slow")
        assert senders.step() == 1
        assert slow.began.wait(PATIENCE)
        for key in ("q1", "q2"):
            queue(log, key, "quick")
            queue(log, f"s-{key}", "slow")
            assert senders.step() == 1  # through the other one nobody begins again
            senders._threads["quick"].join(PATIENCE)
        assert quick.sent == ["q1", "q2"]
        assert senders.busy == {"slow"}
        assert senders.next_due is None  # what waits for the one that hangs wakes nobody up
    finally:
        slow.go_on.set()
        senders.join(PATIENCE)
    assert senders.step() == 1
    senders.join(PATIENCE)
    assert sorted(slow.sent) == ["s-q1", "s-q2", "s1"]
    assert senders.sent == 5


def test_what_waits_behind_another_message_wakes_nobody_up(log: Log) -> None:
    """It is due when the one before it is."""
    configure(log, "ops")
    clock = SystemClock()

    def unknown(channel: Channel) -> Quick:
        raise ChannelError("not now")

    delivery = Delivery(log, clock, RandomIds(), notifier=unknown)  # type: ignore[arg-type]
    queue(log, "a", "ops", "i")
    queue(log, "b", "ops", "i")
    assert delivery.step() == 1
    due = delivery.next_due()
    assert due is not None
    assert due > clock.now()


def test_headers_that_are_secrets_are_found_in_the_environment(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are put in when a message is sent, as they are then, and are nowhere in the log; others are refused."""
    with Receiver() as server:
        monkeypatch.setenv("HOOK_URL", f"http://127.0.0.1:{server.port}/hook")
        settings = {"url": "env:HOOK_URL", "allow_private": True, "headers": {"Authorization": "env:HOOK_TOKEN"}}
        configurator = Configurator(log, SystemClock(), RandomIds())
        configurator.set_channel(Channel(name="hook", kind="webhook", settings=settings))
        delivery = Delivery(log, SystemClock(), RandomIds(), notifier=notifier_of)
        for secret in ("Bearer first-token-12345", "Bearer second-token-12345"):
            monkeypatch.setenv("HOOK_TOKEN", secret)
            queue(log, secret[7:12], "hook")
            assert delivery.step() == 1
        assert [posted.headers["authorization"] for posted in server.posted] == [
            "Bearer first-token-12345",
            "Bearer second-token-12345",
        ]
        monkeypatch.delenv("HOOK_TOKEN")
        queue(log, "k3", "hook")
        assert delivery.step() == 1
        assert len(server.posted) == 2
    recorded = repr([event.data for event in log.read_all()])
    assert "token-12345" not in recorded
    assert "needs the environment variable HOOK_TOKEN, which is not set" in recorded
    with pytest.raises(ChannelError, match="env:NAME"):
        configurator.set_channel(
            Channel(name="bad", kind="webhook", settings={**settings, "headers": {"X-Key": "in the open"}})
        )
