"""Channels that are down: the rule that comes with Flightlog, by which they are incidents themselves."""

from typing import Final

from flightlog.events.types import NOTIFICATION_DEAD, NOTIFICATION_FAILED
from flightlog.notifications.rules import OURS, Match, Rule

UNDELIVERED: Final = (NOTIFICATION_DEAD, NOTIFICATION_FAILED)
"""What happens to messages of a channel that is down: rules about these tell the others."""
_LONG: Final = 6
"""After so many failed attempts at one message, some minutes, its channel is down, though nothing is given up yet."""
CHANNEL_DOWN: Final = Rule(
    name="down",
    severity="critical",
    match=Match(event=UNDELIVERED, where=f"type == '{NOTIFICATION_DEAD}' or data.attempt >= {_LONG}"),
    hold="no",
    group_by=("resource",),
    resolve="never",
    description="Messages cannot be delivered through a channel; the others are told.",
).model_copy(update={"name": OURS})
"""The rule that comes with Flightlog: a dead channel is an incident itself."""
