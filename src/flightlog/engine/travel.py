"""How functions and values travel between the process that has a flow run and its worker processes.

What is defined in an importable module goes by name. What a script or a notebook defines goes along itself, by
cloudpickle, so that no worker runs the script again. Whatever was sent is known again when it comes back: a class is
the class that it was, and nothing is defined a second time in the process that has the flow run.
"""

import enum
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
from importlib import import_module
from itertools import count
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from flightlog.engine.culprits import culprit
from flightlog.engine.definitions import Definition, found_by_name, remade
from flightlog.engine.loading import SCRIPTS
from flightlog.engine.names import module_name

_PROTOCOL = 5
_CACHED = type(functools.lru_cache(len))
_KINDS = (type, FunctionType, Definition, _CACHED, typing.NewType)
"""What is known again when it comes back."""
_BY_CONTENT = 6
"""So many parts has what cloudpickle makes of a function or class that goes along itself."""
_NAMES_OF_CLASS = 3
"""Where in it the names are that a class is made with."""


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
            f"{what}{place} cannot be sent to another process: {why}. Make it inside the task, or use a task runner "
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


def send_whole(module: str) -> bool:
    """Send what a module defines along with what refers to it, from now on; tell whether that is possible, and new.

    Args:
        module: the name of a module that workers cannot import.
    """
    found = sys.modules.get(module)
    if found is None or module in _WHOLE:
        return False
    cloudpickle.register_pickle_by_value(found)
    _WHOLE.add(module)
    return True


_WHOLE = {"__main__"}


def _goes_along(module: str | None) -> bool:
    """Tell whether what a module defines goes along itself: it is a script, or workers cannot import it."""
    if module is None or module_name(module) == "__main__":
        return True
    return any(module == name or module.startswith(f"{name}.") for name in _WHOLE)


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
        found = sys.modules.get(module) if module is not None and _goes_along(module) else None
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
        special = _SPECIAL.get(type(value))
        if special is not None and (made := special(value)) is not None:
            return made
        if isinstance(value, Definition):
            return _definition(value)
        made = super().reducer_override(value)
        if isinstance(made, tuple) and len(made) == _BY_CONTENT and isinstance(value, type):
            return _class(value, made)
        return made


class _ToCluster(_Pickler):
    """Pickles for a worker of a cluster."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            if (by_name := _undecorated(value)) is not None:
                return by_name
            self.share_names(value)
        made = super().reducer_override(value)
        if isinstance(made, tuple) and (len(made) == _BY_CONTENT or made[0] in _MAKERS):
            return _known(_KNOWN.new_key(value), made, self.home(getattr(value, "__module__", None)))
        return made

    def share_names(self, function: FunctionType) -> None:
        """Let the functions of a script have one and the same global names there, if the worker is ours alone."""

    def home(self, module: str | None) -> "_Names | None":
        """Return what stands for the global names of a script; None if a module is none, or has none there."""
        return None


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


class _FromCluster(_Pickler):
    """Pickles for whoever may need it: what was sent to this worker goes along, and is known by its key."""

    def reducer_override(self, value: Any) -> Any:
        made = super().reducer_override(value)
        if isinstance(made, tuple) and isinstance(value, _KINDS) and (key := _KNOWN.key(value)) is not None:
            return _known(key, made, None)
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
    file = io.BytesIO()
    kind = _ToClusterBeside if beside else _PICKLERS[way]
    kind(file, beside).dump(value)
    return file.getvalue()


def _known(key: _Key, made: tuple[Any, ...], home: "_Names | None") -> tuple[Any, ...]:
    """Return how something goes along that is known by its key where it comes to."""
    make, args, *rest = made
    if len(made) == _BY_CONTENT:
        state, _, _, fill = rest
        rest = [(state, fill), None, None, _fill]
    return _again, (key, make, args, home), *rest


def _again(key: _Key, make: Callable[..., Any], args: Any, home: dict[str, Any] | None) -> Any:
    """Make what goes along itself, and know it by its key; where it is defined, return it as it is."""
    found = _KNOWN.get(key) if make is _cached or _KNOWN.is_ours(key) else None
    if found is not None:
        return found
    made = make(*args)
    _KNOWN.put(made, key)
    name = getattr(made, "__qualname__", ".")
    if home is not None and isinstance(made, type) and "." not in name:
        home.setdefault(name, made)  # whoever looks the class up by its name finds it
    return made


def _fill(made: Any, content: tuple[Any, Callable[[Any, Any], object]]) -> None:
    """Give a function or class what is in it, but where it is defined."""
    state, fill = content
    if not _KNOWN.is_ours(_KNOWN.key(made)):
        fill(made, state)


def _returned(key: _Key, name: str) -> Any:
    """Return what was sent, when it comes back."""
    found = _KNOWN.get(key)
    if found is None:
        raise LookupError(f"{name} is no longer there")
    return found


def _class(value: type[Any], made: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return how a class goes along itself, where cloudpickle leaves something out."""
    generic = vars(value).get("__pydantic_generic_metadata__")
    if generic and generic["origin"] is not None:
        return _subscripted, (generic["origin"], generic["args"])  # `Box[int]` has no name of its own
    if "__slots__" in vars(value) and not issubclass(value, (tuple, enum.Enum)):
        made[1][_NAMES_OF_CLASS]["__slots__"] = value.__slots__  # or its objects get a __dict__
    return made


