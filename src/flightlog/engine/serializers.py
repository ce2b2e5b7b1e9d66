"""Serializers: how the value of a run becomes bytes, and bytes a value again.

A serializer's `spec` is a text such as ``compressed/lzma/json``. It is on record with each value, and enough to
read it back. Values of every serializer are authenticated with the log's key, see `flightlog.engine.results`.
"""

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

from flightlog.engine import pickles
from flightlog.engine.names import module_name
from flightlog.masking import MASKER
from flightlog.names import did_you_mean

_KINDS: dict[str, type["Serializer"]] = {}
_CLASS, _EXCEPTION, _DICT = "__class__", "__exception__", "__dict__"
_MARKS = frozenset({_CLASS, _EXCEPTION, _DICT})
_SCALARS = frozenset({bool, int, float, str})
_COLLECTIONS = frozenset({set, frozenset, deque})


class Serializer(ABC):
    """How values become bytes. A subclass with a `type` of its own can be named by it.

    Attributes:
        type: the name under which it is known.
    """

    type: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        known = _KINDS.get(cls.type)
        own = known is not None and known.__module__ == __name__  # the names of our own stay ours
        if cls.type and "type" in vars(cls) and not own:  # a variant that has its base's type does not take its place
            _KINDS[cls.type] = cls

    @property
    def spec(self) -> str:
        """What is put on record, and makes an equal serializer again."""
        return self.type

    @classmethod
    def of_spec(cls, rest: str) -> "Serializer":
        """Return the serializer that the part of a spec after the type stands for."""
        if rest:
            raise ValueError(f"The serializer {cls.type!r} takes nothing more, not {rest!r}.")
        return cls()

    @abstractmethod
    def dumps(self, value: Any) -> bytes:
        """Return a value as bytes; raise whatever fits if that cannot be done."""

    def dumps_checked(self, value: Any) -> bytes:
        """Return what `dumps` does, if no known secret is in it.

        Raises:
            NotRecordable: one is.
        """
        content = self.dumps(value)
        if MASKER.is_in(content):
            raise pickles.NotRecordable("it holds a secret")
        return content

    @abstractmethod
    def loads(self, content: bytes) -> Any:
        """Return the value that `dumps` made bytes of."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Serializer) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(self.spec)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.spec!r}>"


def serializer_of(given: Any) -> Serializer:
    """Return a serializer from an instance, or from its name or spec.

    Raises:
        ValueError: there is none of that name.
        TypeError: it is neither.
    """
    if isinstance(given, Serializer):
        return given
    if not isinstance(given, str):
        raise TypeError(f"A result serializer is a Serializer or its name, not {type(given).__name__}.")
    kind, _, rest = given.partition("/")
    if kind in _KINDS:
        return _KINDS[kind].of_spec(rest)
    made = _of_plugins(kind, given)
    return type(made).of_spec(rest) if rest else made


def _of_plugins(name: str, spec: str) -> Serializer:
    """Return a serializer that a plug-in brings; `spec` is what was asked for."""
    from flightlog.plugins.host import current_host

    host = current_host()
    make = host.find("register_serializers", name)
    if make is None:
        known = [*_KINDS, *host.names("register_serializers")]
        why = host.why_not("register_serializers", name) or did_you_mean(name, known)
        raise ValueError(f"There is no serializer {spec!r}.{why}")
    made = make()
    if not isinstance(made, Serializer):
        raise TypeError(f"What a plug-in calls the serializer {name!r} is a {type(made).__name__}, and no Serializer.")
    if made.spec.partition("/")[0] != name:  # it would be on record under a name that nobody knows
        raise TypeError(f"The serializer that a plug-in calls {name!r} puts itself on record as {made.spec!r}.")
    return made


def _library(name: str, what: str) -> Any:
    try:
        library = import_module(name)
    except ImportError:
        raise ValueError(f"The {what} {name!r} cannot be imported. Install it first: pip install {name}.") from None
    for function in ("dumps", "loads"):
        if not hasattr(library, function):
            raise ValueError(f"The {what} {name!r} has no {function!r}.")
    return library


class PickleSerializer(Serializer):
    """Values as pickles.

    Args:
        picklelib: the module whose `dumps` and `loads` are used, such as ``cloudpickle``.
    """

    type = "pickle"

    def __init__(self, picklelib: str = "pickle") -> None:
        self.picklelib = picklelib
        self._library = None if picklelib == "pickle" else _library(picklelib, "pickle library")

    @property
    def spec(self) -> str:
        """``pickle``, with the library if it is another one."""
        return self.type if self._library is None else f"{self.type}/{self.picklelib}"

    @classmethod
    def of_spec(cls, rest: str) -> Serializer:
        """Return the serializer with the library that is named."""
        return cls(rest or "pickle")

    def dumps(self, value: Any) -> bytes:
        """Return a pickle."""
        content: bytes = pickles.dumps(value) if self._library is None else self._library.dumps(value)
        return content

    def loads(self, content: bytes) -> Any:
        """Return the value of a pickle, which has to be authenticated before."""
        return pickles.loads(content) if self._library is None else self._library.loads(content)


class JSONSerializer(Serializer):
    """Values as JSON. What pydantic knows comes back as it was: models, dates, UUIDs, decimals, exceptions, ...

    Tuples come back as lists; keys of dicts as strings.

    Args:
        jsonlib: the module whose `dumps` and `loads` are used.
        object_encoder: makes something that JSON has of what it has not; ours by default.
        object_decoder: the other way round, called with each dict.
    """

    type = "json"

    def __init__(
        self,
        jsonlib: str = "json",
        object_encoder: Callable[[Any], Any] | None = None,
        object_decoder: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.jsonlib = jsonlib
        self._library = json if jsonlib == "json" else _library(jsonlib, "JSON library")
        self._encode = object_encoder
        self._decode = object_decoder or decoded

    @property
    def spec(self) -> str:
        """``json``, with the library if it is another one."""
        return self.type if self.jsonlib == "json" else f"{self.type}/{self.jsonlib}"

    @classmethod
    def of_spec(cls, rest: str) -> Serializer:
        """Return the serializer with the library that is named."""
        return cls(rest or "json")

    def dumps(self, value: Any) -> bytes:
        """Return JSON in UTF-8."""
        if self._encode is not None:
            content = self._library.dumps(value, default=self._encode)
        else:
            content = self._library.dumps(prepared(value))
        return content.encode() if isinstance(content, str) else bytes(content)

    def loads(self, content: bytes) -> Any:
        """Return the value that some JSON stands for."""
        if self.jsonlib == "json":
            return json.loads(content, object_hook=self._decode)
        return _revived(self._library.loads(content), self._decode)


def _revived(value: Any, decode: Callable[[dict[str, Any]], Any]) -> Any:
    """Do what `object_hook` does, for libraries that have none."""
    if isinstance(value, list):
        return [_revived(item, decode) for item in value]
    if isinstance(value, dict):
        return decode({name: _revived(item, decode) for name, item in value.items()})
    return value


def prepared(value: Any) -> Any:
    """Return a value made of what JSON has; what JSON has not is marked with its class, and so made again.

    Raises:
        TypeError: pydantic does not know it either, or its class cannot be found again.
        NotRecordable: it holds a secret.
    """
    kind = type(value)
    if value is None or kind in _SCALARS:
        return value
    if kind in (list, tuple):
        return [prepared(item) for item in value]
    if kind is dict:
        pairs = [(key, prepared(item)) for key, item in value.items()]
        # A dict that looks like one of our marks is marked itself, so that it comes back as it was.
        return {_DICT: [[str(key), item] for key, item in pairs]} if value.keys() & _MARKS else dict(pairs)
    if kind in _COLLECTIONS:
        return {_CLASS: _path_of(kind), "data": [prepared(item) for item in value]}
    if isinstance(value, BaseException):
        return {_EXCEPTION: _path_of(kind), "args": prepared(list(value.args))}
    return {_CLASS: _path_of(kind), "data": _dumped(value)}


def _dumped(value: Any) -> Any:
    """Return what pydantic makes of a value that JSON has not."""
    pickles.refuse_secrets(value)
    try:
        return json.loads(_adapter(type(value)).dump_json(value))
    except Exception as error:  # noqa: BLE001 - models run their own code
        raise TypeError(f"{type(value).__name__} cannot be written as JSON: {error}") from None


def decoded(value: dict[str, Any]) -> Any:
    """Return what a dict of JSON stands for; itself if it is no more than that."""
    if value.keys() == {_DICT}:
        return dict(value[_DICT])
    if value.keys() == {_EXCEPTION, "args"}:
        return _class_of(value[_EXCEPTION])(*value["args"])
    if value.keys() == {_CLASS, "data"}:
        kind = _class_of(value[_CLASS])
        return kind(value["data"]) if kind in _COLLECTIONS else _adapter(kind).validate_json(json.dumps(value["data"]))
    return value


def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(kind, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    except PydanticUserError:
        return TypeAdapter(kind)  # models and the like have a configuration of their own


def _path_of(kind: type[Any]) -> str:
    if "<locals>" in kind.__qualname__:
        raise TypeError(f"{kind.__name__} is defined in a function, where it cannot be found again")
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_of(path: str) -> Any:
    module, _, name = path.partition(":")
    if module_name(module) != "__main__":
        import_module(module)
    return pickles.find(module, name)


class CompressedSerializer(Serializer):
    """Values of another serializer, compressed.

    Args:
        serializer: the other one, or its name.
        compressionlib: the module whose `compress` and `decompress` are used: ``lzma``, ``bz2``, ``zlib``, ...
    """

    type = "compressed"

    def __init__(self, serializer: Serializer | str = "pickle", compressionlib: str = "lzma") -> None:
        self.serializer = serializer_of(serializer)
        self.compressionlib = compressionlib
        try:
            self._library = import_module(compressionlib)
        except ImportError:
            raise ValueError(f"The compression library {compressionlib!r} cannot be imported.") from None
        if not hasattr(self._library, "compress") or not hasattr(self._library, "decompress"):
            raise ValueError(f"The compression library {compressionlib!r} has no 'compress' and 'decompress'.")

    @property
    def spec(self) -> str:
        """``compressed/``, the library, and the spec of the other serializer."""
        return f"{self.type}/{self.compressionlib}/{self.serializer.spec}"

    @classmethod
    def of_spec(cls, rest: str) -> Serializer:
        """Return the serializer for ``json``, or for ``bz2/json``."""
        first, _, more = rest.partition("/")
        return cls(rest or "pickle") if first in _KINDS or not first else cls(more or "pickle", first)

    def dumps(self, value: Any) -> bytes:
        """Return a value as compressed bytes."""
        content: bytes = self._library.compress(self.serializer.dumps(value))
        return content

    def dumps_checked(self, value: Any) -> bytes:
        """Return what `dumps` does, if no known secret is in what is compressed."""
        content: bytes = self._library.compress(self.serializer.dumps_checked(value))
        return content

    def loads(self, content: bytes) -> Any:
        """Return the value of compressed bytes."""
        return self.serializer.loads(self._library.decompress(content))


class CompressedPickleSerializer(CompressedSerializer):
    """Pickles, compressed; see `CompressedSerializer`."""

    def __init__(self, compressionlib: str = "lzma") -> None:
        super().__init__("pickle", compressionlib)


class CompressedJSONSerializer(CompressedSerializer):
    """JSON, compressed; see `CompressedSerializer`."""

    def __init__(self, compressionlib: str = "lzma") -> None:
        super().__init__("json", compressionlib)


PICKLE = PickleSerializer()

__all__ = [
    "PICKLE",
    "CompressedJSONSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "JSONSerializer",
    "PickleSerializer",
    "Serializer",
    "serializer_of",
]
