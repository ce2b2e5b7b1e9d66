"""Digests of arguments: the same for equal arguments in every process, and a secret of the log's key.

A value is written down piece by piece in one canonical form (sets and dicts sorted, every piece with its
type), and that is put through keyed BLAKE2b (RFC 7693) of 16 bytes. Objects that pickle can take apart are written as
the parts that it names. What cannot be told to be equal in another process (open files, locks, local functions)
has no digest, and neither has what consists of more than a million parts: such a call runs again on resume.
"""

import struct
import threading
from collections.abc import Callable, Mapping
from hashlib import blake2b
from types import BuiltinFunctionType, FunctionType
from typing import Any

from flightlog.engine.names import module_name

DIGEST_BYTES = 16
_MAX_DEPTH = 60
_MAX_PIECES = 1_000_000  # parts that are shared count as often as they are met: twenty nested `[x, x]` are a million


_budget = threading.local()


class _NoDigest(Exception):
    """A piece that means nothing in another process."""


def input_digest(key: bytes, arguments: Mapping[str, Any]) -> bytes | None:
    """Return the digest of a call's arguments, 16 bytes; None if some argument has none.

    Args:
        key: the log's key.
        arguments: the values by parameter, futures resolved.
    """
    out: list[bytes] = []
    _budget.left = _MAX_PIECES
    try:
        for name, value in arguments.items():
            out.append(name.encode())
            _write(value, out, 0)
    except _NoDigest:
        return None
    except Exception:  # noqa: BLE001 - taking an object apart runs its own code, which may raise anything
        return None
    return blake2b(b"\x00".join(out), key=key, digest_size=DIGEST_BYTES, person=b"flightlog input").digest()


def _write(value: Any, out: list[bytes], depth: int) -> None:
    _budget.left -= 1
    if _budget.left < 0:
        raise _NoDigest
    kind = type(value)
    if (write := _WRITERS.get(kind)) is not None:
        write(value, out, depth)
    elif depth > _MAX_DEPTH:
        raise _NoDigest
    elif isinstance(value, type) or kind in (FunctionType, BuiltinFunctionType):
        _write_named(value, out)
    else:
        _write_object(value, out, depth)


def _write_none(_: Any, out: list[bytes], __: int) -> None:
    out.append(b"N")


def _write_bool(value: bool, out: list[bytes], _: int) -> None:
    out.append(b"B1" if value else b"B0")


def _write_int(value: int, out: list[bytes], _: int) -> None:
    out.append(b"I%d" % value if -(1 << 63) <= value < 1 << 63 else b"I" + hex(value).encode())


def _write_float(value: float, out: list[bytes], _: int) -> None:
    out.append(b"F" + struct.pack(">d", value))


def _write_str(value: str, out: list[bytes], _: int) -> None:
    text = value.encode("utf-8", "surrogatepass")
    out.append(b"S%d:" % len(text) + text)


def _write_bytes(value: bytes | bytearray, out: list[bytes], _: int) -> None:
    out.append(b"Y%d:" % len(value) + value)


def _write_sequence(value: Any, out: list[bytes], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _NoDigest
    out.append(b"%s%d" % (type(value).__name__.encode(), len(value)))
    for item in value:
        _write(item, out, depth + 1)


def _write_set(value: Any, out: list[bytes], depth: int) -> None:
    out.append(b"%s%d" % (type(value).__name__.encode(), len(value)))
    out.extend(sorted(_alone(item, depth) for item in value))


def _write_dict(value: dict[Any, Any], out: list[bytes], depth: int) -> None:
    out.append(b"dict%d" % len(value))
    out.extend(sorted(_alone(key, depth) + b"\x00" + _alone(item, depth) for key, item in value.items()))


def _alone(value: Any, depth: int) -> bytes:
    if depth > _MAX_DEPTH:
        raise _NoDigest
    out: list[bytes] = []
    _write(value, out, depth + 1)
    joined = b"\x00".join(out)
    return b"%d:" % len(joined) + joined


def _write_named(value: Any, out: list[bytes]) -> None:
    name = f"{module_name(value.__module__)}.{value.__qualname__}"
    if "<locals>" in name or "<lambda>" in name:
        raise _NoDigest
    out.append(b"G" + name.encode())


def _write_object(value: Any, out: list[bytes], depth: int) -> None:
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        out.append(b"G" + reduced.encode())
        return
    out.append(b"O")
    for part in reduced:
        _write(list(part) if hasattr(part, "__next__") else part, out, depth + 1)


_WRITERS: dict[type, Callable[[Any, list[bytes], int], None]] = {
    type(None): _write_none,
    bool: _write_bool,
    int: _write_int,
    float: _write_float,
    str: _write_str,
    bytes: _write_bytes,
    bytearray: _write_bytes,
    list: _write_sequence,
    tuple: _write_sequence,
    set: _write_set,
    frozenset: _write_set,
    dict: _write_dict,
}
