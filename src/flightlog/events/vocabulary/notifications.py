"""Rules, incidents and notifications: what people set, what was decided, and what became of each message."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Microseconds, Payload, Process


class RuleSet(Payload):
    """Somebody made a rule, or changed it. The stream, ``rule/<name>``, says which."""

    name: str = Field(description="Its name.")
    rule: str = Field(description="The rule, as JSON.")
    source: str | None = Field(None, description="The file that it stands in; none if it was set by hand or in code.")


class RuleRemoved(Payload):
    """Somebody took a rule away."""

    name: str
    source: str | None = None


class ChannelSet(Payload):
    """Somebody made a channel, or changed it. Its secrets are not here: only where they are found."""

    name: str = Field(description="Its name.")
    channel: str = Field(description="The channel, as JSON.")
    source: str | None = Field(None, description="The file that it stands in; none if it was set by hand or in code.")


class ChannelRemoved(Payload):
    """Somebody took a channel away."""

    name: str
    source: str | None = None


class RoutesSet(Payload):
    """Somebody changed the routing tree."""

    routes: str = Field(description="The tree, as JSON.")
    source: str | None = None


class SilenceAdded(Payload):
    """Somebody (the actor) asked for silence about some incidents for a time."""

    silence: str = Field(description="Its id.")
    until: Microseconds = Field(description="When it ends.")
    rule: list[str] = Field([], description="Which rules; all if there is none.")
    flow: list[str] = Field([], description="Which flows; all if there is none.")
    tags: list[str] = Field([], description="Tags that the run must have.")
    comment: str = Field("", description="Why.")


class SilenceEnded(Payload):
    """Somebody ended a silence before its time."""

    silence: str


class Decided(Payload):
    """What all decisions say: which rule, about what, and why."""

    rule: str = Field(description="The rule.")
    group: str = Field(description="What the events have in common.")
    reason: str = Field(description="Why, in words.")
    text: str = Field(description="What happened.")
    at: Microseconds = Field(description="When it was due by the log's time.")
    flow_run_id: Identifier | None = Field(None, description="The flow run that it is about.")
    position: int = Field(0, ge=0, description="The position of the event that it follows from.")


class IncidentChange(Decided):
    """An incident began, got another event, or ended. The stream, ``incident/<id>``, says which."""

    incident: str = Field(description="Its id.")
    count: int = Field(ge=1, description="How many events it has.")


class NotificationWithheld(Decided):
    """Something that a rule matched led to no message, or not now."""

    incident: str | None = Field(None, description="The incident, if there is one.")
    why: str = Field(
        description="A word for the reason: held, counted, recovered, inhibited, silenced, muted, flapping, grouped, "
        "unrouted, limited, gathered, acknowledged."
    )


class IncidentAcknowledged(Payload):
    """Somebody (the actor) said that they look after an incident."""

    incident: str
    comment: str = ""


class NotificationQueued(Payload):
    """A message is due: it goes out until it is delivered or given up. The stream is ``notification/<key>``."""

    notification: str = Field(description="Its idempotency key.")
    channel: str = Field(description="Through which channel.")
    kind: str = Field(description="What it says: opened, updated, escalated, resolved, digest, drill.")
    rule: str
    incident: str | None = None
    first: str | None = Field(None, description="The key of the incident's first message through the channel.")
    message: str = Field(description="The message, rendered, as JSON.")
    due: Microseconds
    problem: str | None = Field(None, description="What was wrong with the rule's templates.")
    flow_run_id: Identifier | None = Field(None, description="The flow run that it is about.")


class NotificationAttempted(Payload):
    """A process is about to send it: committed before it does."""

    attempt: int = Field(ge=1)
    until: Microseconds = Field(description="After which others may take it that the process is gone.")
    process: Process


class NotificationDelivered(Payload):
    """The channel has taken it."""

    notification: str
    channel: str
    attempt: int = Field(ge=1)
    receipt: dict[str, str] = Field({}, description="What the channel says of it.")
    took: int = Field(ge=0, description="How long sending took, in microseconds.")


class NotificationFailed(Payload):
    """An attempt failed; another one follows."""

    notification: str
    channel: str
    attempt: int = Field(ge=1)
    problem: str = Field(description="What happened, secrets masked.")
    code: str | None = Field(None, description="The channel's answer.")
    retry_at: Microseconds = Field(description="When the next attempt is due.")
    unknown: bool = Field(False, description="The message may have arrived all the same.")
    reached: dict[str, str] = Field({}, description="What the next attempt has to know: who has the message already.")


class NotificationDead(Payload):
    """It is given up. `flightlog notify retry` queues it again."""

    notification: str
    channel: str
    attempt: int = Field(ge=0)
    problem: str = Field(description="What happened, secrets masked.")
    code: str | None = None


class NotificationRetried(Payload):
    """Somebody (the actor) asked for a message that was given up to be sent again."""

    notification: str


MODELS: dict[str, type[Payload]] = {
    "rule.set": RuleSet,
    "rule.removed": RuleRemoved,
    "channel.set": ChannelSet,
    "channel.removed": ChannelRemoved,
    "routes.set": RoutesSet,
    "silence.added": SilenceAdded,
    "silence.ended": SilenceEnded,
    "incident.opened": IncidentChange,
    "incident.updated": IncidentChange,
    "incident.resolved": IncidentChange,
    "incident.acknowledged": IncidentAcknowledged,
    "notification.withheld": NotificationWithheld,
    "notification.queued": NotificationQueued,
    "notification.attempted": NotificationAttempted,
    "notification.delivered": NotificationDelivered,
    "notification.failed": NotificationFailed,
    "notification.dead": NotificationDead,
    "notification.retried": NotificationRetried,
}
