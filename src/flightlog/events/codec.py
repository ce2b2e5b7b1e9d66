"""How an event becomes bytes. The only module that knows msgpack.

A record is one msgpack array of twelve: log id, stream, version, previous hash, event id, type, schema,
occurred_at, actor, follows, epoch, data; `data` is msgpack in itself, carried as bytes, so that a record
can be checked and its envelope read without decoding the payload. The last eight are known to whoever
makes the event and are packed outside the lock of the commit; version and hash are put before them inside.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped,unused-ignore]

from flightlog.errors import LogCorrupt, LogError

MAX_RECORD: Final = 64 * 1024
"""No record is longer than this, in bytes (invariant I8)."""
_MAX_BODY: Final = MAX_RECORD - 1024  # leaves room for log id, stream, version and hash
_MAX_NAME: Final = 512
_SPILLED: Final = 1
_WHOLE: Final = "*"
_REFERENCE: Final = 43  # what a spilled part takes in its payload, in bytes
_local = threading.local()
_CHECKED: Final[set[str]] = set()
"""Names that were found good: nearly every event has the same ones as the one before it."""
_MOST_CHECKED: Final = 1000


class Envelope(NamedTuple):
    """The fields of a record, in the order in which they are stored."""

    log_id: bytes
    stream: str
    version: int
    previous: bytes
    event_id: bytes
    type: str
    schema: int
    occurred_at: int
    actor: str
    follows: bytes | None
    epoch: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Spilled:  # not a tuple: msgpack would write it as a list
    """Stands in a payload for a part that was too long: the SHA-256 and size of the blob that holds it."""

    digest: bytes
    size: int


def pack(value: Any) -> bytes:
    """Return a value of None, bool, int, float, str, bytes, lists and dicts as msgpack."""
    try:
        packer = _local.packer
    except AttributeError:
        packer = _local.packer = msgpack.Packer(unicode_errors="surrogatepass", default=_pack_spilled)
    try:
        packed: bytes = packer.pack(value)
    except BaseException:
        del _local.packer  # half a value is left in it
        raise
    return packed


def _pack_spilled(value: Any) -> Any:
    if isinstance(value, Spilled):
        return msgpack.ExtType(_SPILLED, value.digest + value.size.to_bytes(8, "big"))
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


def _unpack_extension(code: int, data: bytes) -> Any:
    if code == _SPILLED:
        return Spilled(data[:32], int.from_bytes(data[32:], "big"))
    return msgpack.ExtType(code, data)


def unpack(packed: bytes) -> Any:
    """Return the value that `pack` made bytes of."""
    return msgpack.unpackb(packed, unicode_errors="surrogatepass", ext_hook=_unpack_extension, strict_map_key=False)


def encode_body(  # noqa: PLR0913 - the fields of the envelope, without an object for them on the hot path
    event_id: bytes,
    type_: str,
    schema: int,
    occurred_at: int,
    actor: str,
    follows: bytes | None,
    epoch: int,
    data: Mapping[str, Any],
) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the part of a record that its maker knows, and the blobs that parts of `data` spilled into."""
    payload = pack(data)
    blobs: dict[bytes, bytes] = {}
    if len(payload) > _MAX_BODY:
        payload, blobs = _spill(data)
    if type_ not in _CHECKED or actor not in _CHECKED:
        check_name(type_, "An event's type")
        check_name(actor, "An event's actor")
    # Without the array's own first byte: these eight become the tail of the array of twelve.
    return pack((event_id, type_, schema, occurred_at, actor, follows, epoch, payload))[1:], blobs


def _spill(data: Mapping[str, Any]) -> tuple[bytes, dict[bytes, bytes]]:
    """Move the longest parts of a payload into blobs until the rest fits."""
    parts: dict[str, Any] = dict(data)
    packed = {name: pack(value) for name, value in parts.items()}
    excess = len(pack(data)) - _MAX_BODY
    blobs: dict[bytes, bytes] = {}
    for name in sorted(packed, key=lambda name: -len(packed[name])):
        if excess <= 0 or len(packed[name]) <= _REFERENCE:
            break
        parts[name] = _reference(packed[name], blobs)
        excess -= len(packed[name]) - _REFERENCE
    if excess <= 0:
        return pack(parts), blobs
    blobs.clear()
    return pack({_WHOLE: _reference(pack(data), blobs)}), blobs


