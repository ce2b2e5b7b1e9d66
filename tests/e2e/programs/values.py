"""Whatever a script defines, sent to worker processes and back."""

import abc
import enum
import functools
import logging
import re
import sys
import typing
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Generic, NamedTuple, NewType, Protocol, TypedDict, TypeVar

from pydantic import BaseModel, PrivateAttr, computed_field, field_validator

from flightlog import flow, get_run_logger, task
from flightlog.task_runners import ProcessPoolTaskRunner

LIMIT = 3
PATTERN = re.compile("a+")
UserId = NewType("UserId", int)
T = TypeVar("T")
print("the script runs")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Plain:
    def __init__(self, n):
        self.n = n

    def twice(self):
        return double(self.n)

    @classmethod
    def make(cls):
        return cls(1)


class Child(Plain):
    def __init__(self, n):
        super().__init__(n + 1)


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


class Cached:
    @functools.cached_property
    def big(self):
        return LIMIT * 100


@dataclass
class Point:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    x: int


class Pair(NamedTuple):
    a: int
    b: str = "b"


class Row(TypedDict):
    a: int


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    def area(self):
        return 1


class Sized(Protocol):
    def area(self) -> int: ...


class Box(Generic[T]):
    def __init__(self, content: T):
        self.content = content


class Inner(BaseModel):
    color: Color = Color.RED


class Model(BaseModel):
    n: int
    inner: Inner = Inner()
    next: "Model | None" = None
    points: list[Point] = []
    _secret: int = PrivateAttr(default=7)

    @field_validator("n")
    @classmethod
    def check(cls, n):
        if n < 0:
            raise ValueError("negative")
        return n

    @computed_field
    @property
    def doubled(self) -> int:
        return double(self.n)


class Page(BaseModel, Generic[T]):
    items: list[T]


class OutOfStock(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


@functools.lru_cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def double(n):
    return n * 2


@functools.singledispatch
def kind(_):
    return "something"


@kind.register
def _(_: int):
    return "a number"


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def everything():
    local = "local"
    return {
        "enum": Color.RED, "flag": Rights.READ | Rights.WRITE, "plain": Plain(3), "child": Child(3),
        "slots": Slotted(1), "cached property": Cached(), "dataclass": Point(1), "frozen": Frozen(2),
        "named tuple": Pair(3), "abstract": Square(), "generic": Box(1),
        "model": Model(n=1, next=Model(n=2), points=[Point(1)]),
        "generic model": Page[int](items=[1]), "typed dict": Row(a=1), "error": OutOfStock(1, "x"),
        "partial": functools.partial(double, 3), "method": Plain(4).twice, "class method": Child.make,
        "closure": lambda: local, "alias": Box[int],
    }  # fmt: skip


SAME = [Plain, Model, Color, Row, Sized, double, fibonacci, UserId, T, kind, logging.getLogger(__name__)]


@task
def echo(value):
    return value


@task
def look(model: Model, color: Color, point: Point) -> list[Any]:
    import __main__

    here = sys.modules[__name__]
    get_run_logger().info("here")
    return [
        isinstance(model, Model), color is Color.RED, point == Point(1), model.doubled, model._secret, double(LIMIT),
        PATTERN.pattern, asdict(point), [one.name for one in fields(Point)], fibonacci(20), kind(1), kind("x"),
        UserId(5), typing.get_type_hints(Model)["next"] == Model | None, here.Model is Model,
        hasattr(__main__, "pytest"),
    ]  # fmt: skip


@task
def make() -> list[Any]:
    return [Model(n=4), Color.BLUE, Point(1), Pair(1), Frozen(3), Child.make(), Page[int](items=[3])]


@task
@decorated
def fail(n: int) -> None:
    raise OutOfStock(double(n), "out of stock")


@task
def invalid() -> Model:
    return Model(n=-1)


@task
def count_down(n: int) -> int:
    return 0 if n == 0 else 1 + count_down(n - 1)


@task
async def answer() -> int:
    return LIMIT


@task
async def ask() -> int:
    return await answer() + 1


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def main() -> str:
    before = {kind: {**vars(kind), "__slotnames__": None} for kind in (Model, Plain, Point)}
    futures = {name: echo.submit(value) for name, value in everything().items()}
    for name, value in everything().items():
        assert type(futures[name].result()) is type(value), name
    for value in SAME:
        assert echo.submit(value).result() is value, value
    assert futures["dataclass"].result() == Point(1)
    assert futures["model"].result().next == Model(n=2)
    assert futures["closure"].result()() == "local"
    found = look.submit(Model(n=3), Color.RED, Point(1)).result()
    assert found == [
        True, True, True, 6, 7, 6, "a+", {"x": 1, "y": 2, "tags": []}, ["x", "y", "tags"], 6765, "a number",
        "something", 5, True, True, False,
    ], found  # fmt: skip
    made = make.submit().result()
    assert [type(value) for value in made] == [Model, Color, Point, Pair, Frozen, Child, Page[int]]
    error = fail.submit(2).result(raise_on_failure=False)
    assert type(error) is OutOfStock
    assert error.code == 4
    assert "negative" in str(invalid.submit().result(raise_on_failure=False))
    assert count_down.submit(5).result() == 5
    assert ask.submit().result() == 4
    assert {kind: {**vars(kind), "__slotnames__": None} for kind in before} == before
    return "all came back"
