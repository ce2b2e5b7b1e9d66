"""What becomes of transactions that have a key. The stream, ``transaction/<digest>``, says of which."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Payload


class TransactionCommitted(Payload):
    """A transaction committed; one with the same key need not be gone through again."""

    key: str = Field(description="What it is known by.")
    flow_run_id: Identifier | None = None
    task_run_id: Identifier | None = None


MODELS: dict[str, type[Payload]] = {"transaction.committed": TransactionCommitted}
