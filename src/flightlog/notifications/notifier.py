"""What a notifier is: a channel's configuration, and how one message goes out through it.

A notifier knows one kind of channel (Slack, e-mail, a webhook) and nothing of rules, incidents, retries or the log:
it gets a `Message`, sends it once, and returns a receipt or raises a `DeliveryError` that says whether trying again
makes sense. All else is the delivery's business.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, PrivateAttr, SecretStr

from flightlog.clock import Clock, SystemClock
from flightlog.errors import FlightlogError
from flightlog.masking import MASK
from flightlog.plugins.blocks import Block

Kind = Literal["opened", "updated", "escalated", "resolved", "digest", "drill"]
Severity = Literal["info", "warning", "error", "critical"]
Receipt = Mapping[str, str]
"""What a channel says of a message that it took, such as Slack's ``ts``: recorded, and handed to later messages."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The flow run that a message is about.

    Attributes:
        id: the run's id.
        name: its name.
        flow: its flow's name.
        state_type: the state that it is in, such as ``FAILED``.
        state_name: that state's name, such as ``TimedOut``.
        message: what the state says of itself.
        error: the exception, such as ``ValueError: 5 rows violate not_null(customer_id)``; None for none.
        where: the user's line that raised it, such as ``flows/etl.py:41``.
        task: the task that failed; None if it was the flow itself.
        attempt: which attempt that was; 0 if it never started.
        attempts: how many there may be.
        took: how long the run went, in microseconds; None if that is not known.
        usual: the median of earlier completed runs of the flow, in microseconds; None if there are too few.
        tasks: task runs by state type.
        earlier: the state types in which the latest runs of the flow ended, oldest first, this one last; seven at most.
        tags: its tags.
        url: where it can be looked at; None without a dashboard.
    """

    id: str
    name: str
    flow: str
    state_type: str
    state_name: str
    message: str | None = None
    error: str | None = None
    where: str | None = None
    task: str | None = None
    attempt: int = 0
    attempts: int = 0
    took: int | None = None
    usual: int | None = None
    tasks: Mapping[str, int] = field(default_factory=dict)
    earlier: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a message that is about several things.

    Attributes:
        at: when, in microseconds since 1970 (UTC).
        text: what happened, one line.
        run: the flow run's name; None for none.
        state_type: the state type that goes with it.
    """

    at: int
    text: str
    run: str | None = None
    state_type: str = "FAILED"


@dataclass(frozen=True, slots=True)
class Message:
    """One message, rendered and ready to be sent; the same at every attempt but for `repeat`.

    Attributes:
        key: the idempotency key: the same at every attempt to send this message.
        incident: the incident's id; empty for a digest.
        kind: what it says of the incident.
        rule: the rule's name.
        severity: how bad it is.
        subject: one line, without control characters.
        body: the text, lines of plain text.
        count: how many events the incident has so far.
        opened_at: when the incident began, in microseconds since 1970 (UTC).
        at: when the message became due, the same way.
        run: the flow run that it is about; None for none.
        entries: what it sums up: the latest events of the incident, or the incidents of a digest; oldest first.
        left_out: how many more entries there are.
        facts: further facts as label and value, in order.
        commands: commands that help now, in order.
        links: further places to look at, as label and URL, the most useful one first.
        group: what the incident's events have in common, such as ``flow=etl``.
        position: the log's position of the event that led to it.
        repeat: whether an earlier attempt may have arrived already: its outcome is not known.
        is_drill: whether it is a test, to be marked so.
        first: the receipt of the incident's first message through this channel; None if this is the first.
        reached: the receipt of an earlier attempt to send this very message that reached a part of its recipients,
            from `DeliveryError.reached`; None if there was none.
    """

    key: str
    incident: str
    kind: Kind
    rule: str
    severity: Severity
    subject: str
    body: str
    count: int = 1
    opened_at: int = 0
    at: int = 0
    run: RunFacts | None = None
    entries: tuple[Entry, ...] = ()
    left_out: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    commands: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    group: str = ""
    position: int = 0
    repeat: bool = False
    is_drill: bool = False
    first: Receipt | None = None
    reached: Receipt | None = None


class DeliveryError(FlightlogError):
    """A message did not go out, or may not have.

    Args:
        text: what happened, without secrets: it is recorded.
        is_final: whether trying again is of no use.
        retry_after: how many seconds the channel asks us to wait; None if it does not say.
        is_unknown: whether the message may have arrived all the same.
        code: the channel's answer, such as ``429`` or ``channel_not_found``.
        reached: what the next attempt has to know of this one, handed to it as `Message.reached`: such as which
            recipients have the message already. Recorded, so without secrets.
    """

    def __init__(
        self,
        text: str,
        *,
        is_final: bool = False,
        retry_after: float | None = None,
        is_unknown: bool = False,
        code: str | None = None,
        reached: Receipt | None = None,
    ) -> None:
        super().__init__(text)
        self.is_final = is_final
        self.retry_after = retry_after
        self.is_unknown = is_unknown
        self.code = code
        self.reached = reached


def masked(text: str, *secrets: SecretStr | str | None) -> str:
    """Return a text without secrets: what may be recorded.

    Args:
        text: what a channel or a library said.
        secrets: what must not be in it; None and empty ones do not count.
    """
    values = [one.get_secret_value() if isinstance(one, SecretStr) else one for one in secrets if one]
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


def token(text: str) -> str:
    """Return a key as headers can carry it: as it is, or its digest if it has other characters."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", text):
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Notifier(Block, ABC):
    """A channel's configuration, and how one message goes out through it. Its fields are what the user configures.

    Fields with secrets are `pydantic.SecretStr`. Whatever else a subclass needs is made in `send`, which is called in
    any thread and any event loop. As a block it is of the type that its kind says: ``slack-webhook/ops``.
    """

    model_config = ConfigDict(frozen=True)

    _block_schema_capabilities = ("notify",)

    kind: ClassVar[str]
    """What the channel is called in configurations, such as ``slack``."""
    threads: ClassVar[bool] = False
    """Whether an incident's later messages join its first one: then each change is worth one."""
    _clock: Clock = PrivateAttr(default_factory=SystemClock)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        if "kind" in vars(cls):
            cls._block_type_slug = cls.kind.replace("_", "-")
        super().__pydantic_init_subclass__(**kwargs)

    @abstractmethod
    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Send a message once.

        Args:
            message: the message.
            timeout: how many seconds it may take.

        Returns:
            What later messages of the incident need, and people want to look up; no secrets.

        Raises:
            DeliveryError: it did not go out, or may not have.
        """

    def check(self) -> str | None:
        """Say in a sentence what somebody ought to know of this configuration, though it works; None for nothing.

        What cannot work is refused when the configuration is made.
        """
        return None
