"""How fast a log grows, and when the disk is full: for ``flightlog doctor``."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flightlog.cli.printing import size

if TYPE_CHECKING:
    from flightlog.events.log import Log

_DAY = 86_400_000_000
_DAYS = 7
_YOUNGEST = _DAY // 24
_SOON = 30
_FAR = 3650


class Growth(NamedTuple):
    """How a log grows.

    Attributes:
        events: how many events come in a day.
        bytes: how many bytes they take, in the log and in what is derived from it.
        days: in how many days the disk is full, as it goes.
    """

    events: float
    bytes: float
    days: float

    @property
    def is_soon(self) -> bool:
        """Whether the disk is full before long."""
        return self.days < _SOON

    def __str__(self) -> str:
        full = f"in {self.days:.0f} days" if self.days < _FAR else "not in ten years"
        return f"{self.events:.0f} events and {size(self.bytes)} a day; the disk is full {full}"


def growth(log: "Log", path: Path, projections: Path) -> Growth | None:
    """Return how a log in a file grows, by the last week; None if it is too young to tell.

    Args:
        log: the log.
        path: its file.
        projections: the file with its projections.
    """
    head, now = log.head(), log.store.now()
    first = next((event.recorded_at for event in log.read_all(limit=1)), now)
    span = min(now - first, _DAYS * _DAY)
    stored = head.position - sum(archive.events for archive in log.store.archives())
    if span < _YOUNGEST or not stored:
        return None
    used, free = log.store.usage()  # type: ignore[attr-defined]
    derived = projections.stat().st_size if projections.exists() else 0
    events = (head.position - log.position_at(now - span - 1)) * _DAY / span
    bytes_ = events * (used / stored + derived / head.position)
    room = shutil.disk_usage(path.parent).free + free
    return Growth(events, bytes_, room / bytes_ if bytes_ else float("inf"))
