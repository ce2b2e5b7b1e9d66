"""Pickles of values: secrets are refused, and what is defined in a script is found whichever way that was run."""

import io
import pickle
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from flightlog.engine.arguments import items_of
from flightlog.engine.names import SCRIPT_MODULE, module_name
from flightlog.masking import MASKER

_PLAIN = frozenset({int, float, str, bytes})
_MANY = 2000


class NotRecordable(Exception):
    """A value that is not written down; the text says why."""


def dumps(value: Any) -> bytes:
    """Return a value pickled.

    Raises:
        NotRecordable: it cannot be pickled, or holds a secret.
    """
    return pickle.dumps(value, 5) if type(value) in _PLAIN else _pickled(value)


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


def loads_beside(content: bytes, beside: Sequence[bytes | None]) -> Any:
    """Return the value of a pickle, with what travelled another way put in the place of its numbers.

    Args:
        content: the pickle, from a process that is trusted.
        beside: the pickles of what travelled another way, by their numbers.
    """
    file = _Beside(io.BytesIO(content))
    file.beside = beside
    return file.load()


class _Beside(pickle.Unpickler):
    """Takes objects from beside the pickle, the same one for the same number."""

    beside: Sequence[bytes | None] = ()

    def persistent_load(self, number: int) -> Any:
        known: dict[int, Any] = self.__dict__.setdefault("known", {})
        if number not in known:
            known[number] = pickle.loads(self.beside[number] or b"")  # noqa: S301 - from a process that is trusted
        return known[number]


def refuse_secrets(value: Any) -> None:
    """Raise `NotRecordable` if a value is a secret, or has one among its first fields and items."""
    secrets = knows_secrets()
    waiting = deque([value])
    for _ in range(_MANY):
        if not waiting:
            return
        item = waiting.popleft()
        if secrets and is_secret(item):
            MASKER.learn(item)
            raise NotRecordable("it holds a secret")
        if isinstance(item, bytes) and MASKER.is_in(item):
            raise NotRecordable("it holds a secret")
        waiting.extend(islice(items_of(item), _MANY))


def loads(content: bytes) -> Any:
    """Return the value of a pickle, which has to be authenticated before."""
    return _Unpickler(io.BytesIO(content)).load()


def find(module: str, name: str) -> Any:
    """Return what a module defines; what a script defines, whether that was run or loaded by its path.

    Raises:
        AttributeError: it defines nothing of that name.
    """
    return _Unpickler(io.BytesIO()).find_class(module, name)


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