def _undecorated(function: FunctionType) -> Any:
    """Return how the function of a task or flow goes by the name of that, if it can."""
    place = function.__module__, function.__qualname__
    if _goes_along(place[0]):
        return None
    found = found_by_name(*place)
    return (_function_of, place) if isinstance(found, Definition) and found.function is function else None


def _function_of(module: str, name: str) -> Any:
    import_module(module)
    return found_by_name(module, name).function


def _definition(definition: Definition[..., Any]) -> Any:
    """Return how a task or flow goes: by name, or by function and options."""
    return definition.by_content() if _goes_along(definition.function.__module__) else definition.__reduce__()


# --- what cloudpickle leaves to pickle, which looks it up by its name -------------------------------


def _reduce_code(value: CodeType) -> Any:
    """Keep the file's name, which cloudpickle leaves out from 3.1.3 on: tracebacks show lines by it."""
    make, parts = cloudpickle.Pickler.dispatch_table[CodeType](value)
    return make, tuple(value.co_filename if part == "<dynamic-code>" else part for part in parts)


def _reduce_cached(value: Any) -> Any:
    if not _goes_along(value.__module__):
        return None
    return _cached, (value.__wrapped__, value.cache_parameters())


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Return a function with a cache; in a worker the one that is there stays, with what it holds."""
    return functools.lru_cache(**parameters)(function)


def _reduce_cached_property(value: Any) -> Any:
    state = {name: item for name, item in vars(value).items() if name != "lock"}  # Python 3.11 has one in it
    return functools.cached_property, (value.func,), state


def _reduce_weak(value: Any) -> Any:
    return type(value), (dict(value),)


def _reduce_new_type(value: Any) -> Any:
    if not _goes_along(value.__module__):
        return None
    return typing.NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}


def _reduce_parameter(value: Any) -> Any:
    return (type(value), (value.__name__,)) if _goes_along(value.__module__) else None


def _reduce_alias(value: Any) -> Any:
    if not _goes_along(value.__module__):
        return None
    return _alias, (value.__name__, value.__value__, value.__type_params__)


def _alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    return typing.TypeAliasType(name, value, type_params=parameters)  # type: ignore[attr-defined]  # Python 3.12


_MAKERS = (_cached, remade, typing.NewType)


def _subscripted(origin: Any, args: tuple[Any, ...]) -> Any:
    return origin[args]


_SPECIAL: dict[Any, Callable[[Any], Any]] = {
    CodeType: _reduce_code,
    _CACHED: _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    weakref.WeakKeyDictionary: _reduce_weak,
    weakref.WeakValueDictionary: _reduce_weak,
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_parameter,
    typing.TypeVarTuple: _reduce_parameter,
}
if hasattr(typing, "TypeAliasType"):
    _SPECIAL[typing.TypeAliasType] = _reduce_alias


__all__ = ["Arrivals", "CannotTravel", "Way", "names_of", "packed", "send_whole", "unpacked"]
