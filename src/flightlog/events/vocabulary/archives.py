"""What left the log's database, and what came back. The stream, ``archives``, has all of it."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Digest, Payload
from flightlog.events.vocabulary.seals import Position


class LogArchived(Payload):
    """Events left the database in this event's commit: a segment file has them, and their leaf hashes stay.

    The archive's number is the version of this event.
    """

    segment: str = Field(description="The name of the file.")
    sha256: Digest = Field(description="The SHA-256 of the file, verified before the events left.")
    size: int = Field(ge=1, description="How many bytes it has.")
    kind: str = Field(description="The class of its streams: state or telemetry.")
    first: Position = Field(description="The position of its first event.")
    last: Position = Field(description="The position of its last event.")
    events: int = Field(ge=1, description="How many events it has.")
    streams: int = Field(ge=1, description="How many streams they are of.")
    blobs: int = Field(ge=0, description="How many blobs went along, that only archived events rest on.")


class LogRestored(Payload):
    """The events of an archive came back into the database in this event's commit, as they were."""

    archive: int = Field(ge=1, description="The archive's number.")
    segment: str = Field(description="The name of the file.")
    events: int = Field(ge=1, description="How many events came back.")


MODELS: dict[str, type[Payload]] = {"log.archived": LogArchived, "log.restored": LogRestored}
