"""Variables: small values that runs and people share by name. No secrets: they stand in the log as they are."""

import json
import re
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, Self

from flightlog.awaiting import as_asked
from flightlog.engine.context import CURRENT
from flightlog.engine.options import checked_tags
from flightlog.engine.privacy import check_open
from flightlog.engine.runtime import current_engine
from flightlog.errors import VersionConflict
from flightlog.events.model import NewEvent
from flightlog.events.types import VARIABLE_SET, VARIABLE_UNSET, variable_stream
from flightlog.masking import MASKER

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine

_NAME = re.compile(r"[a-z0-9_]{1,255}")
_LONGEST = 5000


class Variable:
    """A variable, as it was when it was asked for.

    Attributes:
        name: its name.
        value: its value: anything that JSON has.
        tags: its tags, sorted.
    """

    def __init__(self, name: str, value: Any, tags: Iterable[str] = ()) -> None:
        self.name = name
        self.value = value
        self.tags = sorted(tags)

    @classmethod
    def set(
        cls,
        name: str,
        value: Any,
        tags: Iterable[str] | None = None,
        overwrite: bool = False,
        *,
        actor: str = "engine",
        engine: "Engine | None" = None,
    ) -> "Variable":
        """Give a variable a value.

        Args:
            name: lower-case letters, digits and underscores, 255 at the most.
            value: anything that JSON has, 5,000 characters of it at the most.
            tags: labels.
            overwrite: whether it may have a value already.
            actor: who does so.
            engine: the engine; this process's by default.

        Raises:
            ValueError: it has a value already, or name or value do not fit.
            PersonalValues: it is set in a run that has personal values.
        """
        _check_name(name)
        check_open(CURRENT.get(), VARIABLE_SET)
        try:
            text = json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"The value of a variable is JSON, and {value!r} is not: {error}.") from None
        if len(text) > _LONGEST:
            raise ValueError(f"The value of a variable has at most {_LONGEST} characters, not {len(text)}.")
        told: dict[str, Any] = {"name": name, "value": MASKER.mask(text)}
        if labels := sorted(checked_tags(tags)):
            told["tags"] = labels
        engine = engine or current_engine()
        while True:
            kept = engine.kept("variables", variable_stream(name))
            if kept.state is not None and not overwrite:
                raise ValueError(f"The variable {name!r} has a value already. To give it another one: overwrite=True.")
            event = NewEvent(engine.ids.new(), VARIABLE_SET, told, engine.clock.now(), actor=actor)
            try:
                engine.log.append(variable_stream(name), [event], expected_version=kept.version)
            except VersionConflict:
                continue
            return cls(name, value, labels)

    @classmethod
    def get(cls, name: str, default: Any = None, *, engine: "Engine | None" = None) -> Any:
        """Return a variable; `default` if there is none of that name."""
        return as_asked(_find(name, default, engine))

    @classmethod
    def unset(cls, name: str, *, actor: str = "engine", engine: "Engine | None" = None) -> bool:
        """Take a variable away; tell if there was one."""
        _check_name(name)
        engine = engine or current_engine()
        while True:
            kept = engine.kept("variables", variable_stream(name))
            if kept.state is None:
                return as_asked(False)
            event = NewEvent(engine.ids.new(), VARIABLE_UNSET, {"name": name}, engine.clock.now(), actor=actor)
            try:
                engine.log.append(variable_stream(name), [event], expected_version=kept.version)
            except VersionConflict:
                continue
            return as_asked(True)

    def __await__(self) -> Generator[Any, Any, Self]:
        yield from ()  # async code of Prefect 2 awaits what `get` and `set` return
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variable) and (self.name, self.value) == (other.name, other.value)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Variable(name={self.name!r}, value={self.value!r})"


def get_value(name: str, default: Any = None) -> Any:
    """Return a variable's value; `default` if there is none of that name."""
    found = _find(name, None, None)
    return as_asked(default if found is None else found.value)


def _find(name: str, default: Any, engine: "Engine | None") -> Any:
    _check_name(name)
    state = (engine or current_engine()).kept("variables", variable_stream(name)).state
    return default if state is None else Variable(name, json.loads(state["value"]), state["tags"])


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(str(name)):
        raise ValueError(
            f"A variable's name has 1 to 255 lower-case letters, digits and underscores; {name!r} does not fit."
        )


__all__ = ["Variable", "get_value"]
