"""Values of runs: how they become bytes, where they are kept, and what becomes of a run whose values are gone."""

import asyncio
import enum
import gc
import json
import lzma
import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from pydantic import BaseModel, SecretBytes, SecretStr

from flightlog import flow, task
from flightlog.engine.resuming import fork_run, resume_run
from flightlog.engine.runtime import Engine, using
from flightlog.errors import CallsDiffer, CorruptResult, InvalidNameError, MissingResult, SettingsError
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.filesystems import LocalFileSystem, RemoteFileSystem
from flightlog.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer
from flightlog.settings import load

Configured = Callable[..., Any]


@pytest.fixture
def configured(engine: Engine, tmp_path: Path, history: Any) -> Iterator[Configured]:
    """Return a function that gives the test an engine with other settings; it returns that engine's history."""
    with ExitStack() as stack:

        def make(**environ: str) -> Any:
            made = Engine(Log(MemoryStore()), engine.key, load({"FLIGHTLOG_HOME": str(tmp_path), **environ}))
            stack.callback(made.log.close)
            stack.enter_context(using(made))
            return type(history)(made)

        yield make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for values, which is not there yet."""
    return tmp_path / "values"


def files(folder: Path) -> list[Path]:
    """Return all files in a folder, at any depth."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


class Color(enum.Enum):
    """An enum whose values are strings."""

    RED = "red"
    BLUE = "blue"


class Tint(enum.StrEnum):
    """An enum whose members are strings."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum whose members are numbers."""

    LOW = 1


class Item(BaseModel):
    """A model."""

    name: str
    price: Decimal
    tags: set[str] = set()


class Order(BaseModel):
    """A model with models in it."""

    number: UUID
    at: datetime
    items: list[Item]
    color: Color = Color.RED


class Login(BaseModel):
    """A model with a secret."""

    user: str
    password: SecretStr


class Nested(BaseModel):
    """A model with a secret further inside."""

    logins: dict[str, list[Login]]


@dataclass
class Point:
    """A dataclass."""

    x: int
    y: float


class Broken(ValueError):
    """An exception of our own."""


class Reversed(Serializer):
    """Writes JSON backwards."""

    type = "test-reversed"

    def dumps(self, value: Any) -> bytes:
        """Return JSON, from its end to its beginning."""
        return json.dumps(value).encode()[::-1]

    def loads(self, content: bytes) -> Any:
        """Return the value."""
        return json.loads(content[::-1])


class Plainly(Serializer):
    """Has no name, and trusts pickle."""

    def dumps(self, value: Any) -> bytes:
        """Return a pickle."""
        return pickle.dumps(value)

    def loads(self, content: bytes) -> Any:
        """Return the value."""
        return pickle.loads(content)


class Boxes:
    """A storage in memory, which may be made to fail."""

    def __init__(self, url: str = "boxes://here") -> None:
        self.url = url
        self.contents: dict[str, bytes] = {}
        self.error: Exception | None = None

    def write_path(self, path: str, content: bytes) -> None:
        """Keep some content."""
        if self.error is not None:
            raise self.error
        self.contents[path] = content

    def read_path(self, path: str) -> bytes:
        """Return what was kept."""
        if self.error is not None:
            raise self.error
        try:
            return self.contents[path]
        except KeyError:
            raise FileNotFoundError(path) from None


class World:
    """What bodies of tasks did, and whether the world is broken."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.broken = True

    def fail(self) -> None:
        """Fail while the world is broken."""
        if self.broken:
            raise ConnectionError("the world is broken")


@pytest.fixture
def world() -> World:
    """Return a new world."""
    return World()


def run_id(state: Any) -> str:
    """Return the id of the flow run that a state belongs to."""
    identifier = state.state_details.flow_run_id
    assert isinstance(identifier, str)
    return identifier


def results(history: Any, kind: str = "task_run") -> list[dict[str, Any]]:
    """Return what the log says of the values of completed runs."""
    return [data["result"] for data in history.data(f"{kind}.completed")]


def resumed(value: Callable[[], Any], **options: Any) -> list[Any]:
    """Return the value of a task as its flow gets it after a resume, and how often the task's body ran."""
    ran: list[int] = []

    @task(**options)
    def make() -> Any:
        ran.append(1)
        return value()

    found: list[Any] = []

    @flow
    def f() -> int:
        made = make()
        if not found:
            found.append(made)
            raise ConnectionError
        found.append(made)
        return 1

    run = run_id(f(return_state=True))
    assert resume_run(run, flow=f) == 1
    return [found[-1], len(ran)]


# --- what is recorded by default --------------------------------------------------------------------


def test_E113_values_are_at_hand_in_memory() -> None:
    """In the process a value is the object itself, whatever is recorded of it."""
    made = object()

    @task
    def t() -> object:
        return made

    @flow
    def f() -> object:
        assert t.submit().result() is made
        assert t(return_state=True).result() is made
        return t()

    assert f() is made
    assert f(return_state=True).result() is made


def test_E114_values_are_recorded_by_default(history: Any, engine: Engine) -> None:
    """Without any option the log has digest, size and serializer of a value, and the blob (decision 4)."""

    @task
    def t() -> Any:
        return {"a": [1, 2]}

    @flow
    def f() -> Any:
        return t()

    f()
    for kind in ("task_run", "flow_run"):
        [reference] = results(history, kind)
        assert reference["serializer"] == "pickle"
        assert len(engine.log.blob(reference["digest"])) == reference["size"]
        assert "storage" not in reference


@pytest.mark.parametrize("value", [None, True, False])
def test_E116_small_constants_stand_in_the_event(value: Any, history: Any) -> None:
    """None and the booleans need no blob."""

    @task
    def t() -> Any:
        return value

    @flow
    def f() -> int:
        t()
        return 1

    f()
    assert results(history) == [{"value": value}]
    assert resumed(lambda: value) == [value, 1]


def test_E114_persist_result_false_always_wins(history: Any, folder: Path) -> None:
    """Whatever else is said, the value is not recorded, and stays in memory."""

    @task(
        persist_result=False,
        result_storage=folder,
        result_serializer="json",
        result_storage_key="key",
        cache_result_in_memory=False,
    )
    def t() -> int:
        return 5

    @flow(persist_result=False, retries=1, result_storage=folder, cache_result_in_memory=False)
    def f() -> int:
        return t() + t.submit().result()

    assert f() == 10
    assert f(return_state=True).result() == 10
    assert results(history) == [{"not_recorded": "persist_result=False"}] * 4
    assert results(history, "flow_run") == [{"not_recorded": "persist_result=False"}] * 2
    assert not folder.exists()


