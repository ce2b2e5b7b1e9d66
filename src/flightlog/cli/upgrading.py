"""``flightlog upgrade``: what a new version makes of the log, before it counts."""

import dataclasses
from typing import TYPE_CHECKING

import click

from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import color_option, is_terminal, json_option, note, print_json, readable, say, table
from flightlog.cli.reading import kept_projections, place, reading
from flightlog.clock import duration
from flightlog.version import __version__

if TYPE_CHECKING:
    from flightlog.projections.projector import Difference
    from flightlog.projections.rehearsal import Change, Reading


@click.command("upgrade", short_help="Rehearse an upgrade on the log, or make projections fit this version.")
@click.option("--rehearse", is_flag=True, help="Change nothing; say what would change.")
@json_option
@color_option
def upgrade(rehearse: bool, as_json: bool) -> int:
    """Make what is derived from the log as the installed version has it. Events are never changed.

    With --rehearse, in an environment that has the new version: read a copy of the log with it, every event, make all
    projections aside, and say what would change in those that are kept. Exit code 1 if events cannot be read, or rows
    differ though the projection's version is the same.

    \b
    Examples:
      flightlog upgrade --rehearse
      flightlog upgrade
    """
    return _rehearse(as_json=as_json) if rehearse else _upgrade(as_json=as_json)


def _upgrade(*, as_json: bool) -> int:
    from flightlog.projections.inline import INLINE
    from flightlog.projections.projector import Projector

    with reading() as log:
        projector = Projector(log, place(), kept_projections())
        try:
            made = [one.name for one in projector.status() if one.behind]
            position = projector.catch_up()
            log.keep(INLINE)
        finally:
            projector.close()
    if as_json:
        print_json({"version": __version__, "position": position, "brought_up_to_date": made})
        return OK
    note(f"All is as version {__version__} has it, up to event {position}.")
    if made:
        note(f"Brought up to date: {', '.join(made)}.")
    return OK


def _rehearse(*, as_json: bool) -> int:
    from flightlog.projections.rehearsal import read_all
    from flightlog.projections.rehearsal import rehearse as rehearsed

    with reading(read_only=True) as log:
        location = log.store.location
        events = read_all(log, _progress if is_terminal() else None)
        changes = list(rehearsed(log, place(), kept_projections()))
    failed = bool(events.wrong) or any(change.is_suspect for change in changes)
    if as_json:
        told = [_document(change) for change in changes]
        read = dataclasses.asdict(events)
        print_json({"version": __version__, "log": location, "reading": read, "projections": told})
        return FAILED if failed else OK
    say(f"Version {__version__} on {location}: {events.events} events read in {duration(round(events.seconds * 1e6))}.")
    _show_reading(events)
    say()
    rows = [
        (one.name, _kept(one), str(one.installed), _change(one), duration(round(one.seconds * 1e6))) for one in changes
    ]
    table(["PROJECTION", "KEPT", "INSTALLED", "WHAT WOULD CHANGE", "TAKES"], rows)
    for change in changes:
        if change.first is not None:
            _show_first(change.name, change.first)
    if any(change.is_suspect for change in changes):
        note("Rows differ though the version is the same: `flightlog projections check --repair` makes them anew.")
    if not failed:
        note("Nothing speaks against it. To do it: flightlog upgrade")
    return FAILED if failed else OK


def _document(change: "Change") -> dict[str, object]:
    first = None if change.first is None else readable(dataclasses.asdict(change.first))
    return dataclasses.asdict(change) | {"first": first, "is_suspect": change.is_suspect}


def _kept(change: "Change") -> str:
    return "in the log" if change.in_log else "-" if change.kept is None else str(change.kept)


def _show_reading(events: "Reading") -> None:
    for name, count in sorted(events.lifted.items()):
        say(f"  lifted to today's shape: {count} {name}")
    for name, count in sorted(events.unknown.items()):
        say(f"  not known to this version, carried along: {count} {name}")
    for name, problem in sorted(events.wrong.items()):
        say(f"  {click.style('✕', fg='red')} {name} cannot be read: {problem}")


def _change(change: "Change") -> str:
    parts = []
    if change.changed:
        parts.append(f"{change.changed} of {change.rows} rows")
    elif change.kept is None and not change.in_log:
        parts.append(f"{change.rows} rows are made")
    if change.columns:
        parts.append(f"columns: {', '.join(change.columns)}")
    return "; ".join(parts) or "nothing"


def _show_first(name: str, difference: "Difference") -> None:
    say(f"{name}: {difference.table} {readable(difference.key)}")
    kept, right = difference.kept, difference.right
    if isinstance(kept, dict) and isinstance(right, dict):
        differ = {key for key in kept | right if kept.get(key) != right.get(key)}
        kept, right = ({key: value for key, value in one.items() if key in differ} for one in (kept, right))
    say(f"    kept       {'-' if kept is None else readable(kept)}")
    say(f"    installed  {'-' if right is None else readable(right)}")


def _progress(position: int, head: int) -> None:
    end = "\n" if position >= head else ""
    click.echo(f"\r  {position} of {head} events{end}", err=True, nl=False)
