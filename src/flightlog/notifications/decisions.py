"""What the fold of rules decides: the same whether it is carried out, or only shown by a back-test."""

from dataclasses import dataclass
from typing import Literal

from flightlog.notifications.notifier import Kind
from flightlog.notifications.state import Incident, Occurrence

What = Literal["opened", "updated", "resolved"]


@dataclass(frozen=True, slots=True)
class IncidentChanged:
    """An incident began, got another event, or ended.

    Attributes:
        what: which of these.
        at: when, in microseconds since 1970 (UTC).
        incident: the incident's id.
        rule: the rule.
        group: what its events have in common.
        count: how many events it has.
        cause: what brought it about.
        reason: why, in words.
    """

    what: What
    at: int
    incident: str
    rule: str
    group: str
    count: int
    cause: Occurrence
    reason: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """Something that might have led to a message did not, at least for now.

    Attributes:
        at: when, in microseconds since 1970 (UTC).
        rule: the rule.
        group: what the events have in common; empty where that was not asked yet.
        incident: the incident; empty if there is none.
        cause: what was matched.
        reason: a word for why: ``held``, ``counted``, ``recovered``, ``inhibited``, ``silenced``, ``muted``,
            ``flapping``, ``grouped``, ``unrouted``, ``limited``, ``gathered``.
        text: why, in words.
    """

    at: int
    rule: str
    group: str
    incident: str
    cause: Occurrence
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that is due, not rendered yet.

    Attributes:
        key: its idempotency key.
        at: when it is due, in microseconds since 1970 (UTC).
        channel: through which channel.
        kind: what it says.
        rule: the rule; for a digest of several, the first one's.
        incident: the incident as it stands; None for a digest.
        note: something to be said besides.
        entries: for a digest, what it sums up: when, rule, group, text, run, state type.
        left_out: how many more there are.
        ends: how the flow's latest runs ended.
        usual: the median duration of the flow's runs, in microseconds; None if too few are known.
        first: the key of the incident's first message through the channel; empty if this is the first.
        cause: the last event that led to it.
    """

    key: str
    at: int
    channel: str
    kind: Kind
    rule: str
    incident: Incident | None
    cause: Occurrence
    note: str = ""
    entries: tuple[dict[str, object], ...] = ()
    left_out: int = 0
    ends: tuple[str, ...] = ()
    usual: int | None = None
    first: str = ""


Decision = IncidentChanged | Withheld | Draft
