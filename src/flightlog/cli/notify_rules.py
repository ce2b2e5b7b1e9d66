"""``flightlog notify rules`` and ``channels``: what is configured, changed and checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import color_option, complain, json_option, not_found, note, print_json, say, table
from flightlog.cli.reading import actor, reading, writing
from flightlog.settings import load

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine
    from flightlog.notifications.configuring import Configurator
    from flightlog.notifications.rules import Rule


@contextmanager
def _configuring() -> "Iterator[tuple[Engine, Configurator]]":
    from flightlog.notifications.configuring import Configurator

    with writing() as engine:
        yield engine, Configurator(engine.log, engine.clock, engine.ids, actor())


@click.group()
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


def _matched(rule: "Rule") -> str:
    parts = {key: " ".join(value) if isinstance(value, list) else value for key, value in _plain(rule.match).items()}
    return ", ".join(f"{name} {value}" for name, value in parts.items()) or "every failure"


@rules.command("add", short_help="Make a rule.")
@click.argument("name")
@click.option("--flow", multiple=True, help="Names of flows; `*` stands for anything.")
@click.option("--task", multiple=True, help="Names of tasks: the rule is then about task runs.")
@click.option("--tag", "tags", multiple=True, help="Tags that the run has.")
@click.option("--deployment", multiple=True, help="Names of the deployments that runs come from.")
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


def _save_rule(document: dict[str, Any]) -> int:
    from pydantic import ValidationError

    from flightlog.notifications.configuring import present
    from flightlog.notifications.rules import Rule

    try:
        rule = Rule.model_validate(document)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            complain(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg'].removeprefix('Value error, ')}")
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
        complain(f"That is no TOML: {error}. Nothing is changed.")
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
    from flightlog.notifications.files import read_file
    from flightlog.notifications.finding import find_file

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


@click.group()
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
        complain(told)
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


def _plain(rule: Any) -> dict[str, Any]:
    found: dict[str, Any] = rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return found


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
