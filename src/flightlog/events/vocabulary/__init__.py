"""The vocabulary: a pydantic model for the payload of every event type, one module per subject.

Programs that read the log validate with these; their JSON Schema is in the reference. The engine
writes payloads without them, for speed, and a test proves that whatever it writes validates.
"""

from typing import Any

from pydantic import BaseModel

from flightlog.events.model import Event
from flightlog.events.types import SCHEMAS
from flightlog.events.vocabulary import (
    artifacts,
    caches,
    concurrency,
    flow_runs,
    hooks,
    logs,
    task_runs,
    transactions,
)

_SUBJECTS = (flow_runs, task_runs, logs, hooks, caches, concurrency, artifacts, transactions)
MODELS: dict[str, type[BaseModel]] = {name: model for subject in _SUBJECTS for name, model in subject.MODELS.items()}

__all__ = ["MODELS", "json_schemas", "payload"]


def payload(event: Event) -> BaseModel | None:
    """Return an event's payload as its model; None for a type or schema that this version does not know."""
    model = MODELS.get(event.type)
    if model is None or event.envelope.schema > SCHEMAS[event.type]:
        return None
    return model.model_validate(event.data)


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every event type's payload, by type."""
    return {name: MODELS[name].model_json_schema() for name in sorted(MODELS)}
