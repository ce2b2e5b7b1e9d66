"""Values of runs as blobs: serialized, authenticated with the log's key, in the log or in a storage.

A pickle's blob is a mark of 32 bytes, keyed BLAKE2b (RFC 7693) of the pickle under the log's key, and then the pickle.
Blobs of other serializers are plain, so that other programs can read them; their mark is in the event. Only the engine
reads values back, and only after digest and mark have been checked; whatever merely views a log never does.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flightlog.engine.pickles import NotRecordable, dumps, is_secret, knows_secrets, refuse_secrets
from flightlog.engine.serializers import PICKLE, Serializer, serializer_of
from flightlog.engine.storages import ResultStorage, storage_of
from flightlog.errors import CorruptResult, LogCorrupt, MissingResult
from flightlog.events.subjects import Closed, Subjects, Vault
from flightlog.masking import MASKER

_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})
_PERSON = b"flightlog pickle"


class NotLoadable(Exception):
    """A recorded value that cannot be had back; the text says why."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Whose a value is: it is encrypted so that it is gone once the key of any of them is.

    Attributes:
        vault: has their keys.
        subjects: they.
    """

    vault: Vault
    subjects: Subjects


@dataclass(frozen=True, slots=True)
class Keeping:
    """How the values of a run are kept.

    Attributes:
        persist: whether they are recorded.
        serializer: how they become bytes.
        storage: where they are kept; None for the log.
        key: under which name in the storage; None for one made of the digest.
        in_memory: whether a value stays in memory once it is recorded.
        closing: whose the values are, if they are personal.
    """

    persist: bool = True
    serializer: Serializer = PICKLE
    storage: ResultStorage | None = None
    key: str | None = None
    in_memory: bool = True
    closing: Closing | None = None


PLAINLY = Keeping()
"""Pickled, in the log."""


def blob_of(content: bytes, serializer: str) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """Return the reference to some content, and the blob that it refers to."""
    digest = hashlib.sha256(content).digest()
    return {"digest": digest, "size": len(content), "serializer": serializer}, {digest: content}


def record(key: bytes, value: Any, keeping: Keeping = PLAINLY) -> tuple[dict[str, Any], Any]:
    """Return what an event says of a value, and the blobs that go with it; store what is kept elsewhere.

    Args:
        key: the log's key.
        value: the value of a run.
        keeping: how it is kept.
    """
    if not keeping.persist:
        return {"not_recorded": "persist_result=False"}, _NOTHING
    closing = keeping.closing
    if (value is None or ((value is True or value is False) and closing is None)) and keeping.key is None:
        return {"value": value}, _NOTHING
    try:
        content = _serialized(keeping.serializer, value)
    except NotRecordable as reason:
        return {"not_recorded": str(reason)}, _NOTHING
    if keeping.serializer is PICKLE:
        content = _mark(key, content) + content
    if closing is not None:
        content = closing.vault.close(closing.subjects, content)
    reference, blobs = blob_of(content, "pickle" if keeping.serializer is PICKLE else keeping.serializer.spec)
    if keeping.serializer is not PICKLE:
        reference["mark"] = _mark(key, content)
    if closing is not None:
        reference["personal"] = closing.vault.group(closing.subjects)
    if keeping.storage is None:
        return reference, blobs
    return _stored(reference, blobs[reference["digest"]], keeping.storage, keeping.key), _NOTHING


def _serialized(serializer: Serializer, value: Any) -> bytes:
    if serializer is not PICKLE:
        refuse_secrets(value)
    try:
        return serializer.dumps_checked(value)
    except NotRecordable:
        raise
    except Exception as error:  # noqa: BLE001 - serializing runs the object's own code
        raise NotRecordable(f"{type(error).__name__}: {error}"[:500]) from None


def _stored(reference: dict[str, Any], content: bytes, storage: ResultStorage, key: str | None) -> dict[str, Any]:
    """Keep some content in a storage; what cannot be kept is noted, and its run goes on."""
    name = reference["digest"].hex()
    path = key or f"{name[:2]}/{name}"
    try:
        storage.write_path(path, content)
    except Exception as error:  # noqa: BLE001 - a storage is anybody's code, and its failures are no reason to stop
        why = MASKER.mask(f"the storage {storage.url} did not take it: {type(error).__name__}: {error}")
        return {"not_recorded": why[:500]}
    return {**reference, "storage": storage.url, "path": path}


def _mark(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=32, person=_PERSON).digest()


def fetch(
    key: bytes,
    reference: Mapping[str, Any],
    blob: Callable[[bytes], bytes],
    keeping: Keeping = PLAINLY,
    *,
    vault: Vault,
) -> Any:
    """Return the value that an event refers to.

    Args:
        key: the log's key.
        reference: what the event says of it.
        blob: gives a blob of the log by its SHA-256.
        keeping: how the values of that run are kept today: it may know the way into the storage.
        vault: has the keys of those whose personal value it may be.

    Raises:
        LogCorrupt, CorruptResult: it is not what was recorded.
        MissingResult: it is gone from the storage.
        NotLoadable: the code of today cannot make the value of it.
    """
    if "value" in reference:
        return reference["value"]
    digest, spec = reference["digest"], reference["serializer"]
    content = blob(digest) if "storage" not in reference else _from_storage(reference, keeping.storage)
    if (spec != "pickle" or "mark" in reference) and not hmac.compare_digest(
        reference.get("mark", b""), _mark(key, content)
    ):
        raise CorruptResult("A recorded value does not bear the mark of the log's key, so it is not loaded.")
    if "personal" in reference:
        try:
            content = vault.open(reference["personal"], content)
        except Closed as why:
            raise NotLoadable(str(why)) from None
    if spec == "pickle" and "mark" not in reference:
        return load(key, content)
    serializer = keeping.serializer if keeping.serializer.spec == spec else _named(spec)
    return _loaded(serializer.loads, content)


def _named(spec: str) -> Serializer:
    try:
        return serializer_of(spec)
    except ValueError as error:
        raise NotLoadable(str(error)) from None


def _from_storage(reference: Mapping[str, Any], known: ResultStorage | None) -> bytes:
    url, path = reference["storage"], reference["path"]
    try:
        storage = known if known is not None and known.url == url else storage_of(url)
        content = storage.read_path(path)
    except FileNotFoundError:
        raise MissingResult(
            f"The value at {url}/{path} is gone: somebody deleted it. Run what made it again, or put it back."
        ) from None
    except Exception as error:  # noqa: BLE001 - a storage is anybody's code
        raise NotLoadable(f"the storage {url} cannot be read: {type(error).__name__}: {error}") from None
    if hashlib.sha256(content).digest() != reference["digest"]:
        raise CorruptResult(f"The value at {url}/{path} is not what was recorded: its SHA-256 is another one.")
    return content


def load(key: bytes, content: bytes) -> Any:
    """Return the value in the blob of a pickle.

    Raises:
        LogCorrupt: the blob was not written by the holder of this key.
        NotLoadable: it was, but the code of today cannot make the value of it.
    """
    mark, pickled = content[:32], content[32:]
    if not hmac.compare_digest(mark, _mark(key, pickled)):
        raise LogCorrupt("A recorded value does not bear the mark of the log's key, so it is not loaded.")
    return _loaded(PICKLE.loads, pickled)


def _loaded(loads: Callable[[bytes], Any], content: bytes) -> Any:
    try:
        return loads(content)
    except Exception as error:  # noqa: BLE001 - loading runs the object's own code
        raise NotLoadable(f"{type(error).__name__}: {error}"[:500]) from None


__all__ = [
    "PLAINLY",
    "Keeping",
    "NotLoadable",
    "NotRecordable",
    "blob_of",
    "dumps",
    "fetch",
    "is_secret",
    "knows_secrets",
    "load",
    "record",
]
