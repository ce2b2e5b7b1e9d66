"""What happens to a flow run. The stream's name, ``flow-run/<id>``, says to which."""

from pydantic import Field

from flightlog.events.vocabulary.parts import (
    Digest,
    End,
    Identifier,
    Microseconds,
    Payload,
    Personal,
    Result,
    StateChange,
)


class FlowRunCreated(Payload):
    """A flow was called. Carries all that running it again needs."""

    flow: str = Field(description="The flow's name.")
    name: str = Field(description="The run's name.")
    version: str | None = Field(None, description="The flow's version.")
    entrypoint: str | None = Field(None, description="Where the function is: `path/to/file.py:name` or `module:name`.")
    directory: str | None = Field(None, description="The working directory.")
    code: Digest | None = Field(None, description="The SHA-256 of the source file.")
    python: str | None = Field(None, description="The version of Python.")
    packages: Result | None = Field(None, description="A blob: installed packages, one `name==version` a line.")
    parameters: str = Field("{}", description="The parameters as JSON, to be looked at; secrets masked.")
    exact: Result | None = Field(None, description="A blob: the parameters as the function got them.")
    not_recorded: list[str] | None = Field(
        None, description="Parameters that are not in `exact`: secret, or no pickle."
    )
    task_runner: str | None = Field(None, description="The task runner's name.")
    retries: int | None = Field(None, ge=0, description="How often it may be tried again.")
    tags: list[str] | None = Field(None, description="Its tags, sorted.")
    deployment: str | None = Field(None, description="The name of the deployment that it comes from.")
    forked_from: Identifier | None = Field(None, description="The flow run whose past this run goes on from.")
    forked_at: Identifier | None = Field(None, description="The event of that run up to which its past counts.")
    parent_flow_run_id: Identifier | None = None
    parent_task_run_id: Identifier | None = Field(
        None, description="The task run in the parent that stands for this run."
    )
    personal: Personal = None


class ProcessFacts(StateChange):
    """What tells the process that has the run from every other one."""

    host: str | None = Field(None, description="The machine's name.")
    boot: str | None = Field(None, description="The id of the machine's present boot.")
    namespace: int | None = Field(None, description="The inode of the process's pid namespace.")
    pid: int | None = Field(None, description="The process.")
    started: int | None = Field(None, description="When the process started, in clock ticks since boot.")


class FlowRunning(ProcessFacts):
    """The function is about to be called: committed before it is."""

    attempt: int = Field(1, ge=1)


class FlowScheduled(ProcessFacts):
    """A run that had ended goes on."""

    restart: int | None = Field(None, ge=0, description="Calls that were created at this position or later run again.")


class FlowRunAwaitingRetry(End):
    """An attempt failed; another one follows."""

    scheduled: Microseconds = Field(description="When the next attempt is due.")


class FlowPaused(StateChange):
    """A run waits until somebody says that it may go on."""

    key: str | None = Field(None, description="Which pause of the run it is.")
    deadline: Microseconds | None = Field(None, description="After which it fails.")
    input_schema: str | None = Field(None, description="The JSON Schema of the input that it waits for.")
    shown: str | None = Field(None, description="What whoever answers is shown.")


class FlowAnswered(Payload):
    """Somebody (the actor) said that a paused run may go on."""

    key: str = Field(description="The pause that this is the answer to.")
    input: str | None = Field(None, description="The input, as JSON, secrets masked.")
    shown: str | None = Field(None, description="What was shown.")
    personal: Personal = None


class FlowAnswerRefused(Payload):
    """The run's own code did not take an answer: the pause is asked again when the run is gone on with."""

    key: str = Field(description="The pause.")


class FlowCancelRequested(Payload):
    """Somebody (the actor) asked for a run to be cancelled."""

    reason: str | None = Field(None, description="Why, secrets masked.")


class FlowInputSent(Payload):
    """Somebody sent something to a run, which takes it when it likes. It stands in ``inputs/<flow run id>``."""

    type: str = Field(description="The name of its type.")
    data: str = Field(description="The input, as JSON, secrets masked.")
    sender: Identifier | None = Field(None, description="The flow run that sent it.")


MODELS: dict[str, type[Payload]] = {
    "flow_run.created": FlowRunCreated,
    "flow_run.running": FlowRunning,
    "flow_run.awaiting_retry": FlowRunAwaitingRetry,
    "flow_run.scheduled": FlowScheduled,
    "flow_run.pending": StateChange,
    "flow_run.not_ready": StateChange,
    "flow_run.paused": FlowPaused,
    "flow_run.resumed": StateChange,
    "flow_run.rolled_back": StateChange,
    "flow_run.answered": FlowAnswered,
    "flow_run.answer_refused": FlowAnswerRefused,
    "flow_run.input_sent": FlowInputSent,
    "flow_run.cancel_requested": FlowCancelRequested,
    "flow_run.cancelling": StateChange,
    "flow_run.completed": End,
    "flow_run.failed": End,
    "flow_run.crashed": End,
    "flow_run.cancelled": End,
}
