"""``flightlog NOUN VERB``. Sub-commands are imported when they are called, so that ``--help`` is quick."""

import os
import sys
from importlib import import_module
from typing import Any

import click

from flightlog.errors import BlockNotFound, FlightlogError, LogUnavailable, RunNotFound, ScriptError
from flightlog.names import did_you_mean
from flightlog.version import __version__

OK, FAILED, USAGE, NOT_FOUND, RUN_FAILED, RUN_CRASHED, RUN_CANCELLED, INTERRUPTED = 0, 1, 2, 3, 10, 11, 12, 130

EXIT_CODES = """\
Exit codes:

\b
    0   all is well
    1   the command failed
    2   the command line is wrong
    3   there is no such run, flow, block or log
   10   the run failed
   11   the run crashed
   12   the run was cancelled
  130   interrupted (Ctrl-C)
"""

# name -> (module, attribute, one line of help); the help of a group must not cost its import
_COMMANDS = {
    "run": ("flightlog.cli.run", "run", "Run a flow that is in a file or module."),
    "runs": ("flightlog.cli.runs", "runs", "List, show, watch, explain and resume flow runs."),
    "events": ("flightlog.cli.events", "events", "Read the log: what happened, in order."),
    "projections": ("flightlog.cli.projections", "projections", "See, check and rebuild what is derived from the log."),
    "metrics": ("flightlog.cli.metrics", "metrics", "Show how runs went over time; also as text for Prometheus."),
    "artifacts": ("flightlog.cli.artifacts", "artifacts", "See what runs left to look at."),
    "variables": ("flightlog.cli.artifacts", "variables", "See and set values that flows and people share."),
    "blocks": ("flightlog.cli.blocks", "blocks", "Keep configuration by name, its secrets encrypted."),
    "concurrency": ("flightlog.cli.concurrency", "concurrency", "Limit what runs at the same time; see who waits."),
    "notify": ("flightlog.cli.notify", "notify", "Say who is told of what; see what became of each message, and why."),
    "plugins": ("flightlog.cli.plugins", "plugins", "See which plug-ins there are, and what is wrong with them."),
    "upgrade": ("flightlog.cli.upgrading", "upgrade", "Rehearse an upgrade, and see what it would change."),
    "replay": ("flightlog.cli.log", "replay", "Rebuild the past in a database of its own, to look around in."),
    "log": ("flightlog.cli.log", "log", "Archive what is over, back the log up, copy it elsewhere."),
    "audit": ("flightlog.cli.audit", "audit", "Seal the log, publish checkpoints, verify that nothing was changed."),
    "doctor": ("flightlog.cli.doctor", "doctor", "Say where the log is, if it is sound, and how to mend what is not."),
    "config": ("flightlog.cli.config", "config", "See and change settings, and see where each comes from."),
    "profile": ("flightlog.cli.config", "profile", "Keep named sets of settings, and choose the one that counts."),
    "version": ("flightlog.cli.version", "version", "Show the versions of Flightlog and what it stands on."),
    "help": ("flightlog.cli.version", "help_", "Explain: exit-codes, environment."),
}
# what users may know from elsewhere, and what it is called here
_ALIASES = {
    "artifact": "artifacts",
    "block": "blocks",
    "concurrency-limit": "concurrency",
    "event": "events",
    "flow-run": "runs",
    "gcl": "concurrency",
    "global-concurrency-limit": "concurrency",
    "variable": "variables",
}
_TO_COME = {
    **dict.fromkeys(
        ("agent", "deploy", "deployment", "work-pool", "work-queue", "worker"), "It comes with deployments."
    ),
    **dict.fromkeys(("cloud", "orion", "server"), "There is no server, and none is needed: see `flightlog runs ls`."),
    "flow": "Runs of one flow: `flightlog runs ls --flow NAME`.",
    "task-run": "Task runs are shown with their flow run: `flightlog runs show RUN`.",
}

_HOOK = "register_commands"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names, as they are to be listed."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in _COMMANDS:
            return _of_plugins(cmd_name)
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command; name the nearest one if there is none."""
        known = args and (args[0] in _COMMANDS | _ALIASES or _of_plugins(args[0]) is not None)
        if args and not args[0].startswith("-") and not known:
            names = [*_COMMANDS, *_names_of_plugins()]
            hint = _TO_COME.get(args[0]) or did_you_mean(
                args[0], names, before="flightlog ", else_say=" See `flightlog --help`."
            )
            ctx.fail(f"There is no command {args[0]!r}. {hint.lstrip()}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])
        if brought := _names_of_plugins():
            with formatter.section("Commands of plug-ins"):
                formatter.write_dl([(name, f"Brought by {plugin}.") for name, plugin in sorted(brought.items())])


def _names_of_plugins() -> dict[str, str]:
    """Return the commands that plug-ins bring by their manifests, each with its plug-in; help is there in any case."""
    from flightlog.plugins.host import current_host

    try:
        plugins = current_host(insist=False).usable(_HOOK)
    except FlightlogError:
        return {}
    brought = {name: plugin.name for plugin in plugins for name in plugin.manifest.names(_HOOK)}
    return {name: plugin for name, plugin in brought.items() if name not in _COMMANDS}


def _of_plugins(name: str) -> click.Command | None:
    """Import a command that a plug-in brings."""
    from flightlog.plugins.host import current_host

    command = current_host().find(_HOOK, name)
    return command if isinstance(command, click.Command) else None


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  flightlog run pipeline.py:etl --param day='"2026-01-31"'
  flightlog runs ls
  flightlog runs logs @last
""",
)
@click.option("--profile", metavar="NAME", help="The profile whose settings count (FLIGHTLOG_PROFILE).")
@click.version_option(__version__, "-V", "--version", prog_name="flightlog")
def cli(profile: str | None) -> None:
    """Flightlog runs Python functions as flows of tasks, and records all that happens in one log.

    The log is $FLIGHTLOG_HOME/flightlog.db (by default in ~/.flightlog), or wherever FLIGHTLOG_LOG_URL says.
    """
    if profile is not None:
        os.environ["FLIGHTLOG_PROFILE"] = profile


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit; a known error is one line, never a traceback."""
    try:
        " ".join(sys.argv[1:] if args is None else args).encode()
    except UnicodeEncodeError:
        click.echo("Error: the command line is not in UTF-8.", err=True)
        sys.exit(USAGE)
    try:
        code = cli.main(args, prog_name="flightlog", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (RunNotFound, ScriptError, LogUnavailable, BlockNotFound) as error:
        _say(error)
        sys.exit(NOT_FOUND)
    except FlightlogError as error:
        _say(error)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as stop:
        # Whoever read our output has gone (`| head`). Click takes that for a failure, and leaves no other sign of it
        # than the name of what it puts in place of the output.
        sys.exit(OK if "Pacify" in type(sys.stdout).__name__ else stop.code)
    sys.exit(code if isinstance(code, int) else OK)


def _say(error: FlightlogError) -> None:
    click.echo(f"{click.style('Error:', fg='red')} {error}", err=True)
