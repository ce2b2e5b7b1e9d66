"""Moving a log: hot backups, copies from store to store, and replays of its past.

A copy has the same records, ids, versions, positions and hashes. It can be interrupted and gone on with: what is there
already is not copied again.
"""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from flightlog.errors import LogCorrupt, LogUnavailable
from flightlog.events import codec
from flightlog.events.archives import folder_of
from flightlog.events.integrity import verify
from flightlog.events.keys import block_key_files, key_path
from flightlog.events.log import Log
from flightlog.events.opening import open_log, path_of
from flightlog.events.store import PARTIAL, REPLAY, IndexedRow

_PAGE = 2000
_BLOBS = 100
Progress = Callable[[int, int], None]
"""Told how far a copy has come: a position, and the one that it goes to."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy has done.

    Attributes:
        events: how many events were copied.
        position: the last position that is there now.
        verified: how many events were verified on arrival.
    """

    events: int
    position: int
    verified: int


def backup(path: Path, target: Path) -> None:
    """Copy a log's file while others write to it: as it is at one moment, with its keys and its segments.

    Args:
        path: the log's file.
        target: the copy; it must not exist.

    Raises:
        LogUnavailable: the target exists, or cannot be written.
        LogCorrupt: the copy is not sound.
    """
    keys = [(key_path(path), key_path(target))] if key_path(path).exists() else []
    # Before the log: a key that comes into use later may be missing in the copy, and nothing there needs it.
    keys += [(key, target.with_name(key.name.replace(path.name, target.name, 1))) for key in block_key_files(path)]
    for taken in (target, key_path(target)):
        if taken.exists():
            raise LogUnavailable(f"{taken} exists already; name another file.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(0o600, exist_ok=False)
        source = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        copy = sqlite3.connect(target)
        try:
            source.backup(copy, pages=4096)
            copy.execute("PRAGMA journal_mode=WAL")
        finally:
            copy.close()
            source.close()
        for key, copied in keys:
            copied.touch(0o600, exist_ok=False)
            shutil.copyfile(key, copied)
    except (OSError, sqlite3.Error) as error:
        raise LogUnavailable(f"The log could not be copied to {target}: {error}.") from None
    with open_log(f"sqlite:///{target}", create=False) as log:
        _copy_segments(log, folder_of(path), folder_of(target))
        _check(log)


def _copy_segments(log: Log, source: Path, target: Path) -> None:
    """Copy the segments that a copy of a log names."""
    archives = log.store.archives()
    try:
        if archives:
            target.mkdir(mode=0o700)
        for archive in archives:
            copied = target / archive.segment
            copied.touch(0o600, exist_ok=False)
            shutil.copyfile(source / archive.segment, copied)
    except OSError as error:
        raise LogUnavailable(f"The segments could not be copied to {target}: {error}.") from None


def copy(
    source: Log,
    url: str,
    *,
    until: int | None = None,
    streams: Collection[str] | None = None,
    replay: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Copy a log to another place, and verify it there.

    Args:
        source: the log.
        url: where to: a file, or a PostgreSQL database, that holds nothing or an earlier copy of the same log.
        until: the last position to copy; None for all.
        streams: only these; None for all.
        replay: whether the copy is there to be read only.
        progress: told how far it has come.

    Raises:
        LogUnavailable: another log is there, or something was appended to the copy.
        LogCorrupt: the copy does not verify.
    """
    with open_log(url, log_id=source.log_id) as target:
        if target.log_id != source.log_id:
            raise LogUnavailable(f"Another log is at {target.store.location} already; name an empty place.")
        facts = source.store.facts()
        for name in ("key_id", "created", PARTIAL):
            if name in facts:
                target.store.set_fact(name, facts[name])
        head = source.head().position if until is None else until
        if replay:
            target.store.set_fact(REPLAY, str(head).encode())
        if streams is not None:
            target.store.set_fact(PARTIAL, b"1")
        position, count = target.head().position, 0
        _check_same(source, target, position)
        while position < head:
            rows = [row for row in source.store.indexed(position, _PAGE) if row.position <= head]
            if not rows:
                break
            wanted = rows if streams is None else [row for row in rows if row.stream in streams]
            if wanted:
                target.store.adopt(wanted, blobs_of(source, wanted))
            position = rows[-1].position
            count += len(wanted)
            if progress is not None:
                progress(position, head)
        verified = _check(target)
        return Copied(count, target.head().position, verified)


def _check_same(source: Log, target: Log, position: int) -> None:
    """Refuse to go on with a copy that has become something else: something was appended to it, or to a part of it."""
    if not position:
        return
    (there,) = target.store.indexed(position - 1, 1)
    here = next(iter(source.store.indexed(position - 1, 1)), None)
    if here is None or (here.position, here.record) != (there.position, there.record):
        raise LogUnavailable(
            f"The log at {target.store.location} is no longer a copy of the one at {source.store.location}: event "
            f"{position} differs. Something was appended there since; name an empty place."
        )


def copy_to_file(path: str) -> str:
    """Return the URL of a file; of a URL, itself."""
    return path if "://" in path else f"sqlite:///{Path(path).expanduser().absolute()}"


def is_same(source: str, target: str) -> bool:
    """Tell whether two URLs name the same file."""
    try:
        first, second = path_of(source), path_of(target)
    except LogUnavailable:
        return False
    return first is not None and second is not None and first.resolve() == second.resolve()


def blobs_of(source: Log, rows: list[IndexedRow]) -> dict[bytes, bytes]:
    """Return the blobs that some events rest on."""
    digests: dict[bytes, None] = {}
    for row in rows:
        payload = codec.decode(row.record).data
        if codec.may_have_blobs(payload):
            digests.update(dict.fromkeys(codec.blob_digests(payload)))
    found: dict[bytes, bytes] = {}
    wanted = list(digests)
    for start in range(0, len(wanted), _BLOBS):
        found.update(source.blobs(wanted[start : start + _BLOBS]))
    if missing := [digest for digest in wanted if digest not in found]:
        raise LogCorrupt(f"The log at {source.store.location} lacks the blob {missing[0].hex()}; see flightlog doctor.")
    for digest, content in found.items():
        if hashlib.sha256(content).digest() != digest:
            raise LogCorrupt(f"The blob {digest.hex()} of the log at {source.store.location} was changed.")
    return found


def _check(log: Log) -> int:
    found = verify(log.store)
    if found.problems:
        raise LogCorrupt(f"The copy at {log.store.location} does not verify: {found.problems[0]}.")
    return found.events
