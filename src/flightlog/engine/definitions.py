"""What flows and tasks have in common: a function, a name, and how its runs go."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, ParamSpec, Self, TypeVar, cast
from weakref import WeakValueDictionary

from flightlog.engine.bridge import is_async
from flightlog.engine.names import checked_name, function_key, key_hash, module_name
from flightlog.engine.options import (
    Hook,
    Retries,
    SharedOptions,
    changed,
    check_options,
    checked_hooks,
    checked_timeout,
)
from flightlog.engine.outcomes import interrupt_of
from flightlog.engine.parameters import Signature
from flightlog.engine.privacy import marks_of
from flightlog.engine.results import Keeping
from flightlog.engine.serializers import serializer_of
from flightlog.engine.states import State
from flightlog.engine.transitions import Policy

P = ParamSpec("P")
R = TypeVar("R")
_RESERVED: Final = ("return_state", "wait_for")


class Definition(Generic[P, R]):
    """A function that was decorated, with the options that flows and tasks share.

    Attributes:
        fn: the function itself; calling it leaves no trace.
        name: the name.
        isasync: whether the function is a coroutine function, or an async generator function.
        isgenerator: whether it is a generator function, sync or async.
        options: the options that were given, by name.
        key: what tells the function apart: module and qualified name.
        marks: which parameters are personal; None if none is.
    """

    kind: ClassVar[str]
    known_options: ClassVar[type]
    hook_kinds: ClassVar[tuple[str, ...]] = ("on_running", "on_completion", "on_failure")
    absent: ClassVar[Mapping[str, str]] = {}
    """Methods that users of Prefect look for and that are not there, and what is said of them."""
    __name__: str

    def __init__(self, fn: Callable[P, R], options: Mapping[str, Any]) -> None:
        check_options(options, self.known_options, self.kind)
        given = cast("SharedOptions", options)
        if isinstance(fn, str):
            raise TypeError(f"@{self.kind} decorates a function, not a string: write @{self.kind}(name={fn!r}).")
        self._binding: type[Any] | None = None
        if isinstance(fn, (classmethod, staticmethod)):
            self._binding, fn = type(fn), fn.__func__
        functools.update_wrapper(cast("Any", self), fn)
        self.fn = self.function = fn
        self.options = dict(options)
        self.isgenerator = inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)
        self.isasync = is_async(fn) or inspect.isasyncgenfunction(fn)
        self.signature = Signature(fn, _RESERVED)
        self.marks = marks_of(self.signature, fn)
        self.signature.marks = self.marks
        self.name = checked_name(given.get("name"), self.default_name(fn), self.kind)
        self.version = given.get("version")
        self.description = given.get("description") or inspect.getdoc(fn) or None
        self.timeout_seconds = checked_timeout(given.get("timeout_seconds"))
        self.persist_result = given.get("persist_result")
        self.result_storage = _storage(given.get("result_storage"))
        self.result_serializer = _serializer(given.get("result_serializer"))
        self.cache_result_in_memory = given.get("cache_result_in_memory") is not False
        # What rests on values being recorded turns that on, whatever the setting says.
        self._needs_values = not self.cache_result_in_memory
        self._inherits = self.result_storage is None and self.result_serializer is None
        self.log_prints = given.get("log_prints")
        self.hooks: dict[str, list[Hook]] = {}
        for kind in self.hook_kinds:
            if found := checked_hooks(options.get(kind), kind):
                self.hooks[kind] = found
        self._retries = Retries(given.get("retries"), given.get("retry_delay_seconds"))
        self._policy: Policy | None = None
        self.bound: tuple[Any, ...] = ()
        self._unbound: Self | None = None
        self.key = function_key(fn)
        self.key_hash = key_hash(self.key)
        _known[self.key, self.name] = self

    @staticmethod
    def default_name(fn: Any) -> str:
        """Return the name that a function gives."""
        return function_name(fn)

    @property
    def retries(self) -> int:
        """How often a failed attempt is tried again; 0 where that is left to the setting."""
        return self._retries.count or 0

    @property
    def retry_delay_seconds(self) -> Any:
        """The delays before retries, as they were given."""
        given = self.options.get("retry_delay_seconds")
        return 0 if given is None else given

    def policy(self, default: Policy) -> Policy:
        """Return how often a failed attempt is tried again, and when.

        Args:
            default: what the settings say for those that do not say it themselves.
        """
        if self._policy is not None:
            return self._policy
        count, delays, budgets = self._retries.count, self._retries.delays, self._retries.budgets
        if count is None and delays is None:
            return default  # the settings may be other ones next time
        if count is None or delays is None:
            return Policy(
                default.retries if count is None else count, default.delays if delays is None else delays, budgets
            )
        self._policy = Policy(count, delays, budgets)
        return self._policy

    def inherited(self, default: Keeping) -> Keeping:
        """Return how values are kept here and below, where nobody says otherwise.

        Args:
            default: how they are kept where this one is called.
        """
        if self._inherits:
            return default
        serializer, storage = self.result_serializer or default.serializer, self.result_storage or default.storage
        return replace(default, serializer=serializer, storage=storage)

    def keeping(self, default: Keeping) -> Keeping:
        """Return how the values of runs of this one are kept.

        Args:
            default: how values are kept where it is called.
        """
        found = self.inherited(default)
        if self.persist_result is None and not self._needs_values:
            return found
        persist = self._needs_values if self.persist_result is None else self.persist_result
        in_memory = self.cache_result_in_memory or not persist
        if (persist, in_memory) == (found.persist, found.in_memory):
            return found
        return replace(found, persist=persist, in_memory=in_memory)

    def _with(self, options: Mapping[str, Any]) -> Self:
        """Return one like this with some options changed."""
        made = type(self)(self._decorated(), **changed(self.options, options))
        _known[self.key, self.name] = self  # the copy may be gone soon
        made.hooks |= {kind: list(hooks) for kind, hooks in self.hooks.items() if options.get(kind) is None}
        if not self.bound:
            return made
        return made.__get__(None, self.bound[0]) if self._binding is classmethod else made.__get__(self.bound[0])

    def _decorated(self) -> Any:
        """Return the function as it was decorated."""
        return self.function if self._binding is None else self._binding(self.function)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by parameter, with defaults; a method's object among them.

        Raises:
            ParameterBindError: they do not fit the signature.
        """
        return self.signature.bind((*self.bound, *args) if self.bound else args, kwargs)

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Self:
        """Return what belongs to an object, as functions in classes do."""
        target = owner if self._binding is classmethod else instance
        if target is None or self._binding is staticmethod:
            return self
        bound = object.__new__(type(self))  # not copy.copy: that goes by `__reduce__`
        bound.__dict__.update(self.__dict__)
        bound.bound, bound._unbound = (target,), self
        bound.fn = cast("Any", MethodType(self.function, target))
        return bound

    def __reduce__(self) -> Any:
        """Travel by name where the name leads back here, else by function and options."""
        place = self.function.__module__, self.function.__qualname__
        if module_name(place[0]) != "__main__" and found_by_name(*place) is self:
            return _found, place
        return self.by_content()

    def by_content(self) -> tuple[Any, ...]:
        """Return how to make one like this of its function and options, as `__reduce__` does."""
        if self._unbound is not None:
            return _bound, (self._unbound, self.bound[0])
        return remade, (type(self), self._decorated(), self.options)

    if not TYPE_CHECKING:  # a type checker is to find wrong names by itself

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            text = self.absent.get(name)
            raise AttributeError(f"A {kind} has no {name!r}{f': {text}' if text else ''}.")

    def _add_hook(self, kind: str, hook: Hook) -> Hook:
        self.hooks.setdefault(kind, []).extend(checked_hooks([hook], kind))
        return hook

    def on_running(self, hook: Hook) -> Hook:
        """Call a function once a run is running: ``hook(flow, flow_run, state)``, ``hook(task, task_run, state)``."""
        return self._add_hook("on_running", hook)

    def on_completion(self, hook: Hook) -> Hook:
        """Call a function when a run has completed; see `on_running`."""
        return self._add_hook("on_completion", hook)

    def on_failure(self, hook: Hook) -> Hook:
        """Call a function when a run has failed and will not be tried again; see `on_running`."""
        return self._add_hook("on_failure", hook)


