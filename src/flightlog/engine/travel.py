"""How functions and values travel between the process that has a flow run and its worker processes.

What is defined in an importable module goes by name. What a script or a notebook defines goes along itself, by
cloudpickle, so that no worker runs the script again. Whatever was sent is known again when it comes back: a class is
the class that it was, and nothing is defined a second time in the process that has the flow run.
"""

import functools
import io
import pickle
import sys
import threading
import typing
import uuid
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from itertools import count
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from flightlog.engine.culprits import culprit
from flightlog.engine.definitions import Definition
from flightlog.engine.loading import SCRIPTS, loading
from flightlog.engine.reductions import (
    BY_CONTENT,
    CACHED,
    MAKERS,
    SPECIAL,
    cached,
    completed,
    goes_along,
    named_in,
    of_definition,
    of_error,
    send_whole,
    undecorated,
    with_all_of_class,
)

_PROTOCOL = 5
_KINDS = (type, FunctionType, Definition, CACHED, typing.NewType)
"""What is known again when it comes back."""


class CannotTravel(TypeError):
    """A value cannot be sent to another process; the text names the place inside of it."""


class Way(Enum):
    """Where something goes."""

    TO_PROCESS = auto()
    """To a worker process, which works for this process alone."""
    FROM_PROCESS = auto()
    """From there to the process that started it."""
    TO_CLUSTER = auto()
    """To a worker of a cluster, which may work for others too."""
    FROM_CLUSTER = auto()
    """From there to the process that has the flow run, or to another worker."""


def packed(value: Any, what: str, way: Way, beside: Mapping[int, int] = {}) -> bytes:
    """Return a value as it travels between processes.

    Args:
        value: the value.
        what: what it is, for people.
        way: where it goes.
        beside: the numbers of the objects in it that travel another way, by their `id`.

    Raises:
        CannotTravel: it cannot be pickled.
    """
    dumps = functools.partial(_dumped, way, beside)
    try:
        return dumps(value)
    except Exception as error:  # noqa: BLE001 - pickling runs the object's own code
        place, why = culprit(value, dumps, error)
        raise CannotTravel(
            f"{what}{place} cannot be sent to another process: {why}. Make it where it is used, or use a task runner "
            "with threads."
        ) from None


def unpacked(content: bytes, what: str) -> Any:
    """Return what was packed by the other process.

    Args:
        content: what it sent.
        what: what it is, for people.

    Raises:
        CannotTravel: it cannot be made again here.
    """
    try:
        return pickle.loads(content)  # noqa: S301 - from a process that this one started, or was started by
    except Exception as error:  # noqa: BLE001 - unpickling runs the object's own code
        raise CannotTravel(f"{what} cannot be made again in another process: {type(error).__name__}: {error}") from None


_Key = tuple[str, int]


class _Known:
    """What has been sent, in all processes, under the same keys; only as long as somebody else holds it."""

    def __init__(self) -> None:
        self._process = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._numbers = count()
        self._objects: weakref.WeakValueDictionary[_Key, Any] = weakref.WeakValueDictionary()
        self._keys: weakref.WeakKeyDictionary[Any, _Key] = weakref.WeakKeyDictionary()

    def key(self, value: Any) -> _Key | None:
        """Return a value's key, if it has one."""
        try:
            return self._keys.get(value)
        except TypeError:  # a class whose metaclass has equality of its own
            return None

    def new_key(self, value: Any) -> _Key:
        """Return a value's key; a new one, if it has none."""
        with self._lock:
            key = self.key(value)
            if key is None:
                self._put(value, key := (self._process, next(self._numbers)))
            return key

    def put(self, value: Any, key: _Key) -> None:
        """Know a value under a key."""
        with self._lock:
            self._put(value, key)

    def _put(self, value: Any, key: _Key) -> None:
        with suppress(TypeError):
            self._keys[value] = key
            self._objects[key] = value

    def get(self, key: _Key) -> Any:
        """Return the value of a key, or None."""
        return self._objects.get(key)

    def is_ours(self, key: _Key | None) -> bool:
        """Tell whether this process has given a key: its value is defined here."""
        return key is not None and key[0] == self._process


