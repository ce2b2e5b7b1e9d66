"""Drills: a marked message through a real channel, now, with what came of it."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from flightlog.clock import Clock
from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.types import NOTIFICATION_DELIVERED, NOTIFICATION_QUEUED, notification_stream
from flightlog.ids import Ids, id_text
from flightlog.notifications.channels import ChannelError, notifier_of
from flightlog.notifications.delivery import SEND_SECONDS
from flightlog.notifications.notifier import DeliveryError, Message
from flightlog.notifications.recording import MESSAGES
from flightlog.notifications.rules import Channel
from flightlog.notifications.templates import render
from flightlog.projections.inline import INLINE


class Drilled(NamedTuple):
    """What came of a drill.

    Attributes:
        channel: the channel.
        problem: what went wrong; None for nothing.
        took: how long it took, in microseconds.
    """

    channel: str
    problem: str | None
    took: int


def drill(log: Log, clock: Clock, ids: Ids, channels: Iterable[Channel], rule: str | None) -> Iterator[Drilled]:
    """Send a drill through channels, one after the other; those that arrive are on record.

    Args:
        log: the log.
        clock: time.
        ids: identity.
        channels: the channels.
        rule: the rule whose drill it is; None for none.
    """
    log.keep(INLINE)
    for channel in channels:
        now = clock.now()
        key = id_text(ids.new()).replace("-", "")
        plain = Message(
            key, "", "drill", rule or "drill", "info", "", "", opened_at=now, at=now, is_drill=True,
            position=log.head().position,
        )  # fmt: skip
        rendered = render(plain)
        message = replace(plain, subject=rendered.subject, body=rendered.body)
        try:
            receipt = asyncio.run(notifier_of(channel).send(message, timeout=SEND_SECONDS))
        except (DeliveryError, ChannelError) as error:
            yield Drilled(channel.name, str(error), clock.now() - now)
            continue
        took = clock.now() - now
        _put_on_record(log, clock, ids, channel.name, message, dict(receipt), took)
        yield Drilled(channel.name, None, took)


def _put_on_record(
    log: Log, clock: Clock, ids: Ids, channel: str, message: Message, receipt: dict[str, str], took: int
) -> None:
    queued = {
        "notification": message.key,
        "channel": channel,
        "kind": "drill",
        "rule": message.rule,
        "message": MESSAGES.dump_json(message).decode(),
        "due": message.at,
    }
    delivered = {"notification": message.key, "channel": channel, "attempt": 1, "receipt": receipt, "took": took}
    events = [
        NewEvent(ids.new(), NOTIFICATION_QUEUED, queued, message.at),
        NewEvent(ids.new(), NOTIFICATION_DELIVERED, delivered, clock.now()),
    ]
    log.append(notification_stream(message.key), events)
