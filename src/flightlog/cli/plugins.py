"""``flightlog plugins``: which there are, how they fare, and what they would do."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import color_option, json_option, not_found, note, print_json, say, table
from flightlog.cli.reading import reading
from flightlog.errors import PluginError
from flightlog.plugins.scaffold import KINDS, new_plugin

if TYPE_CHECKING:
    from flightlog.events.model import Event
    from flightlog.plugins.host import Host
    from flightlog.plugins.observers import Follower
    from flightlog.plugins.plugin import Plugin

_COLORS = {"skipped": "red", "switched off": "red", "not wanted": "yellow"}


@click.group()
def plugins() -> None:
    """See which plug-ins there are, what they do, and what is wrong with them.

    A plug-in is installed with pip, and found by its metadata. FLIGHTLOG_PLUGINS_ALLOW, FLIGHTLOG_PLUGINS_DENY and
    FLIGHTLOG_PLUGINS_MODE say which are used; FLIGHTLOG_PLUGINS_FOLDER=true takes the files in ./flightlog_plugins.
    """


def _host() -> "Host":
    from flightlog.plugins.host import current_host

    return current_host(insist=False)


@plugins.command("ls")
@json_option
@color_option
def list_plugins(as_json: bool) -> None:
    """List the plug-ins by what they say of themselves; none is imported for it.

    \b
    Examples:
      flightlog plugins ls
      flightlog plugins ls --json
    """
    found = _host().plugins
    if as_json:
        print_json([_document(plugin) for plugin in found])
        return
    rows = [(p.name, p.manifest.version, p.status, _source(p), ", ".join(p.manifest.hooks)) for p in found]
    table(["PLUG-IN", "VERSION", "STATUS", "FROM", "HOOKS"], rows, [_COLORS.get(p.status) for p in found])
    if not found:
        note("No plug-ins. To begin one: flightlog plugins new NAME")


@plugins.command("show", short_help="Show one plug-in: what it offers, and what went wrong with it.")
@click.argument("name")
@json_option
@color_option
def show(name: str, as_json: bool) -> int:
    """Show what a plug-in says of itself, its settings, and what the log says went wrong with it.

    \b
    Examples:
      flightlog plugins show slack
    """
    host = _host()
    plugin = host.plugin(name)
    if plugin is None:
        return not_found("plug-in", name, [plugin.name for plugin in host.plugins])
    settings, problems = _settings(host, plugin), [_problem(event) for event in _recorded(name)]
    if as_json:
        print_json({**_document(plugin), "settings": settings, "problems": problems})
        return OK
    say(f"{plugin.name} {plugin.manifest.version}".rstrip(), bold=True)
    for label, text in _facts(plugin).items():
        say(f"  {label:<9} {text}")
    for setting in settings:
        say(f"  {setting['name']} ({setting['from']}): {setting['help']}")
    for problem in problems:
        say(f"  {problem['at']}  {problem['what']}  {problem['hook'] or ''}  {problem['problem']}")
    return OK


def _facts(plugin: "Plugin") -> dict[str, str]:
    manifest = plugin.manifest
    facts = {"status": f"{plugin.status}: {plugin.reason}" if plugin.reason else plugin.status, "from": _source(plugin)}
    if not manifest.is_own:
        facts["made for"] = f"Flightlog {manifest.made_for}" if manifest.made_for else "it does not say"
    return {**facts, "offers": ", ".join(manifest.contributes) or "nothing"}


def _settings(host: "Host", plugin: "Plugin") -> list[dict[str, str]]:
    """Return the settings of a plug-in; their values may be secrets."""
    from flightlog.plugins import own_settings

    given, prefix = own_settings.given(host, plugin), own_settings.prefix_of(plugin.name)
    known = own_settings.known(host, plugin)
    sources = [(one, "set" if one.name in given else f"default: {one.default!r}") for one in known]
    return [{"name": prefix + one.name, "help": one.help, "from": source} for one, source in sources]


@plugins.command("doctor", short_help="Import every plug-in, and say what is wrong with it.")
@json_option
@color_option
def doctor(as_json: bool) -> int:
    """Import every plug-in, ask it for what it offers, and say what is wrong. Exit code 1 if anything is.

    \b
    Examples:
      flightlog plugins doctor
    """
    from flightlog.plugins.examination import examine

    found = examine(_host())
    if as_json:
        print_json([{"plugin": finding.plugin, "problem": finding.problem} for finding in found])
    for finding in found if not as_json else ():
        say(f"{'✓' if finding.problem is None else '✕'} {finding.plugin}: {finding.problem or finding.told}",
            fg=None if finding.problem is None else "red")  # fmt: skip
    return FAILED if any(finding.problem for finding in found) else OK


@plugins.command("trace", short_help="Hand recorded events to observers, and show each call.")
@click.argument("name", required=False)
@click.option("--run", "run", metavar="RUN", help="The events of this run: an id, a prefix, a name or @last.")
@click.option("--last", default=100, show_default=True, type=click.IntRange(1), help="How many of the latest events.")
@color_option
def trace(name: str | None, run: str | None, last: int) -> int:
    """Hand events that are on record to the plug-ins that observe, and show each call: hook, time, what went wrong.

    What a plug-in does with them it does for real. Nothing is put on record of the calls.

    \b
    Examples:
      flightlog plugins trace
      flightlog plugins trace my-plugin --run @last
    """
    from flightlog.plugins.examination import traced

    host = _host()
    if name is not None and (code := _is_unusable(host, name)) is not None:
        return code
    with reading() as log:
        rows = [
            (call.plugin, call.hook, call.what, f"{call.took * 1000:.1f} ms", call.problem or "")
            for call in traced(host, log, _events(log, run, last), name)
        ]
    table(["PLUG-IN", "HOOK", "WITH", "TOOK", "PROBLEM"], rows, ["red" if row[-1] else None for row in rows])
    if not rows:
        note("No plug-in observes events." if name is None else f"{name} observes no events.")
    return FAILED if any(row[-1] for row in rows) else OK


def _is_unusable(host: "Host", name: str) -> int | None:
    """Say why a plug-in cannot be used, and return the exit code for that; None if it can."""
    plugin = host.plugin(name)
    if plugin is None:
        return not_found("plug-in", name, [plugin.name for plugin in host.plugins])
    if not plugin.is_usable:
        note(f"{name} is {plugin.status}: {plugin.reason}.")
        return FAILED
    return None


def _events(log: Any, run: str | None, last: int) -> "Sequence[Event]":
    if run is None:
        return list(log.read_all(max(0, log.head().position - last)))
    from flightlog.cli.reading import projected
    from flightlog.events.types import flow_run_stream
    from flightlog.projections import queries

    with projected() as projector:
        return list(log.read(flow_run_stream(queries.find_flow_run(projector, run).id)))


@plugins.command("run", short_help="Hand over what no process has handed over yet.")
@color_option
def run() -> int:
    """Hand every event to the plug-ins that must miss none (`on_log_events`), from where each has come; then end.

    Processes that run flows do so on the way. This is for what was left, and for plug-ins that were installed since.

    \b
    Examples:
      flightlog plugins run
    """
    from flightlog.cli.reading import writing
    from flightlog.plugins.event_types import learn_event_types
    from flightlog.plugins.hooks import DURABLE
    from flightlog.plugins.observers import Follower
    from flightlog.plugins.record import Record

    host = _host()
    learn_event_types(host)
    with writing() as engine:
        host.on_problem = Record(engine.surroundings).put
        came = [_handed_over(plugin.name, Follower(host, plugin, engine.log, None)) for plugin in host.usable(DURABLE)]
        host.on_problem = None
    if not came:
        note("No plug-in has asked for all events (on_log_events).")
    return OK if all(came) else FAILED


def _handed_over(name: str, follower: "Follower") -> bool:
    """Hand over what there is, and say how that went; tell if it went well."""
    from flightlog.plugins.observers import NotTaken

    try:
        count = follower.drain()
    except NotTaken as problem:
        note(f"{name} failed: {problem}. It gets the same events again next time.")
        return False
    note(f"{name}: another process is at it." if count is None else f"{name}: {count} events.")
    return True


@plugins.command("new", short_help="Write the beginnings of a plug-in.")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(KINDS)), default="observer", show_default=True, help="What it is to bring first."
)
@click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where its folder is made."
)
@color_option
def new(name: str, kind: str, directory: Path) -> None:
    """Write a distribution that can be installed and passes its own tests: package, tests, docs, CI, publishing.

    Its folder is named flightlog-NAME. Nothing is ever overwritten.

    \b
    Examples:
      flightlog plugins new teams --kind notifier
      flightlog plugins new audit-copy --directory ~/src
    """
    target = new_plugin(name, kind, directory, _taken())
    say(str(target))
    note(f"Now: cd {target} && pip install -e . pytest && python -m pytest")


def _taken() -> set[str]:
    """Return the names that a new plug-in must not have."""
    from flightlog.cli.main import cli
    from flightlog.engine.serializers import PICKLE, JSONSerializer
    from flightlog.plugins import manifests

    installed = {one.name for one in manifests.installed()}
    own = {PICKLE.type, JSONSerializer.type, "compressed", "threads", "sequential", "file", "s3", "flightlog"}
    return installed | own | set(cli.list_commands(click.Context(cli)))


@plugins.command("test", short_help="Run the contract suites that fit what a plug-in offers.")
@click.argument("name")
@click.option("--storage", "storages", multiple=True, metavar="URL", help="A place where its result storage may write.")
@click.option("-v", "--verbose", is_flag=True, help="Show each test.")
@color_option
def test(name: str, storages: tuple[str, ...], verbose: bool) -> int:
    """Run the suites of flightlog.testing that fit what an installed plug-in offers.

    They say what every plug-in, task runner, serializer, projection and result storage has to do. It needs pytest. The
    plug-in sees no run here: what it does with events it would do for real.

    \b
    Examples:
      flightlog plugins test dask
      flightlog plugins test vault --storage vault://scratch
    """
    from importlib.util import find_spec

    if (code := _is_unusable(_host(), name)) is not None:
        return code
    if find_spec("pytest") is None:
        raise PluginError("The suites run with pytest, which is not installed: pip install 'flightlog[test]'.")
    from flightlog.testing.conformance import left_out, run

    plugin = _host().plugin(name)
    for sentence in left_out(plugin, storages) if plugin is not None else ():
        note(sentence)
    return OK if run(name, storages, is_verbose=verbose) else FAILED


def _source(plugin: "Plugin") -> str:
    manifest = plugin.manifest
    return str(manifest.file) if manifest.file is not None else manifest.distribution


def _document(plugin: "Plugin") -> dict[str, Any]:
    manifest = plugin.manifest
    return {
        "name": manifest.name,
        "version": manifest.version or None,
        "status": plugin.status,
        "reason": plugin.reason or None,
        "from": _source(plugin),
        "made_for": manifest.made_for or None,
        "contributes": list(manifest.contributes),
        "hooks": list(manifest.hooks),
    }


def _recorded(name: str) -> "list[Event]":
    """Return what the log says of a plug-in; nothing if there is no log."""
    from flightlog.errors import LogUnavailable
    from flightlog.events.types import plugin_stream

    try:
        with reading() as log:
            return list(log.read(plugin_stream(name)))[-20:]
    except LogUnavailable:
        return []


def _problem(event: "Event") -> dict[str, Any]:
    from flightlog.clock import isoformat

    data = event.data
    return {
        "at": isoformat(event.occurred_at),
        "what": event.type.partition(".")[2].replace("_", " "),
        "hook": data.get("hook"),
        "problem": data["problem"],
        "failures": data.get("failures"),
    }
