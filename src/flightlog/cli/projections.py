"""``flightlog projections``: what is derived from the log, how far it has come, and whether it is right."""

import dataclasses
from typing import TYPE_CHECKING

import click

from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import color_option, is_terminal, json_option, note, print_json, readable, say, table
from flightlog.cli.reading import kept_projections, place, reading
from flightlog.names import did_you_mean

if TYPE_CHECKING:
    from flightlog.events.log import Log
    from flightlog.events.store import Inline
    from flightlog.projections.projector import Difference, Projector


@click.group()
def projections() -> None:
    """See, check and rebuild what is derived from the log.

    Projections hold nothing that the log does not: they can be deleted and made again at any time.
    """


@projections.command("ls")
@json_option
@color_option
def list_projections(as_json: bool) -> None:
    """List the projections, with their versions and tables.

    \b
    Examples:
      flightlog projections ls
    """
    from flightlog.projections.inline import INLINE

    found = [
        {"name": one.name, "version": one.version, "kept": "apart", "tables": [table.name for table in one.tables]}
        for one in kept_projections()
    ]
    found += [{"name": one.name, "version": one.version, "kept": "in the log", "tables": []} for one in INLINE]
    if as_json:
        print_json(found)
        return
    rows = [(str(f["name"]), str(f["version"]), str(f["kept"]), " ".join(f["tables"])) for f in found]  # type: ignore[arg-type]
    table(["NAME", "VERSION", "KEPT", "TABLES"], rows)


@projections.command("status")
@json_option
@color_option
def show_status(as_json: bool) -> None:
    """Say how far each projection has come. They catch up whenever something is read.

    \b
    Examples:
      flightlog projections status --json
    """
    from flightlog.projections.inline import INLINE
    from flightlog.projections.projector import Projector, Status

    with reading() as log:
        projector = Projector(log, place(), kept_projections())
        try:
            states = projector.status()
        finally:
            projector.close()
        head = log.head().position
        states += [Status(one.name, one.version, head, 0) for one in INLINE]
    if as_json:
        print_json([dataclasses.asdict(state) for state in states])
        return
    rows = [(s.name, "" if s.version is None else str(s.version), str(s.position), str(s.behind)) for s in states]
    table(["NAME", "VERSION", "POSITION", "BEHIND"], rows)


@projections.command("rebuild", short_help="Make projections anew from the log.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@color_option
def rebuild(names: tuple[str, ...]) -> None:
    """Make projections anew from the log (all of them by default); others go on reading the old ones meanwhile.

    \b
    Examples:
      flightlog projections rebuild
      flightlog projections rebuild runs
    """
    from flightlog.projections.inline import make_anew
    from flightlog.projections.projector import Projector

    with reading() as log:
        projector = Projector(log, place(), kept_projections())
        try:
            chosen = _chosen(projector, names)
            apart = [name for name in chosen if name not in _inline()]
            position = projector.rebuild(apart, _progress if is_terminal() else None)
            for name in chosen:
                if name in _inline():
                    make_anew(log, _inline()[name])
        finally:
            projector.close()
    note(f"Made anew up to position {position}: {', '.join(chosen)}.")


@projections.command("check", short_help="Compare projections with what the log says.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--repair", is_flag=True, help="Make those anew that are not right.")
@json_option
@color_option
def check(names: tuple[str, ...], repair: bool, as_json: bool) -> int:
    """Compare projections with what the log says, and report the first difference of each. Exit code 1 if there is one.

    \b
    Examples:
      flightlog projections check
      flightlog projections check runs --repair
    """
    from flightlog.projections.inline import make_anew
    from flightlog.projections.projector import Projector

    with reading() as log:
        projector = Projector(log, place(), kept_projections())
        try:
            found = {name: _difference(log, projector, name) for name in _chosen(projector, names)}
            wrong = [name for name, difference in found.items() if difference is not None]
            if repair and wrong:
                projector.rebuild([name for name in wrong if name not in _inline()])
                for name in wrong:
                    if name in _inline():
                        make_anew(log, _inline()[name])
        finally:
            projector.close()
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "difference": None if d is None else readable(dataclasses.asdict(d)),
                    "repaired": repair and d is not None,
                }
                for name, d in found.items()
            ]
        )
    else:
        for name, difference in found.items():
            if difference is None:
                say(f"{click.style('✓', fg='green')} {name}")
                continue
            say(f"{click.style('✕', fg='red')} {name}: {difference.table} {readable(difference.key)}")
            say(f"    kept   {readable(difference.kept)}")
            say(f"    right  {readable(difference.right)}")
        if wrong and repair:
            note(f"Made anew: {', '.join(wrong)}.")
        elif wrong:
            note("To make them anew: flightlog projections check --repair")
    return FAILED if wrong and not repair else OK


def _inline() -> "dict[str, Inline]":
    from flightlog.projections.inline import INLINE

    return {one.name: one for one in INLINE}


def _difference(log: "Log", projector: "Projector", name: str) -> "Difference | None":
    from flightlog.projections.inline import first_difference
    from flightlog.projections.projector import Difference

    if name not in _inline():
        return projector.check(name)
    found = first_difference(log, _inline()[name])
    return None if found is None else Difference("inline", {"stream": found[0]}, found[1], found[2])


def _chosen(projector: "Projector", names: tuple[str, ...]) -> list[str]:
    known = [*(projection.name for projection in projector.projections), *_inline()]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise click.BadParameter(f"There is no projection {name!r}.{hint}")
    return list(names) or known


def _progress(position: int, head: int) -> None:
    end = "\n" if position >= head else ""
    click.echo(f"\r  {position} of {head} events", err=True, nl=False)
    click.echo(end, err=True, nl=False)
