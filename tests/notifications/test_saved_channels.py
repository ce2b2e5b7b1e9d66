"""Notifiers as blocks: a channel's configuration is saved by name."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from flightlog.blocks import Block
from flightlog.engine.runtime import Engine
from flightlog.notifications.channels import ChannelError, notifier_of
from flightlog.notifications.email import Email
from flightlog.notifications.notifier import Notifier
from flightlog.notifications.rules import Channel
from flightlog.notifications.slack import SlackBot, SlackWebhook
from flightlog.notifications.webhook import Webhook
from flightlog.testing import memory_engine

URL = "https://hooks.slack.com/services/T0000/B0000/xyzzy-4711"


@pytest.fixture(autouse=True)
def engine() -> Iterator[Engine]:
    """Give each test an engine over a log in memory."""
    with memory_engine() as engine:
        yield engine


def test_O70_a_channel_is_saved_by_name(engine: Engine) -> None:
    """It comes back as it was, of its own class, and its secret is not in the log."""
    channel = SlackWebhook(url=SecretStr(URL))
    channel.save("ops")
    loaded = Notifier.load("slack-webhook/ops")
    assert isinstance(loaded, SlackWebhook)
    assert loaded.url.get_secret_value() == URL
    mail = Email(host="mail.example.com", sender="a@example.com", to=["b@example.com"])
    mail.save("ops")
    assert Block.load("email/ops").model_dump() == mail.model_dump()
    assert not [event for event in engine.log.read_all() if "xyzzy" in repr(event.data)]


def test_O69_every_notifier_can_notify_and_is_known_by_its_kind() -> None:
    """What a configuration calls it is the slug of its blocks."""
    for kind in (SlackWebhook, SlackBot, Email, Webhook):
        assert kind.get_block_type_slug() == kind.kind
        assert kind.get_block_capabilities() == ["notify"]


def test_a_rule_may_name_a_saved_channel() -> None:
    """A channel of a configuration is the block that it names; a block that is no notifier is refused."""
    from flightlog.blocks import String

    SlackWebhook(url=SecretStr(URL)).save("ops")
    found = notifier_of(Channel(name="team", block="slack-webhook/ops"))
    assert isinstance(found, SlackWebhook)
    String(value="x").save("ops")
    with pytest.raises(ChannelError, match="is no notifier"):
        notifier_of(Channel(name="team", block="string/ops"))
