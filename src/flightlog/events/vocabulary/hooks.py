"""What became of state hooks. It stands in the stream of the flow run that they were called for."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Payload, Personal


class HookEnded(Payload):
    """A state hook was called, and came to an end or ran out of time."""

    hook: str = Field(description="The function's name.")
    state: str = Field(description="The name of the state that the run had entered.")
    task_run_id: Identifier | None = Field(None, description="The task run that it was called for, if it was one.")
    took: int = Field(ge=0, description="How long it took, in microseconds.")
    problem: str | None = Field(None, description="What went wrong, secrets masked.")
    personal: Personal = None


MODELS: dict[str, type[Payload]] = {"hook.ended": HookEnded}
