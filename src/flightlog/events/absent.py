"""Archived events that cannot be read, since their segment is missing or was changed."""

from typing import NamedTuple

from flightlog.events.store import StreamPart


class Absent(NamedTuple):
    """What is known of events whose segment cannot be read.

    Attributes:
        numbers: their archives.
        leaves: the hashes of their leaves, by position.
        parts: the parts of streams that they are, by the stream and the version before them.
    """

    numbers: set[int]
    leaves: dict[int, bytes]
    parts: dict[tuple[str, int], StreamPart]

    def has(self, first: int, last: int) -> bool:
        """Tell whether all events between two positions are among them."""
        return bool(self.leaves) and all(position in self.leaves for position in range(first, last + 1))
