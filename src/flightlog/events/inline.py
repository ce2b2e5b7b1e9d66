"""Inline projections: what a stream has come to, kept in the commit that changes it, for decisions that cannot wait.

An inline projection folds the events of each stream, by itself, into one small value. Whoever has to decide at once
(is this key computed already? is a slot free?) reads that value with the version of its stream, and appends with
`expected_version`: one conditional append decides who wins. Since a value rests on one stream only, and a stream's
events have one order on every store, folding anew always leads to the same values.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from flightlog.errors import LogWriteError
from flightlog.events import codec
from flightlog.events.model import Event
from flightlog.events.store import Inline, Unit


class Kept(NamedTuple):
    """What a stream has come to.

    Attributes:
        version: the stream's version at that moment: what to expect when appending on the strength of it.
        state: the value; None for nothing.
    """

    version: int
    state: Any


class Recorded(NamedTuple):
    """An inline projection as the log has it: the version of its values, and the types that it folds, as JSON."""

    name: str
    version: int
    types: str


class Rows(Protocol):
    """Where the packed values of projections are, by projection and the stream's key, within one transaction."""

    def load(self, name: str, key: int) -> bytes | None:
        """Return a value; None for nothing."""
        ...

    def put(self, name: str, key: int, state: bytes) -> None:
        """Store a value."""
        ...

    def drop(self, name: str, key: int) -> None:
        """Take a value away, if there is one."""
        ...

    def fetch(self, digest: bytes) -> bytes:
        """Return a blob that is stored, also in this transaction, by its SHA-256."""
        ...


class Inlines:
    """The inline projections that a store keeps, and those that others have made in its log.

    Attributes:
        types: the event types to fold.
        foreign: by event type, the projection that folds it and that this process lacks, or has in an older version.
    """

    def __init__(self) -> None:
        self._mine: dict[str, Inline] = {}
        self._active: list[Inline] = []
        self.types: frozenset[str] = frozenset()
        self.foreign: Mapping[str, Recorded] = {}

    def keep(self, projections: Iterable[Inline]) -> None:
        """Fold for these from here on."""
        self._mine |= {projection.name: projection for projection in projections}
        self._active = list(self._mine.values())
        self.types = frozenset().union(*(projection.types for projection in self._active))

    def learn(self, recorded: Iterable[Recorded], anew: Sequence[Inline] = ()) -> list[Inline]:
        """Take in what the log has; return those of ours that have to be made anew.

        Args:
            recorded: what the log has.
            anew: those that are to be made anew in any case, if the log has no newer version.
        """
        versions: dict[str, int] = {}
        foreign: dict[str, Recorded] = {}
        for found in recorded:
            versions[found.name] = found.version
            mine = self._mine.get(found.name)
            if mine is None or mine.version < found.version:
                foreign |= dict.fromkeys([*json.loads(found.types), *(() if mine is None else mine.types)], found)
        self.foreign = foreign
        # What others keep in a newer version is theirs alone.
        self._active = [mine for mine in self._mine.values() if versions.get(mine.name, 0) <= mine.version]
        self.types = frozenset().union(*(projection.types for projection in self._active))
        asked = {projection.name for projection in anew}
        return [mine for mine in self._active if versions.get(mine.name, 0) < mine.version + (mine.name in asked)]

    def refuses(self, unit: Unit) -> bool:
        """Set a unit's error if it holds what a projection folds that this process cannot keep; tell if so."""
        if not self.foreign:
            return False
        types = (body.type for part in unit.parts for body in part.bodies)
        found = next((self.foreign[type_] for type_ in types if type_ in self.foreign), None)
        if found is None:
            return False
        unit.error = _unknown(found)
        return True

    def is_usable(self, name: str, version: int | None) -> bool:
        """Tell whether the values that the log keeps of a projection can be used; if not, they have to be made anew.

        Args:
            name: the projection's name.
            version: the version of the values; None if there are none.

        Raises:
            LogWriteError: they are of a newer version than ours.
        """
        mine = self._mine.get(name)
        if mine is not None and version is not None and version > mine.version:
            raise _unknown(Recorded(name, version, ""))
        return version is not None and (mine is None or version == mine.version)

    def state_of(self, name: str, rows: Sequence[Any]) -> tuple[int, bytes | None] | None:
        """Return what `Store.inline_state` does, from what the database says. See `is_usable`."""
        if not self.is_usable(name, rows[0][0] if rows else None):
            return None
        return rows[0][1], rows[0][2]

    def states_of(self, name: str, rows: Sequence[Any]) -> dict[str, bytes] | None:
        """Return what `Store.inline_states` does, from what the database says. See `is_usable`."""
        if not self.is_usable(name, rows[0][0] if rows else None):
            return None
        return {stream: state for _, stream, state in rows if state is not None}

    def folding(self, rows: Rows) -> "Folding | None":
        """Return what folds the units of one transaction; None if there is nothing to fold."""
        return Folding(self._active, rows) if self._active else None


class Folding:
    """Inline projections within one transaction: what its units lead to, on top of what is stored.

    Args:
        projections: what to fold.
        rows: what is stored.
    """

    def __init__(self, projections: Sequence[Inline], rows: Rows) -> None:
        self._projections = projections
        self._rows = rows
        self._values: dict[tuple[str, int], Any] = {}

    def take(self, records: Iterable[tuple[int, bytes]], blobs: Mapping[bytes, bytes] = {}) -> None:
        """Fold some records, all or none.

        Args:
            records: the key of its stream, and a record; in the order of each stream.
            blobs: what they rest on that is not stored yet, by SHA-256.

        Raises:
            Exception: what a projection raises.
        """
        values: dict[tuple[str, int], Any] = {}
        for key, record in records:
            event = Event(0, 0, record, lambda digest: blobs.get(digest) or self._rows.fetch(digest))
            for projection in self._projections:
                if event.type in projection.types:
                    place = (projection.name, key)
                    before = values[place] if place in values else self._before(place)
                    values[place] = projection.apply(before, event)
        self._values |= values

    def _before(self, place: tuple[str, int]) -> Any:
        return self._values[place] if place in self._values else unpacked(self._rows.load(*place))

    def store(self) -> None:
        """Put what the units lead to in the place of what was stored."""
        for (name, key), value in self._values.items():
            if value is None:
                self._rows.drop(name, key)
            else:
                self._rows.put(name, key, codec.pack(value))


def _unknown(found: Recorded) -> LogWriteError:
    return LogWriteError(
        f"This version of Flightlog cannot do that: the log keeps {found.name!r} in version {found.version}, "
        "which it does not know. Update it: pip install --upgrade flightlog."
    )


def on_record(projection: Inline) -> Recorded:
    """Return how a projection is put down in the log."""
    return Recorded(projection.name, projection.version, json.dumps(sorted(projection.types)))


def unpacked(value: bytes | None) -> Any:
    """Return a value as it was before it was packed."""
    return None if value is None else codec.unpack(value)
