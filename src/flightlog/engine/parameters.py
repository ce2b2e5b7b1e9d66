"""Parameters: from the arguments of a call to what the function gets, and what the log keeps of them."""

import inspect
import json
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from inspect import Parameter
from itertools import islice
from typing import Any, NoReturn

from flightlog.engine import results
from flightlog.engine.arguments import are_plain, items_of
from flightlog.engine.serializers import PICKLE
from flightlog.errors import ParameterBindError, ParameterTypeError, ReservedArgumentError
from flightlog.events.subjects import HIDDEN
from flightlog.masking import MASKER

_MANY = 2000
_REFUSED = "Flow run received invalid parameters:"


class Signature:
    """The parameters of a flow's or task's function.

    Args:
        function: the function.
        reserved: names that its parameters may not have.

    Attributes:
        marks: which parameters are personal; their values are in no message then. None if none is.

    Raises:
        ReservedArgumentError: a parameter has a reserved name.
    """

    def __init__(self, function: Callable[..., Any], reserved: tuple[str, ...]) -> None:
        self.function = function
        self._name = getattr(function, "__name__", type(function).__name__)
        try:
            self.signature = inspect.signature(function)
        except ValueError:
            raise TypeError(
                f"{self._name!r} does not tell its parameters. Wrap it in a function of your own, and decorate that."
            ) from None
        for name in reserved:
            if name in self.signature.parameters:
                raise ReservedArgumentError(
                    f"{self._name!r} has a parameter {name!r}, which calls use themselves. Give it another name."
                )
        parameters = self.signature.parameters.values()
        self.names = [parameter.name for parameter in parameters]
        self._kinds = {parameter.kind for parameter in parameters}
        self._plain = self._kinds <= {Parameter.POSITIONAL_OR_KEYWORD}
        self.keywords = next((p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD), None)
        self.marks: Callable[[], Mapping[str, Any]] | None = None
        self.defaults = {p.name: p.default for p in parameters if p.default is not Parameter.empty}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by parameter, with defaults.

        Raises:
            ParameterBindError: they do not fit.
        """
        if self._plain and len(args) <= len(self.names):
            # Nearly every call comes this way; `Signature.bind` takes ten times as long.
            bound = dict(zip(self.names, args, strict=False))
            rest = self.names[len(args) :]
            given = 0
            for name in rest:
                if name in kwargs:
                    bound[name] = kwargs[name]
                    given += 1
                elif name in self.defaults:
                    bound[name] = self.defaults[name]
                else:
                    break
            else:
                if given == len(kwargs):
                    return bound
        try:
            arguments = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            self._refuse(error, args, kwargs)
        arguments.apply_defaults()
        return dict(arguments.arguments)

    def _refuse(self, error: TypeError, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        text = MASKER.mask(f"args {_short(args)}, kwargs {_short(kwargs)}")
        if self.marks is not None and self.marks():
            text = f"{len(args)} positional arguments and the keywords {sorted(kwargs)}"
        raise ParameterBindError(f"{self._name}{self.signature} cannot be called with {text}: {error}.") from None

    def call_with(self, parameters: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments from values by parameter."""
        if self._plain:
            return tuple(parameters.values()), {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            value = parameters[name]
            if parameter.kind is Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind is Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return tuple(args), kwargs


class Refused:
    """Stands for an argument that was not validated: it is not recorded, as it might be meant to be a secret."""

    def __init__(self, value: Any) -> None:
        self.type = type(value).__name__

    def __reduce__(self) -> Any:
        raise results.NotRecordable("it was not validated")


class Validator:
    """Checks a flow's arguments against its annotations, and casts them: as lenient as pydantic is told to be.

    Args:
        signature: the function's parameters.

    Raises:
        ValueError: the annotations cannot be made a model of.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self.model: Any = None
        self._lenient: Callable[[Any], Any] | None = None
        if signature.names:
            try:
                self.model = self._build()
            except NameError:
                pass  # an annotation names what is defined further down; at the first call it will be there
            except Exception as error:
                raise ValueError(
                    f"The parameters of {signature.function.__name__!r} cannot be validated: {error}. "
                    "Change the annotation, or say validate_parameters=False."
                ) from error

    def _build(self) -> Any:
        from pydantic import ConfigDict, Field, create_model

        function = inspect.unwrap(self._signature.function)
        target = function if inspect.isroutine(function) else type(function).__call__
        hints = inspect.get_annotations(target, eval_str=True)
        fields: dict[str, Any] = {}
        for number, (name, parameter) in enumerate(self._signature.signature.parameters.items()):
            hint: Any = hints.get(name, Any)
            if parameter.kind is Parameter.VAR_POSITIONAL:
                hint = tuple[hint, ...]
            elif parameter.kind is Parameter.VAR_KEYWORD:
                hint = dict[str, hint]
            elif parameter.default is None:
                hint = hint | None if isinstance(hint, type) or hasattr(hint, "__origin__") else hint
            fields[f"p{number}"] = (hint, Field(alias=name))
        config = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True, protected_namespaces=())
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Mixing V1 models")  # it would fail at each call
            return create_model("Parameters", __config__=config, **fields)

    def __call__(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters, cast.

        Raises:
            ParameterTypeError: some do not fit; the message has a line for each.
        """
        if not self._signature.names:
            return parameters
        from pydantic import ValidationError

        if self.model is None:
            try:
                self.model = self._build()
            except NameError as error:
                raise ParameterTypeError(
                    f"The annotations of {self._signature.function.__name__!r} name {error.name!r}, "
                    "which is not defined."
                ) from None
        try:
            model = self._validate(parameters)
        except ValidationError as error:
            lines = [
                f" - {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False, include_context=False)
            ]
            raise ParameterTypeError("\n".join([_REFUSED, *lines])) from None
        except Exception as error:
            told = f"validating them raised {type(error).__name__}: {error}"
            raise ParameterTypeError(f"{_REFUSED}\n - {told}") from error
        return {name: getattr(model, f"p{number}") for number, name in enumerate(self._signature.names)}

    def _validate(self, parameters: dict[str, Any]) -> Any:
        """Return the model of some parameters.

        Raises:
            ValidationError: they do not fit.
        """
        from pydantic import ValidationError

        try:
            return self.model.model_validate(parameters)
        except ValidationError as error:
            if all(problem["type"] != "string_type" for problem in error.errors(include_url=False)):
                raise
        if self._lenient is None:
            from flightlog.engine.leniency import lenient

            self._lenient = lenient(self.model.__pydantic_core_schema__)
        return self._lenient(parameters)


def schema(signature: Signature) -> dict[str, Any]:
    """Return the JSON Schema of a function's parameters; of one whose annotations have none, the names only."""
    required = [name for name in signature.names if name not in signature.defaults]
    try:
        found: dict[str, Any] = Validator(signature).model.model_json_schema(by_alias=True)
    except Exception:  # noqa: BLE001 - an annotation may be any object
        found = {"type": "object", "properties": {name: {"title": name} for name in signature.names}}
    return {**found, "title": "Parameters", "required": required}


def shown(parameters: Mapping[str, Any], personal: Collection[str] = ()) -> str:
    """Return the parameters as JSON, to be looked at: secrets masked, what has no JSON as ``"<TypeName>"``.

    Args:
        parameters: the values by parameter.
        personal: parameters that are not shown, as their values are personal.
    """
    if not parameters:
        return "{}"
    from pydantic_core import to_jsonable_python

    view: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in personal:
            view[name] = HIDDEN
            continue
        view[name] = f"<{value.type if isinstance(value, Refused) else type(value).__name__}>"
        if _has_iterator(value):
            continue  # what is read here would be lost to the function
        try:
            jsonable = to_jsonable_python(value, serialize_unknown=False, inf_nan_mode="strings")
            json.dumps(jsonable)
        except Exception:  # noqa: BLE001, S112 - serialising runs the object's own code
            continue
        view[name] = jsonable
    return MASKER.mask(json.dumps(view, ensure_ascii=False))


def _has_iterator(value: Any) -> bool:
    waiting, seen = [value], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Iterator):
            return True
        if id(value) not in seen and not are_plain(items := items_of(value)):
            seen.add(id(value))
            waiting.extend(items)
    return False


