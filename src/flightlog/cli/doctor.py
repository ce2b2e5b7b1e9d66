"""``flightlog doctor``: where the log is, whether it is sound, and how to mend what is not."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import color_option, json_option, note, print_json, say, size
from flightlog.cli.reading import reading
from flightlog.errors import LogError
from flightlog.events.opening import path_of
from flightlog.settings import Settings, load, unknown

if TYPE_CHECKING:
    from flightlog.events.log import Log

_LITTLE_SPACE = 500 * 1024 * 1024
_MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✕", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        status: ``ok``, ``note`` (worth knowing) or ``bad`` (to be mended).
        found: what was found.
        mend: how to mend it, if it is to be.
    """

    what: str
    status: str
    found: str
    mend: str | None = None


@click.command()
@click.option("--quick", is_flag=True, help="Leave out reading the whole log.")
@json_option
@color_option
def doctor(quick: bool, as_json: bool) -> int:
    """Say where the log is, how large, whether it verifies, and how to mend what is wrong.

    Exits with 1 if something is to be mended.

    \b
    Examples:
      flightlog doctor
      flightlog doctor --quick --json
    """
    findings = list(_findings(quick))
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            icon, color = _MARKS[finding.status]
            say(f"{click.style(icon, fg=color)} {finding.what:<12} {finding.found}")
            if finding.mend:
                say(f"  {'':<12} → {finding.mend}")
    return FAILED if any(finding.status == "bad" for finding in findings) else OK


def _findings(quick: bool) -> Iterator[Finding]:
    chosen = load()
    for name, near in unknown().items():
        mend = f"Did you mean {near}?" if near else "See `flightlog help environment`."
        yield Finding("settings", "note", f"{name} is no setting.", mend)
    path = path_of(chosen.log_url)
    yield Finding("log", "ok", str(path) if path is not None else chosen.log_url)
    if path is None:
        yield Finding("durability", "note", "in memory: gone with the process")
        return
    if not path.exists():
        try:
            from flightlog.events.stores.sqlite_places import check_path

            check_path(path)
        except LogError as error:
            yield Finding("state", "bad", str(error))
            return
        above = next(parent for parent in path.parents if parent.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            yield Finding("state", "bad", f"No log can be made there: {above} is no folder that you may write to.")
            return
        yield Finding("state", "note", "There is no log yet.", "It is made when the first flow runs.")
        return
    yield Finding("durability", "ok", f"{chosen.log_durability} ({_meaning(chosen.log_durability)})")
    yield from _disk(path)
    yield from _key(path, chosen)
    try:
        with reading() as log:
            yield from _log(log, path, quick)
    except LogError as error:
        yield Finding("state", "bad", str(error))


def _meaning(durability: str) -> str:
    return "survives the loss of power" if durability == "fsync" else "survives the end of the process at any moment"


def _disk(path: Path) -> Iterator[Finding]:
    from flightlog.projections.projector import projections_path

    parts = [path, path.with_name(path.name + "-wal"), projections_path(path)]
    sizes = [part.stat().st_size if part.exists() else 0 for part in parts]
    yield Finding("size", "ok", f"{size(sizes[0] + sizes[1])}, projections {size(sizes[2])}")
    free = shutil.disk_usage(path.parent).free
    if free < _LITTLE_SPACE:
        yield Finding("disk", "bad", f"{size(free)} are free.", "Free some space: a full disk stops every flow.")
    else:
        yield Finding("disk", "ok", f"{size(free)} free")


def _key(path: Path, chosen: Settings) -> Iterator[Finding]:
    from flightlog.events.keys import key_path

    key = key_path(path)
    if chosen.log_key is not None:
        yield Finding("key", "ok", "in FLIGHTLOG_LOG_KEY")
    elif not key.exists() and not os.access(path, os.W_OK):
        yield Finding("key", "note", f"{key} is missing: this log can be read, but takes no runs.")
    elif not key.exists():
        yield Finding("key", "bad", f"{key} is missing.", "Put it back from a backup: flows cannot run without it.")
    elif key.stat().st_mode & 0o077 and sys.platform != "win32":
        yield Finding("key", "bad", f"{key} can be read by others.", f"chmod 600 {key}")
    else:
        yield Finding("key", "ok", str(key))


def _log(log: "Log", path: Path, quick: bool) -> Iterator[Finding]:
    head = log.head()
    yield Finding("events", "ok", f"{head.position}")
    if "key_id" in log.store.facts():
        from flightlog.events.keys import key_path, load_key

        try:
            load_key(log, key_path(path), load().log_key)
        except LogError as error:
            yield Finding("key", "bad", str(error))
    if not quick:
        yield from _verified(log)
    yield from _projections(log, path)
    yield from _lost_runs(log, path)


def _verified(log: "Log") -> Iterator[Finding]:
    from flightlog.events.integrity import verify

    damage: list[str] = getattr(log.store, "damage", list)()
    for problem in damage[:5]:
        yield Finding("file", "bad", problem, "Keep a copy of the file; put a backup in its place.")
    found = verify(log.store, _progress())
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    for problem in found.problems:
        yield Finding("verify", "bad", problem, "Keep a copy of the file; put a backup in its place.")
    if found.sound and not damage:
        text = f"{found.events} events in {found.streams} streams, {found.blobs} blobs: every chain holds"
        yield Finding("verify", "ok", text)
        yield Finding("seals", "note", "none: that no stream's end was cut off with its index is unproved")


def _progress() -> Any:
    if not sys.stderr.isatty():
        return None
    return lambda count: click.echo(f"\rverifying: {count} events", err=True, nl=False)


def _projections(log: "Log", path: Path) -> Iterator[Finding]:
    from flightlog.projections.projector import Projector, projections_path

    file = projections_path(path)
    if not file.exists():
        yield Finding("projections", "note", "not made yet: the next `flightlog runs ls` makes them")
        return
    projector = Projector(log, file)
    try:
        head = log.head().position
        positions = projector.positions()
        behind = {name: head - position for name, position in positions.items()}
        text = ", ".join(f"{name} {lag} events behind" if lag else f"{name} up to date" for name, lag in behind.items())
        yield Finding("projections", "ok", text or "to be made again at the next read")
    except Exception as error:  # noqa: BLE001 - whatever is wrong with that file, it is not needed
        yield Finding("projections", "bad", f"{file} cannot be read: {error}", f"rm {file}; it is made again.")
    finally:
        projector.close()


def _lost_runs(log: "Log", path: Path) -> Iterator[Finding]:
    from flightlog.projections.projector import Projector, projections_path
    from flightlog.projections.queries import is_lost, list_flow_runs

    projector = Projector(log, projections_path(path))
    try:
        lost = [run for run in list_flow_runs(projector, limit=100, state="RUNNING") if is_lost(run)]
    except LogError as error:
        note(str(error))
        return
    finally:
        projector.close()
    for run in lost[:5]:
        mend = f"See how far it came: flightlog runs show {run.id[:18]}"
        yield Finding("runs", "note", f"{run.flow} / {run.name} is called running, but its process is gone.", mend)
