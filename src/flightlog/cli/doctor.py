"""``flightlog doctor``: where the log is, whether it is sound, and how to mend what is not."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import color_option, end_progress, json_option, print_json, progress, say, size
from flightlog.cli.reading import kept_projections, mark_lost_runs, place, reading
from flightlog.errors import LogError, SettingsError
from flightlog.events.keys import key_file, load_key
from flightlog.events.opening import is_memory, location_of, path_of
from flightlog.events.store import REPLAY
from flightlog.settings import Settings, load

if TYPE_CHECKING:
    from flightlog.events.log import Log
    from flightlog.events.problems import Verification

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
    try:
        chosen = load()
    except SettingsError as error:
        yield Finding("settings", "bad", str(error), "flightlog help environment lists all; then try again.")
        return
    yield Finding("log", "ok", location_of(chosen.log_url))
    yield from _plugins()
    if is_memory(chosen.log_url):
        yield Finding("durability", "note", "in memory: gone with the process")
        return
    path = path_of(chosen.log_url)
    if path is None:
        yield Finding("durability", "ok", "as the server's synchronous_commit says")
    else:
        findings = list(_file(path, chosen))
        yield from findings
        if not path.exists() or any(finding.what == "state" for finding in findings):
            return
    try:
        with reading() as log:
            yield from _log(log, chosen, quick)
    except LogError as error:
        yield Finding("state", "bad", str(error))


def _plugins() -> Iterator[Finding]:
    """Import the plug-ins, and look for what is wrong with them."""
    from flightlog.plugins.examination import examine
    from flightlog.plugins.host import current_host

    for one in examine(current_host(insist=False)):
        if one.problem is not None:
            mend = "Update it or take it away; flightlog plugins ls shows all."
            yield Finding("plug-ins", "bad", f"{one.plugin}: {one.problem}", mend)


def _file(path: Path, chosen: Settings) -> Iterator[Finding]:
    """Look at the file that the log is in, and at what is beside it."""
    if not path.exists():
        yield from _nothing_there(path)
        return
    yield Finding("durability", "ok", f"{chosen.log_durability} ({_meaning(chosen.log_durability)})")
    yield from _disk(path)


def _nothing_there(path: Path) -> Iterator[Finding]:
    from flightlog.events.stores.sqlite_places import check_path

    try:
        check_path(path)
    except LogError as error:
        yield Finding("state", "bad", str(error))
        return
    above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        yield Finding("state", "bad", f"No log can be made there: {above} is no folder that you may write to.")
        return
    yield Finding("state", "note", "There is no log yet.", "It is made when the first flow runs.")


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


def _log(log: "Log", chosen: Settings, quick: bool) -> Iterator[Finding]:
    head = log.head()
    facts = log.store.facts()
    yield Finding("events", "ok", f"up to position {head.position}")
    if REPLAY in facts:
        yield Finding("replay", "note", "of another log's past: it can be read, but takes no runs")
    else:
        yield from _keys(log, chosen, "key_id" in facts)
    yield from _growth(log, path_of(chosen.log_url))
    yield from _archives(log)
    if not quick:
        yield from _verified(log)
    yield from _projections(log)


def _growth(log: "Log", path: Path | None) -> Iterator[Finding]:
    """Say how fast the log grows; of a server's disk, nothing is known here."""
    from flightlog.cli.growth import growth
    from flightlog.projections.projector import projections_path

    found = None if path is None else growth(log, path, projections_path(path))
    if found is not None and found.is_soon:
        mend = "flightlog log archive moves runs that are over into a fraction of their size."
        yield Finding("growth", "note", str(found), mend)
    elif found is not None:
        yield Finding("growth", "ok", str(found))


def _archives(log: "Log") -> Iterator[Finding]:
    """Say what is archived, and which segment is missing."""
    archives, folder = log.store.archives(), log.store.archives_folder
    if not archives or folder is None:
        return
    for archive in archives:
        if not (folder / archive.segment).is_file():
            what = f"The segment {folder / archive.segment} is missing: {archive.events} events."
            yield Finding("archives", "bad", what, "Put it back from where it went, or from a backup.")
    events, bytes_ = sum(one.events for one in archives), sum(one.size for one in archives)
    yield Finding("archives", "ok", f"{len(archives)}, with {events} events in {size(bytes_)}")


