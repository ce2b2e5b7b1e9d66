"""Cache policies: what the cache key of a call is made of.

A key consists of named parts. Each part is on record with every hit and miss, so that it can be seen which one differs.
Parts made of values are digests under the log's key: nobody can guess a value from them.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from copy import copy
from enum import StrEnum
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any, Self

from flightlog.engine.digests import input_digest

if TYPE_CHECKING:
    from flightlog.engine.context import TaskRunContext


class IsolationLevel(StrEnum):
    """What happens when two runs want the value of the same key at the same time."""

    READ_COMMITTED = "READ_COMMITTED"
    """Both compute it; the later one's is kept."""
    SERIALIZABLE = "SERIALIZABLE"
    """One computes it, the other waits for it."""


class NoKey(Exception):
    """A call has no cache key; the text says why. It runs uncached."""


class CachePolicy:
    """What a cache key is made of. Policies are added with ``+``; ``INPUTS - "name"`` leaves an argument out.

    For one of your own, make a subclass with `compute_key`.
    """

    _isolation: IsolationLevel | None = None

    @property
    def isolation_level(self) -> IsolationLevel:
        """What happens when two runs want the same value; READ_COMMITTED by default."""
        return self._isolation or IsolationLevel.READ_COMMITTED

    def compute_key(
        self, task_ctx: "TaskRunContext", inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **_: Any
    ) -> str | None:
        """Return the key of a call; None not to cache it.

        Args:
            task_ctx: the task run.
            inputs: its arguments by parameter, resolved.
            flow_parameters: the parameters of its flow run.
        """
        parts = self.parts(task_ctx, inputs)
        return None if parts is None else key_of(parts)

    def parts(self, context: "TaskRunContext", inputs: Mapping[str, Any]) -> dict[str, str] | None:
        """Return the parts of a call's key by name; None not to cache it.

        Raises:
            NoKey: an argument has no digest.
        """
        key = self.compute_key(context, inputs, context.flow_context.parameters)
        return None if key is None else {type(self).__name__: key}

    def configure(self, *, isolation_level: IsolationLevel | str) -> Self:
        """Return a policy like this one with another isolation level."""
        configured = copy(self)
        configured._isolation = IsolationLevel(isolation_level)
        return configured

    def __add__(self, other: "CachePolicy") -> "CachePolicy":
        if not isinstance(other, CachePolicy):
            return NotImplemented
        if isinstance(other, _NoCache):
            return self
        return other if isinstance(self, _NoCache) else _Sum([self, other])

    def __sub__(self, name: str) -> "CachePolicy":
        raise TypeError(f"Only INPUTS leaves arguments out: write INPUTS - {name!r}.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__.strip('_')}>"


def incomparable(name: str, value: Any) -> NoKey:
    """Return what says that an argument has no digest."""
    return NoKey(f"the argument {name!r} ({type(value).__name__}) cannot be compared with those of other runs")


def key_of(parts: Mapping[str, str]) -> str:
    """Return the key that consists of some parts."""
    text = "\n".join(f"{name}={parts[name]}" for name in sorted(parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class _Sum(CachePolicy):
    def __init__(self, policies: list[CachePolicy]) -> None:
        levels = {policy._isolation for policy in policies if policy._isolation is not None}
        if len(levels) > 1:
            raise ValueError("Cache policies with different isolation levels cannot be added.")
        self._policies = policies
        self._isolation = next(iter(levels), None)

    def parts(self, context: "TaskRunContext", inputs: Mapping[str, Any]) -> dict[str, str] | None:
        found: dict[str, str] = {}
        for policy in self._policies:
            parts = policy.parts(context, inputs)
            if parts is None:
                return None
            for name, part in parts.items():
                # Two policies of one class have parts of one name, and both count.
                while name in found:
                    name += "'"  # noqa: PLW2901 - the name that is still free
                found[name] = part
        return found

    def __sub__(self, name: str) -> CachePolicy:
        changed = copy(self)
        changed._policies = [
            policy - name if isinstance(policy, (_Inputs, _Sum)) else policy for policy in self._policies
        ]
        return changed

    def __repr__(self) -> str:
        return " + ".join(map(repr, self._policies))


class _Inputs(CachePolicy):
    def __init__(self, without: frozenset[str] = frozenset()) -> None:
        self._without = without

    def parts(self, context: "TaskRunContext", inputs: Mapping[str, Any]) -> dict[str, str] | None:
        key = context.flow_context.engine.key
        found = {}
        for name, value in inputs.items():
            if name in self._without:
                continue
            digest = input_digest(key, {name: value})
            if digest is None:
                raise incomparable(name, value)
            found[f"input {name}"] = digest.hex()
        return found

    def __sub__(self, name: str) -> CachePolicy:
        changed = copy(self)
        changed._without = self._without | {name}
        return changed


class _TaskSource(CachePolicy):
    def parts(self, context: "TaskRunContext", inputs: Mapping[str, Any]) -> dict[str, str] | None:
        return {"source": source_digest(context.task.function)}


@lru_cache(1024)
def source_digest(function: Any) -> str:
    """Return the SHA-256 of a function's source; of its code where there is no source."""
    try:
        content = inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        content = repr(function) if code is None else repr(_code_parts(code))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _code_parts(code: CodeType) -> tuple[Any, ...]:
    """Return what a function's code consists of, without addresses and line numbers."""
    constants = tuple(_code_parts(one) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


class _FlowParameters(CachePolicy):
    def parts(self, context: "TaskRunContext", inputs: Mapping[str, Any]) -> dict[str, str] | None:
        digest = input_digest(context.flow_context.engine.key, context.flow_context.parameters)
        if digest is None:
            raise NoKey("the flow's parameters cannot be compared with those of other runs")
        return {"flow parameters": digest.hex()}


class _RunId(CachePolicy):
    def parts(self, context: "TaskRunContext", inputs: Mapping[str, Any]) -> dict[str, str] | None:
        return {"run": context.flow_context.flow_run.id}


class _NoCache(CachePolicy):
    def parts(self, context: "TaskRunContext", inputs: Mapping[str, Any]) -> dict[str, str] | None:
        return None


class CacheKeyFnPolicy(CachePolicy):
    """The key that a function of the user's returns: ``cache_key_fn(context, parameters)``.

    Args:
        cache_key_fn: the function.
    """

    def __init__(self, cache_key_fn: Callable[[Any, dict[str, Any]], str | None]) -> None:
        self.cache_key_fn = cache_key_fn

    def parts(self, context: "TaskRunContext", inputs: Mapping[str, Any]) -> dict[str, str] | None:
        """Return what the function returns, as the only part."""
        key = self.cache_key_fn(context, dict(inputs))
        if key is not None and not isinstance(key, str):
            raise NoKey(f"the function returned {type(key).__name__}, not a string")
        if key is None and self.cache_key_fn is task_input_hash:
            digest_key = context.flow_context.engine.key
            raise next(incomparable(*one) for one in inputs.items() if input_digest(digest_key, dict([one])) is None)
        return None if key is None else {"key": key}


INPUTS: CachePolicy = _Inputs()
TASK_SOURCE: CachePolicy = _TaskSource()
FLOW_PARAMETERS: CachePolicy = _FlowParameters()
RUN_ID: CachePolicy = _RunId()
NO_CACHE: CachePolicy = _NoCache()
NONE: CachePolicy = NO_CACHE
DEFAULT: CachePolicy = INPUTS + TASK_SOURCE + RUN_ID


def task_input_hash(context: "TaskRunContext", arguments: dict[str, Any]) -> str | None:
    """Return a cache key for a task, its code and its arguments; None if the arguments have none. A `cache_key_fn`."""
    digest = input_digest(context.flow_context.engine.key, arguments)
    if digest is None:
        return None
    return key_of({"task": context.task.key, "source": source_digest(context.task.function), "inputs": digest.hex()})


def hash_objects(*args: Any, **kwargs: Any) -> str | None:
    """Return a digest of some values under the log's key, for a `cache_key_fn`; None if one of them has none."""
    from flightlog.engine.runtime import current_engine

    digest = input_digest(current_engine().key, {"args": args, "kwargs": kwargs})
    return None if digest is None else digest.hex()


__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NONE",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CacheKeyFnPolicy",
    "CachePolicy",
    "IsolationLevel",
    "hash_objects",
    "task_input_hash",
]
