"""Delivery: messages that are due go out, at least once, and what became of each is on record.

The outbox is in the log. Whoever is about to send a message appends that first, if nobody else has: so of several
processes one sends. One that dies while it sends leaves a claim that runs out; whoever takes it over cannot know if the
message has arrived, sends it again, and marks it as a repeat.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from flightlog.clock import Clock
from flightlog.errors import VersionConflict
from flightlog.events.liveness import this_process
from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.types import (
    CHANNEL_SET,
    NOTIFICATION_ATTEMPTED,
    NOTIFICATION_DEAD,
    NOTIFICATION_DELIVERED,
    NOTIFICATION_FAILED,
    NOTIFICATION_QUEUED,
    channel_stream,
    notification_stream,
)
from flightlog.ids import Ids
from flightlog.notifications.channels import ChannelError, notifier_of
from flightlog.notifications.notifier import DeliveryError, Message, Notifier, Receipt
from flightlog.notifications.recording import MESSAGES
from flightlog.notifications.rules import Channel
from flightlog.projections.inline import INLINE

SEND_SECONDS: Final = 10.0
_CLAIM_SECONDS: Final = 30.0
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 900.0
_ORDER: Final = {"opened": 0, "resolved": 2}
"""Of an incident's messages that were queued at one moment, which one goes first."""
MOST_ATTEMPTS: Final = 12
"""After so many failed attempts, some two hours, a message is given up."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that this process is to send.

    Attributes:
        stream: its stream.
        version: the stream's version with the claim in it.
        attempt: which attempt it is.
        channel: through which channel.
        message: the message.
        follows: the claim's event.
    """

    stream: str
    version: int
    attempt: int
    channel: str
    message: Message
    follows: bytes