@pytest.mark.parametrize("setting", ["true", "false"])
def test_E114_the_setting_is_the_default(setting: str, configured: Configured) -> None:
    """FLIGHTLOG_RESULTS_PERSIST_BY_DEFAULT decides for those that do not say it themselves."""
    history = configured(FLIGHTLOG_RESULTS_PERSIST_BY_DEFAULT=setting)

    @task
    def t() -> int:
        return 5

    @flow
    def f() -> int:
        return t() + t.with_options(persist_result=True)() + t.with_options(persist_result=False)()

    assert f() == 15
    recorded = ["digest" in reference for reference in [*results(history), *results(history, "flow_run")]]
    default = setting == "true"
    assert recorded == [default, True, False, default]


def test_E114_what_is_not_held_in_memory_is_recorded(configured: Configured) -> None:
    """`cache_result_in_memory=False` needs the record: the value is recorded though the setting says not to."""
    history = configured(FLIGHTLOG_RESULTS_PERSIST_BY_DEFAULT="false")

    @task(cache_result_in_memory=False)
    def t() -> int:
        return 5

    @flow
    def f() -> int:
        return t()

    assert f() == 5
    assert ["digest" in reference for reference in results(history)] == [True]


def test_E114_persist_result_of_a_flow_is_for_its_own_value(history: Any) -> None:
    """As in Prefect 2 a flow says it for itself: its tasks are recorded as usual."""

    @task
    def t() -> int:
        return 500

    @flow(persist_result=False)
    def f() -> int:
        return t()

    assert f() == 500
    assert ["digest" in reference for reference in results(history)] == [True]
    assert results(history, "flow_run") == [{"not_recorded": "persist_result=False"}]


def test_E114_a_value_that_cannot_be_pickled_is_no_error(history: Any) -> None:
    """It is noted, and the call runs again on resume (decision 4)."""
    value, ran = resumed(lambda: {"function": lambda: 5})
    assert ran == 2
    assert value["function"]() == 5
    reasons = [reference["not_recorded"] for reference in results(history)]
    assert len(reasons) == 2
    assert all("pickle" in reason for reason in reasons)


# --- serializers ------------------------------------------------------------------------------------

AT = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
NUMBER = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
JSON_VALUES: list[Any] = [
    1,
    2**80,
    1.5,
    float("inf"),
    "text ☃ \ud800 \x00",
    [],
    {},
    [1, [2, [None, True]]],
    {"a": {"b": [1]}, "": None},
    AT,
    AT.replace(tzinfo=None),
    date(2024, 2, 29),
    time(1, 2, 3),
    timedelta(days=1, microseconds=3),
    Decimal("1.10"),
    NUMBER,
    b"\x00\xff bytes",
    {1, 2, 3},
    frozenset({1, 2}),
    Color.BLUE,
    Path("/a/b"),
    Point(1, 2.5),
    Item(name="nut", price=Decimal("0.10"), tags={"a"}),
    Order(number=NUMBER, at=AT, items=[Item(name="nut", price=Decimal(1))]),
    [AT, {"deep": [Decimal("2.50"), {"deeper": NUMBER}]}],
    complex(1, 2),
]


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("spec", ["json", "compressed/json", "compressed/bz2/json"])
@pytest.mark.parametrize("value", JSON_VALUES, ids=repr)
def test_E119_json_gives_values_back(value: Any, spec: str, history: Any) -> None:
    """What pydantic knows comes back as it was, of the same type, without the body running again."""
    found, ran = resumed(lambda: value, result_serializer=spec)
    assert _same(found, value)
    assert ran == 1
    assert {reference["serializer"].rpartition("/")[2] for reference in results(history)} == {"json"}


@pytest.mark.parametrize(
    "value",
    [{NUMBER}, {Decimal("1.5"), Decimal("2.5")}, frozenset({AT}), {Color.RED}, {(1, 2)}],
    ids=["UUIDs", "Decimals", "datetimes", "enums", "tuples"],
)
def test_E119_json_gives_sets_back_with_what_is_in_them(value: Any) -> None:
    """Members of sets are what they were, too; or the value is made anew. They never turn into something else."""
    found, _ = resumed(lambda: value, result_serializer="json")
    assert _same(found, value)


@pytest.mark.parametrize("value", [Tint.RED, Level.LOW], ids=["StrEnum", "IntEnum"])
def test_E119_json_gives_enums_of_strings_and_numbers_back(value: Any) -> None:
    """Members of enums that are strings or numbers are members of these enums again."""
    found, _ = resumed(lambda: value, result_serializer="json")
    assert found is value


@pytest.mark.parametrize(
    "value",
    [
        {"__class__": "decimal:Decimal", "data": "1.5"},
        {"__class__": "nowhere:Nothing", "data": None},
        {"__exception__": "builtins:ValueError", "args": ["x"]},
        [{"__exception__": "builtins:SystemExit", "args": [1]}],
    ],
    ids=["class", "unknown", "exception", "inside"],
)
def test_E119_json_does_not_mistake_data_for_marks(value: Any) -> None:
    """A dict that looks like the serializer's own marks comes back as the dict that it is."""
    found, _ = resumed(lambda: value, result_serializer="json")
    assert _same(found, value)


