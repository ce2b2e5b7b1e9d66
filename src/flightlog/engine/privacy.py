"""Personal values: how they are marked, whose they are, and which calls belong to whom on their account.

A call belongs to everybody whose values its code may know: those that it is given, those of the call that makes it,
and those that calls of its own have returned or raised. All that it leaves in the log is encrypted for them. Code
without any marks does not get here: `Personal.used` stays False.
"""

import dataclasses
import inspect
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, ForwardRef, Literal, get_args, get_origin, get_type_hints

from flightlog.engine.annotations import Annotation
from flightlog.engine.arguments import Found, are_plain, items_of, look
from flightlog.engine.futures import BaseFuture
from flightlog.engine.states import State
from flightlog.errors import ParameterTypeError, PersonalValues
from flightlog.events.subjects import Subjects, Vault
from flightlog.events.types import EVENT_EMITTED, INPUT_SENT, VARIABLE_SET

if TYPE_CHECKING:
    from flightlog.engine.context import RunContext
    from flightlog.engine.runs import Run

RETURNED = "return"
"""Stands for what a function returns, among its parameters: no parameter can have that name."""
_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Personal:
    """Marks a parameter, a returned value, or a field of a pydantic model or dataclass, as personal data.

    Results, exceptions and log lines of a call that is given such a value, or returns one, are encrypted under the key
    of the person (the subject) before they are recorded. ``flightlog audit erase`` destroys that key.

    Args:
        of: the parameter, or the field beside this one, whose value names the subject; the value itself by default.

    Examples:
        >>> from typing import Annotated
        >>> from flightlog import task
        >>> @task
        ... def greet(email: Annotated[str, Personal()], name: Annotated[str, Personal(of="email")]) -> str:
        ...     return f"Dear {name}"
    """

    of: str | None = None

    used: ClassVar[bool] = False
    """Whether any value in this process may be personal."""

    def __post_init__(self) -> None:
        Personal.used = True


class Marks:
    """What of a function's parameters is personal by its annotation.

    Args:
        name: what the function is called.
        signature: its signature.
        function: itself.

    Attributes:
        parameters: the marks by parameter.

    Raises:
        TypeError: a mark names a parameter that is not there.
    """

    def __init__(self, name: str, signature: inspect.Signature, function: Any) -> None:
        self._name = name
        self._globals = _globals_of(function)
        self._texts: dict[str, Any] = {}
        self._names = frozenset(signature.parameters)
        self.parameters: dict[str, list[Personal]] = {}
        for parameter, given in signature.parameters.items():
            self._take(parameter, given.annotation)
        self._take(RETURNED, signature.return_annotation)
        if self._texts:
            here = _locals_of_caller()
            self._texts = {
                parameter: hint for parameter, hint in self._texts.items() if not self._read(parameter, here)
            }

    @property
    def is_open(self) -> bool:
        """Whether there are annotations whose names are not there yet."""
        return bool(self._texts)

    def __call__(self) -> Mapping[str, list[Personal]]:
        """Return the marks by parameter; what could not be read before is read now."""
        if self._texts:
            with _lock:
                for parameter in [parameter for parameter in self._texts if not self._read(parameter, {})]:
                    self._give_up(parameter)
                self._texts = {}
        return self.parameters

    def _take(self, parameter: str, hint: Any) -> None:
        if _has_text(hint):
            self._texts[parameter] = hint
            return
        if marks := list(_marks_in(hint, set())):
            self.parameters[parameter] = marks
        for mark in marks:
            if mark.of is not None and mark.of not in self._names:
                raise TypeError(
                    f"{self._name!r} marks {parameter!r} as personal of {mark.of!r}, and has no parameter of that name."
                )

    def _read(self, parameter: str, names: Mapping[str, Any]) -> bool:
        """Take an annotation that is text, or has some in it; tell whether that could be done."""
        told = SimpleNamespace(__annotations__={parameter: self._texts[parameter]})
        try:
            hint = get_type_hints(told, self._globals, dict(names), include_extras=True)[parameter]
        except Exception:  # noqa: BLE001 - an annotation may be any text
            return False
        self._take(parameter, hint)
        return True

    def _give_up(self, parameter: str) -> None:
        """Refuse an annotation that speaks of personal values and cannot be read; warn of any other one."""
        told = f"The annotation of {parameter!r} in {self._name!r}, {self._texts[parameter]!r}, cannot be read"
        if "Personal" in str(self._texts[parameter]):
            raise TypeError(f"{told}. Say what is personal with names that the module defines.")
        logging.getLogger("flightlog.engine").warning("%s, so its values are not taken for personal.", told)


