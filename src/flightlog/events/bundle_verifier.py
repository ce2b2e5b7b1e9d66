#!/usr/bin/env python3
"""Verifies a bundle: one flow run with all its events, taken out of a Flightlog log, and the proof that it is whole.

It needs the standard library only (a signature, the package `cryptography` too), and nothing of Flightlog::

    python verify.py run.zip
    python verify.py run.zip --key "NAME+HASH+KEY" --checkpoint checkpoint.txt

What it proves: these events are in the log that the checkpoint stands for, byte for byte, at these positions and
times, and no event of these streams is left out in between. It proves nothing about what the events say: a log keeps
what it is told. Whoever could change the log before the checkpoint left their machine could have written anything. So
compare the checkpoint, or the key that signed it, with what you have from somewhere else; and take this program from
there too.
"""

import argparse
import base64
import hashlib
import json
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
MANIFEST, CHECKPOINT, KEY, EVENTS, PROOF = "manifest.json", "checkpoint.txt", "key.txt", "events.bin", "proof.json"
RESULTS, ENVIRONMENT, REPORT, PROGRAM, BLOBS = "results.json", "environment.json", "report.html", "verify.py", "blobs/"
_EVENT = struct.Struct(">QqI")
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_DAY = 33  # 1980-01-01: bundles of the same events are the same bytes
MOST = 1 << 30
"""No file of a bundle is larger, in bytes."""


def sha256(content: bytes) -> bytes:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).digest()


# --- the archive: written in one way only, so that no byte of it can be changed unnoticed -------------------


class Entry(NamedTuple):
    """A file in the archive: its name, and its content as it is stored."""

    name: str
    packed: bytes
    method: int
    crc: int
    size: int

    def content(self) -> bytes | None:
        """Return the content; None if the stored bytes are damaged."""
        content: bytes | None = self.packed
        if self.method == zlib.DEFLATED:
            unpacker = zlib.decompressobj(-15)
            try:
                content = unpacker.decompress(self.packed, min(self.size, MOST) + 1)
            except zlib.error:
                return None
            if unpacker.unused_data or not unpacker.eof:
                return None
        return (
            content if content is not None and len(content) == self.size and zlib.crc32(content) == self.crc else None
        )


