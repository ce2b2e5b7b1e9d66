"""``flightlog notify drill``, ``backtest`` and ``why``: what rules would do, and what they made of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.decisions import decision_document, show_decisions
from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import clean, color_option, json_option, not_found, note, print_json, say, table
from flightlog.cli.reading import projected, reading, writing
from flightlog.clock import isoformat

if TYPE_CHECKING:
    from flightlog.events.log import Log
    from flightlog.notifications.backtest import Outcome


@click.command("drill", short_help="Send a marked test through a real channel.")
@click.argument("rule", required=False)
@click.option("--channel", "names", multiple=True, help="Through these channels; those of the rule by default.")
@color_option
def drill(rule: str | None, names: tuple[str, ...]) -> int:
    """Send a message, marked as a drill, through the channels of a rule, and say what became of it.

    \b
    Examples:
      flightlog notify drill "prod failures"
      flightlog notify drill --channel ops
    """
    from flightlog.notifications.configuring import present
    from flightlog.notifications.drills import drill as send

    with writing() as engine:
        now = present(engine.log)
        if rule is not None and rule not in now.rules:
            return not_found("rule", rule, list(now.rules))
        chosen = names or (now.rules[rule].channels if rule is not None else ())
        if not chosen:
            raise click.UsageError("Name a rule that has channels, or a channel: --channel NAME.")
        for name in chosen:
            if name not in now.channels:
                return not_found("channel", name, list(now.channels))
        failed = False
        for outcome in send(engine.log, engine.clock, engine.ids, [now.channels[name] for name in chosen], rule):
            failed = failed or outcome.problem is not None
            text = outcome.problem or f"delivered in {outcome.took / 1e6:.2f} s"
            say(f"{'✕' if outcome.problem else '✓'} {outcome.channel}: {clean(text)}",
                fg="red" if outcome.problem else "green")  # fmt: skip
    return FAILED if failed else OK


@click.command("backtest", short_help="Show what rules would have sent.")
@click.option("--rule", "names", multiple=True, help="Only these rules; all by default.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The rules of this file.")
@click.option("--since", default="30d", show_default=True, help="How far back: a span, or a time.")
@click.option("--verbose", is_flag=True, help="Each event, and why it did or did not lead to a message.")
@json_option
@color_option
def backtest(names: tuple[str, ...], file: Path | None, since: str, verbose: bool, as_json: bool) -> int:
    """Show what rules would have sent over what is on record: the same code as live, with nothing sent.

    \b
    Examples:
      flightlog notify backtest --rule "prod failures" --since 30d
      flightlog notify backtest --file notifications.toml --verbose
    """
    from flightlog.notifications.backtest import decided, outcome_of
    from flightlog.notifications.configuring import completed, present
    from flightlog.notifications.files import read_file
    from flightlog.notifications.rules import Configuration

    with reading() as log:
        now = log.store.now()
        configured = present(log)
        wanted = configured.configuration() if file is None else read_file(file)
        chosen = {rule.name: rule for rule in wanted.rules}
        for name in names:
            if name not in chosen:
                return not_found("rule", name, list(chosen))
        only = Configuration(
            rules=tuple(chosen[name] for name in names or chosen),
            channels=tuple(completed(channel) for channel in wanted.channels),
            routes=wanted.routes,
        )
        is_live = file is None and not names
        decisions = decided(log, only=None if is_live else only, since=_moment(since, now), now=now)
        outcome = outcome_of(decisions, None if not names else set(names))
    if as_json:
        print_json(_outcome_document(outcome))
        return OK
    if verbose:
        table(["WHEN", "DECISION", "RULE", "WHY"], [_row(one) for one in outcome.decisions])
    total = sum(outcome.messages.values())
    say(f"{_many(outcome.events, 'event')} -> {_many(total, 'message')}", bold=True)
    for channel, count in sorted(outcome.messages.items()):
        say(f"  {channel}: {count}")
    for reason, count in sorted(outcome.withheld.items()):
        say(f"  no message, {reason}: {count}")
    return OK


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _moment(since: str, now: int) -> int:
    from datetime import datetime

    from flightlog.notifications.durations import microseconds

    try:
        return now - microseconds(since)
    except ValueError:
        pass
    try:
        return round(datetime.fromisoformat(since).astimezone().timestamp() * 1e6)
    except ValueError:
        raise click.BadParameter(f"{since!r} is neither a span (30d) nor a time (2026-01-31).") from None


def _row(decision: Any) -> tuple[str, str, str, str]:
    from flightlog.notifications.decisions import Draft, Withheld

    at = isoformat(decision.at)
    if isinstance(decision, Draft):
        return at, f"message ({decision.kind})", decision.rule, f"{decision.cause.text} → {decision.channel}"
    if isinstance(decision, Withheld):
        return at, f"no message: {decision.reason}", decision.rule, f"{decision.cause.text}: {decision.text}"
    return at, f"incident {decision.what}", decision.rule, f"{decision.cause.text}: {decision.reason}"


def _outcome_document(outcome: "Outcome") -> dict[str, Any]:
    rows = [dict(zip(("at", "decision", "rule", "why"), _row(one), strict=True)) for one in outcome.decisions]
    return {
        "events": outcome.events,
        "messages": dict(outcome.messages),
        "withheld": dict(outcome.withheld),
        "decisions": rows,
    }


@click.command("why", short_help="Say why somebody was, or was not, told of a run.")
@click.argument("run")
@json_option
@color_option
def why(run: str, as_json: bool) -> int:
    """Say what every rule made of a run: told, held back, or not matched, and why.

    \b
    Examples:
      flightlog notify why @last-failed
    """
    from flightlog.ids import parse_id
    from flightlog.notifications.ledger import decisions_on
    from flightlog.projections import queries

    with projected() as projector:
        found = queries.find_flow_run(projector, run)
        log = projector.log
        events = list(decisions_on(log, parse_id(found.id)))
        others = _unmatched(log, found.id, {event.data["rule"] for event in events})
    if as_json:
        print_json(
            {"run": found.id, "decisions": [decision_document(event) for event in events], "not_matched": dict(others)}
        )
        return OK
    if events:
        show_decisions(events, as_json=False)
    for name, reason in others:
        say(f"The rule {name!r} does not match: {reason}.")
    if not events and not others:
        note("There are no rules.")
    return OK


def _unmatched(log: "Log", run: str, seen: set[str]) -> list[tuple[str, str]]:
    """Return the rules that have decided nothing on a run, with why."""
    from flightlog.events.types import flow_run_stream
    from flightlog.notifications.configuring import present
    from flightlog.notifications.explaining import why_not
    from flightlog.notifications.following import Created
    from flightlog.notifications.matching import occurrence_of
    from flightlog.notifications.state import RunMemory

    events = [event for event in log.read(flow_run_stream(run)) if event.type.startswith("flow_run.")]
    created = events[0].data
    memory = RunMemory(created["flow"], created["name"], list(created.get("tags") or ()))
    look_up, last = Created(log), events[-1]
    occurrence = occurrence_of(last, memory, look_up)
    return [
        (name, _reason(why_not(rule, occurrence, last, look_up)))
        for name, rule in sorted(present(log).rules.items())
        if name not in seen
    ]


def _reason(text: str) -> str:
    from flightlog.notifications.explaining import MATCHES

    if text != MATCHES:
        return text
    return "it would, but nobody has looked yet, or the rule is younger (flightlog notify run; notify backtest)"
