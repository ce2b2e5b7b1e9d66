"""Whose personal data the log holds, and what was erased. Streams: ``subjects/<group>`` and ``subject/<digest>``."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Payload


class SubjectsGrouped(Payload):
    """Some subjects are known by one name from here on. What is theirs is encrypted with all their keys."""

    subjects: list[Identifier] = Field(description="Digests of their names, under the log's key.")


class SubjectErased(Payload):
    """Somebody (the actor) destroyed a subject's key: what was encrypted with it is gone for good."""

    events: int = Field(ge=0, description="How many events hold something of it.")


MODELS: dict[str, type[Payload]] = {"subjects.grouped": SubjectsGrouped, "subject.erased": SubjectErased}
