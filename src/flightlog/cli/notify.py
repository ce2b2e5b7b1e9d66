"""``flightlog notify``: who is told of what, what became of each message, and why."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.main import FAILED, NOT_FOUND, OK
from flightlog.cli.printing import clean, color_option, json_option, not_found, note, print_json, say, table
from flightlog.cli.reading import actor, projected, reading, writing
from flightlog.clock import isoformat
from flightlog.settings import load

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine
    from flightlog.events.log import Log
    from flightlog.notifications.backtest import Outcome
    from flightlog.notifications.configuring import Configurator
    from flightlog.notifications.ledger import Entry
    from flightlog.notifications.rules import Rule

_STATUS_COLORS = {"delivered": "green", "dead": "red", "waiting": "yellow", "sending": "blue", "queued": "bright_black"}


@click.group()
def notify() -> None:
    """Say who is told of what; see what became of each message, and why.

    Rules and channels stand in notifications.toml (in the working directory, or in FLIGHTLOG_HOME), are set here, or in
    Python. Whatever counts is on record in the log.
    """


@contextmanager
def _configuring() -> "Iterator[tuple[Engine, Configurator]]":
    from flightlog.notifications.configuring import Configurator

    with writing() as engine:
        yield engine, Configurator(engine.log, engine.clock, engine.ids, actor())


def _complain(text: str) -> None:
    click.echo(f"{click.style('Error:', fg='red')} {text}", err=True)


# --- rules ------------------------------------------------------------------------------------------


@notify.group("rules")
def rules() -> None:
    """List, add, change and check rules."""


@rules.command("ls")
@json_option
@color_option
def list_rules(as_json: bool) -> None:
    """List the rules, with what they match and who is told.

    \b
    Examples:
      flightlog notify rules ls
    """
    from flightlog.notifications.configuring import present

    with reading() as log:
        found = present(log)
    if as_json:
        print_json(
            [
                {**_plain(rule), "source": found.sources.get(("rule", name))}
                for name, rule in sorted(found.rules.items())
            ]
        )
        return
    rows = [
        (name, rule.severity if rule.enabled else "off", _matched(rule), ", ".join(rule.channels) or "by routes",
         found.sources.get(("rule", name)) or "")
        for name, rule in sorted(found.rules.items())
    ]  # fmt: skip
    table(["RULE", "SEVERITY", "MATCHES", "CHANNELS", "FROM"], rows)
    if not rows:
        note("No rules yet. To make one: flightlog notify rules add NAME --flow 'etl-*' --channel ops")


def _plain(rule: Any) -> dict[str, Any]:
    found: dict[str, Any] = rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return found


def _matched(rule: "Rule") -> str:
    parts = {key: " ".join(value) if isinstance(value, list) else value for key, value in _plain(rule.match).items()}
    return ", ".join(f"{name} {value}" for name, value in parts.items()) or "every failure"


@rules.command("add", short_help="Make a rule.")
@click.argument("name")
@click.option("--flow", multiple=True, help="Names of flows; `*` stands for anything.")
@click.option("--task", multiple=True, help="Names of tasks: the rule is then about task runs.")
@click.option("--tag", "tags", multiple=True, help="Tags that the run has.")
@click.option("--state", multiple=True, help="State names or types; FAILED and CRASHED by default.")
@click.option("--event", multiple=True, help="Event types: the rule is then about these events.")
@click.option("--where", help='An expression, such as "data.attempt >= 2".')
@click.option("--channel", "channels", multiple=True, help="Who is told.")
@click.option("--severity", type=click.Choice(["info", "warning", "error", "critical"]), help="How bad it is.")
@click.option("--set", "more", multiple=True, metavar="KEY=VALUE", help="Anything else: threshold.consecutive=3.")
@color_option
def add_rule(name: str, channels: tuple[str, ...], severity: str | None, more: tuple[str, ...], **match: Any) -> int:
    """Make a rule. All that a file can say can be said with --set, in TOML's form.

    \b
    Examples:
      flightlog notify rules add "prod failures" --tag prod --channel ops
      flightlog notify rules add slow --flow etl --set 'threshold.slower_than="p95"' --channel ops
    """
    document: dict[str, Any] = {"name": name, "match": {key: value for key, value in match.items() if value}}
    document |= {"channels": channels} if channels else {}
    document |= {"severity": severity} if severity else {}
    for assignment in more:
        _assign(document, assignment)
    return _save_rule(document)


def _assign(document: dict[str, Any], assignment: str) -> None:
    """Put ``a.b=value`` into a document; the value is TOML, or else text."""
    import tomllib

    key, equals, value = assignment.partition("=")
    if not equals:
        raise click.BadParameter(f"{assignment!r} is not KEY=VALUE.", param_hint="--set")
    try:
        parsed = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *path, last = key.strip().split(".")
    for part in path:
        document = document.setdefault(part, {})
    document[last] = parsed


def _save_rule(document: dict[str, Any]) -> int:
    from pydantic import ValidationError

    from flightlog.notifications.configuring import present
    from flightlog.notifications.rules import Rule

    try:
        rule = Rule.model_validate(document)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            place = ".".join(str(part) for part in one["loc"])
            click.echo(
                f"{click.style('Error:', fg='red')} {place}: {one['msg'].removeprefix('Value error, ')}", err=True
            )
        return FAILED
    with _configuring() as (engine, configurator):
        known = present(engine.log)
        source = known.sources.get(("rule", rule.name))
        if source is not None:
            note(f"The rule {rule.name!r} stands in {source}: change it there.")
            return FAILED
        configurator.set_rule(rule)
    note(f"The rule {rule.name!r} is set.")
    for missing in [name for name in rule.channels if name not in known.channels]:
        note(f"There is no channel {missing!r} yet: flightlog notify channels add {missing} --kind slack-webhook ...")
    return OK


@rules.command("edit", short_help="Change a rule in your editor.")
@click.argument("name")
@color_option
def edit_rule(name: str) -> int:
    """Change a rule as TOML in $EDITOR; it is checked when you close it.

    \b
    Examples:
      flightlog notify rules edit "prod failures"
    """
    import tomllib

    import tomlkit

    from flightlog.notifications.configuring import present

    with reading() as log:
        found = present(log)
    if name not in found.rules:
        return not_found("rule", name, list(found.rules))
    text = click.edit(tomlkit.dumps(_plain(found.rules[name])), extension=".toml")
    if text is None:
        note("Nothing is changed.")
        return OK
    try:
        return _save_rule(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        _complain(f"That is no TOML: {error}. Nothing is changed.")
        return FAILED


@rules.command("rm", short_help="Take a rule away.")
@click.argument("name")
@color_option
def remove_rule(name: str) -> int:
    """Take a rule away. Its open incidents end; nobody is told.

    \b
    Examples:
      flightlog notify rules rm "prod failures"
    """
    from flightlog.notifications.configuring import present

    with _configuring() as (engine, configurator):
        found = present(engine.log)
        if name not in found.rules:
            return not_found("rule", name, list(found.rules))
        if (source := found.sources.get(("rule", name))) is not None and Path(source).exists():
            note(f"The rule {name!r} stands in {source}: take it out there.")
            return FAILED
        configurator.remove_rule(name)
    note(f"The rule {name!r} is gone.")
    return OK


@rules.command("check", short_help="Check a file, or what is configured.")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@color_option
def check(file: Path | None) -> int:
    """Check a configuration: its form, its names, its channels. Nothing is changed, and nothing sent.

    \b
    Examples:
      flightlog notify rules check
      flightlog notify rules check notifications.toml
    """
    from flightlog.errors import SettingsError
    from flightlog.notifications.configuring import present, problems_of
    from flightlog.notifications.files import find_file, read_file

    file = file or find_file(Path.cwd(), load().home)
    if file is None:
        with reading() as log:
            now = present(log)
        wanted = now.configuration()
        where = "what is configured"
    else:
        where = str(file)
        try:
            wanted = read_file(file)
        except SettingsError as error:
            click.echo(str(error), err=True)
            return FAILED
    problems = problems_of(wanted)
    for problem in problems:
        say(f"✕ {problem}", fg="red")
    if not problems:
        say(f"✓ {where}: {len(wanted.rules)} rules, {len(wanted.channels)} channels, nothing is wrong.", fg="green")
    return FAILED if problems else OK


# --- channels ---------------------------------------------------------------------------------------


@notify.group("channels")
def channels() -> None:
    """List, add and remove the ways that messages go out."""


@channels.command("ls")
@json_option
@color_option
def list_channels(as_json: bool) -> None:
    """List the channels; secrets are not shown, since they are not here.

    \b
    Examples:
      flightlog notify channels ls
    """
    from flightlog.notifications.configuring import present

    with reading() as log:
        found = present(log)
    if as_json:
        print_json([_plain(channel) for _, channel in sorted(found.channels.items())])
        return
    rows = [
        (name, channel.block or channel.kind or "", channel.rate or "", found.sources.get(("channel", name)) or "")
        for name, channel in sorted(found.channels.items())
    ]
    table(["CHANNEL", "KIND", "RATE", "FROM"], rows)
    if not rows:
        note("No channels yet. To make one: flightlog notify channels add ops --kind slack-webhook --set url=env:URL")


@channels.command("add", short_help="Make a channel, or change one.")
@click.argument("name")
@click.option("--kind", help="slack, slack-webhook, email, webhook, or one of a plug-in's.")
@click.option("--block", help="A saved block that is the configuration: slack-webhook/ops.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting; a secret as env:NAME.")
@click.option("--rate", help="So many messages at the most: 10/1h.")
@color_option
def add_channel(name: str, kind: str | None, block: str | None, settings: tuple[str, ...], rate: str | None) -> int:
    """Make a channel, or change the one of that name.

    \b
    Examples:
      flightlog notify channels add ops --kind slack-webhook --set url=env:SLACK_URL
      flightlog notify channels add mail --kind email --set host=mail.example.org --set sender=flightlog@example.org \\
        --set 'to=["ops@example.org"]' --set username=flightlog --set password=env:MAIL_PASSWORD
    """
    from pydantic import ValidationError

    from flightlog.notifications.channels import ChannelError, notifier_of
    from flightlog.notifications.rules import Channel

    document: dict[str, Any] = {"name": name, "settings": {}}
    document |= {key: value for key, value in {"kind": kind, "block": block, "rate": rate}.items() if value}
    for assignment in settings:
        _assign(document["settings"], assignment)
    try:
        channel = Channel.model_validate(document)
        with _configuring() as (_, configurator):
            configurator.set_channel(channel)
    except ValidationError as error:
        told = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        _complain(told)
        return FAILED
    note(f"The channel {name!r} is set. To see if it works: flightlog notify drill --channel {name}")
    try:
        notifier_of(channel)
    except ChannelError as error:
        note(f"For now it cannot be used: {error}")
    return OK


@channels.command("rm", short_help="Take a channel away.")
@click.argument("name")
@color_option
def remove_channel(name: str) -> int:
    """Take a channel away; messages that still wait for it are given up.

    \b
    Examples:
      flightlog notify channels rm ops
    """
    from flightlog.notifications.configuring import present

    with _configuring() as (engine, configurator):
        found = present(engine.log)
        if name not in found.channels:
            return not_found("channel", name, list(found.channels))
        configurator.remove_channel(name)
    note(f"The channel {name!r} is gone.")
    return OK


# --- messages and incidents -------------------------------------------------------------------------


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
        print_json([_document(one) for one in found])
        return
    rows = [
        (one.key[:8], one.status, isoformat(one.due), one.channel, one.kind, str(one.attempts),
         one.message.subject if one.problem is None else f"{one.message.subject} ({one.problem})")
        for one in found
    ]  # fmt: skip
    table(["MESSAGE", "STATE", "WHEN", "CHANNEL", "KIND", "TRIES", "SUBJECT"], rows, [None] * len(rows))
    if not rows:
        note("No messages.")


def _document(entry: "Entry") -> dict[str, Any]:
    from flightlog.ids import id_text

    return {
        "key": entry.key,
        "status": entry.status,
        "rule": entry.rule,
        "channel": entry.channel,
        "kind": entry.kind,
        "incident": entry.incident or None,
        "due": isoformat(entry.due),
        "attempts": entry.attempts,
        "problem": entry.problem,
        "next_attempt": None if entry.next_attempt is None else isoformat(entry.next_attempt),
        "delivered_at": None if entry.delivered_at is None else isoformat(entry.delivered_at),
        "receipt": entry.receipt,
        "flow_run_id": None if entry.run is None else id_text(entry.run),
        "subject": entry.message.subject,
    }


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
            _show_message(messages[found[0]], as_json=as_json)
        else:
            _show_decisions(decisions_of(log, found[0]), as_json=as_json)
    return OK


def _ambiguous(kind: str, what: str, found: list[str], known: list[str]) -> int:
    if not found:
        return not_found(kind, what, [one[:8] for one in known])
    _complain(f"{what!r} fits {len(found)}: type more of it.")
    return NOT_FOUND


def _show_message(entry: "Entry", *, as_json: bool) -> None:
    if as_json:
        print_json({**_document(entry), "body": entry.message.body})
        return
    say(clean(entry.message.subject), bold=True)
    say(f"{entry.status}, {entry.kind}, through {entry.channel}, rule {entry.rule}, message {entry.key[:8]}")
    say()
    say(clean(entry.message.body))
    say()
    for event in entry.events:
        data = event.data
        more = data.get("problem") or ", ".join(f"{key} {value}" for key, value in data.get("receipt", {}).items())
        attempt = f" {data['attempt']}" if "attempt" in data else ""
        say(f"{isoformat(event.recorded_at)}  {event.type.partition('.')[2]}{attempt}  {clean(more or '')}".rstrip())


def _show_decisions(events: Any, *, as_json: bool) -> int:
    rows, documents = [], []
    for event in events:
        told = _decision(event)
        documents.append(told)
        rows.append((told["at"], told["decision"], told["rule"], told["text"]))
    if as_json:
        print_json(documents)
    else:
        table(["WHEN", "DECISION", "RULE", "WHY"], rows)
    return len(rows)


def _decision(event: Any) -> dict[str, Any]:
    data, what = event.data, event.type.partition(".")[2]
    if what == "queued":
        what, why = "message", f"{data['kind']} through {data['channel']} ({data['notification'][:8]})"
    elif what == "withheld":
        what, why = f"no message: {data['why']}", f"{data['text']}: {data['reason']}"
    elif what == "acknowledged":
        what, why = "acknowledged", f"by {event.actor} {data.get('comment', '')}".rstrip()
    else:
        what, why = f"incident {what}", f"{data['text']}: {data['reason']}"
    return {
        "at": isoformat(event.occurred_at),
        "decision": what,
        "rule": data.get("rule", ""),
        "text": why,
        "incident": data.get("incident"),
        "position": data.get("position"),
    }


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
    from flightlog.events.model import Append, NewEvent
    from flightlog.events.types import NOTIFICATION_RETRIED, notification_stream
    from flightlog.notifications.ledger import entries, find
    from flightlog.projections.inline import INLINE

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
        engine.log.keep(INLINE)
        now = engine.clock.now()
        for key in chosen:
            event = NewEvent(engine.ids.new(), NOTIFICATION_RETRIED, {"notification": key}, now, actor=actor())
            engine.log.append_all([Append(notification_stream(key), [event])])
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
    from flightlog.events.types import INCIDENT_ACKNOWLEDGED, incident_stream
    from flightlog.notifications.ledger import find, incidents

    with writing() as engine:
        known = [one.id for one in incidents(engine.log) if one.resolved_at is None]
        found = find(known, incident)
        if len(found) != 1:
            return _ambiguous("open incident", incident, found, known)
        _put(engine, incident_stream(found[0]), INCIDENT_ACKNOWLEDGED, {"incident": found[0], "comment": comment})
    note(f"You look after the incident {found[0][:8]}.")
    return OK


def _put(engine: "Engine", stream: str, type_: str, facts: dict[str, Any]) -> None:
    from flightlog.events.model import NewEvent

    engine.log.append(stream, [NewEvent(engine.ids.new(), type_, facts, engine.clock.now(), actor=actor())])


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
    from flightlog.events.types import SILENCE_ADDED, SILENCE_ENDED, silence_stream
    from flightlog.ids import id_text
    from flightlog.notifications.durations import microseconds

    with writing() as engine:
        if span == "end":
            for identifier in _silences(engine.log, engine.clock.now()):
                _put(engine, silence_stream(identifier), SILENCE_ENDED, {"silence": identifier})
            note("All silences are over.")
            return OK
        try:
            until = engine.clock.now() + microseconds(span)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="SPAN") from None
        identifier = id_text(engine.ids.new())
        facts = {"silence": identifier, "until": until, "rule": list(rule), "flow": list(flow), "tags": list(tags)}
        _put(engine, silence_stream(identifier), SILENCE_ADDED, {**facts, "comment": comment})
    note(f"Silence until {isoformat(until)}. To end it: flightlog notify silence end")
    return OK


def _silences(log: "Log", now: int) -> list[str]:
    from flightlog.events.types import SILENCE_ADDED, SILENCE_ENDED

    found: dict[str, int] = {}
    for event in log.read_all(types=[SILENCE_ADDED, SILENCE_ENDED]):
        if event.type == SILENCE_ADDED:
            found[event.data["silence"]] = event.data["until"]
        else:
            found.pop(event.data["silence"], None)
    return [identifier for identifier, until in found.items() if until > now]


# --- doing and testing ------------------------------------------------------------------------------


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
    import threading

    from flightlog.masking import MASKER
    from flightlog.notifications.files import find_file
    from flightlog.notifications.service import Working, synchronise
    from flightlog.plugins.offers import Surroundings

    sent = 0
    with writing() as engine:
        surroundings = Surroundings(engine.log, engine.key, engine.settings, engine.clock, engine.ids, MASKER.mask)
        stop = threading.Event()
        if (file := find_file(Path.cwd(), engine.settings.home)) is not None:
            synchronise(surroundings, file)
        with Working(surroundings) as working:
            while working.step() or watch:
                sent = working.sent
                if watch:
                    working.wait(1.0, stop)
            left = working.delivery.left
    note(f"{sent} messages tried, {left} wait for another attempt.")
    return OK


@notify.command("drill", short_help="Send a marked test through a real channel.")
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


@notify.command("backtest", short_help="Show what rules would have sent.")
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
    say(f"{outcome.events} events -> {total} messages", bold=True)
    for channel, count in sorted(outcome.messages.items()):
        say(f"  {channel}: {count}")
    for reason, count in sorted(outcome.withheld.items()):
        say(f"  no message, {reason}: {count}")
    return OK


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


@notify.command("why", short_help="Say why somebody was, or was not, told of a run.")
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
        print_json({"run": found.id, "decisions": [_decision(event) for event in events], "not_matched": dict(others)})
        return OK
    if events:
        _show_decisions(events, as_json=False)
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