def recorded(
    key: bytes,
    parameters: Mapping[str, Any],
    keeping: results.Keeping = results.PLAINLY,
    personal: Collection[str] = (),
) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """Return what ``flow_run.created`` says of the parameters, and the blob of their exact values.

    Args:
        key: the log's key.
        parameters: the values by parameter.
        keeping: how the exact values are kept.
        personal: parameters that are not shown, as their values are personal.
    """
    if not parameters:
        return {}, {}
    exact, refused = {}, []
    for name, value in parameters.items():
        try:
            PICKLE.dumps_checked(value)
        except results.NotRecordable:
            refused.append(name)
        else:
            exact[name] = value
    reference, blobs = results.record(key, exact, keeping)
    facts: dict[str, Any] = {"parameters": shown(parameters, personal), "exact": reference}
    if refused:
        facts["not_recorded"] = refused
    return facts, blobs


def learn_secrets(parameters: Mapping[str, Any]) -> None:
    """Remember the secrets among some arguments, so that no text in the log holds them.

    It looks at `_MANY` values at the most, the outer ones first: large data is no place for secrets.
    """
    if are_plain(parameters.values()) or not results.knows_secrets():
        return
    waiting = deque(parameters.values())
    for _ in range(_MANY):
        if not waiting:
            return
        value = waiting.popleft()
        if results.is_secret(value):
            MASKER.learn(value)
        else:
            waiting.extend(islice(items_of(value), _MANY))


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - it is the user's own code
        text = f"<no repr: {type(error).__name__}>"
    return text if len(text) <= 300 else text[:300] + " ..."


__all__ = ["Signature", "Validator", "learn_secrets", "recorded", "schema", "shown"]
