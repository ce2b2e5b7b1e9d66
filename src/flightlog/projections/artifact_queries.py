"""What people ask about artifacts."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from flightlog.ids import id_text, parse_id
from flightlog.projections.artifacts import artifacts
from flightlog.projections.projector import Projector


@dataclass(frozen=True, slots=True)
class ArtifactView:
    """An artifact as it is now. Times are in microseconds since 1970 (UTC)."""

    id: str
    key: str | None
    type: str
    data: str
    description: str | None
    created: int
    updated: int
    flow_run_id: str | None
    task_run_id: str | None


def list_artifacts(projector: Projector, *, flow_run: str | None = None, limit: int = 200) -> list[ArtifactView]:
    """Return the latest artifacts, newest first.

    Args:
        projector: the projections.
        flow_run: only what that flow run left, by its id.
        limit: how many at the most.
    """
    query = select(artifacts).order_by(artifacts.c.id.desc()).limit(limit)
    if flow_run is not None:
        query = query.where(artifacts.c.flow_run_id == parse_id(flow_run))
    return [_view(row) for row in projector.rows(query)]


def find_artifact(projector: Projector, wanted: str) -> ArtifactView | None:
    """Return the newest artifact with a key, or the one with an id; None if there is none."""
    query = select(artifacts).where(artifacts.c.key == wanted).order_by(artifacts.c.id.desc()).limit(1)
    found = list(projector.rows(query))
    if not found:
        try:
            found = list(projector.rows(select(artifacts).where(artifacts.c.id == parse_id(wanted))))
        except ValueError:
            return None
    return _view(found[0]) if found else None


def _view(row: Any) -> ArtifactView:
    values: dict[str, Any] = {}
    for name in ArtifactView.__dataclass_fields__:
        value = getattr(row, name)
        values[name] = id_text(value) if isinstance(value, bytes) else value
    return ArtifactView(**values)
