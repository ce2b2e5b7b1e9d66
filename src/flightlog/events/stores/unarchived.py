"""What stores say of archives that keep none."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

from flightlog.errors import LogUnavailable
from flightlog.events.store import Archive, ArchiveIndex, Departure, IndexedRow, StreamPart, Unit


class UnarchivedStore(ABC):
    """Has all events, and no place for segments."""

    location: str

    @abstractmethod
    def indexed(self, after: int, limit: int) -> list[IndexedRow]:
        """Return events with their columns."""

    @property
    def archives_folder(self) -> None:
        """Return no folder."""
        return

    def archives(self) -> list[Archive]:
        """Return no archives."""
        return []

    def archive_index(self, number: int) -> ArchiveIndex:
        """Refuse: there is no such archive."""
        raise no_archives(self.location)

    def parts(self, stream: str) -> list[StreamPart]:
        """Return no parts."""
        return []

    def stored(self, after: int, limit: int) -> list[IndexedRow]:
        """Return events with their columns: all are here."""
        return self.indexed(after, limit)

    def pass_over(self, numbers: Collection[int]) -> None:
        """Do nothing: there is nothing to pass over."""
        return

    def archive(self, unit: Unit, departure: Departure) -> None:
        """Refuse to archive."""
        raise no_archives(self.location)

    def restore(self, unit: Unit, number: int, step: Callable[[str], object]) -> None:
        """Refuse: nothing was archived."""
        raise no_archives(self.location)


def no_archives(location: str) -> LogUnavailable:
    """Return the error that a log has no place for archives."""
    return LogUnavailable(
        f"The log at {location} has no place for segments; name one: flightlog log archive --folder FOLDER"
    )


__all__ = ["UnarchivedStore", "no_archives"]