def _keys(log: "Log", chosen: Settings, known: bool) -> Iterator[Finding]:
    """Look for the log's key, and whether it is the right one, if the log knows it."""
    path, file = path_of(chosen.log_url), key_file(log, chosen)
    if path is not None:
        yield from _key(path, chosen)
    if known and (chosen.log_key is not None or file is None or file.exists()):
        try:
            load_key(log, file, chosen.log_key)
        except LogError as error:
            yield Finding("key", "bad", str(error))
    yield from _block_key(log, chosen)
    yield from _signing_key(log, chosen)


def _signing_key(log: "Log", chosen: Settings) -> Iterator[Finding]:
    """Look for the key that signs seals; without one there is nothing to say."""
    from flightlog.events.keys import load_signing_key, signing_key_file

    file = signing_key_file(log, chosen)
    try:
        key = load_signing_key(log, chosen)
    except LogError as error:
        yield Finding("signing key", "bad", str(error))
        return
    if key is None or chosen.audit_key or file is None:
        return
    if file.stat().st_mode & 0o077 and sys.platform != "win32":
        yield Finding("signing key", "bad", f"{file} can be read by others.", f"chmod 600 {file}")
    else:
        yield Finding("signing key", "ok", str(file))


def _block_key(log: "Log", chosen: Settings) -> Iterator[Finding]:
    """Look for the key that the secrets in blocks are encrypted with."""
    from flightlog.errors import BlockKeyError
    from flightlog.events.types import BLOCK_KEY_STREAM
    from flightlog.plugins.block_keys import BlockKeys
    from flightlog.projections.inline import inline_states

    state = inline_states(log, "blocks").get(BLOCK_KEY_STREAM)
    if state is None:
        return
    keys = BlockKeys(log, chosen)
    file = keys.path(state["key_id"])
    try:
        keys.get(state["key_id"])
    except BlockKeyError as error:
        yield Finding("blocks' key", "bad", str(error))
        return
    if file is not None and file.exists() and file.stat().st_mode & 0o077:
        yield Finding("blocks' key", "bad", f"{file} can be read by others.", f"chmod 600 {file}")
        return
    yield Finding("blocks' key", "ok", str(file) if file is not None and file.exists() else "in FLIGHTLOG_BLOCKS_KEY")


def _verified(log: "Log") -> Iterator[Finding]:
    from flightlog.events.integrity import verify

    damage: list[str] = getattr(log.store, "damage", list)()
    for problem in damage[:5]:
        yield Finding("file", "bad", problem, "Keep a copy of the file; put a backup in its place.")
    found = verify(log.store, progress("verifying: event"))
    end_progress()
    for wrong in found.problems:
        yield Finding("verify", "bad", str(wrong), "Keep a copy of the file; put a backup in its place.")
    if found.sound and not damage:
        text = f"{found.events} events in {found.streams} streams, {found.blobs} blobs: every chain holds"
        yield Finding("verify", "ok", text)
        yield _seals(found)


def _seals(found: "Verification") -> Finding:
    if not found.sealed:
        text = "none yet: that no stream was written anew, or its end taken away, is not proved"
        return Finding("seals", "note", text, "flightlog audit seal, or FLIGHTLOG_LOG_SEAL=exit for every process.")
    signed = f", signed up to {found.signed}" if found.signed else ", not signed"
    rest = f"; {found.unproved} events behind are unproved" if found.unproved else ""
    return Finding("seals", "ok", f"{found.seals}, up to position {found.sealed}{signed}{rest}")


def _projections(log: "Log") -> Iterator[Finding]:
    from flightlog.projections.projector import Projector

    projector = Projector(log, place(), kept_projections())
    try:
        states = projector.status()
        text = ", ".join(f"{s.name} {s.behind} events behind" if s.behind else f"{s.name} up to date" for s in states)
        yield Finding("projections", "ok", text)
        for history in mark_lost_runs(log, projector):
            found = f"{history.created['flow']} / {history.name} crashed: its process is gone."
            yield Finding("runs", "note", found, f"Go on with it: flightlog runs resume {history.text[:18]}")
    except Exception as error:  # noqa: BLE001 - whatever is wrong with them, they are not needed
        where = projector.place.location
        yield Finding("projections", "bad", f"{where} cannot be read: {error}", f"rm {where}; they are made again.")
    finally:
        projector.close()
