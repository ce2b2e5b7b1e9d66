"""Bundles: a flow run with all its events and the proof that it is whole, for somebody who trusts nobody.

What is in one, and how it is verified, says `flightlog.events.bundle_verifier`, which goes with it as ``verify.py``.
"""

import inspect
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flightlog.errors import LogError
from flightlog.events import bundle_verifier as bundles
from flightlog.events import codec
from flightlog.events.log import Log
from flightlog.events.merkle import missing_parts
from flightlog.events.opening import open_log
from flightlog.events.sealing import Seal, part_root
from flightlog.events.store import PARTIAL, IndexedRow, Row
from flightlog.events.subjects import hidden
from flightlog.events.types import flow_run_stream
from flightlog.projections.bundle_report import report
from flightlog.projections.projection import Projection
from flightlog.projections.projector import Projector
from flightlog.projections.queries import family, find_flow_run
from flightlog.version import __version__

_PAGE = 2000


def export(
    projector: Projector, run: str, seal: Seal, note: str, progress: Callable[[int], None] | None = None
) -> bytes:
    """Return the bundle of a flow run and its subflows, a ZIP archive.

    Args:
        projector: the log, with its projections.
        run: the flow run that somebody means.
        seal: the seal that covers all of it.
        note: the checkpoint that the seal stands for, signed or not.
        progress: told now and then up to which position the tree is computed.

    Raises:
        LogError: the seal does not cover the run.
    """
    log, found = projector.log, find_flow_run(projector, run)
    rows = _rows(log, sorted(family(projector, found.id)))
    if rows[-1].position > seal.last:
        raise LogError(f"The run goes on behind the last seal, at position {seal.last}: flightlog audit seal")
    spilled = _spilled(log, rows)
    packed = bundles.pack_events(rows)
    if len(packed) > bundles.MOST:
        raise LogError(f"The run's events take {len(packed)} bytes, more than a bundle holds ({bundles.MOST}).")
    events = bundles.read_events(packed)
    files = {
        bundles.CHECKPOINT: note.encode(),
        bundles.EVENTS: packed,
        bundles.PROOF: _text({"size": seal.last, "parts": _proof(log, rows, seal.last, progress)}),
        bundles.RESULTS: _text(bundles.results_of(events, spilled)),
        bundles.ENVIRONMENT: _text(bundles.environment_of(events, spilled)),
        bundles.REPORT: hidden(report(projector, found, seal, note)).encode("utf-8", "backslashreplace"),
        bundles.PROGRAM: inspect.getsource(bundles).encode(),
        **{f"{bundles.BLOBS}{digest.hex()}": content for digest, content in spilled.items()},
    }
    if seal.signer is not None:
        files[bundles.KEY] = f"{seal.signer}\n".encode()
    entries = [bundles.entry_of(name, content) for name, content in sorted(files.items())]
    manifest = {
        "format": bundles.FORMAT,
        "flightlog": __version__,
        "log_id": log.log_id.hex(),
        "run": bundles.run_of(flow_run_stream(found.id), events, spilled),
        "streams": {event.stream: event.version for event in events},
        "files": {
            entry.name: {
                "sha256": bundles.sha256(files[entry.name]).hex(),
                "packed_sha256": bundles.sha256(entry.packed).hex(),
            }
            for entry in entries
        },
    }
    text = _text(manifest)
    heads = (bundles.MANIFEST, text), (bundles.DIGEST, bundles.manifest_digest(text))
    return bundles.zip_of([*(bundles.entry_of(*head) for head in heads), *entries])


def _text(document: object) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=True) + "\n").encode()


def _rows(log: Log, streams: Sequence[str]) -> list[Row]:
    found: list[Row] = []
    for stream in streams:
        after = 0
        while rows := log.store.read_stream(stream, after, _PAGE):
            found += rows
            after += len(rows)
    return sorted(found)


def _spilled(log: Log, rows: Sequence[Row]) -> dict[bytes, bytes]:
    """Return what events have spilled into blobs, and their lists of packages; not the values of runs."""
    wanted: dict[bytes, None] = {}
    for row in rows:
        envelope = codec.decode(row.record)
        wanted.update(dict.fromkeys(codec.spilled_digests(envelope.data)))
        if envelope.type == "flow_run.created":
            packages = codec.decode_data(envelope.data, log.blob).get("packages") or {}
            wanted.update(dict.fromkeys([packages["digest"]] if "digest" in packages else []))
    return {digest: log.blob(digest) for digest in wanted}


def _proof(log: Log, rows: Sequence[Row], size: int, progress: Callable[[int], None] | None) -> list[str]:
    parts = []
    for low, high in missing_parts([row.position - 1 for row in rows], size):
        parts.append(part_root(log.store, low, high).hex())
        if progress is not None:
            progress(high)
    return parts


def check(archive: bytes, name: str) -> bundles.Found:
    """Verify a bundle that is about to be read.

    Raises:
        LogError: it is not what was exported; the message says what is wrong first.
    """
    found = bundles.check_archive(archive)
    if found.problems:
        raise LogError(f"The bundle {name} is not what was exported: {found.problems[0]}.")
    return found


@contextmanager
def reading_bundle(found: bundles.Found, projections: Sequence[Projection] | None = None) -> Iterator[Projector]:
    """Yield the run of a verified bundle, as of its last event, in a log of its own that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="flightlog-bundle-") as folder:
        url = f"sqlite:///{Path(folder, 'bundle.db')}"
        with open_log(url, log_id=bytes.fromhex(found.manifest["log_id"])) as log:
            log.store.set_fact(PARTIAL, b"1")
            rows = []
            for event in found.events:
                event_id = codec.decode(event.record).event_id
                rows.append(IndexedRow(*event[:3], event.stream, event.version, event_id, event.type))
            log.store.adopt(rows, found.blobs)
            projector = Projector(log, None, projections, until=rows[-1].position, at=rows[-1].recorded_at)
            try:
                yield projector
            finally:
                projector.close()
