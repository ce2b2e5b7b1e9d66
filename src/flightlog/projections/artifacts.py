"""The artifacts projection: what runs left to look at."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, Table, Text

from flightlog.events.model import Event
from flightlog.events.types import ARTIFACT_CREATED, ARTIFACT_UPDATED
from flightlog.projections.projection import Look, Put

metadata = MetaData()

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("key", Text),
    Column("type", Text),
    Column("data", Text),
    Column("description", Text),
    Column("created", BigInteger),
    Column("updated", BigInteger),
    Column("flow_run_id", LargeBinary),
    Column("task_run_id", LargeBinary),
    Index("artifacts_by_key", "key", "id"),
    Index("artifacts_by_flow_run", "flow_run_id"),
    sqlite_with_rowid=False,
)


class ArtifactsProjection:
    """Folds what was left, and how it changed, into one row for each artifact."""

    name: str = "artifacts"
    version: int = 1
    tables: Sequence[Table] = (artifacts,)
    types: frozenset[str] | None = frozenset({ARTIFACT_CREATED, ARTIFACT_UPDATED})

    def apply(self, event: Event, look: Look, /) -> Iterable[Put]:
        """Return what an event changes."""
        data = event.data
        values: dict[str, Any] = {name: data[name] for name in ("data", "description") if name in data}
        values["updated"] = event.occurred_at
        if event.type == ARTIFACT_CREATED:
            known = ("key", "type", "flow_run_id", "task_run_id")
            values |= {name: data[name] for name in known if name in data} | {"created": event.occurred_at}
        yield Put("artifacts", (data["artifact_id"],), values)
