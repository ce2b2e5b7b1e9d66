"""From the outbox through a real notifier: what one attempt tells the next, on record in between."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.notifications.slack import TOKEN, Slack, as_read
from tests.notifications.smtp import MailServer

from flightlog import flow
from flightlog.clock import SystemClock
from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import CHANNEL_SET, NOTIFICATION_QUEUED, channel_stream, notification_stream
from flightlog.ids import RandomIds
from flightlog.notifications.configuring import Configurator
from flightlog.notifications.delivery import Delivery
from flightlog.notifications.email import Email
from flightlog.notifications.following import Follower
from flightlog.notifications.notifier import Message, Notifier
from flightlog.notifications.recording import MESSAGES
from flightlog.notifications.rules import Channel, Configuration, Rule
from flightlog.notifications.slack import SlackBot
from flightlog.notifications.wording import cleaned
from flightlog.testing import VirtualClock, memory_engine
from flightlog.testing.notifier_contract import hostile, sample


class Outbox:
    """A log with one channel, and what sends through it."""

    def __init__(self, log: Log, clock: VirtualClock) -> None:
        self.log, self.clock, self.ids = log, clock, RandomIds()

    def queue(self, message: Message, **facts: Any) -> None:
        """Queue a message."""
        told = {"notification": message.key, "channel": "ops", "kind": message.kind, "rule": message.rule,
                "incident": message.incident, "due": self.clock.now(), **facts}  # fmt: skip
        told["message"] = MESSAGES.dump_json(message).decode()
        event = NewEvent(self.ids.new(), NOTIFICATION_QUEUED, told, self.clock.now())
        self.log.append(notification_stream(message.key), [event])

    def deliver(self, notifier: Notifier) -> int:
        """Send what is due."""
        channel = Channel(name="ops", kind=notifier.kind).model_dump_json()
        event = NewEvent(self.ids.new(), CHANNEL_SET, {"name": "ops", "channel": channel}, self.clock.now())
        self.log.append(channel_stream("ops"), [event])
        return Delivery(self.log, self.clock, self.ids, notifier=lambda _: notifier).step()

    def ended(self, type_: str) -> list[dict[str, Any]]:
        """Return the payloads of a type."""
        return [event.data for event in self.log.read_all(types=[type_])]


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """One on a log in memory."""
    clock = VirtualClock()
    log = Log(MemoryStore(clock))
    yield Outbox(log, clock)
    log.close()


def test_those_who_have_a_mail_do_not_get_it_again(outbox: Outbox) -> None:
    """A recipient who is refused for now gets it later, alone; also after an attempt that did not get so far."""
    outbox.queue(sample())
    with MailServer("plain", None) as server:
        notifier = Email.model_validate(
            {"host": "127.0.0.1", "port": server.port, "security": "plain", "sender": "f@example.com",
             "to": ["a@example.com", "b@example.com"]}
        )  # fmt: skip
        server.mails.refused = {"b@example.com": ["452 4.2.2 Mailbox full"]}
        assert outbox.deliver(notifier) == 1
        outbox.clock.advance(60)
        server.mails.answers.append("451 4.3.0 Error")
        assert outbox.deliver(notifier) == 1
        outbox.clock.advance(600)
        assert outbox.deliver(notifier) == 1
        assert [recipients for recipients, _ in server.mails.taken] == [["a@example.com"], ["b@example.com"]]
    first, second = outbox.ended("notification.failed")
    assert first["reached"]["accepted"] == "a@example.com"
    assert "reached" not in second
    assert len(outbox.ended("notification.delivered")) == 1


def test_an_incident_stays_in_its_first_slack_message(outbox: Outbox) -> None:
    """The receipt of the first is on record, and later messages get it."""
    with Slack() as server:
        given = {"token": TOKEN, "channel": "#alerts", "api_url": server.api_url}
        notifier = SlackBot.model_validate(given)
        outbox.queue(sample())
        assert outbox.deliver(notifier) == 1
        outbox.queue(sample(key="k2", kind="resolved", count=2), first=sample().key)
        assert outbox.deliver(notifier) == 1
        first, reply = server.messages.values()
    assert "Recovered" in as_read(first)
    assert reply["thread_ts"] == outbox.ended("notification.delivered")[0]["receipt"]["ts"]


def test_any_error_of_a_flow_goes_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """From the flow to the channel: what can be neither recorded as JSON nor sent is replaced."""

    @flow
    def broken() -> None:
        raise ValueError("\ud83d <!channel> broken")

    monkeypatch.setenv("OUR_TOKEN", TOKEN)
    with Slack() as server, memory_engine() as engine:
        caplog.set_level("CRITICAL", "flightlog.flow_runs")  # half a surrogate pair cannot be in a test's report
        settings = {"token": "env:OUR_TOKEN", "channel": "#alerts", "api_url": server.api_url}
        channel = Channel(name="ops", kind="slack", settings=settings)
        rules = (Rule(name="failures", channels=("ops",)),)
        clock, ids = SystemClock(), RandomIds()
        Configurator(engine.log, clock, ids).synchronise(Configuration(channels=(channel,), rules=rules), "here")
        with pytest.raises(ValueError, match="broken"):
            broken()
        engine.log.flush()
        with closing(Follower(engine.log)) as follower:
            while follower.step():
                pass
        assert Delivery(engine.log, clock, ids).step() == 1
        (text,) = server.received()
    assert "ValueError: \ufffd <!channel> broken" in text
    assert "Failed: broken / " in text


def test_any_message_can_be_recorded() -> None:
    """Once it is clean, it reads back as it was."""
    assert MESSAGES.validate_json(MESSAGES.dump_json(cleaned(hostile()))) == cleaned(hostile())
