"""Parameters of flows: casting, validation, and what the log keeps of them."""

import json
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from tests.engine.conftest import History

from flightlog import flow, task
from flightlog.engine.digests import input_digest
from flightlog.errors import ParameterBindError, ParameterTypeError
from flightlog.masking import MASKER


class Colour(Enum):
    """An enumeration."""

    RED = "red"


class Person(BaseModel):
    """A pydantic model."""

    name: str
    age: int = 0


class Pet(BaseModel):
    """A model with a validator."""

    name: str
    shape: Literal["pet"] = "pet"

    @field_validator("name")
    @classmethod
    def _louder(cls, name: str) -> str:
        return name if name.endswith("!") else name + "!"


class Exact(BaseModel):
    """A model that says itself what is text."""

    model_config = ConfigDict(coerce_numbers_to_str=False)
    name: str


class Strict(BaseModel):
    """A model that casts nothing."""

    model_config = ConfigDict(strict=True)
    name: str


class Broken(BaseModel):
    """A model whose validator fails."""

    name: str

    @field_validator("name")
    @classmethod
    def _fail(cls, name: str) -> str:
        raise KeyError(name)


class Plain:
    """A class that pydantic knows nothing of."""


def called(annotation: Any, *args: Any, **options: Any) -> Any:
    """Return what a flow with one parameter of this type gets."""

    def f(x: Any) -> Any:
        return [x]

    f.__annotations__["x"] = annotation
    anyflow: Any = flow(name="f", **options)(f)
    return anyflow(*args)[0]


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (int, "5", 5),
        (str, 100, "100"),
        (float, "2.5", 2.5),
        (bool, "true", True),
        (str, 2.5, "2.5"),
        (Colour, "red", Colour.RED),
        (Person, {"name": "Ann", "age": "7"}, Person(name="Ann", age=7)),
        (date, "2024-02-03", date(2024, 2, 3)),
        (datetime, "2024-02-03T04:05:06", datetime(2024, 2, 3, 4, 5, 6)),  # noqa: DTZ001
        (timedelta, 90, timedelta(seconds=90)),
        (Path, "/tmp", Path("/tmp")),
        (UUID, "12345678123456781234567812345678", UUID("12345678123456781234567812345678")),
        (list[int], ["1", 2], [1, 2]),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (tuple[int, str], ["1", "b"], (1, "b")),
        (set[int], ["1", "1"], {1}),
        (int | None, None, None),
        (int | None, "3", 3),
        (list[Person], [{"name": "Ann"}], [Person(name="Ann")]),
    ],
)
def test_E21_arguments_are_cast_to_the_annotations(annotation: Any, given: Any, expected: Any) -> None:
    """A flow's arguments are cast as pydantic does it, leniently."""
    result = called(annotation, given)
    assert result == expected
    assert type(result) is type(expected)


def test_E4_numbers_become_strings_in_containers_too() -> None:
    """`list[str]` takes numbers, as pydantic 1 did."""
    assert called(list[str], [1, "b"]) == ["1", "b"]


class Address(BaseModel):
    """A model inside another one."""

    number: str
    shape: Literal["address"] = "address"


class Household(BaseModel):
    """A model with models in many places, itself among them."""

    address: Address
    lists: list[Address] = []
    chosen: Annotated[Address | Pet, Field(discriminator="shape")] | None = None
    within: "Household | None" = None


def test_E4_numbers_become_text_in_models_of_the_users_too() -> None:
    """Models inside models, in lists, in unions and in themselves take numbers for text; what is no number is refused.

    A recursive definition, a list, a tagged union.
    """
    given: Any = {
        "address": {"number": 5},
        "lists": [{"number": "6"}, {"number": 2.5}],
        "chosen": {"shape": "pet", "name": 7},
        "within": {"address": {"number": 8}},
    }
    household = called(Household, given)
    assert household.address.number == "5"
    assert [address.number for address in household.lists] == ["6", "2.5"]
    assert household.chosen == Pet(name="7!")
    assert household.within.address == Address(number="8")
    assert type(household.within) is Household
    assert given["address"] == {"number": 5}
    given["lists"][1]["number"] = []
    with pytest.raises(ParameterTypeError) as caught:
        called(Household, given)
    assert str(caught.value).splitlines()[1:] == [" - x.lists.1.number: Input should be a valid string"]


def test_E4_a_model_that_says_so_itself_takes_no_numbers_for_text() -> None:
    """The configuration of the user's own model counts."""
    with pytest.raises(ParameterTypeError, match=r"x\.name"):
        called(Exact, {"name": 5})
    with pytest.raises(ParameterTypeError, match=r"x\.name"):
        called(Strict, {"name": 5})


