"""What goes to worker processes and comes back: global names, classes, tasks."""

import asyncio
import sys
import threading
from multiprocessing import spawn
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.engine.conftest import History

from flightlog import Flow, Task, flow, task
from flightlog.engine.loading import load_flow
from flightlog.engine.travel import CannotTravel, unpacked
from flightlog.task_runners import ProcessPoolTaskRunner

ONE = ProcessPoolTaskRunner(max_workers=1)
LOCK = threading.Lock()


def loaded(folder: Path, text: str, name: str = "script") -> Flow[..., Any]:
    """Return the flow of a script."""
    path = folder / f"{name}.py"
    path.write_text(text)
    return load_flow(f"{path}:main")


NAMES = """
import functools
from flightlog import flow, task
from flightlog.task_runners import ProcessPoolTaskRunner

CONFIG = {"n": 1}
CALLS = []
LIMIT = 1
DATABASE = None
CONNECTION = None

def connect(url):
    global DATABASE
    DATABASE = ["connected", url]

def connection():
    global CONNECTION
    if CONNECTION is None:
        CONNECTION = object()
    return id(CONNECTION)

@functools.lru_cache
def model():
    return object()

@task
def configured():
    CALLS.append(1)
    return CONFIG["n"], LIMIT, len(CALLS)

@task
def resources():
    DATABASE.append("used")
    return DATABASE[:2], len(DATABASE), connection(), id(model())

@flow(task_runner=ProcessPoolTaskRunner(1, connect, ("url",)))
def main():
    global LIMIT
    found = [configured.submit().result()]
    CONFIG["n"], LIMIT = 2, 2
    found.append(configured.submit().result())
    return found, resources.submit().result(), resources.submit().result()
"""


def test_a_call_takes_the_scripts_names_along_and_what_a_worker_binds_anew_stays(tmp_path: Path) -> None:
    """Each call sees global names as they are when it begins; initializers, connections and caches hold on."""
    configured, first, second = loaded(tmp_path, NAMES)()
    assert configured == [(1, 1, 1), (2, 2, 1)]
    assert first[0] == ["connected", "url"]
    assert (first[1], second[1]) == (3, 4)
    assert first[2:] == second[2:]


def test_two_scripts_of_one_name_keep_apart(tmp_path: Path) -> None:
    """What they define goes to workers all the same."""
    text = (
        "from flightlog import flow, task\nfrom flightlog.task_runners import ProcessPoolTaskRunner\n"
        "class Thing: n = {n}\n@task\ndef make(): return Thing()\n"
        "@flow(task_runner=ProcessPoolTaskRunner(1))\ndef main(): return make.submit().result().n, __name__\n"
    )
    flows = []
    for n in (1, 2):
        (folder := tmp_path / str(n)).mkdir()
        flows.append(loaded(folder, text.format(n=n)))
    (one, name), (two, other) = flows[0](), flows[1]()
    assert (one, two) == (1, 2)
    assert name != other


def test_a_module_that_workers_cannot_import_goes_along() -> None:
    """What was made a module of in this process alone is sent, as what a script defines."""
    module = ModuleType("made_by_hand")
    sys.modules["made_by_hand"] = module
    exec("class Thing: pass\ndef helper(n): return n + 1\ndef work(n): return helper(n), Thing()\n", vars(module))

    @flow(task_runner=ONE)
    def f() -> Any:
        return Task(module.work).submit(1).result()

    try:
        number, thing = f()
    finally:
        del sys.modules["made_by_hand"]
    assert number == 2
    assert type(thing) is module.Thing


def test_a_missing_module_is_named() -> None:
    """A module that nobody has is named in a sentence."""
    with pytest.raises(CannotTravel, match="It cannot be made again in another process: ModuleNotFoundError"):
        unpacked(b"cnot_there\nThing\n.", "It")


@task
def locked(n: int) -> int:
    """Use a lock of this module, which cannot travel."""
    with LOCK:
        return n


def test_the_function_of_a_task_in_a_module_goes_by_name() -> None:
    """So it uses what its module has in the worker, be it a lock."""

    @flow(task_runner=ONE)
    def f() -> int:
        return locked.submit(3).result()

    assert f() == 3


