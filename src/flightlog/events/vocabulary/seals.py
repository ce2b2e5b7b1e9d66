"""What seals the log. The stream, ``seals``, has all seals; each carries the hash of the one before it."""

from typing import Annotated

from pydantic import Field

from flightlog.events.vocabulary.parts import Digest, Payload

Position = Annotated[int, Field(ge=1)]


class LogSealed(Payload):
    """The log up to a position is sealed: whoever has this event's tree head notices any change of what is below."""

    first: Position = Field(description="The first position that no earlier seal covers.")
    last: Position = Field(description="The last position that is covered: the tree has as many leaves.")
    root: Digest = Field(description="The head of the Merkle tree (RFC 9162) over all positions from 1 to the last.")
    peaks: list[Digest] = Field(
        description="The heads of its complete parts, the largest first: the next seal's start."
    )
    signer: str | None = Field(None, description="Who signed it: the verifier key as C2SP writes it.")
    signature: bytes | None = Field(None, description="The Ed25519 signature of the checkpoint's text.")


MODELS: dict[str, type[Payload]] = {"log.sealed": LogSealed}
