"""Rules on the past: what they would have sent, and why each event did or did not lead to a message.

It is the same fold as live. What it decides is shown, and neither put on record nor sent.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flightlog.events.log import Log
from flightlog.notifications.decisions import Decision, Draft, IncidentChanged, Withheld
from flightlog.notifications.folding import Fold
from flightlog.notifications.following import Created
from flightlog.notifications.rules import Configuration

_PAGE = 500


@dataclass(slots=True)
class Outcome:
    """What a back-test found.

    Attributes:
        events: how many events the rules matched.
        decisions: what was decided, in order.
        messages: how many messages would have gone out, by channel.
        withheld: how many matches led to no message, by reason.
    """

    events: int = 0
    decisions: list[Decision] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)


def decided(
    log: Log, *, only: Configuration | None = None, since: int = 0, until: int | None = None, now: int | None = None
) -> Iterator[Decision]:
    """Yield what the rules decide over the log, in order.

    Args:
        log: the log.
        only: a configuration to use instead of those that the log has; else they count from when to when they did.
        since: from which moment on decisions are shown, in microseconds since 1970 (UTC); what came before is folded
            all the same, since counts and open incidents rest on it.
        until: the last position that counts; None for all.
        now: up to which moment timers fire after the last event; None for none.
    """
    fold = Fold(Created(log), only=only)
    after, end = 0, log.head().position if until is None else until
    while after < end:
        types = fold.types
        events = [
            event for event in log.page(after, None if types is None else sorted(types), _PAGE) if event.position <= end
        ]
        if not events:
            break
        for event in events:
            after = event.position
            yield from (one for one in fold.apply(event) if one.at >= since)
            if event.type.startswith("rule."):
                break  # the rules may need other events from here on
    if now is not None:
        yield from (one for one in fold.tick(now) if one.at >= since)


def outcome_of(decisions: Iterable[Decision], rules: set[str] | None = None) -> Outcome:
    """Count what was decided.

    Args:
        decisions: what was decided.
        rules: the rules that count; None for all.
    """
    found = Outcome()
    matched: set[tuple[str, str]] = set()
    for decision in decisions:
        if rules is not None and decision.rule not in rules:
            continue
        found.decisions.append(decision)
        match decision:
            case Draft():
                found.messages[decision.channel] += 1
            case Withheld():
                found.withheld[decision.reason] += 1
                if not decision.incident:  # of an incident, a run that ends it is withheld too; that matched nothing
                    matched.add((decision.rule, decision.cause.event or f"clock {decision.at}"))
            case IncidentChanged() if decision.what != "resolved":
                matched.add((decision.rule, decision.cause.event or f"clock {decision.at}"))
    found.events = len(matched)
    return found