class Counter:
    """Counts."""

    total = 0

    def __init__(self, n: int) -> None:
        self.n = n

    def next(self) -> "Counter":
        """Return the next one."""
        return type(self)(self.n + 1)


def test_a_class_of_a_function_is_the_same_when_it_comes_back() -> None:
    """And nothing in it has changed, whatever the worker has made of it."""

    class Local(Counter):
        total = 5

        def twice(self) -> int:
            return 2 * self.n

    before = dict(vars(Local))

    @task
    def change(counter: Local) -> Any:
        type(counter).total = 6
        return counter.next()

    @flow(task_runner=ONE)
    def f() -> Any:
        return change.submit(Local(1)).result()

    after = f()
    assert type(after) is Local
    assert after.twice() == 4
    changed = {name for name, value in vars(Local).items() if before.get(name, value) is not value}
    assert changed == set()


def test_a_task_that_a_worker_calls_is_the_one_that_the_flow_has() -> None:
    """With its hooks, also those that were added later."""
    called: list[str] = []

    @task
    def inner() -> int:
        return 1

    @task
    def outer() -> int:
        return inner()

    @flow(task_runner=ONE)
    def f() -> int:
        inner.on_completion(lambda _, run, __: called.append(run.name))
        return outer.submit().result()

    assert f() == 1
    assert [name.partition("-")[0] for name in called] == ["inner"]


@task
async def give(n: int) -> int:
    """Return what it is given."""
    return n


@flow
async def subflow(n: int) -> int:
    """Call a task."""
    return await give(n) + 1


def test_async_tasks_in_workers_await_others() -> None:
    """Calls of async tasks and flows are awaitable there too, alone, gathered, and from threads."""

    @task
    async def several() -> Any:
        gathered = await asyncio.gather(give(1), give(2))
        from_threads = await asyncio.gather(*(asyncio.to_thread(locked, n) for n in (5, 6)))
        return await give(0), gathered, await subflow(3), from_threads

    @task
    async def pieces() -> Any:
        yield 1
        yield await give(2)

    @flow(task_runner=ONE)
    def f() -> Any:
        return several.submit().result(), pieces.submit().result()

    assert f() == ((0, [1, 2], 4, [5, 6]), [1, 2])


def test_a_stop_iteration_is_the_tasks_own() -> None:
    """As in a thread."""

    @task
    def stop() -> None:
        raise StopIteration(4)

    @flow(task_runner=ONE)
    def f() -> str:
        return repr(stop.submit().result(raise_on_failure=False))

    assert f() == "StopIteration(4)"


