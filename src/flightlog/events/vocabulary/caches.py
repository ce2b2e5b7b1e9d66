"""What happens to a cache key. The stream, ``cache/<digest>``, says to which."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Microseconds, Payload, Process, Result


class CacheStored(Payload):
    """A task run has computed the value of a cache key."""

    key: str = Field(description="The key, secrets masked; the first 2,000 characters of it.")
    task: str = Field(description="The task's name.")
    result: Result
    flow_run_id: Identifier
    task_run_id: Identifier
    expires: Microseconds | None = Field(None, description="When the value is too old to be used; never if missing.")


class CacheClaimed(Payload):
    """A task run is about to compute the value of a cache key; others wait for it."""

    flow_run_id: Identifier
    task_run_id: Identifier
    process: Process


class CacheReleased(Payload):
    """A task run that was to compute a value did not."""

    task_run_id: Identifier


class CacheDropped(Payload):
    """The task run that computed the value was rolled back, and its value counts no more."""

    task_run_id: Identifier


MODELS: dict[str, type[Payload]] = {
    "cache.stored": CacheStored,
    "cache.claimed": CacheClaimed,
    "cache.released": CacheReleased,
    "cache.dropped": CacheDropped,
}
