"""Input that a paused run waits for: what is asked, of what shape the answer has to be, and the answer's value."""

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

from flightlog.engine.messages import RunInputMessages
from flightlog.errors import InvalidInput
from flightlog.events.questions import VALUE, example_of, fields_of, is_plain, kind_of, shell_input
from flightlog.names import did_you_mean

_LONGEST, _SHOWN = 1000, 80


class RunInput(RunInputMessages):
    """The base of inputs: fields that it does not name are refused."""

    model_config = ConfigDict(extra="forbid")
    _description: ClassVar[str | None] = None

    @classmethod
    def with_initial_data(cls, description: str | None = None, **initial: Any) -> type[Self]:
        """Return a type of input that is shown with a description, and with values that the answer may leave out.

        Args:
            description: what whoever answers is shown.
            **initial: values by field.
        """
        if unknown := [name for name in initial if name not in cls.model_fields]:
            raise TypeError(f"{cls.__name__} has no field {unknown[0]!r}.{did_you_mean(unknown[0], cls.model_fields)}")
        fields: dict[str, Any] = {
            name: (field.annotation, initial.get(name, field)) for name, field in cls.model_fields.items()
        }
        made: Any = create_model(cls.__name__, __base__=cls, **fields)
        made._description = description
        return made  # type: ignore[no-any-return]


class Question:
    """What is asked of whoever resumes a run.

    Attributes:
        schema: the JSON Schema of the answer; None if nothing is asked.
        description: what is shown.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._plain = kind is not None and not (isinstance(kind, type) and issubclass(kind, BaseModel))
        self.schema: dict[str, Any] | None = None
        self.description: str | None = getattr(kind, "_description", None)
        if self._plain:
            inner = TypeAdapter(kind).json_schema()
            shared = {"$defs": inner.pop("$defs")} if "$defs" in inner else {}  # they are referred to from the root
            shape = {"type": "object", "properties": {VALUE: inner}, "required": [VALUE]}
            self.schema = {**shape, "additionalProperties": False, **shared}
        elif kind is not None:
            self.schema = kind.model_json_schema()
        if '"format": "password"' in json.dumps(self.schema):
            raise TypeError("it has a secret, and the log holds none; ask for the name of the secret instead")

    def read(self, answer: str | None) -> Any:
        """Return the value of an answer, which is JSON; the model's own validators may refuse it.

        Raises:
            ValidationError: they do.
        """
        if self._kind is None:
            return None
        document = json.loads(answer or "{}")
        if self._plain:
            return TypeAdapter(self._kind).validate_python(document.get(VALUE))
        return self._kind.model_validate(document)


def question_of(kind: Any) -> Question:
    """Return what is asked by naming the type of the answer.

    Raises:
        TypeError: it is no type that pydantic knows.
    """
    try:
        return Question(kind)
    except Exception as error:  # noqa: BLE001 - pydantic's own, of many kinds
        raise TypeError(f"wait_for_input cannot be {kind!r}: {error}") from None


def checked_answer(schema: str | None, given: Any) -> str | None:
    """Return an answer as JSON; None if nothing was asked.

    Args:
        schema: the JSON Schema of the answer, as JSON; None if nothing was asked.
        given: the answer: a dict, a model, or the value itself where a plain type was asked for.

    Raises:
        InvalidInput: it does not fit, or is missing.
    """
    if schema is None:
        if given is not None:
            raise InvalidInput("The run does not wait for input; resume it without.")
        return None
    jsonschema: Any = import_module("jsonschema")
    shape = json.loads(schema)
    document = given.model_dump(mode="json") if isinstance(given, BaseModel) else given
    if list(shape.get("properties", {})) == [VALUE] and not (isinstance(document, dict) and VALUE in document):
        document = {VALUE: document}
    try:
        text = json.dumps(document, allow_nan=False)
        errors = list(jsonschema.Draft202012Validator(shape).iter_errors(json.loads(text)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"The input is not JSON: {type(error).__name__}: {error}."[:500]) from None
    if errors and given is None:
        raise InvalidInput(
            f"The run waits for input ({'; '.join(fields_of(shape))}): give it as {shell_input(shape)} "
            f"(in Python: run_input={example_of(shape)!r})."
        )
    if errors:
        told = "; ".join(dict.fromkeys(what for error in errors for what in _misfits(error, shape)))[:_LONGEST]
        raise InvalidInput(f"The input does not fit, and the run stays paused: {told}.")
    return text


def _misfits(error: Any, shape: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a field of an answer, in words."""
    path = ".".join(map(str, error.absolute_path))
    name = "the input" if not path or (is_plain(shape) and path == VALUE) else path
    known = error.schema.get("properties", {})
    match error.validator:
        case "required":
            missing = [field for field in error.validator_value if field not in error.instance]
            yield from (
                f"{f'{path}.' if path else ''}{field} ({kind_of(known.get(field, {}), shape)}) is missing"
                for field in missing
            )
        case "additionalProperties":
            extra = [field for field in error.instance if field not in known]
            yield from (f"it has no field {field!r}{_perhaps(field, known)}" for field in extra)
        case "type" | "enum" | "const" | "anyOf" | "oneOf":
            given = json.dumps(error.instance, ensure_ascii=False)
            shown = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}..."
            yield f"{name} is to be {kind_of(error.schema, shape)}, not {shown}"
        case _:
            yield f"{name}: {error.message}"


def _perhaps(field: str, known: dict[str, Any]) -> str:
    near = did_you_mean(field, known, else_say="").strip()
    return near and f" ({near[0].lower()}{near[1:]})"


__all__ = ["Question", "RunInput", "checked_answer", "question_of"]