def entry_of(name: str, content: bytes) -> Entry:
    """Return a file for the archive, compressed where that makes it smaller."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    method = zlib.DEFLATED if len(packed) < len(content) and name != MANIFEST else 0
    return Entry(name, packed if method else content, method, zlib.crc32(content), len(content))


def zip_of(entries: Sequence[Entry]) -> bytes:
    """Return a ZIP archive; its comment is the digest of the manifest."""
    body, directory = bytearray(), bytearray()
    comment = b""
    for entry in entries:
        name = entry.name.encode()
        common = (20, 0, entry.method, 0, _DAY, entry.crc, len(entry.packed), entry.size, len(name), 0)
        directory += _CENTRAL.pack(0x02014B50, 3 << 8 | 20, *common, 0, 0, 0, 0o644 << 16, len(body)) + name
        body += _LOCAL.pack(0x04034B50, *common) + name + entry.packed
        if entry.name == MANIFEST:
            comment = sha256(entry.packed).hex().encode()
    count = len(entries)
    end = _END.pack(0x06054B50, 0, 0, count, count, len(directory), len(body), len(comment))
    return bytes(body + directory + end + comment)


def entries_of(archive: bytes) -> list[Entry]:
    """Return the files of an archive, as far as it can be read."""
    found, offset = [], 0
    while archive[offset : offset + 4] == b"PK\x03\x04" and offset + _LOCAL.size <= len(archive):
        _, _, _, method, _, _, crc, packed, size, length, _ = _LOCAL.unpack_from(archive, offset)
        start = offset + _LOCAL.size + length
        offset = start + packed
        if offset > len(archive):
            break
        name = archive[start - length : start].decode("utf-8", "replace")
        found.append(Entry(name, archive[start:offset], method, crc, size))
    return found


def _differs(archive: bytes, entries: Sequence[Entry]) -> list[str]:
    """Return where an archive is not what its own files make."""
    try:
        made = zip_of(entries)
    except struct.error:
        made = b""
    if made == archive:
        return []
    at = next((i for i, (a, b) in enumerate(zip(archive, made, strict=False)) if a != b), min(len(archive), len(made)))
    return [f"the archive was changed: byte {at} of it is not as it was written"]


# --- what events are made of: as much of msgpack as they need --------------------------------------------


class Spilled(NamedTuple):
    """Stands for a part of an event that is in a blob."""

    digest: bytes


class Bad(ValueError):
    """Something is not as it has to be."""


def unpack(content: bytes) -> Any:
    """Return the value that some msgpack stands for."""
    try:
        value, end = _value(content, 0)
    except (IndexError, struct.error, RecursionError, UnicodeDecodeError, TypeError) as error:
        raise Bad("bytes that are no event") from error
    if end != len(content):
        raise Bad("bytes that are no event")
    return value


_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
            0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}  # fmt: skip
_LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xC7: ">B", 0xC8: ">H", 0xC9: ">I", 0xD9: ">B", 0xDA: ">H",
            0xDB: ">I", 0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}  # fmt: skip


def _value(content: bytes, at: int) -> tuple[Any, int]:
    kind = content[at]
    at += 1
    if kind < 0x80 or kind >= 0xE0:
        return kind - (256 if kind >= 0xE0 else 0), at
    if kind in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[kind], at
    if kind in _NUMBERS:
        return struct.unpack_from(_NUMBERS[kind], content, at)[0], at + struct.calcsize(_NUMBERS[kind])
    if kind in _LENGTHS:
        (length,) = struct.unpack_from(_LENGTHS[kind], content, at)
        at += struct.calcsize(_LENGTHS[kind])
    elif 0xD4 <= kind <= 0xD8:
        length = 1 << kind - 0xD4
    else:
        length = kind & (0x1F if kind >= 0xA0 else 0x0F)
    return _long(content, at, kind, length)


def _long(content: bytes, at: int, kind: int, length: int) -> tuple[Any, int]:
    """Return what has a length: text, bytes, an extension, a list or a map."""
    if 0x80 <= kind <= 0x8F or kind in (0xDE, 0xDF):
        pairs = {}
        for _ in range(length):
            key, at = _value(content, at)
            pairs[key], at = _value(content, at)
        return pairs, at
    if 0x90 <= kind <= 0x9F or kind in (0xDC, 0xDD):
        items = []
        for _ in range(length):
            item, at = _value(content, at)
            items.append(item)
        return items, at
    extended = 0xC7 <= kind <= 0xC9 or 0xD4 <= kind <= 0xD8
    start = at + extended
    data = content[start : start + length]
    if len(data) != length:
        raise Bad("bytes that are no event")
    if extended:
        return (Spilled(data[:32]) if content[at] == 1 else None), start + length
    return data.decode("utf-8", "surrogatepass") if kind in range(0xA0, 0xC0) or kind >= 0xD9 else data, start + length


class Event(NamedTuple):
    """An event of the bundle."""

    position: int
    recorded_at: int
    record: bytes
    log_id: bytes
    stream: str
    version: int
    previous: bytes
    type: str
    payload: bytes

    def __str__(self) -> str:
        return f"event {self.position} ({self.type}, {self.stream}@{self.version})"


def pack_events(rows: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Return events, given as position, time and record, as they stand in a bundle."""
    return b"".join(_EVENT.pack(position, at, len(record)) + record for position, at, record in rows)


def read_events(content: bytes) -> list[Event]:
    """Return the events of a bundle; `Bad` if they cannot be read."""
    found, at = [], 0
    while at < len(content):
        if at + _EVENT.size > len(content):
            raise Bad(f"{EVENTS} ends in the middle of an event")
        position, recorded_at, length = _EVENT.unpack_from(content, at)
        at += _EVENT.size
        record = content[at : at + length]
        at += length
        try:
            fields = unpack(record)
        except Bad:
            fields = None
        if not isinstance(fields, list) or [type(value) for value in fields if value is not None] != _kinds(fields):
            raise Bad(f"event {position} holds bytes that are no event")
        log_id, stream, version, previous, _, type_, *_, payload = fields
        found.append(Event(position, recorded_at, record, log_id, stream, version, previous, type_, payload))
    return found


def _kinds(fields: Sequence[Any]) -> list[type]:
    """Return what the fields of a record are: log id, stream, version, previous hash, id, type, schema, time, actor,
    the id of the event that caused it (or None), epoch, data."""
    cause = [] if len(fields) > 9 and fields[9] is None else [bytes]
    return [bytes, str, int, bytes, bytes, str, int, int, str, *cause, int, bytes]


# --- what a bundle says of its events, made from these --------------------------------------------------