_known: "WeakValueDictionary[tuple[str, str], Definition[..., Any]]" = WeakValueDictionary()


def known(key: str, name: str) -> "Definition[..., Any] | None":
    """Return a flow or task that was made in this process and is still there, by its key and name; or None."""
    return _known.get((key, name))


def found_by_name(module: str, name: str) -> Any:
    """Return what a module that is loaded has under a qualified name; None if there is no such thing."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _found(module: str, name: str) -> Any:
    import_module(module)
    return found_by_name(module, name)


def remade(kind: type[Any], function: Any, options: dict[str, Any]) -> Any:
    """Return a flow or task made of its function and options."""
    return kind(function, **options)


def _bound(unbound: "Definition[..., Any]", target: Any) -> Any:
    return unbound.__get__(target, target if isinstance(target, type) else None)


def _storage(given: Any) -> Any:
    if given is None:
        return None
    from flightlog.engine.storages import storage_of

    return storage_of(given)


def _serializer(given: Any) -> Any:
    return None if given is None else serializer_of(given)


def function_name(fn: Any) -> str:
    """Return what a function calls itself.

    Raises:
        TypeError: it is no function.
    """
    if not callable(fn):
        raise TypeError(f"'fn' must be callable, not {type(fn).__name__}.")
    name: str = getattr(fn, "__name__", type(fn).__name__)
    return name


def finish(state: State[Any], return_state: bool) -> Any:
    """Return what a call gives: the state, or the value; raise what has to be raised."""
    interrupt = interrupt_of(state)
    if interrupt is not None:
        raise interrupt
    return state if return_state else state.result()
