"""What becomes of transactions: in the stream of a flow run that has parts of it, and in ``transaction/<digest>``.

The latter is the stream of a key.
"""

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Payload


class TransactionCommitted(Payload):
    """A transaction committed: its parts stay as they are; one with the same key need not be gone through again."""

    key: str | None = Field(None, description="What it is known by: in the stream of that key.")
    task_run_ids: list[Identifier] | None = Field(None, description="Its parts: in the stream of their flow run.")
    flow_run_id: Identifier | None = None
    task_run_id: Identifier | None = None


MODELS: dict[str, type[Payload]] = {"transaction.committed": TransactionCommitted}
