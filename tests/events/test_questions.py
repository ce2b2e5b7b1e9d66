"""What a paused run asks, in words: fields, examples, and the command and call that answer it."""

import enum
import json
import shlex
from datetime import date, datetime, time
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from flightlog.engine.run_inputs import question_of
from flightlog.events.questions import example_of, fields_of, python_call, question_text, shell_command
from flightlog.input import RunInput

RUN = "01a21242-07a5-7acc-9f5f-381a16f4f432"


class Color(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    """A model in a model."""

    a: int
    b: list[str] = []


class Tree(BaseModel):
    """A model that has itself inside."""

    children: list["Tree"]


class Everything(RunInput):
    """One field of each kind."""

    approved: bool
    note: str = "hm"
    speed: Literal["slow", "fast"] = "slow"
    color: Color
    count: int | None = None
    inner: Inner
    at_least: int = Field(ge=3, description="how many")
    above: float = Field(gt=1)
    day: date
    tags: list[Color] = []  # noqa: RUF012 - pydantic copies defaults
    anything: Any


KINDS: list[tuple[Any, list[str], Any]] = [
    (int, ["value: integer"], 1),
    (str, ["value: string"], "..."),
    (bool, ["value: boolean"], True),
    (list[int], ["value: list of integer"], []),
    (int | None, ["value: integer or null"], 1),
    (dict[str, int], ["value: object"], {}),
    (Literal["a", 1], ['value: "a" or 1'], "a"),
    (Literal["a"], ['value: "a"'], "a"),
    (Annotated[str, Field(pattern="^[a-z.]+$")], ["value: string (like ^[a-z.]+$)"], "..."),
    (datetime, ["value: date-time"], "2026-01-31T06:00:00Z"),
    (time, ["value: time"], "06:00:00Z"),
    (UUID, ["value: uuid"], "00000000-0000-0000-0000-000000000000"),
    (Color, ['value: "red" or "blue"  (A choice.)'], "red"),
    (
        Everything,
        [
            "approved: boolean",
            'note: string = "hm"',
            'speed: "slow" or "fast" = "slow"',
            'color: "red" or "blue"',
            "count: integer or null = null",
            "inner: {a: integer, b: list of string = []}",
            "at_least: integer (at least 3)  (how many)",
            "above: number (more than 1)",
            "day: date",
            'tags: list of "red" or "blue" = []',
            "anything: anything",
        ],
        {
            "approved": True,
            "color": "red",
            "inner": {"a": 1},
            "at_least": 3,
            "above": 2,
            "day": "2026-01-31",
            "anything": "...",
        },
    ),
    (Tree, ["children: list of {children: list of object}"], {"children": []}),
]


@pytest.mark.parametrize(("kind", "fields", "example"), KINDS)
def test_E151_what_is_asked_is_told_in_words(kind: Any, fields: list[str], example: Any) -> None:
    """Each field with its type and default; and an example with all that has to be given, which fits."""
    question = question_of(kind)
    assert question.schema is not None
    assert example_of(question.schema) == example
    told = fields_of(question.schema)
    question.read(json.dumps({"value": example} if told[0].startswith("value:") else example))
    assert told == fields


def test_E150_the_command_and_the_call_that_answer_it() -> None:
    """What is told can be pasted: quoted for the shell, and as Python."""
    schema = json.dumps(question_of(Everything).schema)
    command = shlex.split(shell_command(RUN, schema))
    assert command[:5] == ["flightlog", "runs", "resume", RUN[:18], "--input"]
    assert json.loads(command[5]) == KINDS[13][2]
    called: list[Any] = []

    class Flightlog:
        resume_run = staticmethod(lambda run, run_input=None: called.append((run, run_input)))
        resume_flow_run = staticmethod(lambda run, run_input=None: called.append((run, run_input)))

    for suspended in (True, False):
        eval(python_call(RUN, schema, suspended=suspended), {"flightlog": Flightlog})
        eval(python_call(RUN, None, suspended=suspended), {"flightlog": Flightlog})
    assert called == [(RUN, KINDS[13][2]), (RUN, None)] * 2
    assert shell_command(RUN, None) == f"flightlog runs resume {RUN[:18]}"


def test_E150_an_apostrophe_does_not_break_the_command() -> None:
    """The shell gets what is meant, whatever stands in a default."""
    question = question_of(Literal["it's"])
    assert shlex.split(shell_command(RUN, json.dumps(question.schema)))[-1] == '"it\'s"'


def test_a_question_of_any_length_fits_an_event() -> None:
    """A text that would be too long is cut; the commands come before the fields."""
    schema = {"type": "object", "properties": {f"field_{n}": {"type": "string"} for n in range(1000)}, "title": "Many"}
    text = question_text(RUN, {"deadline": 0, "input_schema": json.dumps(schema)}, suspended=True)
    assert len(text) < 2100
    assert text.index("flightlog runs resume") < text.index("field_0: string, may be left out")
