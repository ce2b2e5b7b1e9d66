"""The vocabulary: a pydantic model for the payload of every event type, one module per subject.

Programs that read the log validate with these; their JSON Schema is in the reference. The engine
writes payloads without them, for speed, and a test proves that whatever it writes validates.
"""

from typing import Any

from pydantic import BaseModel

from flightlog.events.model import Event
from flightlog.events.types import SCHEMAS
from flightlog.events.vocabulary import (
    archives,
    artifacts,
    blocks,
    caches,
    concurrency,
    flow_runs,
    hooks,
    logs,
    notifications,
    plugins,
    seals,
    subjects,
    task_runs,
    transactions,
)

_SUBJECTS = (
    flow_runs,
    task_runs,
    logs,
    hooks,
    caches,
    concurrency,
    artifacts,
    blocks,
    transactions,
    plugins,
    notifications,
    seals,
    archives,
    subjects,
)
MODELS: dict[str, type[BaseModel]] = {name: model for subject in _SUBJECTS for name, model in subject.MODELS.items()}

_FOREIGN: dict[str, tuple[int, type[BaseModel]]] = {}

__all__ = ["MODELS", "json_schemas", "learn", "payload"]


def learn(type_: str, schema: int, model: type[BaseModel]) -> None:
    """Know an event type of somebody else's.

    Args:
        type_: the type's name.
        schema: the version of the shape that is known.
        model: that shape.

    Raises:
        ValueError: the name is taken.
    """
    if type_ in MODELS or _FOREIGN.get(type_, (schema, model)) != (schema, model):
        raise ValueError(f"the event type {type_!r} is there already")
    _FOREIGN[type_] = schema, model


def payload(event: Event) -> BaseModel | None:
    """Return an event's payload as its model; None for a type or schema that this version does not know."""
    model = MODELS.get(event.type)
    schema = SCHEMAS.get(event.type, 0)
    if model is None and event.type in _FOREIGN:
        schema, model = _FOREIGN[event.type]
    if model is None or event.envelope.schema > schema:
        return None
    return model.model_validate(event.data)


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every event type's payload, by type."""
    return {name: MODELS[name].model_json_schema() for name in sorted(MODELS)}