def _reference(content: bytes, blobs: dict[bytes, bytes]) -> Spilled:
    digest = hashlib.sha256(content).digest()
    blobs[digest] = content
    return Spilled(digest, len(content))


def check_name(name: str, what: str = "A stream's name") -> None:
    """Refuse a name that a record cannot hold.

    Raises:
        LogError: it has more than 512 characters, or some that cannot be printed.
    """
    if name in _CHECKED:
        return
    if len(name) > _MAX_NAME or not name.isprintable():
        raise LogError(f"{what} has at most {_MAX_NAME} printable characters: {name[:80]!r}.")
    if len(_CHECKED) >= _MOST_CHECKED:
        _CHECKED.clear()
    _CHECKED.add(name)


def prefix(log_id: bytes, stream: str) -> bytes:
    """Return how every record of a stream begins."""
    return b"\x9c" + pack(log_id) + pack(stream)


def join(prefix: bytes, version: int, previous: bytes, body: bytes) -> bytes:
    """Return a whole record: what is stored, and what is hashed."""
    return b"".join((prefix, pack(version), b"\xc4\x20", previous, body))


def fields(record: bytes) -> list[Any]:
    """Return a record's fields, the payload still packed; an empty list if the bytes are no record.

    For those who look at very many: `decode` takes twice as long.
    """
    try:
        found = msgpack.unpackb(record, unicode_errors="surrogatepass", ext_hook=_unpack_extension)
    except (ValueError, TypeError, msgpack.UnpackException):
        return []
    return found if type(found) is list else []


def decode(record: bytes) -> Envelope:
    """Return a record's fields, the payload still packed.

    Raises:
        LogCorrupt: the bytes are not a record.
    """
    try:
        fields = unpack(record)
        return Envelope(*fields)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise LogCorrupt(f"A record of {len(record)} bytes cannot be read: {str(error).rstrip('.')}.") from None


def decode_data(payload: bytes, fetch: Callable[[bytes], bytes]) -> dict[str, Any]:
    """Return a payload, with the parts that were spilled fetched by their digest and put back."""
    data: dict[str, Any] = unpack(payload)
    if isinstance(whole := data.get(_WHOLE), Spilled) and len(data) == 1:
        data = unpack(fetch(whole.digest))
    spilled = [name for name, value in data.items() if type(value) is Spilled]
    for name in spilled:
        data[name] = unpack(fetch(data[name].digest))
    return data


def may_have_blobs(payload: bytes) -> bool:
    """Tell, without decoding it, whether a payload could rest on blobs; if not, it surely does not."""
    # A digest is 32 bytes (bin 8, 0xc4 0x20); a spilled part is an extension of 40 (ext 8, 0xc7 0x28).
    return b"\xc4\x20" in payload or b"\xc7\x28" in payload


def blob_digests(payload: bytes) -> list[bytes]:
    """Return the digests of the blobs that a payload rests on: spilled parts, and values that the log itself keeps.

    Raises:
        LogCorrupt: the bytes are no payload.
    """
    found: list[bytes] = []

    def extension(code: int, data: bytes) -> Any:
        if code == _SPILLED:
            found.append(data[:32])

    def mapping(value: dict[Any, Any]) -> None:
        digest = value.get("digest")
        if isinstance(digest, bytes) and len(digest) == 32 and "storage" not in value:
            found.append(digest)

    try:
        msgpack.unpackb(
            payload, unicode_errors="surrogatepass", ext_hook=extension, object_hook=mapping, strict_map_key=False
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise LogCorrupt(f"A payload of {len(payload)} bytes cannot be read: {error}.") from None
    return found


def spilled_digests(payload: bytes) -> list[bytes]:
    """Return the digests of the parts of a payload that were spilled."""
    if b"\xc7\x28" not in payload:
        return []
    return [value.digest for value in unpack(payload).values() if isinstance(value, Spilled)]