_KNOWN = _Known()


class _Names(dict[str, Any]):
    """Stands for a script's global names, which all its functions share in a worker."""

    @classmethod
    def of(cls, module: str | None) -> "_Names | None":
        """Return what stands for the names of a module; None if it is no script."""
        found = sys.modules.get(module) if module is not None and goes_along(module) else None
        if found is None:
            return None
        file, package = getattr(found, "__file__", None), getattr(found, "__package__", None)
        return cls(__name__=module, __file__=file, __package__=package)

    def __reduce__(self) -> Any:
        return names_of, (self["__name__"], self["__file__"], self["__package__"])


def names_of(module: str, file: str | None = None, package: str | None = None) -> dict[str, Any]:
    """Return the global names of a script in a worker; it has the names that have come with functions."""
    found = _SCRIPTS.get(module)
    if found is None:
        found = _SCRIPTS[module] = ModuleType(module)
        vars(found).update({"__file__": file} if file is not None else {}, __package__=package)
        sys.modules[module] = found
    return vars(found)


_SCRIPTS: dict[str, ModuleType] = {}


class Arrivals:
    """Makes in a worker what the other process has sent.

    A call brings the script's global names along that its function uses, with the values they have at that time. A
    name that code in the worker has bound anew (an initializer's, a connection that is opened once) stays as it is.
    """

    def __init__(self) -> None:
        self._given: dict[str, dict[str, Any]] = {}

    def loads(self, content: bytes) -> Any:
        """Return what was packed."""
        own = {module: _changed(names_of(module), given) for module, given in self._given.items()}
        try:
            with loading():  # a module that this imports may call its flow, which would start workers for the same
                return pickle.loads(content)  # noqa: S301 - from the process that started this one
        finally:
            for module in _SCRIPTS:
                names, kept = names_of(module), own.get(module, {})
                self._given.setdefault(module, {}).update(_changed(names, kept))
                names.update(kept)


