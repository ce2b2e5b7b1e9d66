"""``flightlog log`` and ``flightlog replay``: the log as a whole, here and elsewhere."""

from pathlib import Path

import click

from flightlog.cli.archives import archive, list_archives, restore
from flightlog.cli.printing import color_option, is_terminal, json_option, note, print_json, say
from flightlog.cli.reading import position_of, projected, reading
from flightlog.events.opening import is_postgres, location_of, open_log, path_of
from flightlog.settings import load


@click.group()
def log() -> None:
    """Archive what is over, back the log up, copy it to another place, and print what a writer's role needs."""


for _command in (archive, list_archives, restore):
    log.add_command(_command)


@log.command("backup", short_help="Copy the log's file while flows go on.")
@click.argument("target", type=click.Path(path_type=Path))
@color_option
def backup_log(target: Path) -> None:
    """Copy the log's file while flows go on: as it is at one moment, verified, with its keys beside it.

    The keys that make personal data erasable are not copied: a copy of them would outlive an erasure.

    For a log in PostgreSQL: flightlog log copy --to FILE, or the server's own tools.

    \b
    Examples:
      flightlog log backup /backups/flightlog-2026-01-31.db
    """
    from flightlog.events.keys import key_path
    from flightlog.events.moving import backup

    chosen = load()
    path = path_of(chosen.log_url)
    if path is None:
        raise click.UsageError("The log is in no file: use `flightlog log copy --to FILE`, or the server's own tools.")
    with reading():
        backup(path, target.expanduser().absolute())
    key = f", key {key_path(target)} (keep it safe)" if key_path(target).exists() else ""
    note(f"Copied and verified: {target}{key}")


@log.command("copy", short_help="Copy the log to another place, and verify it.")
@click.option("--to", "target", required=True, metavar="URL", help="A file, or sqlite:///... or postgresql://...")
@click.option("--until", metavar="MOMENT", help="Up to that position or time only.")
@json_option
@color_option
def copy_log(target: str, until: str | None, as_json: bool) -> None:
    """Copy the log to another place, from SQLite to PostgreSQL or back, and verify it there.

    Records, ids, versions, positions and hashes stay as they are. Interrupted, or repeated later, it goes on from
    where it was. The keys are not copied: they are needed to run flows and to load blocks there.

    \b
    Examples:
      flightlog log copy --to postgresql://app@db.example/flightlog
      flightlog log copy --to archive.db --until 2026-01-31T00:00
    """
    from flightlog.events import moving

    url = moving.copy_to_file(target)
    if moving.is_same(load().log_url, url) or url == load().log_url:
        raise click.UsageError("That is where the log is already.")
    with reading() as source:
        limit = None if until is None else position_of(source, until)
        copied = moving.copy(source, url, until=limit, progress=_progress if is_terminal() else None)
    if as_json:
        print_json({"events": copied.events, "position": copied.position, "verified": copied.verified})
        return
    note(f"{copied.events} events copied, {copied.verified} verified at {location_of(url)}.")
    if is_postgres(url) or is_postgres(load().log_url):
        note("Flows there need the log's key: copy its file, or give it in FLIGHTLOG_LOG_KEY (see `flightlog doctor`).")


@log.command("role", short_help="Print what a role that only inserts is granted.")
@click.argument("name")
def print_role(name: str) -> None:
    """Print the SQL that lets a PostgreSQL role run flows: it may add events, and change or delete none.

    \b
    Examples:
      flightlog log role flightlog_writer | psql flightlog
    """
    from flightlog.events.stores.postgres_tables import grants

    for statement in grants(name):
        say(statement)


@click.command()
@click.option("--to", "moment", metavar="MOMENT", help="Up to that position or time; all by default.")
@click.option("--run", help="Only that flow run and its subflows.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file; replay-POSITION.db by default.")
@color_option
def replay(moment: str | None, run: str | None, output: Path | None) -> None:
    """Rebuild the log as it was at a moment in a database of its own, which every command can read.

    Nothing is called, sent or started; flows cannot be run there.

    \b
    Examples:
      flightlog replay --to 2026-01-31T06:00
      flightlog replay --run brave-heron -o heron.db
    """
    from flightlog.events import moving
    from flightlog.projections.places import FilePlace, projections_path
    from flightlog.projections.projector import Projector
    from flightlog.projections.queries import family

    streams = None
    if run is not None:
        with projected() as projector:
            streams = family(projector, run)
    with reading() as source:
        position = source.head().position if moment is None else position_of(source, moment)
        path = (output or Path(f"replay-{position}.db")).expanduser().absolute()
        if path.exists():
            raise click.UsageError(f"{path} exists already; name another file: --output FILE")
        progress = _progress if is_terminal() else None
        url = f"sqlite:///{path}"
        copied = moving.copy(source, url, until=position, streams=streams, replay=True, progress=progress)
    with open_log(url, create=False) as target:
        there = Projector(target, FilePlace(projections_path(path)))
        try:
            there.catch_up()
        finally:
            there.close()
    note(f"{copied.events} events up to position {position}, verified. Look around:")
    say(f"FLIGHTLOG_LOG_URL={url} flightlog runs ls")


def _progress(position: int, head: int) -> None:
    click.echo(f"\r  {position} of {head}", err=True, nl=position >= head)
