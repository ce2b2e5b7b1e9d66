"""What people are left to look at, and what they share by name. One stream for each."""

from typing import Literal

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Payload


class InRun(Payload):
    """Something that may have been made in a run."""

    flow_run_id: Identifier | None = Field(None, description="The flow run that it was made in.")
    task_run_id: Identifier | None = Field(None, description="The task run that it was made in.")


class ArtifactCreated(InRun):
    """A run, or anybody else, left something to look at."""

    artifact_id: Identifier
    type: Literal["markdown", "table", "progress", "image"]
    data: str = Field(description="The content: Markdown, JSON of a table, per cent, or a URL; secrets masked.")
    key: str | None = Field(None, description="What it is known by; the newest with a key counts.")
    description: str | None = Field(None, description="What it is, secrets masked.")


class ArtifactUpdated(InRun):
    """The content of an artifact changed: its progress."""

    artifact_id: Identifier
    data: str
    description: str | None = None


class VariableSet(Payload):
    """A variable was given a value."""

    name: str
    value: str = Field(description="The value as JSON, secrets masked.")
    tags: list[str] | None = None


class VariableUnset(Payload):
    """A variable was taken away."""

    name: str


class EventEmitted(InRun):
    """The user's own code put a fact on record."""

    id: Identifier
    event: str = Field(description="What happened, such as `file.arrived`.")
    resource: dict[str, str] = Field(description="What it happened to, by label.")
    related: list[dict[str, str]] | None = Field(None, description="What else has to do with it.")
    payload: str | None = Field(None, description="What else is known, as JSON, secrets masked.")
    caused_by: Identifier | None = Field(None, description="The user's event that caused it.")


MODELS: dict[str, type[Payload]] = {
    "artifact.created": ArtifactCreated,
    "artifact.updated": ArtifactUpdated,
    "variable.set": VariableSet,
    "variable.unset": VariableUnset,
    "event.emitted": EventEmitted,
}
