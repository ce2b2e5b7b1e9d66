"""What happens to a task run. It stands in the stream of its flow run."""

from typing import Annotated

from pydantic import Field

from flightlog.events.vocabulary.parts import Cache, End, Identifier, Microseconds, Payload, Personal, StateChange

InputDigest = Annotated[
    bytes, Field(min_length=16, max_length=16, description="Of the arguments, under the log's key: 16 bytes.")
]


class TaskRunCreated(Payload):
    """A task was called or submitted; or a flow was called by a flow, and this run stands for it."""

    task_run_id: Identifier
    task: str = Field(description="The task's name.")
    key: str = Field(description="The function: module and qualified name.")
    name: str = Field(description="The run's name.")
    parent: Identifier | None = Field(None, description="The task run that made this call.")
    inputs: dict[str, list[Identifier]] | None = Field(
        None, description="Which task runs' results each parameter was given; `wait_for` is one of them."
    )
    retries: int | None = Field(None, ge=0, description="How often it may be tried again.")
    tags: list[str] | None = Field(None, description="Its tags, sorted: the task's, and those that held at the call.")
    digest: InputDigest | None = Field(None, description="Of a call that a fork took over from the run it comes from.")
    child_flow_run_id: Identifier | None = Field(None, description="The flow run that this run stands for.")
    child_flow_run_name: str | None = Field(None, description="That flow run's name.")
    replaces: Identifier | None = Field(
        None, description="The task run of the same call of a subflow that failed before this one was made."
    )
    personal: Personal = None


class TaskRunning(StateChange):
    """The function is about to be called: committed before it is."""

    task_run_id: Identifier
    attempt: int = Field(1, ge=1)
    digest: InputDigest | None = Field(
        None, description="At the first attempt: what the arguments are, if that can be told."
    )
    cache: Cache | None = Field(None, description="Of a task that asks for caching: why there was none to be had.")


class TaskStateChange(StateChange):
    """A task run went into another state."""

    task_run_id: Identifier


class TaskScheduled(TaskStateChange):
    """A task run that had ended, or was cut short, runs again."""

    tags: list[str] | None = Field(None, description="Its tags, sorted, if they are other ones than before.")


class TaskEnd(End):
    """A task run ended."""

    task_run_id: Identifier
    child_flow_run_id: Identifier | None = Field(None, description="The flow run that this run stands for.")
    digest: InputDigest | None = Field(None, description="Of the arguments, where the function was not called.")
    cache: Cache | None = Field(None, description="Where the value came from, if it was in the cache.")


class TaskRunAwaitingRetry(TaskEnd):
    """An attempt failed; another one follows."""

    scheduled: Microseconds = Field(description="When the next attempt is due.")


MODELS: dict[str, type[Payload]] = {
    "task_run.created": TaskRunCreated,
    "task_run.running": TaskRunning,
    "task_run.awaiting_retry": TaskRunAwaitingRetry,
    "task_run.scheduled": TaskScheduled,
    "task_run.pending": TaskStateChange,
    "task_run.not_ready": TaskStateChange,
    "task_run.paused": TaskStateChange,
    "task_run.resumed": TaskStateChange,
    "task_run.rolled_back": TaskStateChange,
    "task_run.cancelling": TaskStateChange,
    "task_run.completed": TaskEnd,
    "task_run.failed": TaskEnd,
    "task_run.crashed": TaskEnd,
    "task_run.cancelled": TaskEnd,
}
