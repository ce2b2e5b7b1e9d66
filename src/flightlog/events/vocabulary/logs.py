"""Log lines, in batches, in a stream of their own: ``logs/<flow run id>``."""

from typing import Annotated

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Microseconds, Payload

Line = Annotated[
    tuple[Microseconds, int, str, Identifier | None, str],
    Field(description="When, level (10 to 50), logger, task run or none, message.", strict=False),
]


class LogLines(Payload):
    """Lines that a flow run and its task runs logged, oldest first."""

    lines: list[Line]


MODELS: dict[str, type[Payload]] = {"log.lines": LogLines}