def test_E4_a_parameter_with_the_default_none_accepts_none() -> None:
    """`date: datetime = None` takes None, ISO strings and datetimes."""

    @flow
    def f(day: datetime = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return [day]

    anyflow: Any = f
    assert anyflow() == [None]
    assert anyflow(None) == [None]
    assert anyflow("2024-02-03T04:05:06Z")[0].isoformat() == "2024-02-03T04:05:06+00:00"
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert anyflow(moment) == [moment]


def test_E21_objects_of_arbitrary_classes_are_passed_as_they_are() -> None:
    """An annotation with an ordinary class takes its instances, and nothing else."""
    thing = Plain()
    assert called(Plain, thing) is thing
    with pytest.raises(ParameterTypeError):
        called(Plain, 5)


def test_E21_without_annotations_the_very_object_arrives() -> None:
    """A parameter without an annotation gets what was given."""

    @flow
    def f(x, y=()):  # type: ignore[no-untyped-def]
        return [x, y]

    thing = Plain()
    result: Any = f(thing)
    assert result[0] is thing


def test_E21_a_model_instance_arrives_unchanged() -> None:
    """An instance of the annotated model is passed as it is."""
    ann = Person(name="Ann")
    assert called(Person, ann) == ann


def test_E21_collecting_parameters_are_cast() -> None:
    """`*args: int` and `**kwargs: int` are cast, too."""

    @flow
    def f(*args: int, **kwargs: int) -> Any:
        return args, kwargs

    anyflow: Any = f
    assert anyflow("1", 2, a="3") == ((1, 2), {"a": 3})


def test_E21_postponed_annotations_are_understood() -> None:
    """Annotations given as strings count."""

    @flow
    def f(x: "int", p: "Person") -> Any:
        return x, p

    anyflow: Any = f
    assert anyflow("3", {"name": "Ann"}) == (3, Person(name="Ann"))


def test_E21_defaults_are_validated() -> None:
    """A default that does not fit its annotation fails, unless it is None."""

    @flow
    def f(x: int = "bad") -> Any:  # type: ignore[assignment]
        return x

    with pytest.raises(ParameterTypeError):
        f()


def test_E21_validation_can_be_switched_off() -> None:
    """With `validate_parameters=False` arguments arrive as they are."""
    assert called(int, "5", validate_parameters=False) == "5"


@pytest.mark.parametrize("name", ["schema", "json", "model_config", "copy", "_x", "self", "cls", "validate", "args"])
def test_E21_parameters_may_have_any_name(name: str) -> None:
    """Names that pydantic's models use themselves are fine for parameters."""
    scope: dict[str, Any] = {}
    exec(f"def f({name}: int):\n    return {name}\n", scope)
    anyflow: Any = flow(scope["f"])
    assert anyflow("3") == 3
    assert anyflow(**{name: "4"}) == 4


def test_E20_arguments_that_do_not_fit_are_refused_whatever_their_repr_does() -> None:
    """The message does without it."""

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    @flow
    def f(x: Any) -> None:
        pass

    anyflow: Any = f
    with pytest.raises(ParameterBindError, match="no repr: RuntimeError"):
        anyflow(Shy(), 2)


def test_E22_invalid_parameters_make_a_failed_run(history: Any) -> None:
    """A run is created and Failed without ever running; the call raises ParameterTypeError."""
    calls: list[int] = []

    @flow
    def f(x: int, y: str = "a") -> None:
        calls.append(1)

    anyflow: Any = f
    with pytest.raises(ParameterTypeError) as caught:
        anyflow("many")
    assert isinstance(caught.value, TypeError)
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Failed"]
    assert calls == []


def test_E22_a_validator_that_fails_makes_a_failed_run(history: Any) -> None:
    """Whatever the user's own validator raises, the run is on record as Failed, and the message says what it was."""

    @flow
    def f(x: Broken) -> None:
        pass

    anyflow: Any = f
    with pytest.raises(ParameterTypeError, match="validating them raised KeyError: 'a'") as caught:
        anyflow({"name": "a"})
    assert isinstance(caught.value.__cause__, KeyError)
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Failed"]


def test_E15_models_of_pydantic_1_are_refused_at_the_decorator() -> None:
    """Models of `pydantic.v1` cannot be validated together with those of pydantic 2, and that is said early."""
    from pydantic import v1

    class Old(v1.BaseModel):  # type: ignore[misc, unused-ignore]
        name: str

    def f(x: Old) -> None:
        pass

    with pytest.raises(ValueError, match=r"(?s)parameters of 'f' cannot be validated.*V1.*validate_parameters=False"):
        flow(f)


def test_E22_the_state_of_invalid_parameters() -> None:
    """With `return_state=True` the state is Failed and its result is the exception."""

    @flow
    def f(x: int, y: datetime) -> None:
        pass

    anyflow: Any = f
    state = anyflow("many", "later", return_state=True)
    assert (state.name, state.type) == ("Failed", "FAILED")
    error = state.result(raise_on_failure=False)
    assert isinstance(error, ParameterTypeError)
    lines = str(error).splitlines()
    assert lines[0].startswith("Flow run received invalid parameters:")
    assert lines[1].startswith(" - x: ")
    assert lines[2].startswith(" - y: ")


def test_E22_invalid_parameters_are_not_retried(history: Any) -> None:
    """Validation failures do not use up retries."""

    @flow(retries=3)
    def f(x: int) -> None:
        pass

    anyflow: Any = f
    assert anyflow("many", return_state=True).is_failed()
    assert len(history.events("flow_run.failed")) == 1
    assert history.events("flow_run.awaiting_retry") == []


def test_E22_a_subflow_with_invalid_parameters_has_a_failed_run(history: Any) -> None:
    """A subflow gets a run in Failed, and its parent goes on."""

    @flow
    def child(x: int) -> None:
        pass

    anychild: Any = child

    @flow
    def f() -> Any:
        state = anychild("many", return_state=True)
        return state.is_failed()

    assert f() is True
    [run] = history.flow_runs("child")
    assert history.flow_states(run) == ["Pending", "Failed"]
    assert history.states("child") == [["Pending", "Failed"]]


def test_E23_parameters_are_stored_as_json(history: Any) -> None:
    """The created event has the parameters as JSON, defaults included."""

    @flow
    def f(a: int, b: Any = None, c: Any = (1, 2), day: date = date(2024, 1, 2)) -> None:
        pass

    f(1)
    [created] = history.data("flow_run.created")
    assert json.loads(created["parameters"]) == {"a": 1, "b": None, "c": [1, 2], "day": "2024-01-02"}


def test_E23_what_has_no_json_is_stored_by_its_types_name(history: Any) -> None:
    """A value that cannot be encoded is stored as its type's name; the function gets the object."""
    thing = Plain()

    @flow
    def f(x: Any) -> bool:
        return x is thing

    assert f(thing) is True
    [created] = history.data("flow_run.created")
    assert json.loads(created["parameters"]) == {"x": "<Plain>"}


@pytest.mark.parametrize(
    "made",
    [lambda: (n for n in [1, 2]), lambda: map(int, "12"), lambda: iter([1, 2]), lambda: chain([1], [2])],
)
@pytest.mark.parametrize("validate", [True, False])
def test_E23_iterators_reach_the_function_unread(made: Any, validate: bool, history: Any) -> None:
    """To look at a generator would take from the function what it gives; it is shown by its type's name."""

    @flow(validate_parameters=validate)
    def f(x: Any, y: Any) -> Any:
        return [list(x), list(y["within"][0])]

    assert f(made(), {"within": [made()]}) == [[1, 2], [1, 2]]
    [created] = history.data("flow_run.created")
    assert json.loads(created["parameters"]) == {"x": f"<{type(made()).__name__}>", "y": "<dict>"}


def test_E23_cyclic_values_are_stored_by_their_types_name(history: Any) -> None:
    """A list that holds itself does not break a flow."""
    cyclic: list[Any] = []
    cyclic.append(cyclic)

    @flow
    def f(x: Any) -> bool:
        return x is cyclic

    assert f(cyclic) is True
    [created] = history.data("flow_run.created")
    assert isinstance(json.loads(created["parameters"])["x"], str | list)


def test_E21_casting_leaves_the_callers_objects_alone() -> None:
    """The caller's list is not changed by casting."""
    mine = ["1", "2"]

    @flow
    def f(x: list[int]) -> Any:
        x.append(3)
        return x

    anyflow: Any = f
    assert anyflow(mine) == [1, 2, 3]
    assert mine == ["1", "2"]


def test_E21_a_task_is_not_coerced_where_its_flow_is() -> None:
    """Casting is for flows alone."""

    @task
    def t(x: int) -> Any:
        return x

    @flow
    def f(x: str) -> Any:
        untyped: Any = t
        return untyped(x)

    anyflow: Any = f
    assert anyflow(5) == "5"


def test_arguments_that_share_parts_many_times_have_no_digest() -> None:
    """Twenty-five nested pairs are 33 million parts: such a call runs again on resume, and does not take minutes."""
    shared: Any = 1
    for _ in range(25):
        shared = [shared, shared]
    assert input_digest(bytes(32), {"x": shared}) is None
    assert input_digest(bytes(32), {"x": list(range(100_000))}) is not None


def test_a_known_secret_keeps_the_other_parameters_recorded(history: History) -> None:
    """A parameter that holds a secret which is known from elsewhere is not recorded; the others are."""
    MASKER.learn("known-from-elsewhere-71")

    @flow
    def some(text: str, number: int) -> None: ...

    some("with known-from-elsewhere-71 in it", 3)
    [created] = history.data("flow_run.created")
    assert created["not_recorded"] == ["text"]
    assert "digest" in created["exact"]