class Delivery:
    """Sends what is due.

    Args:
        log: the log.
        clock: time.
        ids: identity and chance.
        mask: replaces known secrets in what is recorded.
        notifier: finds the notifier of a channel.
        only_usable: whether messages through channels that cannot be used from here (a variable of the environment is
            not set, say) are left to others, rather than tried in vain.
    """

    def __init__(
        self,
        log: Log,
        clock: Clock,
        ids: Ids,
        *,
        mask: Callable[[str], str] = str,
        notifier: Callable[[Channel], Notifier] = notifier_of,
        only_usable: bool = False,
    ) -> None:
        self._log = log
        self._clock = clock
        self._ids = ids
        self._mask = mask
        self._notifier = notifier
        self._only_usable = only_usable
        log.keep(INLINE)

    def step(self) -> int:
        """Send all that is due now; return how many messages were tried."""
        channels: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in self._ready():
            channels[one["channel"]].append(one)
        return asyncio.run(self._send_all(channels)) if channels else 0

    @property
    def left(self) -> int:
        """How many messages wait for an attempt."""
        return len(self._waiting())

    @property
    def next_due(self) -> int | None:
        """When the next message is due, in microseconds since 1970 (UTC); None if none waits."""
        return min((max(one["due"], one["claimed_until"]) for one in self._waiting()), default=None)

    def _waiting(self) -> list[dict[str, Any]]:
        """Return what waits to be sent, in the order that an incident's messages keep: as they were queued."""
        waiting = (one for one in self._log.states("outbox").values() if not one["dead"])
        return sorted(waiting, key=lambda one: (one["queued"], _ORDER.get(one["kind"], 1), one["notification"]))

    # --- claims -------------------------------------------------------------------------------------

    def _ready(self) -> Iterator[dict[str, Any]]:
        """Yield what is due: of each incident and channel the first message that waits, if none goes before it."""
        now = self._clock.now()
        waiting = self._waiting()
        here = {one["notification"] for one in waiting}
        taken: set[tuple[str, str]] = set()
        for one in waiting:
            place = (one["incident"] or one["notification"], one["channel"])
            if place not in taken and one["first"] not in here and max(one["due"], one["claimed_until"]) <= now:
                yield one
            taken.add(place)

    def _claim(self, waiting: dict[str, Any]) -> Claim | None:
        """Claim a message, just before it is sent; None if somebody else was first."""
        now = self._clock.now()
        stream = notification_stream(waiting["notification"])
        kept = self._log.state("outbox", stream)
        state = kept.state
        if state is None or state["dead"] or state["due"] > now or state["claimed_until"] > now:
            return None
        if state["attempts"] >= MOST_ATTEMPTS:  # those who had it before never said what came of it
            self._bury(stream, kept.version, state, now)
            return None
        attempt = state["attempts"] + 1
        facts = {"attempt": attempt, "until": now + round(_CLAIM_SECONDS * 1e6), "process": this_process()}
        event = NewEvent(self._ids.new(), NOTIFICATION_ATTEMPTED, facts, now)
        try:
            version = self._log.append(stream, [event], expected_version=kept.version)[-1]
        except VersionConflict:
            return None
        events = [(event.type, event.data) for event in self._log.read(stream)]
        queued = next(data for type_, data in events if type_ == NOTIFICATION_QUEUED)
        reached = [data["reached"] for type_, data in events if type_ == NOTIFICATION_FAILED and data.get("reached")]
        message = replace(
            MESSAGES.validate_json(queued["message"]),
            repeat=state["unknown"] or state["claimed_until"] > 0,
            first=self._receipt(state["first"]),
            reached=reached[-1] if reached else None,
        )
        return Claim(stream, version, attempt, state["channel"], message, event.id)

    def _bury(self, stream: str, version: int, state: dict[str, Any], now: int) -> None:
        """Give up a message that processes have died with, again and again."""
        told = {"notification": state["notification"], "channel": state["channel"], "attempt": state["attempts"]}
        told["problem"] = (
            state["problem"] or "Each process that was to send it ended before it could say what came of it."
        )
        with suppress(VersionConflict):
            event = NewEvent(self._ids.new(), NOTIFICATION_DEAD, told, now)
            self._log.append(stream, [event], expected_version=version)

    def _receipt(self, first: str | None) -> Receipt | None:
        """Return what the channel said of an incident's first message; None if that never arrived."""
        if first is None:
            return None
        receipt: Receipt | None = None
        for event in self._log.read(notification_stream(first)):
            if event.type == NOTIFICATION_DELIVERED:
                receipt = event.data.get("receipt", {})
        return receipt

    # --- sending ------------------------------------------------------------------------------------

    async def _send_all(self, channels: Mapping[str, list[dict[str, Any]]]) -> int:
        """Send through all channels at the same time, and through each of them one after the other."""
        return sum(await asyncio.gather(*(self._send_through(name, ours) for name, ours in channels.items())))

    async def _send_through(self, name: str, waiting: list[dict[str, Any]]) -> int:
        channel, count = self._channel(name), 0
        if self._only_usable and not self._is_usable(channel):
            return 0
        for one in waiting:
            if (claim := self._claim(one)) is not None:
                count += 1
                await self._try(claim, channel)
        return count

    def _is_usable(self, channel: Channel | None) -> bool:
        try:
            return channel is None or self._notifier(channel) is not None
        except ChannelError:
            return False

    async def _try(self, claim: Claim, channel: Channel | None) -> None:
        """Send a message once, and put down what became of it."""
        if channel is None:
            self._failed(claim, DeliveryError(f"There is no channel {claim.channel!r} any more.", is_final=True))
            return
        began = self._clock.now()
        try:
            receipt = await self._send(self._notifier(channel), claim.message)
        except DeliveryError as error:
            self._failed(claim, error)
        except ChannelError as error:
            self._failed(claim, DeliveryError(str(error)))
        else:
            told = {"receipt": {key: str(value) for key, value in receipt.items()}}
            self._end(claim, NOTIFICATION_DELIVERED, told | {"took": max(0, self._clock.now() - began)})

    @staticmethod
    async def _send(notifier: Notifier, message: Message) -> Receipt:
        try:
            return await asyncio.wait_for(notifier.send(message, timeout=SEND_SECONDS), SEND_SECONDS + 5)
        except DeliveryError:
            raise
        except TimeoutError:
            raise DeliveryError(f"No answer within {SEND_SECONDS:g} seconds.", is_unknown=True) from None
        except Exception as error:  # noqa: BLE001 - notifiers are plug-ins
            raise DeliveryError(f"The notifier failed with {type(error).__name__}: {error}", is_unknown=True) from None

    def _channel(self, name: str) -> Channel | None:
        last = None
        for event in self._log.read(channel_stream(name)):
            last = event
        if last is None or last.type != CHANNEL_SET:
            return None
        return Channel.model_validate_json(last.data["channel"])

    def _failed(self, claim: Claim, error: DeliveryError) -> None:
        """Put down that an attempt failed: it is tried again, or given up."""
        facts: dict[str, Any] = {"problem": self._mask(str(error))[:2000]}
        if error.code is not None:
            facts["code"] = error.code
        if error.is_final or claim.attempt >= MOST_ATTEMPTS:
            self._end(claim, NOTIFICATION_DEAD, facts)
            return
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (claim.attempt - 1)) * (0.5 + self._ids.chance() / 2)
        delay = max(delay, error.retry_after or 0.0)
        if error.reached:
            facts["reached"] = {key: str(value) for key, value in error.reached.items()}
        facts |= {"retry_at": self._clock.now() + round(delay * 1e6), "unknown": error.is_unknown}
        self._end(claim, NOTIFICATION_FAILED, facts)

    def _end(self, claim: Claim, type_: str, facts: dict[str, Any]) -> None:
        """Put down what became of an attempt, unless somebody else has taken the message over since."""
        told = {"notification": claim.message.key, "channel": claim.channel, "attempt": claim.attempt, **facts}
        event = NewEvent(self._ids.new(), type_, told, self._clock.now(), claim.follows)
        try:
            self._log.append(claim.stream, [event], expected_version=claim.version)
        except VersionConflict:
            return
