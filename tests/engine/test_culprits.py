"""What cannot go to a worker process is named by the way to it."""

import collections
import functools
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from flightlog import flow, task
from flightlog.engine.travel import CannotTravel, Way, packed
from flightlog.task_runners import ProcessPoolTaskRunner

LOCK = threading.Lock()


class Thing:
    """Holds something."""

    def __init__(self, held: Any) -> None:
        self.held = held


@dataclass
class Rows:
    """Rows."""

    rows: list[Any]


@dataclass(slots=True)
class Slots:
    """One slot."""

    row: Any


class Model(BaseModel):
    """Anything."""

    model_config = ConfigDict(extra="allow")
    rows: Any
    _private: Any = None


class State:
    """Leaves its lock out, and holds another."""

    def __init__(self) -> None:
        self.lock = LOCK
        self.kept = {"z": LOCK}

    def __getstate__(self) -> Any:
        return {"kept": self.kept}


class Made:
    """Is made from what it holds."""

    def __init__(self, parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return Made, (self.parts,)


class Refuses:
    """Cannot be pickled, and says why."""

    def __reduce__(self) -> Any:
        raise ValueError("not me")


Pair = collections.namedtuple("Pair", "left right")


def _with_default(lock: Any = LOCK) -> Any:
    return lock


def _closure() -> Any:
    lock = threading.Lock()
    return lambda: lock


def _script_function() -> Any:
    names: dict[str, Any] = {"LOCK": LOCK, "__name__": "__main__"}
    exec("def helper(): return LOCK\ndef function(): return helper()", names)
    return names["function"]


def _private() -> Any:
    model = Model(rows=1)
    model._private = LOCK
    return model


def _nested(depth: int, end: Any) -> Any:
    for _ in range(depth):
        end = [end]
    return end


def _cyclic() -> Any:
    value: dict[str, Any] = {}
    value |= {"itself": value, "b": [value, LOCK]}
    return value


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: [1, 2, 3, Thing(LOCK)], "[3].held cannot"),
        (lambda: [0] * 5000 + [LOCK], "[5000] cannot"),
        (lambda: {"a": {"b": [1, {"c": LOCK}]}}, "['a']['b'][1]['c'] cannot"),
        (lambda: {LOCK: 1}, " (its key <unlocked _thread.lock object at "),
        (lambda: {1, LOCK}, " (its item <unlocked _thread.lock object at "),
        (lambda: Rows([1, Rows([LOCK])]), ".rows[1].rows[0] cannot"),
        (lambda: Slots({"k": LOCK}), ".row['k'] cannot"),
        (lambda: Model(rows={"q": LOCK}), ".rows['q'] cannot"),
        (lambda: Model.model_validate({"rows": 1, "other": LOCK}), ".other cannot"),
        (_private, "._private cannot"),
        (State, ".kept['z'] cannot"),
        (lambda: Made([LOCK]), ".parts[0] cannot"),
        (lambda: {"r": Refuses()}, "['r'] cannot be sent to another process: ValueError: not me."),
        (lambda: Pair(1, LOCK), ".right cannot"),
        (lambda: KeyError(1, LOCK), ".args[1] cannot"),
        (lambda: collections.deque([1, LOCK]), "[1] cannot"),
        (lambda: collections.defaultdict(list, a=[LOCK]), "['a'][0] cannot"),
        (lambda: functools.partial(print, LOCK), ".args[0] cannot"),
        (lambda: Thing(LOCK).__init__, ".__self__.held cannot"),  # type: ignore[misc]
        (_closure, " (its variable 'lock') cannot"),
        (_script_function, " (its global name 'helper') (its global name 'LOCK') cannot"),
        (_cyclic, "['b'][1] cannot"),
        (lambda: _nested(20000, 1), " cannot be sent to another process: it is nested too deep."),
        (lambda: _nested(90, LOCK), "[0]" * 33 + "[ ... ]" + "[0]" * 33 + " cannot"),
    ],
)
def test_what_cannot_travel_is_named_by_the_way_to_it(make: Any, place: str) -> None:
    """From the argument to the very object: through containers, dataclasses, models, objects and functions."""
    with pytest.raises(CannotTravel) as caught:
        packed(make(), "The argument x", Way.TO_PROCESS)
    told = str(caught.value)
    assert told.startswith(f"The argument x{place}")
    assert "Make it where it is used, or use a task runner with threads." in told


def test_what_a_call_in_a_worker_cannot_take_along_is_named() -> None:
    """The same for the arguments of a task that a task in a worker calls, and for what the function refers to."""

    @task
    def takes(n: Any) -> Any:
        return n

    @task
    def calls() -> Any:
        return takes([threading.Lock()])

    @task
    def refers() -> Any:
        return lock

    lock = threading.Lock()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def f() -> Any:
        return [str(one.submit().result(raise_on_failure=False)) for one in (calls, refers)]

    called, referred = f()
    assert "The argument n[0] cannot be sent" in called
    assert "The task 'refers' (its variable 'lock') cannot be sent" in referred
