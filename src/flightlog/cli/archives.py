"""``flightlog log archive|ls|restore``: runs that are over leave the log's database, and come back."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flightlog.cli.main import NOT_FOUND, OK
from flightlog.cli.printing import (
    color_option,
    complain,
    end_progress,
    json_option,
    note,
    print_json,
    progress,
    say,
    size,
    table,
)
from flightlog.cli.reading import actor, projected, reading
from flightlog.clock import isoformat
from flightlog.setting_values import span
from flightlog.settings import load

if TYPE_CHECKING:
    from flightlog.events.archiving import Archiver
    from flightlog.events.log import Log
    from flightlog.events.store import Archive
    from flightlog.projections.projector import Projector
    from flightlog.projections.retention import Kind


class _Span(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A span of time, in seconds."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return what somebody typed as seconds."""
        try:
            return value if isinstance(value, float) else span(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


@click.command("archive", short_help="Move runs that are over out of the database.")
@click.option(
    "--older-than",
    type=_Span(),
    metavar="SPAN",
    help="Of runs that ended so long ago: 30d, 12h, 0s; as FLIGHTLOG_RETENTION_... say by default.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be archived, and change nothing.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the segments of a log in PostgreSQL are to be, for all machines; said once.",
)
@json_option
@color_option
def archive(older_than: float | None, dry_run: bool, folder: Path | None, as_json: bool) -> None:
    """Move flow runs that are over, and their log lines, out of the database into compressed segment files.

    The log is sealed first. What is archived stays part of the log: it verifies, and all commands find it. The files
    are in the folder FILE.archives beside the log's file, and belong to it as its key does; for a log in PostgreSQL,
    name a folder that all machines have at the same path.

    \b
    Examples:
      flightlog log archive --dry-run
      flightlog log archive --older-than 7d
    """
    from flightlog.events.store import PARTIAL, REPLAY

    with projected() as projector:
        log = projector.log
        if {REPLAY, PARTIAL} & log.store.facts().keys():
            raise click.UsageError(f"The log at {log.store.location} is a replay of another one's past.")
        leaving = _leaving(projector, older_than)
        if dry_run:
            _foresee(log, leaving, as_json)
            return
        if folder is not None:
            _settle_folder(log, folder.expanduser().absolute())
        archived = _archive(log, leaving)
        _say_who_holds_up(log)
    if as_json:
        print_json([_document(one) for one in archived])
    elif archived:
        events, bytes_ = (sum(getattr(one, name) for one in archived) for name in ("events", "size"))
        files = "1 segment" if len(archived) == 1 else f"{len(archived)} segments"
        note(f"Archived: {events} events, in {files} of {size(bytes_)}.")
    else:
        note("There is nothing to archive.")


def _say_who_holds_up(log: "Log") -> None:
    """Name the subscription that is furthest behind: what it has not dealt with stays."""
    from flightlog.events.archiving import held_up

    behind = held_up(log)
    if behind:
        name, position = behind[0].name, behind[0].position
        note(f"What goes on behind position {position} stays: the subscription {name!r} has not dealt with it yet.")


def _settle_folder(log: "Log", folder: Path) -> None:
    """Note where the segments are; once said, it stays."""
    from flightlog.events.archives import FOLDER

    if log.store.archives_folder is None:
        log.store.set_fact(FOLDER, str(folder).encode())
    if log.store.archives_folder != folder:
        raise click.UsageError(f"The segments of this log are in {log.store.archives_folder}.")


def _leaving(projector: "Projector", older_than: float | None) -> "dict[Kind, list[str]]":
    """Return the streams, by class, of the runs that have been over for so long."""
    from flightlog.projections.retention import KINDS, finished, streams_of

    chosen = load()
    spans = {"state": chosen.retention_state, "telemetry": chosen.retention_telemetry}
    moments = {kind: spans[kind] if older_than is None else older_than for kind in KINDS}
    now = projector.now()
    return {kind: streams_of(kind, finished(projector, now - round(moments[kind] * 1e6))) for kind in KINDS}


def _archive(log: "Log", leaving: "dict[Kind, list[str]]") -> "list[Archive]":
    """Seal the log, and move what is over into segments."""
    from flightlog.events.archiving import Archiver
    from flightlog.events.keys import load_signing_key
    from flightlog.events.sealing import seal

    if not any(leaving.values()):
        return []
    with Archiver(log, actor=actor()) as archiver:
        seal(log, load_signing_key(log, load()), actor=actor())
        log.store.sync()  # what leaves must be sealed whatever happens
        return [one for kind, streams in leaving.items() for one in _shown(archiver, streams, kind)]


def _shown(archiver: "Archiver", streams: list[str], kind: str) -> "list[Archive]":
    show, done, events = progress("archiving: event"), [], 0
    for one in archiver.archive(streams, kind):
        done.append(one)
        events += one.events
        if show is not None:
            show(events)
    end_progress()
    return done


def _foresee(log: "Log", leaving: "dict[Kind, list[str]]", as_json: bool) -> None:
    """Say what would be archived."""
    wanted = {stream for streams in leaving.values() for stream in streams}
    found: set[str] = set()
    events = bytes_ = after = 0
    while rows := log.store.stored(after, 2000):
        going = [row for row in rows if row.stream in wanted]
        found.update(row.stream for row in going)
        events, bytes_ = events + len(going), bytes_ + sum(len(row.record) for row in going)
        after = rows[-1].position
    if as_json:
        print_json({"streams": len(found), "events": events, "size": bytes_})
    else:
        say(f"{events} events ({size(bytes_)}) in {len(found)} streams would be archived.")


@click.command("ls", short_help="List what was archived.")
@json_option
@color_option
def list_archives(as_json: bool) -> None:
    """List the archives: which events each has, and whether its file is there.

    \b
    Examples:
      flightlog log ls
    """
    with reading() as log:
        folder = log.store.archives_folder
        archives = log.store.archives()
        there = {one.number for one in archives if folder is not None and (folder / one.segment).is_file()}
        times = {one.number: _recorded_at(log, one) for one in archives}
    if as_json:
        print_json([_document(one) | {"present": one.number in there} for one in archives])
        return
    if not archives:
        note("Nothing is archived: flightlog log archive moves runs that are over out of the database.")
    rows = [
        [str(one.number), isoformat(times[one.number]), one.kind, f"{one.first} to {one.last}", str(one.events)]
        + [size(one.size), one.segment if one.number in there else f"{one.segment} is missing"]
        for one in archives
    ]
    colors = [None if one.number in there else "red" for one in archives]
    table(["ARCHIVE", "WHEN", "CLASS", "POSITIONS", "EVENTS", "SIZE", "SEGMENT"], rows, colors)


def _recorded_at(log: "Log", archive: "Archive") -> int:
    """Return when an archive was made."""
    from flightlog.events.types import ARCHIVES_STREAM

    return next(event.recorded_at for event in log.read(ARCHIVES_STREAM, archive.number - 1))


def _document(archive: "Archive") -> dict[str, object]:
    return archive._asdict() | {"digest": archive.digest.hex()}


@click.command("restore", short_help="Put archived runs back into the database.")
@click.argument("archives", nargs=-1, metavar="ARCHIVE...", type=click.IntRange(1))
@click.option("--all", "everything", is_flag=True, help="All archives.")
@color_option
def restore(archives: tuple[int, ...], everything: bool) -> int:
    """Put archives back into the database, each event as it was, and delete their files.

    \b
    Examples:
      flightlog log restore 3
      flightlog log restore --all
    """
    from flightlog.events.archiving import Archiver

    if not archives and not everything:
        raise click.UsageError("Say which archives: their numbers, as in `flightlog log ls`, or --all.")
    with reading() as log:
        known = [one.number for one in log.store.archives()]
        unknown = [number for number in archives if number not in known]
        if unknown:
            complain(f"There is no archive {unknown[0]}. See `flightlog log ls`.")
            return NOT_FOUND
        chosen = known if everything else list(dict.fromkeys(archives))
        if not chosen:
            note("Nothing is archived.")
            return OK
        with Archiver(log, actor=actor()) as archiver:
            restored = [archiver.restore(number) for number in chosen]
    note(f"Restored: {sum(one.events for one in restored)} events.")
    return OK
