"""``flightlog notify``: what became of each message and incident, and what somebody does about it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flightlog.cli.decisions import message_document, show_decisions, show_message
from flightlog.cli.main import NOT_FOUND, OK
from flightlog.cli.notify_rules import channels, rules
from flightlog.cli.notify_trials import backtest, drill, why
from flightlog.cli.printing import color_option, complain, json_option, not_found, note, print_json, table
from flightlog.cli.reading import actor, reading, writing
from flightlog.clock import isoformat

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine
    from flightlog.notifications.responding import Responder

_COLORS = {"delivered": "green", "dead": "red", "waiting": "yellow", "sending": "blue", "queued": "bright_black"}


@click.group()
def notify() -> None:
    """Say who is told of what; see what became of each message, and why.

    Rules and channels stand in notifications.toml (in the working directory, or in FLIGHTLOG_HOME), are set here, or in
    Python. Whatever counts is on record in the log.
    """


@notify.command("ledger", short_help="List the messages, and what became of each.")
@click.option("--status", type=click.Choice(["queued", "sending", "waiting", "delivered", "dead"]), help="Only these.")
@click.option("--rule", help="Only of this rule.")
@click.option("--channel", help="Only through this channel.")
@click.option("--last", default=50, show_default=True, type=click.IntRange(1), help="How many of the latest.")
@json_option
@color_option
def ledger(status: str | None, rule: str | None, channel: str | None, last: int, as_json: bool) -> None:
    """List the messages, with what became of each.

    \b
    Examples:
      flightlog notify ledger
      flightlog notify ledger --status dead --json
    """
    from flightlog.notifications.ledger import entries

    with reading() as log:
        found = [
            one
            for one in entries(log)
            if status in (None, one.status) and rule in (None, one.rule) and channel in (None, one.channel)
        ][-last:]
    if as_json:
        print_json([message_document(one) for one in found])
        return
    rows = [
        (one.key[:8], one.status, isoformat(one.due), one.channel, one.kind, str(one.attempts),
         one.message.subject if one.problem is None else f"{one.message.subject} ({one.problem})")
        for one in found
    ]  # fmt: skip
    table(
        ["MESSAGE", "STATE", "WHEN", "CHANNEL", "KIND", "TRIES", "SUBJECT"],
        rows,
        [_COLORS[one.status] for one in found],
    )
    if not rows:
        note("No messages.")


@notify.command("incidents", short_help="List the incidents: what goes on, and what is over.")
@click.option("--open", "only_open", is_flag=True, help="Only those that go on.")
@click.option("--last", default=50, show_default=True, type=click.IntRange(1), help="How many of the latest.")
@json_option
@color_option
def list_incidents(only_open: bool, last: int, as_json: bool) -> None:
    """List the incidents.

    \b
    Examples:
      flightlog notify incidents --open
    """
    from dataclasses import asdict

    from flightlog.ids import id_text
    from flightlog.notifications.ledger import incidents

    with reading() as log:
        found = [one for one in incidents(log) if not only_open or one.resolved_at is None][-last:]
    if as_json:
        print_json([{**asdict(one), "run": None if one.run is None else id_text(one.run)} for one in found])
        return
    rows = [
        (one.id[:8], "open" if one.resolved_at is None else "over", isoformat(one.opened_at), one.rule, one.group,
         str(one.count), one.acknowledged_by or "", one.text)
        for one in found
    ]  # fmt: skip
    table(["INCIDENT", "STATE", "WHEN", "RULE", "GROUP", "EVENTS", "LOOKED AFTER BY", "TEXT"], rows)
    if not rows:
        note("No incidents.")


@notify.command("show", short_help="Show a message or an incident, and all that was decided on it.")
@click.argument("what")
@json_option
@color_option
def show(what: str, as_json: bool) -> int:
    """Show a message (its text, its attempts) or an incident (all that was decided on it), by the beginning of its id.

    \b
    Examples:
      flightlog notify show 1f0c3a9e
    """
    from flightlog.notifications.ledger import decisions_of, entries, find, incidents

    with reading() as log:
        messages = {one.key: one for one in entries(log)}
        known = {one.id: one for one in incidents(log)}
        found = find([*messages, *known], what)
        if len(found) != 1:
            return _ambiguous("message or incident", what, found, [*messages, *known])
        if found[0] in messages:
            show_message(messages[found[0]], as_json=as_json)
        else:
            show_decisions(decisions_of(log, found[0]), as_json=as_json)
    return OK


def _ambiguous(kind: str, what: str, found: list[str], known: list[str]) -> int:
    if not found:
        return not_found(kind, what, [one[:8] for one in known])
    complain(f"{what!r} fits {len(found)}: type more of it.")
    return NOT_FOUND


@notify.command("retry", short_help="Send messages again that were given up.")
@click.argument("messages", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that were given up.")
@color_option
def retry(messages: tuple[str, ...], everything: bool) -> int:
    """Queue messages again that were given up, and send them.

    \b
    Examples:
      flightlog notify retry 1f0c3a9e
      flightlog notify retry --all
    """
    from flightlog.notifications.ledger import entries, find

    if not messages and not everything:
        raise click.UsageError("Name messages, or say --all.")
    with writing() as engine:
        dead = [one.key for one in entries(engine.log) if one.status == "dead"]
        chosen = dead if everything else []
        for message in messages:
            found = find(dead, message)
            if len(found) != 1:
                return _ambiguous("message that was given up", message, found, dead)
            chosen += found
        _responder(engine).retry(chosen)
    note(f"{len(chosen)} messages are queued again.")
    return _deliver() if chosen else OK


@notify.command("ack", short_help="Say that you look after an incident.")
@click.argument("incident")
@click.option("--comment", default="", help="What you are doing about it.")
@color_option
def acknowledge(incident: str, comment: str) -> int:
    """Say that you look after an incident: nobody else is told of it any more.

    \b
    Examples:
      flightlog notify ack 7be1d2c4 --comment "restoring the table"
    """
    from flightlog.notifications.ledger import find, incidents

    with writing() as engine:
        known = [one.id for one in incidents(engine.log) if one.resolved_at is None]
        found = find(known, incident)
        if len(found) != 1:
            return _ambiguous("open incident", incident, found, known)
        _responder(engine).acknowledge(found[0], comment)
    note(f"You look after the incident {found[0][:8]}.")
    return OK


def _responder(engine: "Engine") -> "Responder":
    from flightlog.notifications.responding import Responder

    return Responder(engine.log, engine.clock, engine.ids, actor())


@notify.command("silence", short_help="Be told nothing of some incidents for a time.")
@click.argument("span", metavar="SPAN|end")
@click.option("--rule", multiple=True, help="Of these rules; of all by default.")
@click.option("--flow", multiple=True, help="Of these flows.")
@click.option("--tag", "tags", multiple=True, help="Of runs with these tags.")
@click.option("--comment", default="", help="Why.")
@color_option
def silence(span: str, rule: tuple[str, ...], flow: tuple[str, ...], tags: tuple[str, ...], comment: str) -> int:
    """Be told nothing of some incidents for a span such as 2h; what still goes on then is told afterwards.

    `end` ends all silences at once.

    \b
    Examples:
      flightlog notify silence 2h --flow 'etl-*' --comment "database move"
      flightlog notify silence end
    """
    from flightlog.notifications.durations import microseconds
    from flightlog.notifications.rules import Silence

    with writing() as engine:
        if span == "end":
            _responder(engine).end_silences()
            note("All silences are over.")
            return OK
        try:
            length = microseconds(span)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="SPAN") from None
        about = Silence(rule=rule, flow=flow, tags=tags, comment=comment)
        _, until = _responder(engine).silence(length, about)
    note(f"Silence until {isoformat(until)}. To end it: flightlog notify silence end")
    return OK


@notify.command("run", short_help="Fold the rules and send what is due; with --watch, until Ctrl-C.")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, as a server would.")
@color_option
def run(watch: bool) -> int:
    """Do what processes that run flows do on the way: fold the rules over what has happened, and send what is due.

    \b
    Examples:
      flightlog notify run
      flightlog notify run --watch
    """
    return _deliver(watch=watch)


def _deliver(*, watch: bool = False) -> int:
    import math
    import threading

    from flightlog.events.subjects import outward
    from flightlog.notifications.finding import find_file
    from flightlog.notifications.service import Working, synchronise
    from flightlog.plugins.offers import Surroundings

    with writing() as engine:
        surroundings = Surroundings(engine.log, engine.key, engine.settings, engine.clock, engine.ids, outward)
        stop = threading.Event()
        if (file := find_file(Path.cwd(), engine.settings.home)) is not None:
            synchronise(surroundings, file)
        with Working(surroundings) as working:
            while watch:
                working.step()
                working.wait(1.0, stop)
            working.finish(math.inf)
            sent, left = working.senders.sent, working.delivery.left
    note(f"{sent} messages tried, {left} wait for another attempt.")
    return OK


for _command in (rules, channels, drill, backtest, why):
    notify.add_command(_command)