@pytest.mark.parametrize(
    "error", [ValueError("boom", 3), KeyError("k"), Broken("mine"), OSError(2, "gone")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("spec", ["json", "compressed/json", "pickle"])
def test_E119_exceptions_as_values_come_back(error: Exception, spec: str) -> None:
    """An exception that a task returns inside of its value is one of the same class and arguments again."""
    found, ran = resumed(lambda: [error], result_serializer=spec)
    assert type(found[0]) is type(error)
    assert found[0].args == error.args
    assert ran == 1


def test_E119_what_json_cannot_say_is_noted(history: Any) -> None:
    """Objects that pydantic does not know, and keys that JSON has not, run again on resume; no error."""

    class Odd:
        pass

    for value in (Odd(), {(1, 2): 3}, [{1: Odd()}]):
        made: Any = value
        found, ran = resumed(lambda made=made: made, result_serializer="json")  # type: ignore[misc]
        assert found is value
        assert ran == 2
    reasons = [reference["not_recorded"] for reference in results(history) if "not_recorded" in reference]
    assert len(reasons) == 6
    assert all("TypeError" in reason for reason in reasons)


def test_E119_tuples_are_lists_in_json() -> None:
    """JSON has no tuples: they come back as lists, as documented, and keys as strings."""
    assert resumed(lambda: (1, 2), result_serializer="json") == [[1, 2], 1]
    assert resumed(lambda: {1: 2}, result_serializer="json") == [{"1": 2}, 1]


@pytest.mark.parametrize("spec", ["pickle", "compressed/pickle", "compressed/zlib/pickle"])
def test_E119_pickles_give_values_back(spec: str) -> None:
    """Pickles keep tuples, types of keys, and classes of the test's own."""
    value = {(1, 2): Point(1, 2), "t": Tint.RED, "set": {NUMBER}, "m": Item(name="a", price=Decimal(1))}
    found, ran = resumed(lambda: value, result_serializer=spec)
    assert found == value
    assert found["t"] is Tint.RED
    assert ran == 1


def test_E119_a_compressed_value_is_smaller(history: Any) -> None:
    """`compressed/...` is another serializer's bytes, compressed with the library that is named, lzma by default."""

    @task(result_serializer="json")
    def t() -> str:
        return "a" * 100_000

    @flow
    def f() -> int:
        t()
        t.with_options(result_serializer="compressed/json")()
        t.with_options(result_serializer=CompressedSerializer(JSONSerializer(), compressionlib="zlib"))()
        return 1

    f()
    plain, small, other = results(history)
    assert plain["size"] == 100_002
    assert max(small["size"], other["size"]) < 1000
    assert (small["serializer"], other["serializer"]) == ("compressed/lzma/json", "compressed/zlib/json")


def test_E119_serializers_are_equal_by_what_they_do() -> None:
    """Instances and names that mean the same are equal, and others are not."""
    assert task(result_serializer="json")(len).result_serializer == JSONSerializer()
    assert task(result_serializer="compressed/pickle")(len).result_serializer == CompressedSerializer("pickle", "lzma")
    assert CompressedSerializer("json", "bz2") != CompressedSerializer("json")
    assert PickleSerializer() != PickleSerializer("marshal")
    assert len({JSONSerializer(), JSONSerializer(), PickleSerializer()}) == 2


@pytest.mark.parametrize(
    ("wrong", "right"), [("jsn", "json"), ("pikle", "pickle"), ("compresed/json", "compressed"), ("JSON", "json")]
)
@pytest.mark.parametrize("kind", [flow, task])
def test_E119_wrong_names_are_refused(kind: Any, wrong: str, right: str) -> None:
    """An unknown serializer is a ValueError at decoration that names the nearest one."""
    with pytest.raises(ValueError, match=right) as caught:
        kind(result_serializer=wrong)(len)
    assert wrong in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    ["", "json/no_such_library", "compressed/no_such_library/json", "compressed/json/json/x", "pickle/json.tool", "/"],
)
def test_E119_libraries_that_do_not_fit_are_refused(wrong: str) -> None:
    """A library that is not there, or cannot do it, is a ValueError at decoration."""
    with pytest.raises(ValueError, match=r"."):
        task(result_serializer=wrong)(len)


@pytest.mark.parametrize("wrong", [5, json, JSONSerializer, b"json", ["json"]])
def test_E119_what_is_no_serializer_is_refused(wrong: Any) -> None:
    """Neither a serializer nor a name is a TypeError at decoration."""
    with pytest.raises(TypeError, match=r"[Ss]erializer"):
        task(result_serializer=wrong)(len)


def test_E119_other_libraries_can_be_named(history: Any) -> None:
    """`PickleSerializer(picklelib=...)` and `JSONSerializer(jsonlib=...)` use what they are given."""
    found, ran = resumed(lambda: {"a": [1, (2, 3)]}, result_serializer=PickleSerializer(picklelib="marshal"))
    assert (found, ran) == ({"a": [1, (2, 3)]}, 1)
    assert {reference["serializer"] for reference in results(history)} == {"pickle/marshal"}
    with pytest.raises(ValueError, match="dumps"):
        PickleSerializer(picklelib="math")
    with pytest.raises(ValueError, match="compress"):
        CompressedSerializer("json", compressionlib="math")


def test_E119_json_takes_encoders_and_decoders() -> None:
    """`object_encoder` makes something JSON has of what it has not, and `object_decoder` undoes it."""

    class Odd:
        def __init__(self, n: int) -> None:
            self.n = n

    def encode(value: Any) -> Any:
        return {"odd": value.n}

    def decode(value: dict[str, Any]) -> Any:
        return Odd(value["odd"]) if "odd" in value else value

    serializer = JSONSerializer(object_encoder=encode, object_decoder=decode)
    found, ran = resumed(lambda: [Odd(7), {"a": 1}], result_serializer=serializer)
    assert [found[0].n, found[1], ran] == [7, {"a": 1}, 1]


@pytest.mark.parametrize("serializer", ["test-reversed", Reversed(), "compressed/test-reversed", Plainly()])
def test_E119_serializers_of_ones_own(serializer: Any, history: Any) -> None:
    """A subclass can be used by its name, as an instance, and inside a compressed one; one without a name as such."""
    found, ran = resumed(lambda: {"a": [1]}, result_serializer=serializer)
    assert (found, ran) == ({"a": [1]}, 1)
    assert all("digest" in reference for reference in results(history))


def test_E119_a_serializer_that_raises_is_noted(history: Any) -> None:
    """Whatever a serializer raises, the value is in memory, the reason on record, and the run goes on."""

    class Angry(Serializer):
        def dumps(self, value: Any) -> bytes:
            raise LookupError("not with me")

        def loads(self, content: bytes) -> Any:
            raise AssertionError("not to be reached")

    assert resumed(lambda: 5, result_serializer=Angry()) == [5, 2]
    assert [reference["not_recorded"] for reference in results(history)] == ["LookupError: not with me"] * 2


def test_E119_a_value_that_cannot_be_loaded_runs_again_visibly(history: Any) -> None:
    """A serializer that cannot read what it wrote makes the call run again, and the event says why."""

    class Forgetful(Serializer):
        type = "test-forgetful"

        def dumps(self, value: Any) -> bytes:
            return b"something"

        def loads(self, content: bytes) -> Any:
            raise LookupError("what was it?")

    assert resumed(lambda: 5, result_serializer=Forgetful()) == [5, 2]
    [again] = history.data("task_run.scheduled")
    assert "what was it?" in again["message"]


def test_E119_a_value_is_read_with_the_serializer_it_was_written_with(world: World) -> None:
    """The record says which one that was, whatever the code of today says."""

    @task(name="t", result_serializer="json")
    def t() -> Any:
        world.ran.append("t")
        return [AT]

    def body(made: Any) -> Callable[[], Any]:
        def f() -> Any:
            value = made()
            world.fail()
            return value

        return f

    run = run_id(flow(name="f")(body(t))(return_state=True))
    world.broken = False
    again = t.with_options(result_serializer="compressed/pickle")
    assert resume_run(run, flow=flow(name="f")(body(again))) == [AT]
    assert world.ran == ["t"]


def test_E119_serializers_are_inherited(history: Any) -> None:
    """Tasks and subflows do as the flow does that calls them, unless they say otherwise."""

    @task
    def t() -> str:
        return "abc"

    @flow
    def inner() -> str:
        return t()

    @flow(result_serializer="compressed/pickle")
    def other() -> str:
        return t()

    @flow(result_serializer="json")
    def outer() -> str:
        t()
        t.with_options(result_serializer="test-reversed")()
        t.with_options(result_serializer="pickle").submit().wait()
        inner()
        other()
        return "abc"

    outer()
    by_task = [(event.type, event.data["result"]["serializer"]) for event in history.events("task_run.completed")]
    assert [serializer for _, serializer in by_task] == [
        "json",
        "test-reversed",
        "pickle",
        "json",
        "json",
        "compressed/lzma/pickle",
        "compressed/lzma/pickle",
    ]
    assert [reference["serializer"] for reference in results(history, "flow_run")] == [
        "json",
        "compressed/lzma/pickle",
        "json",
    ]


def test_E119_the_setting_is_the_default_serializer(configured: Configured) -> None:
    """FLIGHTLOG_RESULTS_DEFAULT_SERIALIZER goes for all that do not say otherwise."""
    history = configured(FLIGHTLOG_RESULTS_DEFAULT_SERIALIZER="compressed/json")

    @task
    def t() -> str:
        return "abc"

    @flow
    def f() -> str:
        return t() + t.with_options(result_serializer="pickle")()

    assert f() == "abcabc"
    assert [reference["serializer"] for reference in results(history)] == ["compressed/lzma/json", "pickle"]
    assert [reference["serializer"] for reference in results(history, "flow_run")] == ["compressed/lzma/json"]


def test_E119_a_wrong_setting_is_told(configured: Configured) -> None:
    """A serializer that does not exist is a SettingsError that names setting and nearest name."""
    with pytest.raises(SettingsError, match=r"FLIGHTLOG_RESULTS_DEFAULT_SERIALIZER.*'json'"):
        configured(FLIGHTLOG_RESULTS_DEFAULT_SERIALIZER="jsn")


# --- secrets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["json", "compressed/json", "pickle", "compressed/pickle"])
@pytest.mark.parametrize(
    "value",
    [
        lambda: SecretStr("swordfish-91"),
        lambda: SecretBytes(b"swordfish-91"),
        lambda: Login(user="a", password=SecretStr("swordfish-91")),
        lambda: [{"deep": (Login(user="a", password=SecretStr("swordfish-91")),)}],
        lambda: Nested(logins={"x": [Login(user="a", password=SecretStr("swordfish-91"))]}),
        lambda: ValueError(SecretStr("swordfish-91")),
    ],
    ids=["text", "bytes", "model", "deep", "nested", "exception"],
)
def test_E119_secrets_are_not_recorded(value: Any, spec: str, history: Any, folder: Path) -> None:
    """A value that holds a secret is in memory only; the call runs again on resume, with the real secret."""
    _, ran = resumed(value, result_serializer=spec, result_storage=folder)
    assert ran == 2
    assert all("secret" in reference["not_recorded"] for reference in results(history) if "value" not in reference)
    assert files(folder) == []


@pytest.mark.parametrize("serializer", [Plainly(), CompressedSerializer(Plainly())], ids=["own", "compressed"])
def test_E119_secrets_are_not_recorded_by_other_serializers(serializer: Any, history: Any, folder: Path) -> None:
    """A serializer of one's own gets no secret to write: nothing of it is kept."""
    _, ran = resumed(lambda: Login(user="a", password=SecretStr("swordfish-92")), result_serializer=serializer)
    assert ran == 2
    assert all("not_recorded" in reference for reference in results(history))


@pytest.mark.parametrize("spec", ["json", "pickle", "compressed/json", "compressed/pickle"])
def test_E119_known_secrets_are_not_recorded_as_text(spec: str, history: Any, folder: Path) -> None:
    """A secret that a flow was given, and that a task returns as plain text, is not recorded in any form."""

    @task(result_serializer=spec, result_storage=folder)
    def connect(text: str) -> Any:
        return {"url": f"db://me:{text}@host", "lines": [f"{n} {text}" for n in range(100)]}

    @flow(persist_result=False)
    def f(password: SecretStr) -> int:
        connect(password.get_secret_value())
        return 1

    f(SecretStr("swordfish-93"))
    [reference] = results(history)
    assert "secret" in reference["not_recorded"]
    assert files(folder) == []


def test_E119_known_secrets_are_not_recorded_as_bytes(history: Any) -> None:
    """Nor as bytes, which JSON has only in disguise."""

    @task(result_serializer="json")
    def connect(text: str) -> Any:
        return {"header": text.encode()}

    @flow(persist_result=False)
    def f(password: SecretStr) -> int:
        connect(password.get_secret_value())
        return 1

    f(SecretStr("swordfish-94"))
    [reference] = results(history)
    assert "secret" in reference.get("not_recorded", "")


# --- storages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "text", "url", "instance"])
def test_E117_values_are_kept_in_a_folder(kind: str, folder: Path, history: Any, engine: Engine) -> None:
    """A folder is named by path, text, file URL or storage; the event says where the value is, the log has no blob."""
    storage: Any = {
        "path": folder,
        "text": str(folder),
        "url": folder.as_uri(),
        "instance": LocalFileSystem(folder),
    }[kind]
    assert resumed(lambda: {"a": 1}, result_storage=storage) == [{"a": 1}, 1]
    [reference] = results(history)
    [file] = files(folder)
    assert (reference["storage"], folder / reference["path"]) == (folder.as_uri(), file)
    assert file.stat().st_size == reference["size"]
    assert reference["digest"].hex() in reference["path"]
    with pytest.raises(Exception, match=r"."):
        engine.log.blob(reference["digest"])


def test_E117_a_folder_with_odd_characters(tmp_path: Path) -> None:
    """Blanks, percent signs and letters of any kind in a folder's name are no trouble."""
    folder = tmp_path / "my values 100% ☃ #1?"
    assert resumed(lambda: [1], result_storage=folder) == [[1], 1]
    assert resumed(lambda: [2], result_storage=folder.as_uri()) == [[2], 1]
    assert len(files(folder)) == 2


def test_E117_a_relative_folder_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is that of the moment in which it was named."""
    monkeypatch.chdir(tmp_path)
    t = task(result_storage="here")(lambda: [1])

    @flow
    def f() -> Any:
        return t()

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    f()
    assert len(files(tmp_path / "here")) == 1


def test_E117_equal_values_share_a_file(folder: Path, history: Any) -> None:
    """Files are named by what is in them, so that equal values take no more room."""

    @task(result_storage=folder)
    def t() -> list[int]:
        return [1, 2, 3]

    @flow
    def f() -> int:
        t()
        t()
        return 1

    f()
    assert len(files(folder)) == 1
    assert [reference["path"] for reference in results(history)] == [results(history)[0]["path"]] * 2


def test_E118_other_programs_can_read_the_files(folder: Path) -> None:
    """A file of the json serializer is JSON, and a compressed one is what its library wrote."""

    @task(result_storage=folder, result_serializer="json", result_storage_key="a.json")
    def t() -> Any:
        return {"numbers": [1, 2.5]}

    @flow
    def f() -> int:
        t()
        t.with_options(result_serializer="compressed/json", result_storage_key="a.json.xz")()
        return 1

    f()
    assert json.loads((folder / "a.json").read_text()) == {"numbers": [1, 2.5]}
    assert json.loads(lzma.decompress((folder / "a.json.xz").read_bytes())) == {"numbers": [1, 2.5]}


def test_E117_a_storage_of_ones_own(history: Any, world: World) -> None:
    """Anything with `url`, `write_path` and `read_path` is a storage."""
    boxes = Boxes()

    @task(result_storage=boxes)
    def t() -> Any:
        world.ran.append("t")
        return {"a": 1}

    @flow(result_storage=boxes, cache_result_in_memory=False)
    def f() -> Any:
        made = t()
        world.fail()
        return made

    run = run_id(f(return_state=True))
    world.broken = False
    assert resume_run(run, flow=f) == {"a": 1}
    assert world.ran == ["t"]
    assert {reference["storage"] for reference in results(history)} == {"boxes://here"}
    assert len(boxes.contents) == 1


@pytest.mark.parametrize("wrong", [5, object(), ["a"], b"/a"])
@pytest.mark.parametrize("kind", [flow, task])
def test_E117_what_is_no_storage_is_refused(kind: Any, wrong: Any) -> None:
    """Anything else is a TypeError at decoration."""
    with pytest.raises(TypeError, match="storage"):
        kind(result_storage=wrong)(len)


def test_E117_storages_are_inherited(tmp_path: Path, history: Any) -> None:
    """Tasks and subflows keep values where the flow does that calls them, unless they say otherwise."""
    one, two, three = (LocalFileSystem(tmp_path / name) for name in ("one", "two", "three"))

    @task
    def t() -> str:
        return "abc"

    @flow
    def inner() -> str:
        return t()

    @flow(result_storage=three)
    def other() -> str:
        return t()

    @flow(result_storage=one)
    def outer() -> str:
        t()
        t.with_options(result_storage=two).submit().wait()
        inner()
        other()
        return "abc"

    outer()
    where = [reference["storage"].rpartition("/")[2] for reference in results(history)]
    assert where == ["one", "two", "one", "one", "three", "three"]
    assert [reference["storage"].rpartition("/")[2] for reference in results(history, "flow_run")] == [
        "one",
        "three",
        "one",
    ]


def test_E117_storages_are_inherited_through_tasks(folder: Path, history: Any) -> None:
    """A task that a task calls, and a flow that a task calls, keep values as the flow around does."""

    @task
    def deep() -> str:
        return "deep"

    @flow
    def below() -> str:
        return deep()

    @task
    def t() -> str:
        return deep() + below()

    @flow(result_storage=folder, result_serializer="json")
    def f() -> str:
        return t()

    f()
    told = results(history)
    assert {reference["storage"] for reference in told} == {folder.as_uri()}
    assert {reference["serializer"] for reference in told} == {"json"}


def test_E117_the_setting_is_the_default_storage(configured: Configured, folder: Path, tmp_path: Path) -> None:
    """FLIGHTLOG_RESULTS_DEFAULT_STORAGE goes for all that do not say otherwise."""
    history = configured(FLIGHTLOG_RESULTS_DEFAULT_STORAGE=str(folder))

    @task
    def t() -> str:
        return "abc"

    @flow
    def f() -> str:
        t.with_options(result_storage=tmp_path / "other")()
        return t()

    assert f() == "abc"
    assert [reference["storage"] for reference in results(history)] == [
        (tmp_path / "other").as_uri(),
        folder.as_uri(),
    ]
    assert [reference["storage"] for reference in results(history, "flow_run")] == [folder.as_uri()]


def test_E117_none_goes_back_to_the_flows_storage(folder: Path, tmp_path: Path, history: Any) -> None:
    """`with_options(result_storage=None)` is as if the task had never said it (E17)."""

    @task(result_storage=tmp_path / "other")
    def t() -> str:
        return "abc"

    @flow(result_storage=folder)
    def f() -> str:
        return t.with_options(result_storage=None)()

    f()
    assert [reference["storage"] for reference in results(history)] == [folder.as_uri()]


def test_E121_a_storage_that_takes_nothing_is_no_failure(history: Any, capfd: Any) -> None:
    """The run completes with its value in memory, a warning is shown, and the reason is on record."""
    boxes = Boxes()
    boxes.error = PermissionError("no room for you")

    @task(result_storage=boxes, cache_result_in_memory=False)
    def t() -> list[int]:
        return [1]

    @flow(result_storage=boxes)
    def f() -> Any:
        return t() + t.submit().result()

    assert f() == [1, 1]
    for reference in [*results(history), *results(history, "flow_run")]:
        assert "PermissionError: no room for you" in reference["not_recorded"]
        assert "boxes://here" in reference["not_recorded"]
    shown = [line for line in capfd.readouterr().err.splitlines() if "no room for you" in line]
    assert len(shown) == 3
    assert all("WARNING" in line for line in shown)


def test_E121_a_storage_that_takes_nothing_in_async_flows(history: Any) -> None:
    """The same in async code."""
    boxes = Boxes()
    boxes.error = PermissionError("no room for you")

    @task(result_storage=boxes)
    async def t() -> list[int]:
        return [1]

    @flow(result_storage=boxes)
    async def f() -> Any:
        return await t()

    assert asyncio.run(f()) == [1]
    assert all("no room" in reference["not_recorded"] for reference in results(history))


def test_E117_a_url_without_its_library_is_told(history: Any) -> None:
    """A URL that nothing here can reach leaves a reason on record, and hides credentials in it."""
    remote = RemoteFileSystem("nosuchplace://me:swordfish-95@host/bucket/")
    assert "swordfish-95" not in repr(remote)
    assert resumed(lambda: [1], result_storage="nosuchplace://me:swordfish-95@host/bucket") == [[1], 2]
    reasons = [reference["not_recorded"] for reference in results(history)]
    assert all("nosuchplace://" in reason and "SettingsError" in reason for reason in reasons)
    assert not any("swordfish-95" in reason for reason in reasons)


def test_E117_a_file_in_the_way_is_no_failure(folder: Path, history: Any) -> None:
    """Where the folder should be is a file: the run completes, and the reason is on record."""
    folder.write_text("in the way")
    assert resumed(lambda: [1], result_storage=folder) == [[1], 2]
    assert all(folder.as_uri() in reference["not_recorded"] for reference in results(history))
    assert folder.read_text() == "in the way"


# --- keys -------------------------------------------------------------------------------------------


def test_E117_a_key_is_a_template(folder: Path, history: Any) -> None:
    """It is filled in with `parameters`, `flow_run` and `task_run`."""

    @task(
        result_storage=folder,
        result_storage_key="{flow_run.name}/{task_run.name}/{parameters[day]}-{parameters[n]:03d}.bin",
        task_run_name="work {n}",
    )
    def t(day: date, n: int = 7) -> Any:
        return [n]

    @flow(flow_run_name="monday")
    def f() -> Any:
        t(date(2024, 1, 2))
        return t(date(2024, 1, 3), 8)

    f()
    assert [path.relative_to(folder).as_posix() for path in files(folder)] == [
        "monday/work 7/2024-01-02-007.bin",
        "monday/work 8/2024-01-03-008.bin",
    ]
    assert results(history)[0]["path"] == "monday/work 7/2024-01-02-007.bin"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{flow_run.flow_name}", "the-flow"),
        ("{task_run.task_name}", "t"),
        ("{flow_run.run_count}-{task_run.run_count}", "1-1"),
        ("{flow_run.parameters[x]}", "9"),
        ("{task_run.tags[0]}", "blue"),
        ("{deployment.name}", "None"),
    ],
)
def test_E117_a_key_knows_the_facts_of_the_runtime(template: str, expected: str, folder: Path) -> None:
    """All facts of `flightlog.runtime` can stand in a key."""

    @task(result_storage=folder, result_storage_key=template, tags=["blue"])
    def t() -> Any:
        return [1]

    @flow(name="the-flow")
    def f(x: int) -> Any:
        return t()

    assert f(9) == [1]
    assert [path.name for path in files(folder)] == [expected]


@pytest.mark.parametrize("value", [None, True, [1]])
def test_E117_a_key_alone_has_its_place(value: Any, tmp_path: Path, history: Any) -> None:
    """Without a storage keys are files in `storage` in the home folder, for any value, None too."""
    assert resumed(lambda: value, result_storage_key="a/b") == [value, 1]
    assert (tmp_path / "storage" / "a" / "b").is_file()
    assert results(history)[0]["path"] == "a/b"


def test_E117_a_key_is_overwritten(folder: Path) -> None:
    """The latest value is the one that is there; an older one is known to be another."""
    values = iter([[1], [2]])

    @task(result_storage=folder, result_storage_key="latest", cache_result_in_memory=False)
    def t() -> list[int]:
        return next(values)

    @flow
    def f() -> Any:
        old = t(return_state=True)
        new = t(return_state=True)
        with pytest.raises(CorruptResult, match="latest"):
            old.result()
        return new.result()

    assert f() == [2]
    assert len(files(folder)) == 1


@pytest.mark.parametrize("template", ["{nothing}", "{parameters[y]}", "{flow_run.nothing}", "{", "{0}", "{parameters"])
def test_E117_a_key_that_cannot_be_filled_in_is_told(template: str, folder: Path) -> None:
    """The error names the template; nothing is stored."""
    with pytest.raises((InvalidNameError, ValueError), match="result_storage_key"):

        @task(result_storage=folder, result_storage_key=template)
        def t(x: int) -> Any:
            return [x]

        @flow
        def f() -> Any:
            return t(1)

        f()
    assert files(folder) == []


@pytest.mark.parametrize("key", ["../outside", "/etc/outside", "a/../../outside", "~/../../outside/{parameters[x]}"])
def test_E117_a_key_does_not_lead_out_of_its_folder(key: str, folder: Path, tmp_path: Path, history: Any) -> None:
    """A key that points outside stores nothing there; the run goes on, and the reason is on record."""

    @task(result_storage=folder, result_storage_key=key)
    def t(x: str) -> Any:
        return [x]

    @flow
    def f() -> Any:
        return t("../../../../outside")

    assert f() == ["../../../../outside"]
    assert not [path for path in files(tmp_path) if "outside" in path.name and folder not in path.parents]
    assert "outside" in results(history)[0]["not_recorded"]


def test_E117_no_secret_in_a_key(folder: Path) -> None:
    """A known secret among the parameters is masked in the file's name."""

    @task(result_storage=folder, result_storage_key="{parameters[text]}")
    def t(text: str) -> int:
        return 500

    @flow
    def f(password: SecretStr) -> int:
        return t(password.get_secret_value())

    f(SecretStr("swordfish-96"))
    assert not any("swordfish" in path.name for path in files(folder))


# --- values that are not held in memory -------------------------------------------------------------


class Big:
    """A value that can be seen to go."""

    alive: ClassVar["weakref.WeakSet[Big]"] = weakref.WeakSet()

    def __init__(self) -> None:
        self.alive.add(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Big)

    def __hash__(self) -> int:
        return 1

    def __getstate__(self) -> Any:
        return {}

    def __setstate__(self, _: Any) -> None:
        pass


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("submitted", [False, True])
def test_E120_a_value_is_let_go_and_loaded_again(stored: bool, submitted: bool, folder: Path) -> None:
    """With `cache_result_in_memory=False` nothing holds the value once it is recorded; asked for, it is there again."""

    @task(cache_result_in_memory=False, result_storage=folder if stored else None)
    def t() -> Big:
        return Big()

    @flow
    def f() -> int:
        state: Any = t.submit().wait() if submitted else t(return_state=True)
        gc.collect()
        assert len(Big.alive) == 0
        assert state.result() == Big()
        assert state.result() is not state.result()
        return 1

    assert f() == 1


@pytest.mark.parametrize("value", [None, False, 0, ""])
def test_E120_nothing_is_always_at_hand(value: Any) -> None:
    """None and other empty values are what they were."""

    @task(cache_result_in_memory=False)
    def t() -> Any:
        return value

    @flow(cache_result_in_memory=False)
    def f() -> Any:
        state: Any = t.submit().wait()
        assert state.result() is value or state.result() == value
        return t.submit().result()

    assert f() == value


def test_E120_values_that_were_let_go_go_on(folder: Path) -> None:
    """Tasks are given them, `map` splits them, flows return them, and async code has them too."""

    @task(cache_result_in_memory=False, result_storage=folder)
    def t() -> list[int]:
        return [1, 2]

    @task(cache_result_in_memory=False)
    async def later(x: int) -> int:
        return x * 10

    @task(cache_result_in_memory=False)
    def total(values: Any) -> int:
        return sum(values)

    @flow(cache_result_in_memory=False)
    def f() -> Any:
        future = t.submit()
        return [total(future), total(t(return_state=True)), total.map([future, future]), total(later.map(future))]

    @flow(cache_result_in_memory=False)
    async def g() -> Any:
        future = await later.submit(1)
        return [await later(future), t(), f()]

    assert f() == [3, 3, [3, 3], 30]
    assert asyncio.run(g()) == [100, [1, 2], [3, 3, [3, 3], 30]]


def test_E120_a_flows_value_is_let_go() -> None:
    """The state of a flow, too, holds no value then."""

    @flow(cache_result_in_memory=False)
    def f() -> Big:
        return Big()

    state = f(return_state=True)
    gc.collect()
    assert len(Big.alive) == 0
    assert state.result() == Big()


def test_E120_what_cannot_be_recorded_stays() -> None:
    """A value that is not recorded is not let go of."""
    made = {"function": lambda: 5}

    @task(cache_result_in_memory=False)
    def t() -> Any:
        return made

    @flow
    def f() -> int:
        assert t() is made
        assert t.with_options(persist_result=False)() is made
        return 1

    assert f() == 1


def test_E68_a_value_that_was_loaded_again_is_known_to_come_from_its_run(history: Any) -> None:
    """Given to another task, it is recorded as that run's, as values that are held in memory are."""

    @task(cache_result_in_memory=False)
    def t() -> dict[str, int]:
        return {"a": 1}

    @task
    def use(x: Any) -> Any:
        return x

    @flow
    def f() -> Any:
        return use(t())

    f()
    [made] = history.task_runs("t")
    [used] = history.task_runs("use")
    assert used.get("inputs") == {"x": [made["task_run_id"]]}


def test_E115_a_file_that_is_gone_is_missing(folder: Path) -> None:
    """The value of a state is a MissingResult that names the place."""

    @task(cache_result_in_memory=False, result_storage=folder, result_storage_key="gone")
    def t() -> list[int]:
        return [1]

    @flow
    def f() -> int:
        state = t(return_state=True)
        (folder / "gone").unlink()
        with pytest.raises(MissingResult, match="gone"):
            state.result()
        with pytest.raises(MissingResult, match="gone"):
            state.result(raise_on_failure=False)
        return 1

    assert f() == 1


@pytest.mark.parametrize("spec", ["pickle", "json", "compressed/pickle"])
@pytest.mark.parametrize("change", [lambda old: b"", lambda old: old + b" ", lambda old: old[:-1] + b"\x00"])
def test_E115_a_file_that_was_altered_is_corrupt(spec: str, change: Callable[[bytes], bytes], folder: Path) -> None:
    """The value of a state is a CorruptResult; nothing of what is there is loaded."""

    @task(cache_result_in_memory=False, result_storage=folder, result_storage_key="altered", result_serializer=spec)
    def t() -> list[int]:
        return [1]

    @flow
    def f() -> int:
        state = t(return_state=True)
        file = folder / "altered"
        file.write_bytes(change(file.read_bytes()))
        with pytest.raises(CorruptResult, match="altered"):
            state.result()
        return 1

    assert f() == 1


class Trap:
    """Pickled, it is a call that leaves a trace."""

    sprung: ClassVar[list[int]] = []

    def __reduce__(self) -> Any:
        return spring, ()


def spring() -> None:
    """Leave a trace."""
    Trap.sprung.append(1)


def test_E115_a_foreign_pickle_is_not_loaded(folder: Path) -> None:
    """What somebody puts in the place of a value is not unpickled, whatever it says."""

    @task(cache_result_in_memory=False, result_storage=folder, result_storage_key="trap")
    def t() -> list[int]:
        return [1]

    @flow
    def f() -> int:
        state = t(return_state=True)
        (folder / "trap").write_bytes(b"\x00" * 32 + pickle.dumps(Trap()))
        with pytest.raises(CorruptResult):
            state.result()
        return 1

    assert f() == 1
    assert Trap.sprung == []


def test_E115_a_folder_that_cannot_be_read_is_missing() -> None:
    """A storage that fails when it is read gives a MissingResult that says why."""
    boxes = Boxes()

    @task(cache_result_in_memory=False, result_storage=boxes)
    def t() -> list[int]:
        return [1]

    @flow
    def f() -> int:
        state = t(return_state=True)
        boxes.error = PermissionError("closed today")
        with pytest.raises(MissingResult, match="closed today"):
            state.result()
        return 1

    assert f() == 1


# --- going on without them --------------------------------------------------------------------------


def _delete(file: Path) -> None:
    file.unlink()


def _alter(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"!")


DAMAGES = pytest.mark.parametrize("damage", [_delete, _alter], ids=["gone", "altered"])


def _chain(world: World, folder: Path, **options: Any) -> Any:
    """Return a flow of two tasks, the first of which keeps its value in a folder."""

    @task(result_storage=folder, result_storage_key="value", **options)
    def make() -> list[int]:
        world.ran.append("make")
        return [1, 2]

    @task
    def use(values: list[int]) -> int:
        world.ran.append("use")
        world.fail()
        return sum(values)

    @flow
    def f() -> int:
        return use(make())

    return f


@DAMAGES
@pytest.mark.parametrize("spec", ["pickle", "json"])
def test_E115_resuming_without_a_value_stops(
    damage: Callable[[Path], None], spec: str, world: World, folder: Path
) -> None:
    """By default the run is not gone on with: CallsDiffer says which value, and what to do."""
    f = _chain(world, folder, result_serializer=spec)
    run = run_id(f(return_state=True))
    damage(folder / "value")
    world.broken = False
    with pytest.raises(CallsDiffer, match=r"(?s)value.*rerun"):
        resume_run(run, flow=f)
    assert world.ran == ["make", "use"]
    assert resume_run(run, flow=f, on_change="rerun") == 3


@DAMAGES
@pytest.mark.parametrize("spec", ["pickle", "json"])
def test_E115_resuming_without_a_value_runs_again_if_told_so(
    damage: Callable[[Path], None], spec: str, world: World, folder: Path, history: Any
) -> None:
    """With `on_change="rerun"` the call runs again, visibly, and its value is kept anew."""
    f = _chain(world, folder, result_serializer=spec)
    run = run_id(f(return_state=True))
    damage(folder / "value")
    world.broken = False
    assert resume_run(run, flow=f, on_change="rerun") == 3
    assert world.ran == ["make", "use", "make", "use"]
    said = [data["message"] for data in history.data("task_run.scheduled") if "message" in data]
    assert len(said) == 1
    assert str(folder / "value") in said[0]
    assert len(history.task_runs("make")) == 1
    assert (folder / "value").is_file()


def test_E115_resuming_with_its_values_runs_nothing_twice(world: World, folder: Path) -> None:
    """As long as the file is there the call does not run again, also if the code names no storage any more."""
    f = _chain(world, folder)
    run = run_id(f(return_state=True))
    world.broken = False
    assert resume_run(run, flow=f) == 3
    assert world.ran == ["make", "use", "use"]


@DAMAGES
def test_E115_a_value_that_nobody_holds_and_nobody_asks_for(
    damage: Callable[[Path], None], world: World, folder: Path
) -> None:
    """Async flows that are resumed stop, or run the call again, in the same way."""

    @task(result_storage=folder, result_storage_key="value")
    async def make() -> list[int]:
        world.ran.append("make")
        return [1, 2]

    @flow
    async def f() -> int:
        values = await make()
        world.fail()
        return sum(values)

    run = run_id(asyncio.run(f(return_state=True)))
    damage(folder / "value")
    world.broken = False
    with pytest.raises(CallsDiffer, match="value"):
        asyncio.run(resume_run(run, flow=f))
    assert asyncio.run(resume_run(run, flow=f, on_change="rerun")) == 3
    assert world.ran == ["make", "make"]


@DAMAGES
def test_E115_submitted_calls_whose_value_is_gone(damage: Callable[[Path], None], world: World, folder: Path) -> None:
    """A submitted call stops the run, or runs again, as one that is called does; nobody hangs."""

    @task(result_storage=folder, result_storage_key="value")
    def make() -> list[int]:
        world.ran.append("make")
        return [1, 2]

    @flow
    def f() -> int:
        values = make.submit().result()
        world.fail()
        return sum(values)

    run = run_id(f(return_state=True))
    damage(folder / "value")
    world.broken = False
    with pytest.raises(CallsDiffer, match="value"):
        resume_run(run, flow=f)
    assert resume_run(run, flow=f, on_change="rerun") == 3
    assert world.ran == ["make", "make"]


@DAMAGES
def test_E115_a_subflows_value_that_is_gone(damage: Callable[[Path], None], world: World, folder: Path) -> None:
    """A subflow whose own value is gone stops the run, or runs again with what its tasks have on record."""

    @task
    def deep() -> int:
        world.ran.append("deep")
        return 500

    @flow(result_storage=folder)
    def inner() -> list[int]:
        world.ran.append("inner")
        return [deep.with_options(result_storage=folder.parent / "kept")()]

    @flow
    def outer() -> int:
        values = inner()
        world.fail()
        return sum(values)

    run = run_id(outer(return_state=True))
    [file] = files(folder)
    damage(file)
    world.broken = False
    with pytest.raises(CallsDiffer, match=file.name):
        resume_run(run, flow=outer)
    assert resume_run(run, flow=outer, on_change="rerun") == 500
    assert world.ran == ["inner", "deep", "inner"]


@DAMAGES
def test_E115_a_fork_without_a_value_stops(damage: Callable[[Path], None], world: World, folder: Path) -> None:
    """A fork needs the other run's values as a resume does."""
    f = _chain(world, folder)
    run = run_id(f(return_state=True))
    damage(folder / "value")
    world.broken = False
    with pytest.raises(CallsDiffer, match="value"):
        fork_run(run, flow=f)
    assert fork_run(run, flow=f, on_change="rerun") == 3
    assert world.ran == ["make", "use", "make", "use"]


@DAMAGES
def test_E115_a_retried_flow_has_its_values_in_memory(
    damage: Callable[[Path], None], world: World, folder: Path
) -> None:
    """In its own retry a flow does not need the file."""

    @task(result_storage=folder, result_storage_key="value")
    def make() -> list[int]:
        world.ran.append("make")
        return [1, 2]

    @flow(retries=1)
    def f() -> int:
        values = make()
        if world.broken:
            damage(folder / "value")
            world.broken = False
            raise ConnectionError
        return sum(values)

    assert f() == 3
    assert world.ran == ["make"]


def test_E115_a_failed_storage_is_told_when_resuming(world: World, history: Any) -> None:
    """A storage that cannot be read just now makes the call run again visibly, since nothing is known to be wrong."""
    boxes = Boxes()

    @task(result_storage=boxes)
    def make() -> list[int]:
        world.ran.append("make")
        return [1, 2]

    @flow
    def f() -> int:
        values = make()
        world.fail()
        return sum(values)

    run = run_id(f(return_state=True))
    boxes.error = PermissionError("closed today")
    world.broken = False
    assert resume_run(run, flow=f) == 3
    assert world.ran == ["make", "make"]
    said = [data["message"] for data in history.data("task_run.scheduled") if "message" in data]
    assert ["closed today" in message for message in said] == [True]


def test_E115_the_exception_of_a_failed_task_is_in_the_log(world: World, folder: Path, history: Any) -> None:
    """Exceptions are kept in the log, whatever storage and serializer are for values."""

    @task(result_storage=folder, result_serializer="json")
    def make() -> None:
        raise Broken("mine")

    @flow
    def f() -> int:
        make(return_state=True)
        return 1

    f()
    [failed] = history.data("task_run.failed")
    assert "storage" not in failed["result"]
    assert failed["result"]["serializer"] == "pickle"
    assert not folder.exists()
