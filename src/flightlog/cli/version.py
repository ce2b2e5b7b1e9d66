"""``flightlog version`` and ``flightlog help``."""

import platform
import sqlite3
from importlib.metadata import version as version_of

import click

from flightlog.cli.main import EXIT_CODES
from flightlog.cli.printing import color_option, json_option, print_json, say, table
from flightlog.settings import SETTINGS
from flightlog.version import __version__

_LIBRARIES = ("click", "msgpack", "pydantic", "rich", "sqlalchemy")


@click.command()
@json_option
@color_option
def version(as_json: bool) -> None:
    """Show the versions of Flightlog and what it stands on.

    \b
    Examples:
      flightlog version
      flightlog version --json
    """
    found = {
        "flightlog": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{library: version_of(library) for library in _LIBRARIES},
        "platform": platform.platform(),
    }
    if as_json:
        print_json(found)
    else:
        table(["WHAT", "VERSION"], found.items())


@click.command("help")
@click.argument("topic", type=click.Choice(["exit-codes", "environment"]), required=False)
@click.pass_context
def help_(ctx: click.Context, topic: str | None) -> None:
    """Explain exit codes, or the environment variables that Flightlog reads.

    \b
    Examples:
      flightlog help exit-codes
      flightlog help environment
    """
    if topic == "exit-codes":
        say(EXIT_CODES.replace("\b\n", ""))
    elif topic == "environment":
        for setting in SETTINGS:
            say(f"{setting.name} (default: {setting.default or 'none'})", bold=True)
            say(f"    {setting.help}")
    else:
        assert ctx.parent is not None
        say(ctx.parent.get_help())
