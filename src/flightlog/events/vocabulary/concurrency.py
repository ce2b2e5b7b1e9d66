"""What happens to a concurrency limit. The stream, ``concurrency-limit/<name>``, says to which."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Payload, Process


class LimitSet(Payload):
    """Somebody made a limit, or changed it."""

    name: str = Field(description="Its name; `tag:` and a tag for the limit of a tag.")
    limit: int = Field(ge=0, description="How many slots there are.")
    decay: float | None = Field(None, ge=0, description="How many taken slots free themselves in a second.")


class LimitDeleted(Payload):
    """Somebody took a limit away."""


class SlotHolder(Payload):
    """Whoever holds slots, or waits for them."""

    holder: Identifier


class SlotsAwaited(SlotHolder):
    """Somebody waits for slots."""

    slots: int = Field(ge=0)
    process: Process
    flow_run_id: Identifier | None = None
    task_run_id: Identifier | None = None


class SlotsAcquired(SlotsAwaited):
    """Somebody has got slots."""

    decays: bool | None = Field(None, description="Nobody gives them back: they free themselves with time.")


class SlotsReleased(SlotHolder):
    """Whoever held slots has given them back."""


class SlotsGivenUp(SlotHolder):
    """Whoever waited for slots waits no more."""


class SlotsExpired(SlotHolder):
    """Whoever held slots, or waited for some, is gone; somebody else noticed."""


MODELS: dict[str, type[Payload]] = {
    "concurrency_limit.set": LimitSet,
    "concurrency_limit.deleted": LimitDeleted,
    "slots.awaited": SlotsAwaited,
    "slots.acquired": SlotsAcquired,
    "slots.released": SlotsReleased,
    "slots.given_up": SlotsGivenUp,
    "slots.expired": SlotsExpired,
}
