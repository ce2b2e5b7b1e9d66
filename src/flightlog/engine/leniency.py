"""Leniency: models of the user's own take numbers for text, as all models of pydantic 1 did.

pydantic 2 has a setting for that, `coerce_numbers_to_str`, but what the parameters are validated with does not hand
it on to models inside, as each model has a configuration of its own. So the schema that pydantic has made is built
once more, with that setting wherever a model does not say otherwise.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from pydantic_core import SchemaValidator

_MODELS: Final = ("model", "dataclass")
_VALUES: Final = frozenset({"cls", "config", "default", "expected", "function", "metadata", "serialization"})
"""Parts of a schema that hold no schemas, but what may look like one."""


def lenient(schema: Any) -> Callable[[Any], Any]:
    """Return what validates as a model does, and takes numbers for text in the models inside it, too.

    Args:
        schema: the core schema of the model.
    """
    definitions: list[Any] = []

    def built(node: dict[str, Any]) -> Callable[[Any], Any]:
        inner = {"type": "definitions", "schema": walked(node["schema"]), "definitions": definitions}
        whole: Any = {**node, "config": _lenient(node.get("config")), "schema": inner}
        whole.pop("ref", None)
        return _validator(whole).validate_python

    def apart(node: dict[str, Any]) -> dict[str, Any]:
        # A validator of its own, as pydantic puts the one that the class has already in the place of an inner model.
        validator = cache(lambda: built(node))  # made when it is needed: a model may be inside itself

        def validate(value: Any) -> Any:
            return validator()(value)

        plain = {"type": "function-plain", "function": {"type": "no-info", "function": validate}}
        return {**plain, "ref": node["ref"]} if "ref" in node else plain

    def walked(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return type(part)(map(walked, part))
        if not isinstance(part, dict):
            return part
        if part.get("type") in _MODELS:
            return apart(part)
        copy = {key: value if key in _VALUES else walked(value) for key, value in part.items()}
        return {**copy, "config": _lenient(part["config"])} if "config" in part else copy

    if schema["type"] == "definitions":
        definitions.extend(map(walked, schema["definitions"]))
        schema = schema["schema"]
    return built(schema)


def _validator(schema: Any) -> SchemaValidator:
    """Return a validator by a model's schema: not the one that its class has already."""
    try:
        return SchemaValidator(schema, _use_prebuilt=False)
    except TypeError:
        return SchemaValidator(schema)  # pydantic before 2.13 does so, and has no such argument


def _lenient(config: Any) -> dict[str, Any]:
    return {"coerce_numbers_to_str": True, **(config or {})}


__all__ = ["lenient"]