class Rejected(LookupError):
    """Has other arguments than its text."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"order {number} was rejected: {reason}")
        self.number = number


class Left(SystemExit):
    """Ends a process with a code of its own choice."""

    def __init__(self, *, low: bool) -> None:
        super().__init__(3 if low else 4)


def test_an_exception_with_arguments_of_its_own_comes_back() -> None:
    """Whatever its class wants to be made with: by class, text and attributes, so that code can catch it."""

    @task
    def fail() -> None:
        raise Rejected(7, reason="sold out")

    @task
    def leave() -> None:
        raise Left(low=True)

    @flow(task_runner=ONE)
    def f() -> Any:
        left: Any = leave.submit().result(raise_on_failure=False)
        try:
            fail.submit().result()
        except Rejected as error:
            return str(error), error.number, type(left), left.code

    assert f() == ("order 7 was rejected: sold out", 7, Left, 3)


def test_an_exception_that_cannot_be_made_again_here_has_a_stand_in() -> None:
    """Its class and text are told; the worker goes on working."""

    class Odd(Exception):
        def __reduce__(self) -> Any:
            return unpacked, (b"cnot_there\nThing\n.", "It")

    @task
    def fail() -> None:
        raise Odd("odd")

    @flow(task_runner=ONE)
    def f() -> Any:
        return repr(fail.submit().result(raise_on_failure=False)), locked.submit(1).result()

    assert f() == ("RuntimeError('Odd: odd')", 1)


def test_a_runner_travels_as_it_was_declared() -> None:
    """A task may refer to a flow with worker processes of its own."""

    @flow(task_runner=ProcessPoolTaskRunner(2, print, ("x",)))
    def other() -> int:
        return 1

    @task
    def calls() -> int:
        return other()

    @flow(task_runner=ONE)
    def f() -> int:
        return calls.submit().result()

    assert f() == 1


class Gone:
    """Can be pickled, and never made again."""

    def __reduce__(self) -> Any:
        return int, ("gone",)


def _fail_to_start() -> None:
    raise OSError("no database")


def test_an_initializer_that_fails_is_told(capfd: pytest.CaptureFixture[str], history: History) -> None:
    """The task crashes with what it raised, and standard error shows where; the flow goes on."""

    @flow(task_runner=ProcessPoolTaskRunner(1, _fail_to_start))
    def f() -> str:
        return str(locked.submit(1).wait())

    assert "The initializer of the worker process failed: OSError: no database" in f()
    assert "in _fail_to_start" in capfd.readouterr().err
    assert history.data("task_run.crashed")[0]["cause"] == "lost_worker"


def test_an_initializer_that_workers_cannot_make_again_is_told(history: History) -> None:
    """As one that fails is."""

    @flow(task_runner=ProcessPoolTaskRunner(1, print, (Gone(),)))
    def f() -> str:
        return str(locked.submit(1).wait())

    assert "The initializer of the worker process failed: ValueError: invalid literal for int()" in f()
    assert history.data("task_run.crashed")[0]["cause"] == "lost_worker"


def test_a_worker_that_cannot_be_started_is_a_lost_one(history: History) -> None:
    """The task crashes with the operating system's words."""
    executable = spawn.get_executable()

    @flow(task_runner=ONE)
    def f() -> str:
        return str(locked.submit(1).wait())

    spawn.set_executable("/no/such/python")
    try:
        assert "No worker process can be started: [Errno 2]" in f()
    finally:
        spawn.set_executable(executable)
    assert history.data("task_run.crashed")[0]["cause"] == "lost_worker"


def test_an_initializer_that_cannot_travel_is_told() -> None:
    """With the place inside of what it is given."""

    @flow(task_runner=ProcessPoolTaskRunner(1, print, ([LOCK],)))
    def f() -> str:
        return str(locked.submit(1).wait())

    assert "What the initializer is given[0][0] cannot be sent" in f()


ANNOTATED = """
from __future__ import annotations
import dataclasses, datetime, threading, typing
from typing import Optional
from pydantic import BaseModel, TypeAdapter
from flightlog import flow, task
from flightlog.task_runners import ProcessPoolTaskRunner

class Guarded:
    lock = threading.Lock()

@dataclasses.dataclass
class Line:
    n: int
    day: Optional[datetime.date] = None

@dataclasses.dataclass
class Order:
    lines: list[Line]
    parent: Order | None = None

@dataclasses.dataclass
class Holder:
    n: int
    guarded: Guarded | None = None

class Early(BaseModel):
    later: list[Later]

class Later(BaseModel):
    n: int

@task
def hints():
    return list(typing.get_type_hints(Order)) + list(typing.get_type_hints(Line))

@task
def parse(text):
    return TypeAdapter(Order).validate_json(text)

@task
def validate(text):
    return Early.model_validate_json(text)

@task
def hold(holder):
    return holder.n

@flow(task_runner=ProcessPoolTaskRunner(1))
def main():
    assert hints.submit().result() == ["lines", "parent", "n", "day"]
    assert parse.submit('{"lines": [{"n": 1}]}').result() == Order([Line(1)])
    assert validate.submit('{"later": [{"n": 2}]}').result() == Early(later=[Later(n=2)])
    assert hold.submit(Holder(3)).result() == 3
    return "done"
"""


def test_what_annotations_name_is_found_in_a_worker(tmp_path: Path) -> None:
    """Types that classes of a script name in texts, also before they are there; what cannot travel is left out."""
    assert loaded(tmp_path, ANNOTATED)() == "done"