def _changed(names: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    missing = object()
    return {name: value for name, value in names.items() if before.get(name, missing) is not value}


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Also pickles what cloudpickle cannot, where a script defines it."""

    def __init__(self, file: Any, beside: Mapping[int, int]) -> None:
        super().__init__(file, _PROTOCOL)
        self.beside = beside

    def reducer_override(self, value: Any) -> Any:
        special = SPECIAL.get(type(value))
        if special is not None and (made := special(value)) is not None:
            return made
        if isinstance(value, BaseException) and (made := of_error(value)) is not None:
            return made
        if isinstance(value, Definition):
            return of_definition(value)
        made = super().reducer_override(value)
        if isinstance(made, tuple) and len(made) == BY_CONTENT and isinstance(value, type):
            if completed(value):
                made = super().reducer_override(value)
            return with_all_of_class(value, made)
        return made


class _ToCluster(_Pickler):
    """Pickles for a worker of a cluster."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            if (by_name := undecorated(value)) is not None:
                return by_name
            self.share_names(value)
        made = super().reducer_override(value)
        if isinstance(made, tuple) and (len(made) == BY_CONTENT or made[0] in MAKERS):
            home = self.home(getattr(value, "__module__", None))
            return _known(_KNOWN.new_key(value), made, home, self.named_in(value))
        return made

    def share_names(self, function: FunctionType) -> None:
        """Let the functions of a script have one and the same global names there, if the worker is ours alone."""

    def home(self, module: str | None) -> "_Names | None":
        """Return what stands for the global names of a script; None if a module is none, or has none there."""
        return None

    def named_in(self, value: Any) -> dict[str, Any]:
        """Return what a class of a script names in texts, which are looked up among the script's global names."""
        return {}


class _ToClusterBeside(_ToCluster):
    """The same, with numbers in the place of what travels another way."""

    def persistent_id(self, value: Any) -> int | None:
        return self.beside.get(id(value))


class _ToProcess(_ToCluster):
    """Pickles for a worker process."""

    def __init__(self, file: Any, beside: Mapping[int, int]) -> None:
        super().__init__(file, beside)
        self._homes: dict[str | None, _Names | None] = {}

    def share_names(self, function: FunctionType) -> None:
        names, home = function.__globals__, self.home(function.__module__)
        if home is not None and vars(sys.modules[function.__module__]) is names:
            self.globals_ref[id(names)] = home

    def home(self, module: str | None) -> "_Names | None":
        if module not in self._homes:
            self._homes[module] = _Names.of(module)
        return self._homes[module]


class _ToProcessAnnotated(_ToProcess):
    """The same, along with what the annotations of a script's classes name."""

    def named_in(self, value: Any) -> dict[str, Any]:
        return named_in(value) if isinstance(value, type) and self.home(value.__module__) is not None else {}


class _FromCluster(_Pickler):
    """Pickles for whoever may need it: what was sent to this worker goes along, and is known by its key."""

    def reducer_override(self, value: Any) -> Any:
        made = super().reducer_override(value)
        if isinstance(made, tuple) and isinstance(value, _KINDS) and (key := _KNOWN.key(value)) is not None:
            return _known(key, made, None, {})
        return made


class _FromProcess(_Pickler):
    """Pickles for the process that started this one, which has all that it sent."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, _KINDS) and (key := _KNOWN.key(value)) is not None:
            return _returned, (key, getattr(value, "__qualname__", ""))
        return super().reducer_override(value)


_PICKLERS = {
    Way.TO_PROCESS: _ToProcess,
    Way.FROM_PROCESS: _FromProcess,
    Way.TO_CLUSTER: _ToCluster,
    Way.FROM_CLUSTER: _FromCluster,
}


def _dumped(way: Way, beside: Mapping[int, int], value: Any) -> bytes:
    for script in SCRIPTS:
        send_whole(script)
    if way is Way.TO_PROCESS:
        with suppress(Exception):  # perhaps what an annotation names cannot travel: few need it there
            return _written(_ToProcessAnnotated, beside, value)
    return _written(_ToClusterBeside if beside else _PICKLERS[way], beside, value)


def _written(kind: type[_Pickler], beside: Mapping[int, int], value: Any) -> bytes:
    file = io.BytesIO()
    kind(file, beside).dump(value)
    return file.getvalue()


def _known(key: _Key, made: tuple[Any, ...], home: "_Names | None", named: dict[str, Any]) -> tuple[Any, ...]:
    """Return how something goes along that is known by its key where it comes to."""
    make, args, *rest = made
    if len(made) == BY_CONTENT:
        state, _, _, fill = rest
        rest = [(state, fill, home, named), None, None, _fill]
    return _again, (key, make, args, home), *rest


def _again(key: _Key, make: Callable[..., Any], args: Any, home: dict[str, Any] | None) -> Any:
    """Make what goes along itself, and know it by its key; where it is defined, return it as it is."""
    found = _KNOWN.get(key) if make is cached or _KNOWN.is_ours(key) else None
    if found is not None:
        return found
    made = make(*args)
    _KNOWN.put(made, key)
    name = getattr(made, "__qualname__", ".")
    if home is not None and isinstance(made, type) and "." not in name:
        home.setdefault(name, made)  # whoever looks the class up by its name finds it
    return made


def _fill(made: Any, content: tuple[Any, Callable[[Any, Any], object], dict[str, Any] | None, dict[str, Any]]) -> None:
    """Give a function or class what is in it, but where it is defined."""
    state, fill, home, named = content
    if not _KNOWN.is_ours(_KNOWN.key(made)):
        fill(made, state)
        if home is not None:
            home.update({name: value for name, value in named.items() if name not in home})


def _returned(key: _Key, name: str) -> Any:
    """Return what was sent, when it comes back."""
    found = _KNOWN.get(key)
    if found is None:
        raise LookupError(f"{name} is no longer there")
    return found


__all__ = ["Arrivals", "CannotTravel", "Way", "packed", "unpacked"]
