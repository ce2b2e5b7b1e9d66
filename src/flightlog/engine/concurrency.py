"""Concurrency limits as users meet them: making them, and holding slots for the time of a block of code."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from flightlog.engine.bridge import ASYNC, SYNC, Waits, run_sync
from flightlog.engine.context import CURRENT, TaskRunContext
from flightlog.engine.runtime import current_engine
from flightlog.engine.slots import NoSlots, Slots
from flightlog.errors import ConcurrencySlotAcquisitionError, LogError, VersionConflict
from flightlog.events.model import NewEvent
from flightlog.events.types import LIMIT_DELETED, LIMIT_SET, limit_stream

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine

_LONGEST = 200
_MOST = 1_000_000_000


def set_limit(
    name: str,
    limit: int,
    *,
    slot_decay_per_second: float = 0.0,
    actor: str = "engine",
    engine: "Engine | None" = None,
) -> None:
    """Make a concurrency limit, or change one; whoever holds slots keeps them.

    Args:
        name: its name; ``tag:`` and a tag for the limit of all tasks with that tag.
        limit: how many slots there are; 0 to let nothing run.
        slot_decay_per_second: for `rate_limit`: how many taken slots free themselves in a second.
        actor: who asks for it.
        engine: the engine; this process's by default.

    Raises:
        ValueError: the name is empty or too long, or a number is negative.
    """
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise ValueError(f"A concurrency limit's name has 1 to {_LONGEST} printable characters, not {name[:40]!r}.")
    if type(limit) is not int or not 0 <= limit <= _MOST:
        raise ValueError(f"A concurrency limit is a whole number from 0 to {_MOST}, not {limit!r}.")
    if not 0 <= slot_decay_per_second < float("inf"):
        raise ValueError(f"slot_decay_per_second cannot be {slot_decay_per_second!r}.")
    told = {"name": name, "limit": limit} | ({"decay": float(slot_decay_per_second)} if slot_decay_per_second else {})
    engine = engine or current_engine()
    engine.kept_states("concurrency")  # from now on the log keeps who holds what
    engine.log.append(
        limit_stream(name), [NewEvent(engine.ids.new(), LIMIT_SET, told, engine.clock.now(), actor=actor)]
    )


def delete_limit(name: str, *, actor: str = "engine", engine: "Engine | None" = None) -> bool:
    """Take a concurrency limit away; tell if there was one. Whoever waits for its slots goes on."""
    engine = engine or current_engine()
    while True:
        kept = engine.kept("concurrency", limit_stream(name))
        if kept.state is None:
            return False
        event = NewEvent(engine.ids.new(), LIMIT_DELETED, {}, engine.clock.now(), actor=actor)
        try:
            engine.log.append(limit_stream(name), [event], expected_version=kept.version)
        except VersionConflict:
            continue
        return True


def _slots(names: str | Sequence[str], count: int, *, decays: bool = False, strict: bool = False) -> Slots:
    """Return slots that this code wants.

    Raises:
        ValueError: fewer than none are wanted.
    """
    if count < 0:
        raise ValueError(f"`occupy` cannot be negative: {count}.")
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    context = CURRENT.get()
    if context is None:
        return Slots(current_engine(), wanted, count, {}, decays, strict)
    run = {"flow_run_id": context.flow_context.flow_run.key}
    if isinstance(context, TaskRunContext):
        run["task_run_id"] = context.task_run.key
    flow = context.flow_context
    return Slots(flow.engine, wanted, count, run, decays, strict, flow.wake)


async def _acquire(waits: Waits, slots: Slots, timeout: float | None) -> None:
    try:
        await slots.acquire(waits, timeout)
    except NoSlots as error:
        raise ConcurrencySlotAcquisitionError(str(error)) from None


def _release(slots: Slots) -> None:
    """Give slots back; should the log be away, whoever wants them frees them once this process is gone."""
    if appends := slots.released():
        try:
            slots.engine.log.enqueue(appends)
        except LogError:
            return


@contextmanager
def concurrency(
    names: str | Sequence[str], occupy: int = 1, timeout_seconds: float | None = None, *, strict: bool = False
) -> Iterator[None]:
    """Hold slots of concurrency limits for the time of a block; wait for them if need be. Works outside of flows too.

    Args:
        names: the limits; slots of all of them are taken at once. A limit that there is not, does not limit.
        occupy: how many slots of each.
        timeout_seconds: how long to wait at the most; for as long as it takes by default.
        strict: whether a limit that there is not is an error.

    Raises:
        ConcurrencySlotAcquisitionError: more slots are wanted than there are.
        AcquireConcurrencySlotTimeoutError: none became free in time.
    """
    slots = _slots(names, occupy, strict=strict)
    with slots.engine.heart:
        try:
            run_sync(_acquire(SYNC, slots, timeout_seconds))
            yield
        finally:
            _release(slots)


@asynccontextmanager
async def concurrency_async(
    names: str | Sequence[str], occupy: int = 1, timeout_seconds: float | None = None, *, strict: bool = False
) -> AsyncIterator[None]:
    """Hold slots as `concurrency` does, in async code."""
    slots = _slots(names, occupy, strict=strict)
    with slots.engine.heart:
        try:
            await _acquire(ASYNC, slots, timeout_seconds)
            yield
        finally:
            _release(slots)


def rate_limit(
    names: str | Sequence[str], occupy: int = 1, timeout_seconds: float | None = None, *, strict: bool = False
) -> None:
    """Wait until slots of limits that decay are free, and take them for good: they free themselves with time.

    Args:
        names: the limits; each has a `slot_decay_per_second`.
        occupy: how many slots of each.
        timeout_seconds: how long to wait at the most.
        strict: whether a limit that there is not is an error.

    Raises:
        ConcurrencySlotAcquisitionError: a limit does not decay, or has fewer slots than are wanted.
        AcquireConcurrencySlotTimeoutError: none became free in time.
    """
    run_sync(_acquire(SYNC, _slots(names, occupy, decays=True, strict=strict), timeout_seconds))


async def rate_limit_async(
    names: str | Sequence[str], occupy: int = 1, timeout_seconds: float | None = None, *, strict: bool = False
) -> None:
    """Wait as `rate_limit` does, in async code."""
    await _acquire(ASYNC, _slots(names, occupy, decays=True, strict=strict), timeout_seconds)