def _globals_of(function: Any) -> dict[str, Any]:
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = function.func
    if not hasattr(function, "__globals__"):
        function = type(function).__call__
    found: dict[str, Any] = getattr(function, "__globals__", {})
    return found


def _locals_of_caller() -> Mapping[str, Any]:
    """Return the names that are known where a function is decorated."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("flightlog."):
        frame = frame.f_back
    return frame.f_locals


def _has_text(hint: Any) -> bool:
    """Tell whether an annotation is text, or has some inside of it that stands for a type."""
    if isinstance(hint, (str, ForwardRef)):
        return True
    if get_origin(hint) is Annotated:
        return _has_text(hint.__origin__)
    return get_origin(hint) is not Literal and any(_has_text(inner) for inner in get_args(hint) if inner is not hint)


def marks_of(signature: Any, function: Any) -> Marks | None:
    """Return the marks of a function's parameters; None if there are none, which is decided once.

    Args:
        signature: the function's `flightlog.engine.parameters.Signature`.
        function: the function.

    Raises:
        TypeError: a mark names a parameter that is not there.
    """
    marks = Marks(getattr(function, "__name__", "it"), signature.signature, function)
    return marks if marks.parameters or marks.is_open else None


def _marks_in(hint: Any, seen: set[int]) -> Iterator[Personal]:
    """Yield the marks in an annotation, but for those of fields, which are found by the values."""
    if id(hint) in seen:
        return
    seen.add(id(hint))
    if get_origin(hint) is Annotated:
        yield from (mark for mark in hint.__metadata__ if isinstance(mark, Personal))
        yield from _marks_in(hint.__origin__, seen)
        return
    hint = getattr(hint, "__value__", hint)  # of a `type` statement
    if not isinstance(hint, type) or get_args(hint):
        for inner in get_args(hint):
            yield from _marks_in(inner, seen)


_fields: dict[type, dict[str, list[Personal]]] = {}


def _marked_fields(kind: type) -> dict[str, list[Personal]]:
    """Return the marks of a model's or dataclass's fields, by field."""
    if kind not in _fields:
        if hasattr(kind, "__pydantic_fields__"):
            known = kind.__pydantic_fields__
            hints = {name: [*field.metadata, field.annotation] for name, field in known.items()}
        elif dataclasses.is_dataclass(kind):
            try:
                hints = {name: [hint] for name, hint in get_type_hints(kind, include_extras=True).items()}
            except Exception as error:  # noqa: BLE001 - an annotation may be any text
                if "Personal" in repr(vars(kind).get("__annotations__")):
                    raise TypeError(
                        f"The annotations of {kind.__qualname__!r} cannot be read: {error}. Say what is personal with "
                        "names that the module defines."
                    ) from None
                hints = {}
        else:
            return {}
        found = {
            name: [
                mark for part in parts for mark in ([part] if isinstance(part, Personal) else _marks_in(part, set()))
            ]
            for name, parts in hints.items()
        }
        _fields[kind] = {name: marks for name, marks in found.items() if marks}
    return _fields[kind]


class Given:
    """What some arguments have of personal values.

    Args:
        name: the function's name.
        marks: its marks; None for one without any.
        parameters: the arguments by parameter.

    Attributes:
        names: the names of the subjects.
        parameters: the parameters that have personal values.

    Raises:
        ParameterTypeError: it cannot be told whose a value is.
    """

    def __init__(self, name: str, marks: Marks | None, parameters: Mapping[str, Any]) -> None:
        self._name = name
        self.names: set[str] = set()
        self.parameters: set[str] = set()
        for parameter, found in (marks() if marks is not None else {}).items():
            value = parameters.get(parameter)
            if parameter == RETURNED and value is None:
                # Whose it will be is known before it is there, so that what is logged meanwhile is theirs too.
                self.names.update(name for mark in found if mark.of for name in _names_in(parameters.get(mark.of)))
                continue
            if any(_names_in(value)):
                self.parameters.add(parameter)
                self._take(found, parameter, value, parameters)
        if not are_plain(parameters.values()):
            for parameter, value in parameters.items():
                self._look(parameter, value, parameters)

    def _take(self, marks: Iterable[Personal], place: str, value: Any, beside: Mapping[str, Any]) -> None:
        for mark in marks:
            names = set(_names_in(value if mark.of is None else beside.get(mark.of)))
            if not names:
                look(beside.get(mark.of or place), found := Found())
                if found.upstream:
                    continue  # it will be known when the call starts
                raise ParameterTypeError(
                    f"{place!r} of {self._name!r} is personal, and {mark.of!r}, which says whose it is, is empty. "
                    "Give it, so that it is known whom the value belongs to."
                )
            self.names |= names

    def _look(self, parameter: str, value: Any, parameters: Mapping[str, Any]) -> None:
        """Find the models in a value, at any depth, and take what is personal in them."""
        waiting, seen = [value], set[int]()
        while waiting:
            item = waiting.pop()
            if isinstance(item, Annotation):
                item = item.value
            if id(item) in seen or isinstance(item, (BaseFuture, State)):
                continue
            seen.add(id(item))
            marked = _marked_fields(type(item))
            if marked:
                fields = {**parameters, **{name: getattr(item, name, None) for name in _field_names(item)}}
                for name, marks in marked.items():
                    if any(_names_in(fields[name])):
                        self.parameters.add(parameter)
                        self._take(marks, name, fields[name], fields)
            inner = items_of(item)
            if not are_plain(inner):
                waiting.extend(inner)


def _field_names(model: Any) -> Iterable[str]:
    kind = type(model)
    return getattr(kind, "__pydantic_fields__", None) or [field.name for field in dataclasses.fields(model)]


def _names_in(value: Any) -> Iterator[str]:
    """Yield what a value says of the subjects: the text of it, or of what it holds."""
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if isinstance(item, Annotation):
            item = item.value
        if item is None or id(item) in seen or isinstance(item, (BaseFuture, State)):
            continue
        if isinstance(item, (str, int, float)):
            if text := str(item):
                yield text
        elif hasattr(item, "get_secret_value"):
            waiting.append(item.get_secret_value())
        elif isinstance(item, bytes):
            yield item.decode("utf-8", "surrogateescape")
        elif isinstance(item, (list, tuple, set, frozenset, dict)) or (inner := items_of(item)):
            seen.add(id(item))
            waiting.extend(items_of(item) if isinstance(item, (list, tuple, set, frozenset, dict)) else inner)
        else:
            yield str(item)


def owners(vault: Vault, given: Given) -> Subjects:
    """Return the subjects of personal values."""
    return frozenset(vault.subject(name) for name in given.names)


def given_to(definition: Any, parameters: Mapping[str, Any]) -> Given | None:
    """Return what of a call's arguments is personal; None for nothing.

    Raises:
        ParameterTypeError: it cannot be told whose a value is.
    """
    if not Personal.used:
        return None
    given = Given(definition.name, definition.marks, parameters)
    return given if given.names or given.parameters else None


def learn_owners(definition: Any, run: "Run", parameters: Mapping[str, Any], value: Any) -> None:
    """Have a run belong to those whose personal values it returns, marked by its annotation or by their fields.

    Args:
        definition: the flow or task.
        run: the run.
        parameters: what it was given, by name.
        value: what it returns.

    Raises:
        ParameterTypeError: it cannot be told whose a value is.
    """
    given = given_to(definition, {**parameters, RETURNED: value})
    if given is not None:
        belongs(run, owners(run.journal.engine.vault, given))


def belongs(run: "Run", subjects: Subjects) -> None:
    """Have a run belong to some subjects from now on, besides those that it belongs to."""
    if not subjects <= run.subjects:
        with _lock:  # calls that end at the same time tell the one that made them
            run.subjects = run.subjects | subjects


_REFUSED = {EVENT_EMITTED: "An event", VARIABLE_SET: "A variable", INPUT_SENT: "An input for a run"}


def check_open(context: "RunContext | None", type_: str) -> None:
    """Refuse to record what is not encrypted, in a run that has personal values.

    Args:
        context: the run; None outside of runs.
        type_: the type of the event that is to be recorded.

    Raises:
        PersonalValues: it is such a run.
    """
    if context is None:
        return
    run: Any = getattr(context, "task_run", None) or context.flow_context.flow_run
    if run.personal:
        raise PersonalValues(
            f"{_REFUSED.get(type_, 'An artifact')} is recorded as it is, and this run has personal values, which could "
            "not be erased from it. Make it in a run that is given none of them, and none of what was made of them."
        )


__all__ = [
    "Given",
    "Marks",
    "Personal",
    "belongs",
    "check_open",
    "given_to",
    "learn_owners",
    "marks_of",
    "owners",
]
