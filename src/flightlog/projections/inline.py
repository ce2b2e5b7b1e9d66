"""The inline projections that come with Flightlog, and how they are checked and made anew."""

from typing import Any

from flightlog.errors import LogWriteError
from flightlog.events.log import Log
from flightlog.events.store import Inline
from flightlog.projections.blocks import Blocks
from flightlog.projections.concurrency import ConcurrencyLimits
from flightlog.projections.outbox import Outbox
from flightlog.projections.result_cache import ResultCache
from flightlog.projections.variables import Variables

INLINE: tuple[Inline, ...] = (ResultCache(), ConcurrencyLimits(), Variables(), Blocks(), Outbox())


def inline_states(log: Log, name: str) -> dict[str, Any]:
    """Return what all streams have come to, by stream: as kept, or folded where the log can only be read."""
    try:
        log.keep(INLINE)
    except LogWriteError:
        return log.folded(next(one for one in INLINE if one.name == name))
    return log.states(name)


def first_difference(log: Log, projection: Inline) -> tuple[str, Any, Any] | None:
    """Return the first stream whose kept value is not what its events say, the one and the other; None if none.

    Raises:
        LogWriteError: the log can only be read.
    """
    log.keep(INLINE)
    right = log.folded(projection)
    kept = log.states(projection.name)
    if kept != right:
        # Flows may have gone on between the two: only what differs from then on is a difference.
        kept, right = log.states(projection.name), log.folded(projection)
    wrong = sorted(stream for stream in kept.keys() | right.keys() if kept.get(stream) != right.get(stream))
    return None if not wrong else (wrong[0], kept.get(wrong[0]), right.get(wrong[0]))


def make_anew(log: Log, projection: Inline) -> None:
    """Fold an inline projection anew from the log; writers wait meanwhile."""
    log.keep(INLINE)
    log.keep([projection], anew=True)
