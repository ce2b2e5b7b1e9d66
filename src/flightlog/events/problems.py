"""What verifying a log finds: what is wrong, and with which event."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a log.

    Attributes:
        what: what it is, in words.
        position: the event's position; None if the event is not there, or it is none of one event.
        stream: its stream.
        version: its version there.
        type: its type.
        until: where only a range of events can be named, the last position of it; `position` is the first.
        seal: where a seal shows it, the position of that.
    """

    what: str
    position: int | None = None
    stream: str | None = None
    version: int | None = None
    type: str | None = None
    until: int | None = None
    seal: int | None = None

    def __str__(self) -> str:
        if self.position is None or self.until not in (None, self.position):
            return self.what
        known = [] if self.type is None else [self.type]
        if self.stream and self.version is not None:
            known.append(f"{self.stream}@{self.version}")
        about = f" ({', '.join(known)})" if known else ""
        return f"event {self.position}: {self.what}{about}"


@dataclass
class Verification:
    """What verifying found.

    Attributes:
        events: how many events were read.
        streams: how many streams they belong to.
        blobs: how many blobs were compared with their digests.
        segments: how many segments of archives were read and are what is on record.
        absent: how many events are in segments that cannot be read.
        seals: how many seals were recomputed and hold.
        sealed: up to which position seals prove that nothing was changed since; 0 for none.
        signed: up to which position such a seal is signed, by a key that counts.
        signers: the verifier keys of those who signed.
        known: the size of the checkpoint that was seen before and holds; 0 for none.
        unreadable: whether it ended at an event that cannot be read at all.
        problems: what is wrong, in the order of the log; empty if nothing is.
    """

    events: int = 0
    streams: int = 0
    blobs: int = 0
    segments: int = 0
    absent: int = 0
    seals: int = 0
    sealed: int = 0
    signed: int = 0
    signers: list[str] = field(default_factory=list)
    known: int = 0
    unreadable: bool = False
    problems: list[Problem] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def unproved(self) -> int:
        """How many events no seal proves anything about."""
        return max(0, self.events + self.absent - self.sealed)
