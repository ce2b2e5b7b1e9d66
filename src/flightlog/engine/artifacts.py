"""Artifacts: what runs leave for people to look at. Links, Markdown, tables, progress and images."""

import json
import math
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Self
from uuid import UUID

from flightlog.awaiting import as_asked
from flightlog.engine.emitting import put_on_record
from flightlog.engine.runtime import current_engine
from flightlog.events.types import ARTIFACT_CREATED, ARTIFACT_UPDATED, artifact_stream
from flightlog.ids import RandomIds, parse_id
from flightlog.masking import MASKER

_KEY = re.compile(r"[a-z0-9-]*")
_IDS = RandomIds()


class ArtifactId(UUID):
    """The id of an artifact; can be awaited too, as async code of Prefect 2 does."""

    def __await__(self) -> Generator[Any, Any, Self]:
        yield from ()
        return self


def _create(kind: str, data: str, key: str | None, description: str | None) -> ArtifactId:
    """Put an artifact on record.

    Raises:
        ValueError: the key has other characters than lower-case letters, digits and hyphens.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise ValueError(f"An artifact's key has lower-case letters, digits and hyphens only; {key!r} has others.")
    identifier = _IDS.new()
    told: dict[str, Any] = {"artifact_id": identifier, "type": kind, "data": MASKER.mask(data)}
    if key:
        told["key"] = key
    if description is not None:
        told["description"] = MASKER.mask(description)
    made = ArtifactId(bytes=identifier)
    put_on_record(artifact_stream(str(made)), ARTIFACT_CREATED, told)
    return made


def create_link_artifact(
    link: str, link_text: str | None = None, key: str | None = None, description: str | None = None
) -> ArtifactId:
    """Leave a link. The same key again makes a new version.

    Args:
        link: the URL.
        link_text: what to show for it; itself by default.
        key: what the artifact is known by: lower-case letters, digits, hyphens.
        description: what it is.
    """
    return _create("markdown", f"[{link_text or link}]({link})", key, description)


def create_markdown_artifact(markdown: str, key: str | None = None, description: str | None = None) -> ArtifactId:
    """Leave some Markdown. See `create_link_artifact`."""
    return _create("markdown", markdown, key, description)


def create_table_artifact(
    table: Mapping[str, Sequence[Any]] | Sequence[Any], key: str | None = None, description: str | None = None
) -> ArtifactId:
    """Leave a table: a dict of columns, a list of dicts, or a list of lists. NaN becomes null.

    See `create_link_artifact`.
    """
    return _create("table", json.dumps(_finite(table), default=str), key, description)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def create_progress_artifact(progress: float, key: str | None = None, description: str | None = None) -> ArtifactId:
    """Leave a progress bar, to be moved with `update_progress_artifact`.

    Args:
        progress: in per cent, 0 to 100.
        key: see `create_link_artifact`.
        description: what progresses.
    """
    return _create("progress", f"{_percent(progress):g}", key, description)


def update_progress_artifact(artifact_id: UUID, progress: float, description: str | None = None) -> ArtifactId:
    """Move a progress bar.

    Args:
        artifact_id: what `create_progress_artifact` returned.
        progress: in per cent, 0 to 100.
        description: another description, if it is to change.
    """
    identifier = parse_id(str(artifact_id))
    told: dict[str, Any] = {"artifact_id": identifier, "data": f"{_percent(progress):g}"}
    if description is not None:
        told["description"] = MASKER.mask(description)
    put_on_record(artifact_stream(str(artifact_id)), ARTIFACT_UPDATED, told)
    return ArtifactId(bytes=identifier)


def _percent(progress: float) -> float:
    if not 0 <= progress <= 100:
        raise ValueError(f"Progress is 0 to 100 per cent, not {progress}.")
    return float(progress)


def create_image_artifact(image_url: str, key: str | None = None, description: str | None = None) -> ArtifactId:
    """Leave an image that is at a public URL. See `create_link_artifact`."""
    return _create("image", image_url, key, description)


class Artifact:
    """An artifact, as the log has it.

    Attributes:
        id: its id.
        key: its key, or None.
        type: ``markdown``, ``table``, ``progress`` or ``image``.
        data: its content as text; JSON for a table.
        description: what it is, or None.
        flow_run_id: the flow run that left it, or None.
        task_run_id: the task run that left it, or None.
    """

    def __init__(self, view: Any) -> None:
        self.id = UUID(view.id)
        self.key: str | None = view.key
        self.type: str = view.type
        self.data: str = view.data
        self.description: str | None = view.description
        self.flow_run_id: str | None = view.flow_run_id
        self.task_run_id: str | None = view.task_run_id

    @classmethod
    def get(cls, key: str) -> "Artifact | None":
        """Return the newest artifact with a key, or None."""
        from flightlog.projections.artifact_queries import find_artifact
        from flightlog.projections.places import place_of
        from flightlog.projections.projector import Projector

        engine = current_engine()
        engine.log.flush()
        projector = Projector(engine.log, place_of(engine.settings.log_url))
        try:
            view = find_artifact(projector, key)
        finally:
            projector.close()
        return as_asked(None if view is None else cls(view))

    def __await__(self) -> Generator[Any, Any, Self]:
        yield from ()  # async code of Prefect 2 awaits what `get` returns
        return self

    def __repr__(self) -> str:
        return f"<Artifact {self.key or self.id} {self.type}>"


__all__ = [
    "Artifact",
    "ArtifactId",
    "create_image_artifact",
    "create_link_artifact",
    "create_markdown_artifact",
    "create_progress_artifact",
    "create_table_artifact",
    "update_progress_artifact",
]
