"""Pieces that payloads of several subjects share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from flightlog.events.types import Cause

Identifier = Annotated[bytes, Field(min_length=16, max_length=16, description="A UUID, 16 bytes.")]
Digest = Annotated[bytes, Field(min_length=32, max_length=32, description="A SHA-256, 32 bytes.")]
Microseconds = Annotated[int, Field(ge=0, description="Microseconds since 1970 (UTC).")]


class Payload(BaseModel):
    """What all payloads have in common: no field that is not written down here."""

    model_config = ConfigDict(extra="forbid", strict=True, ser_json_bytes="base64", val_json_bytes="base64")


Personal = Annotated[
    Identifier | None,
    Field(description="Whose personal data it holds: a group of subjects. Texts and values in it are encrypted."),
]


class Result(Payload):
    """Where a value is: a blob, or here in line, or nowhere, with the reason."""

    digest: Digest | None = Field(None, description="The SHA-256 of the stored bytes.")
    size: int | None = Field(None, ge=0, description="The size of the stored bytes.")
    serializer: str | None = Field(None, description="How the value became bytes, such as `pickle`.")
    mark: Digest | None = Field(
        None, description="Of the stored bytes under the log's key, where these do not begin with it themselves."
    )
    storage: str | None = Field(None, description="The storage that has the bytes; the log if there is none.")
    path: str | None = Field(None, description="Under which name it has them.")
    value: bool | None = Field(None, description="None, True or False themselves, which need no blob.")
    not_recorded: str | None = Field(None, description="Why the value is not recorded.")
    personal: Personal = None


class Error(Payload):
    """What went wrong, in words."""

    type: str = Field(description="The exception's class, such as `ValueError`.")
    message: str = Field(description="What it says, secrets masked.")
    traceback: str | None = Field(None, description="Where it was raised, as Python prints it, secrets masked.")


class Process(Payload):
    """What tells a process from every other one."""

    host: str = Field(description="The machine's name.")
    pid: int = Field(description="The process.")
    boot: str | None = Field(None, description="The id of the machine's present boot.")
    namespace: int | None = Field(None, description="The inode of the process's pid namespace.")
    started: int | None = Field(None, description="When the process started, in clock ticks since boot.")


class Cache(Payload):
    """What the cache had to do with a task run."""

    key: str | None = Field(None, description="The cache key, secrets masked; the first 2,000 characters of it.")
    parts: dict[str, str] | None = Field(None, description="What the key was made of; digests are under the log's key.")
    uncached: str | None = Field(None, description="Why the cache was neither asked nor given anything.")
    miss: str | None = Field(None, description="Why the function ran all the same.")
    flow_run_id: Identifier | None = Field(None, description="The flow run whose task run computed the value.")
    task_run_id: Identifier | None = Field(None, description="The task run that computed the value.")


class StateChange(Payload):
    """A run went into another state."""

    name: str | None = Field(None, description="The state's name, where it is not its type's usual one.")
    message: str | None = Field(None, description="What the state says of itself.")
    personal: Personal = None


class End(StateChange):
    """A run, or an attempt of it, ended."""

    attempt: int = Field(1, ge=0, description="Which attempt; 0 if the run never started.")
    result: Result | None = None
    error: Error | None = None
    cause: Cause | None = Field(None, description="The class of what went wrong.")
    partial: bool | None = Field(
        None, description="True for a generator that was left before its end: its caller wanted no more pieces."
    )