def data_of(event: Event, blobs: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return an event's data, with the parts that are in blobs put back; `Bad` if one is missing."""
    data = unpack(event.payload)
    if isinstance(data, dict) and len(data) == 1 and isinstance(data.get("*"), Spilled):
        data = unpack(_blob(data["*"], blobs, event))
    if not isinstance(data, dict):
        raise Bad(f"{event} holds bytes that are no data")
    return {k: unpack(_blob(v, blobs, event)) if isinstance(v, Spilled) else v for k, v in data.items()}


def _blob(part: Spilled, blobs: Mapping[bytes, bytes], event: Event) -> bytes:
    if part.digest not in blobs:
        raise Bad(f"{event} rests on the blob {part.digest.hex()[:16]}, which is missing")
    return blobs[part.digest]


def results_of(events: Sequence[Event], blobs: Mapping[bytes, bytes]) -> list[dict[str, Any]]:
    """Return what the events say of results: the digest of each, or its value where that is None, True or False."""
    found = []
    for event in events:
        if b"\xa6result" in event.payload and isinstance(result := data_of(event, blobs).get("result"), dict):
            shown = {k: v.hex() if isinstance(v, bytes) else v for k, v in result.items()}
            found.append({"position": event.position, "stream": event.stream, "version": event.version, **shown})
    return found


def environment_of(events: Sequence[Event], blobs: Mapping[bytes, bytes]) -> list[dict[str, Any]]:
    """Return what each flow run was made of: its code's digest, its Python, its packages."""
    found = []
    for event in events:
        if event.type != "flow_run.created":
            continue
        data = data_of(event, blobs)
        packages = data.get("packages")
        listed = None
        if isinstance(packages, dict) and packages.get("digest") in blobs:
            listed = blobs[packages["digest"]].decode("utf-8", "replace").split("\n")
        code = data.get("code")
        found.append({
            "stream": event.stream, "flow": data.get("flow"), "entrypoint": data.get("entrypoint"),
            "code_sha256": code.hex() if isinstance(code, bytes) else None, "python": data.get("python"),
            "packages": listed,
        })  # fmt: skip
    return found


def run_of(stream: str, events: Sequence[Event], blobs: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return what the events say of a flow run: its id, flow and name, and the event of its last state."""
    found: dict[str, Any] = {"id": stream.partition("/")[2]}
    for event in events:
        if event.stream == stream and event.type.startswith("flow_run."):
            if event.type == "flow_run.created":
                data = data_of(event, blobs)
                found |= {"flow": data.get("flow"), "name": data.get("name")}
            found["state"] = event.type.partition(".")[2]
    return found


# --- the checks -------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What verifying a bundle found."""

    good: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    blobs: dict[bytes, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


def check_archive(archive: bytes, keys: Sequence[str] = (), checkpoint: str | None = None) -> Found:
    """Verify a bundle as it was exported, every byte of it."""
    entries = entries_of(archive)
    files, problems = {}, []
    for entry in entries:
        content = entry.content()
        if content is None:
            problems.append(f"{entry.name} was changed: it cannot be unpacked")
        files[entry.name] = content or b""
    digests = {entry.name: sha256(entry.packed).hex() for entry in entries}
    found = check(files, keys, checkpoint, digests)
    if len(files) != len(entries):
        problems.append("a file is there twice")
    found.problems = [*problems, *_differs(archive, entries), *found.problems]
    return found


def check(
    files: Mapping[str, bytes],
    keys: Sequence[str] = (),
    checkpoint: str | None = None,
    packed: Mapping[str, str] | None = None,
) -> Found:
    """Verify the files of a bundle.

    Args:
        files: the files' contents, by name.
        keys: who has to have signed, as verifier keys; empty for whoever the bundle says.
        checkpoint: a checkpoint of the same log from somewhere else.
        packed: the digests of the files as the archive has them; None if they are unpacked.
    """
    found = Found()
    try:
        _check_files(files, packed, found)
        _check_events(files, found)
        root, size = _check_proof(files, found)
        _check_checkpoint(files, root, size, keys, checkpoint, found)
        _check_derived(files, found)
    except Bad as error:
        found.problems.append(str(error))
    except (TypeError, UnicodeDecodeError):
        found.problems.append("something in it is of another kind than it has to be")
    return found


def _json(files: Mapping[str, bytes], name: str) -> Any:
    try:
        return json.loads(files[name])
    except KeyError:
        raise Bad(f"{name} is missing") from None
    except ValueError:
        raise Bad(f"{name} was changed: it is no JSON") from None


def _check_files(files: Mapping[str, bytes], packed: Mapping[str, str] | None, found: Found) -> None:
    manifest = _json(files, MANIFEST)
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or not all(
        isinstance(one, dict) and one.keys() == {"sha256", "packed_sha256"} for one in listed.values()
    ):
        raise Bad(f"{MANIFEST} was changed: it does not list the files")
    if manifest.get("format") != FORMAT:
        raise Bad(f"this program reads bundles of format {FORMAT}; this one has {manifest.get('format')!r}")
    for name in sorted((set(listed) | set(files)) - {MANIFEST}):
        if name not in files:
            found.problems.append(f"{name} is missing")
        elif name not in listed:
            found.problems.append(f"{name} is not in the manifest")
        elif sha256(files[name]).hex() != listed[name]["sha256"]:
            found.problems.append(f"{name} was changed")
        elif packed is not None and packed[name] != listed[name]["packed_sha256"]:
            found.problems.append(f"{name} was changed: it is packed in another way")
    _take_blobs(files, found)
    found.manifest = manifest
    if not found.problems:
        found.good.append(f"{len(listed)} files are those of the manifest")


def _take_blobs(files: Mapping[str, bytes], found: Found) -> None:
    for name, content in files.items():
        if name.startswith(BLOBS):
            found.blobs[sha256(content)] = content
            if sha256(content).hex() != name.removeprefix(BLOBS):
                found.problems.append(f"{name} was changed: its digest is another one")


def _check_events(files: Mapping[str, bytes], found: Found) -> None:
    """Follow the chain of each stream, from its first event on."""
    events = found.events = read_events(files.get(EVENTS, b""))
    problems = found.problems
    before: dict[str, Event] = {}
    last: Event | None = None
    for event in events:
        ahead = before.get(event.stream)
        if event.log_id.hex() != found.manifest.get("log_id"):
            problems.append(f"{event} is of another log")
        if last is not None and (event.position <= last.position or event.recorded_at < last.recorded_at):
            problems.append(f"{event} is not behind the one in front of it")
        if event.version != (ahead.version if ahead else 0) + 1:
            problems.append(f"{event}: version {ahead.version if ahead else 0} of its stream comes before it")
        elif event.previous != (sha256(ahead.record) if ahead else bytes(32)):
            problems.append(f"{event} or the one before it in its stream was changed: the chain breaks")
        before[event.stream] = last = event
    ends = {stream: event.version for stream, event in before.items()}
    if ends != found.manifest.get("streams"):
        problems.append("the streams do not end where the manifest says")
    if not problems:
        found.good.append(f"{len(events)} events in {len(ends)} streams, none left out in between: every chain holds")


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right)


def leaf(event: Event) -> bytes:
    """Return the hash of the leaf that an event is in the log's Merkle tree (RFC 9162)."""
    return sha256(struct.pack(">BQq", 0, event.position, event.recorded_at) + sha256(event.record))


def root_of(leaves: Mapping[int, bytes], size: int, proof: Sequence[bytes]) -> bytes:
    """Return the tree's head, by some leaves and the heads of the parts between them; `Bad` if they do not fit."""
    indices, steps = sorted(leaves), iter(proof)

    def head(low: int, high: int, own: list[int]) -> bytes:
        if not own:
            return next(steps)
        if high - low == 1:
            return leaves[low]
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        return _node(
            head(low, middle, [i for i in own if i < middle]), head(middle, high, [i for i in own if i >= middle])
        )

    if not indices or indices[0] < 0 or indices[-1] >= size:
        raise Bad("an event stands behind the checkpoint")
    try:
        root = head(0, size, indices)
    except StopIteration:
        raise Bad(f"{PROOF} is too short") from None
    if next(steps, None) is not None:
        raise Bad(f"{PROOF} is too long")
    return root


def _check_proof(files: Mapping[str, bytes], found: Found) -> tuple[bytes, int]:
    proof = _json(files, PROOF)
    try:
        size, steps = proof["size"], [bytes.fromhex(step) for step in proof["parts"]]
        good = type(size) is int and 0 < size < 1 << 63 and all(len(step) == 32 for step in steps)
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise Bad(f"{PROOF} was changed: it is no proof")
    return root_of({event.position - 1: leaf(event) for event in found.events}, size, steps), size


def read_checkpoint(note: str) -> tuple[str, int, bytes, list[tuple[str, bytes]]]:
    """Return origin, size, head and signatures of a signed note (C2SP); `Bad` if it is none."""
    text, _, rest = note.partition("\n\n")
    try:
        origin, size, root = text.split("\n")
        lines = [line.removeprefix("\u2014 ").split(" ") for line in rest.split("\n")[:-1]]
        signatures = [(name, base64.b64decode(value, validate=True)) for name, value in lines]
        return origin, int(size), base64.b64decode(root, validate=True), signatures
    except ValueError:
        raise Bad("it is no checkpoint") from None


def _check_checkpoint(
    files: Mapping[str, bytes], root: bytes, size: int, keys: Sequence[str], other: str | None, found: Found
) -> None:
    try:
        note = files.get(CHECKPOINT, b"").decode()
        origin, count, head, signatures = read_checkpoint(note)
    except ValueError:
        raise Bad(f"{CHECKPOINT} was changed: it is no checkpoint") from None
    log_id = str(found.manifest.get("log_id"))
    expected = "-".join([log_id[:8], log_id[8:12], log_id[12:16], log_id[16:20], log_id[20:]])
    if origin != f"flightlog/{expected}":
        found.problems.append(f"{CHECKPOINT} is of another log, {origin}")
    if (count, head) != (size, root):
        found.problems.append("the events and their proof do not give the tree head of the checkpoint")
    else:
        found.good.append(f"the events are in the log of {size} events that the checkpoint stands for")
    if other is not None:
        _compare(other, (origin, count, head), found)
    named = list(keys) or ([files[KEY].decode().strip()] if KEY in files else [])
    if not named:
        found.notes.append("the checkpoint is not signed")
    elif not any(_is_signed(key, note.partition("\n\n")[0] + "\n", signatures, found) for key in named):
        found.problems.append("the checkpoint is not signed by a key that counts")


def _compare(other: str, ours: tuple[str, int, bytes], found: Found) -> None:
    origin, size, head, _ = read_checkpoint(other)
    if (origin, size) != ours[:2]:
        found.notes.append(
            f"the other checkpoint is of {origin} with {size} events: it cannot be compared with this one"
        )
    elif head != ours[2]:
        found.problems.append(f"the checkpoint from elsewhere has another tree head for the same {size} events")
    else:
        found.good.append("the checkpoint from elsewhere is the same")


def _is_signed(vkey: str, text: str, signatures: Sequence[tuple[str, bytes]], found: Found) -> bool:
    """Tell whether one of the signatures is by a key; without `cryptography`, whether it says so."""
    name, _, rest = vkey.partition("+")
    try:
        key = base64.b64decode(rest.partition("+")[2], validate=True)
    except ValueError:
        key = b""
    if len(key) != 33 or sha256(name.encode() + b"\n" + key)[:4].hex() != rest.partition("+")[0]:
        raise Bad(f"{vkey[:60]!r} is no verifier key")
    own = [value for who, value in signatures if who == name and value[:4].hex() == rest[:8]]
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        found.notes.append("the signature was NOT verified: that needs `pip install cryptography`")
        return bool(own)
    for value in own:
        try:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(value[4:], text.encode())
        except InvalidSignature:
            continue
        found.good.append(f"the checkpoint is signed by {vkey}")
        return True
    return False


def _check_derived(files: Mapping[str, bytes], found: Found) -> None:
    """Compare what is there for readers with what the events say."""
    for name, made in ((RESULTS, results_of), (ENVIRONMENT, environment_of)):
        if _json(files, name) != json.loads(json.dumps(made(found.events, found.blobs))):
            found.problems.append(f"{name} is not what the events say")
    run = found.manifest.get("run")
    stream = f"flow-run/{run.get('id')}" if isinstance(run, dict) else ""
    if run != run_of(stream, found.events, found.blobs) or "flow" not in run:
        found.problems.append(f"{MANIFEST} does not name the run that the events say")


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files of a bundle that was unpacked into a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Verify a bundle of Flightlog: a run's events and their proof.")
    parser.add_argument("bundle", nargs="?", type=Path, help="the ZIP, or the folder that it was unpacked into")
    parser.add_argument("--key", action="append", default=[], help="who has to have signed: NAME+HASH+KEY")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of the log that you have from elsewhere")
    given = parser.parse_args(arguments)
    bundle = given.bundle or Path(__file__).parent
    try:
        other = None if given.checkpoint is None else given.checkpoint.read_text(encoding="utf-8")
        if bundle.is_dir():
            found = check(files_in(bundle), given.key, other)
        else:
            found = check_archive(bundle.read_bytes(), given.key, other)
    except OSError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    run = found.manifest.get("run", {})
    if isinstance(run, dict) and run:
        print(f"{run.get('flow')} / {run.get('name')}: {run.get('state')}")
    for mark, lines in (("OK  ", found.good), ("NOTE", found.notes), ("BAD ", found.problems)):
        for line in lines:
            print(f"{mark} {line}")
    print("The bundle is NOT what was exported." if found.problems else "The bundle is whole.")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
