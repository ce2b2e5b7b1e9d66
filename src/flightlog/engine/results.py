"""Values of runs as blobs: pickled, and authenticated with the log's key.

A blob is a mark of 32 bytes, keyed BLAKE2b (RFC 7693) of the pickle under the log's key, and then the pickle. Only
the engine reads it, and only after the mark has been checked; whatever merely views a log never unpickles.
"""

import hashlib
import hmac
import io
import pickle
import sys
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from flightlog.engine.masking import MASKER
from flightlog.engine.names import SCRIPT_MODULE, module_name
from flightlog.errors import LogCorrupt

_PLAIN = frozenset({int, float, str, bytes})
_NOTHING: MappingProxyType[bytes, bytes] = MappingProxyType({})


class NotLoadable(Exception):
    """A recorded value that cannot be had back; the text says why."""


class NotRecordable(Exception):
    """A value that is not written down; the text says why."""


def dumps(value: Any) -> bytes:
    """Return a value pickled.

    Raises:
        NotRecordable: it cannot be pickled, or holds a secret.
    """
    pickled = pickle.dumps(value, 5) if type(value) in _PLAIN else _pickled(value)
    if MASKER.is_in(pickled):
        raise NotRecordable("it holds a secret")
    return pickled


def _pickled(value: Any) -> bytes:
    file = io.BytesIO()
    try:
        _Pickler(file, 5).dump(value)
    except NotRecordable:
        raise
    except Exception as error:  # noqa: BLE001 - pickling runs the object's own code
        raise NotRecordable(f"{type(error).__name__}: {error}"[:500]) from None
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Refuses secrets."""

    def reducer_override(self, value: Any) -> Any:
        if is_secret(value):
            MASKER.learn(value)
            raise NotRecordable("it holds a secret")
        return NotImplemented


def knows_secrets() -> bool:
    """Tell whether pydantic is in use, without which there are no secret types."""
    return "pydantic.types" in sys.modules


def is_secret(value: Any) -> bool:
    """Tell whether a value is one of pydantic's secret types."""
    pydantic = sys.modules.get("pydantic.types")  # who has a secret has imported it
    return pydantic is not None and isinstance(value, (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret))


def blob_of(content: bytes, serializer: str) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """Return the reference to some content, and the blob that it refers to."""
    digest = hashlib.sha256(content).digest()
    return {"digest": digest, "size": len(content), "serializer": serializer}, {digest: content}


def record(key: bytes, value: Any, persist: bool | None = None) -> tuple[dict[str, Any], Any]:
    """Return what an event says of a value, and the blobs that go with it.

    Args:
        key: the log's key.
        value: the value of a run.
        persist: False if it is not to be recorded.
    """
    if persist is False:
        return {"not_recorded": "persist_result=False"}, _NOTHING
    if value is None or value is True or value is False:
        return {"value": value}, _NOTHING
    try:
        pickled = dumps(value)
    except NotRecordable as reason:
        return {"not_recorded": str(reason)}, _NOTHING
    return blob_of(_mark(key, pickled) + pickled, "pickle")


def _mark(key: bytes, pickled: bytes) -> bytes:
    return hashlib.blake2b(pickled, key=key, digest_size=32, person=b"flightlog pickle").digest()


def load(key: bytes, content: bytes) -> Any:
    """Return the value in a blob.

    Raises:
        LogCorrupt: the blob was not written by the holder of this key.
        NotLoadable: it was, but the code of today cannot make the value of it.
    """
    mark, pickled = content[:32], content[32:]
    if not hmac.compare_digest(mark, _mark(key, pickled)):
        raise LogCorrupt("A recorded value does not bear the mark of the log's key, so it is not loaded.")
    try:
        return _Unpickler(io.BytesIO(pickled)).load()  # authenticated above
    except Exception as error:  # noqa: BLE001 - unpickling runs the object's own code
        raise NotLoadable(f"{type(error).__name__}: {error}"[:500]) from None


class _Unpickler(pickle.Unpickler):
    """Finds what is defined in a script, whether that was run or loaded by its path, then and now."""

    def find_class(self, module: str, name: str) -> Any:
        if module_name(module) != "__main__":
            return super().find_class(module, name)
        scripts = [known for known in list(sys.modules) if known.startswith(SCRIPT_MODULE)]
        for place in dict.fromkeys([module, "__main__", *scripts]):
            if place in sys.modules:
                with suppress(AttributeError):
                    return super().find_class(place, name)
        raise AttributeError(f"the script has no {name!r}")
