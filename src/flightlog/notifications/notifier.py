"""What a notifier is: a channel's configuration, and how one message goes out through it.

A notifier knows one kind of channel (Slack, e-mail, a webhook) and nothing of rules, incidents, retries or the log:
it gets a `Message`, sends it once, and returns a receipt or raises a `DeliveryError` that says whether trying again
makes sense. All else is the delivery's business.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from flightlog.errors import FlightlogError

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
        group: what the incident's events have in common, such as ``flow=etl``.
        position: the log's position of the event that led to it.
        repeat: whether an earlier attempt may have arrived already: its outcome is not known.
        is_drill: whether it is a test, to be marked so.
        first: the receipt of the incident's first message through this channel; None if this is the first.
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
    group: str = ""
    position: int = 0
    repeat: bool = False
    is_drill: bool = False
    first: Receipt | None = None


class DeliveryError(FlightlogError):
    """A message did not go out, or may not have.

    Args:
        text: what happened, without secrets: it is recorded.
        is_final: whether trying again is of no use.
        retry_after: how many seconds the channel asks us to wait; None if it does not say.
        is_unknown: whether the message may have arrived all the same.
        code: the channel's answer, such as ``429`` or ``channel_not_found``.
    """

    def __init__(
        self,
        text: str,
        *,
        is_final: bool = False,
        retry_after: float | None = None,
        is_unknown: bool = False,
        code: str | None = None,
    ) -> None:
        super().__init__(text)
        self.is_final = is_final
        self.retry_after = retry_after
        self.is_unknown = is_unknown
        self.code = code


class Notifier(BaseModel, ABC):
    """A channel's configuration, and how one message goes out through it. Its fields are what the user configures.

    Fields with secrets are `pydantic.SecretStr`. Whatever else a subclass needs is made in `send`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str]
    """What the channel is called in configurations, such as ``slack``."""
    threads: ClassVar[bool] = False
    """Whether an incident's later messages join its first one: then each change is worth one."""

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

    def check(self) -> Any:
        """Say what is wrong with the configuration that the fields' types cannot say; None for nothing."""
        return None
