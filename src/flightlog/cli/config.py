"""``flightlog config`` and ``flightlog profile``: settings, where each comes from, and named sets of them."""

import os
import re
from typing import Any

import click

from flightlog.cli.main import NOT_FOUND, OK
from flightlog.cli.printing import color_option, complain, json_option, note, print_json, say, table
from flightlog.names import did_you_mean
from flightlog.profiles import DEFAULT, Profiles, read_profiles
from flightlog.settings import PROFILE, SETTINGS, Given, check_names, home_of, load, sources

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@click.group()
def config() -> None:
    """See and change settings. The environment counts before the profile in use, and that before the defaults."""


@config.command("view")
@click.option("--all", "everything", is_flag=True, help="Also those that nobody has set.")
@json_option
@color_option
def view(everything: bool, as_json: bool) -> None:
    """Show the settings with their values, and who says so. Passwords and keys are not shown.

    \b
    Examples:
      flightlog config view
      flightlog config view --all --json
    """
    load()
    found = [given for given in sources() if everything or as_json or given.source != "default"]
    if as_json:
        print_json([{"name": g.setting.name, "value": _shown(g), "source": g.source} for g in found])
        return
    note(f"profile: {_active()}")
    if not found:
        note("Nobody has set anything: all is as it comes. See: flightlog config view --all")
        return
    table(["SETTING", "VALUE", "FROM"], [(g.setting.name, _shown(g), g.source) for g in found])


def _shown(given: Given) -> str:
    if given.setting.is_secret:
        return "********" if given.raw else ""
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:********@", given.raw)


def _profiles() -> Profiles:
    return read_profiles(home_of(os.environ))


def _active() -> str:
    return os.environ.get(PROFILE) or _profiles().active


@config.command("set", short_help="Change settings in the profile in use.")
@click.argument("assignments", nargs=-1, required=True, metavar="NAME=VALUE...")
@color_option
def set_(assignments: tuple[str, ...]) -> None:
    """Change settings in the profile in use. Each is checked first; nothing is changed if one does not fit.

    \b
    Examples:
      flightlog config set FLIGHTLOG_LOGGING_LEVEL=DEBUG
    """
    profiles, name = _profiles(), _active()
    changed = dict(profiles.settings(name))
    for assignment in assignments:
        setting, equals, value = assignment.partition("=")
        if not equals:
            raise click.BadParameter(f"{assignment!r} is not NAME=VALUE.", param_hint="NAME=VALUE")
        changed[setting] = value
    check_names(changed, f"the profile {name!r}")
    load({"FLIGHTLOG_HOME": str(profiles.path.parent), **changed})
    profiles.profiles[name] = changed
    profiles.write()
    note(f"Set in the profile {name}: {', '.join(a.partition('=')[0] for a in assignments)}.")
    for assignment in assignments:
        if (setting := assignment.partition("=")[0]) in os.environ:
            note(f"{setting} is set in the environment too, which counts first.")


@config.command("unset", short_help="Take settings out of the profile in use.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@color_option
def unset(names: tuple[str, ...]) -> int:
    """Take settings out of the profile in use, so that their defaults count again.

    \b
    Examples:
      flightlog config unset FLIGHTLOG_LOGGING_LEVEL
    """
    profiles, profile = _profiles(), _active()
    settings = dict(profiles.settings(profile))
    for name in names:
        if name not in settings:
            known = [setting.name for setting in SETTINGS]
            hint = "" if name in known else did_you_mean(name, list(settings) or known, else_say="")
            return _fail(f"{name} is not set in the profile {profile!r}.{hint}")
        del settings[name]
    profiles.profiles[profile] = settings
    profiles.write()
    note(f"Taken out of the profile {profile}: {', '.join(names)}.")
    return OK


@click.group()
def profile() -> None:
    """Keep named sets of settings, and choose the one that counts."""


@profile.command("ls")
@json_option
@color_option
def list_profiles(as_json: bool) -> None:
    """List the profiles; the one in use is marked.

    \b
    Examples:
      flightlog profile ls
    """
    profiles, active = _profiles(), _active()
    if as_json:
        print_json(
            [{"name": name, "active": name == active, "settings": len(s)} for name, s in profiles.profiles.items()]
        )
        return
    rows = [("*" if name == active else "", name, str(len(s))) for name, s in sorted(profiles.profiles.items())]
    table(["", "NAME", "SETTINGS"], rows)


@profile.command("show", short_help="Show the settings of a profile.")
@click.argument("name", required=False)
@json_option
@color_option
def show(name: str | None, as_json: bool) -> None:
    """Show the settings of a profile; of the one in use by default.

    \b
    Examples:
      flightlog profile show team
    """
    settings = _profiles().settings(name or _active())
    rows = {s.name: _shown(Given(s, settings[s.name], "")) for s in SETTINGS if s.name in settings}
    if as_json:
        print_json(rows)
        return
    for setting, value in rows.items():
        say(f"{setting}={value}")


@profile.command("create", short_help="Make a profile.")
@click.argument("name")
@click.option("--from", "source", metavar="PROFILE", help="With the settings of that one.")
@color_option
def create(name: str, source: str | None) -> int:
    """Make a profile, empty or with the settings of another one.

    \b
    Examples:
      flightlog profile create team
      flightlog profile create test --from team
    """
    if not _NAME.fullmatch(name):
        raise click.BadParameter("A profile's name has letters, digits, hyphens and underscores.", param_hint="NAME")
    profiles = _profiles()
    if name in profiles.profiles:
        return _fail(f"There is a profile {name!r} already.")
    profiles.profiles[name] = dict(profiles.settings(source)) if source else {}
    profiles.write()
    note(f"Made {name}. To use it: flightlog profile use {name}")
    return OK


@profile.command("use", short_help="Choose the profile that counts.")
@click.argument("name")
@color_option
def use(name: str) -> None:
    """Choose the profile that counts where nobody names another one (--profile, FLIGHTLOG_PROFILE).

    \b
    Examples:
      flightlog profile use team
    """
    profiles = _profiles()
    profiles.settings(name)
    profiles.active = name
    profiles.write()
    note(f"{name} is in use.")


@profile.command("delete", short_help="Delete a profile.")
@click.argument("name")
@color_option
def delete(name: str) -> int:
    """Delete a profile that is not in use.

    \b
    Examples:
      flightlog profile delete test
    """
    profiles = _profiles()
    profiles.settings(name)
    if name in (profiles.active, DEFAULT):
        return _fail(f"The profile {name!r} is {'in use' if name == profiles.active else 'always there'}.")
    del profiles.profiles[name]
    profiles.write()
    note(f"{name} is gone.")
    return OK


@profile.command("rename", short_help="Give a profile another name.")
@click.argument("name")
@click.argument("new")
@color_option
def rename(name: str, new: str) -> int:
    """Give a profile another name.

    \b
    Examples:
      flightlog profile rename team production
    """
    profiles: Any = _profiles()
    settings = profiles.settings(name)
    if new in profiles.profiles or not _NAME.fullmatch(new):
        return _fail(f"A profile cannot be called {new!r}: there is one, or the name does not fit.")
    profiles.profiles[new] = settings
    if name != DEFAULT:
        del profiles.profiles[name]
    if profiles.active == name:
        profiles.active = new
    profiles.write()
    note(f"{name} is {new} now.")
    return OK


def _fail(text: str) -> int:
    complain(text)
    return NOT_FOUND
