"""Options of flows and tasks, copies with other options, methods, generators, and retries."""

import asyncio
import gc
import inspect
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flightlog import flow, get_run_logger, task
from flightlog.engine.resuming import resume_run
from flightlog.engine.runtime import Engine, using
from flightlog.errors import InvalidNameError, UnfinishedRun
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.filesystems import LocalFileSystem
from flightlog.flows import Flow
from flightlog.ids import RandomIds
from flightlog.serializers import JSONSerializer
from flightlog.settings import load
from flightlog.states import Failed
from flightlog.task_runners import SequentialTaskRunner
from flightlog.tasks import Task, exponential_backoff

Configured = Callable[..., Engine]


@pytest.fixture
def configured(engine: Engine, tmp_path: Path) -> Iterator[Configured]:
    """Return a function that gives the test an engine with other settings, clock or ids."""
    with ExitStack() as stack:

        def make(clock: Any = None, ids: Any = None, **environ: str) -> Engine:
            settings = load({"FLIGHTLOG_HOME": str(tmp_path), **environ})
            made = Engine(Log(MemoryStore()), engine.key, settings, clock=clock, ids=ids)
            stack.callback(made.log.close)
            stack.enter_context(using(made))
            return made

        yield make


class Flaky:
    """Does what it is told, one thing per call: raises an exception, or returns a value."""

    def __init__(self, *doings: Any) -> None:
        self.doings = list(doings)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        doing: int | BaseException = self.doings[min(self.calls, len(self.doings)) - 1]
        if isinstance(doing, BaseException):
            raise doing
        return doing


class Chance(RandomIds):
    """Ids whose chance is what the test says."""

    def __init__(self, *chances: float) -> None:
        super().__init__()
        self.chances = list(chances)

    def chance(self) -> float:
        """Return the next number."""
        return self.chances.pop(0)


def note(*_: Any, **__: Any) -> None:
    """Look on, as a hook."""


FLOW_OPTIONS: dict[str, Any] = {
    "name": "a flow",
    "version": "7",
    "description": "what it does",
    "flow_run_name": "run {x}",
    "retries": 2,
    "retry_delay_seconds": [1.0, 2.0],
    "task_runner": SequentialTaskRunner(),
    "timeout_seconds": 60,
    "validate_parameters": False,
    "persist_result": False,
    "result_storage": LocalFileSystem("/nowhere"),
    "result_serializer": JSONSerializer(),
    "cache_result_in_memory": False,
    "log_prints": True,
    "on_completion": [note],
    "on_failure": [note],
    "on_cancellation": [note],
    "on_crashed": [note],
    "on_running": [note],
}
TASK_OPTIONS: dict[str, Any] = {
    "name": "a task",
    "description": "what it does",
    "tags": ["a", "b"],
    "version": "7",
    "task_run_name": "run {x}",
    "retries": 2,
    "retry_delay_seconds": 3,
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": note,
    "persist_result": False,
    "result_storage": LocalFileSystem("/nowhere"),
    "result_storage_key": "key {parameters[x]}",
    "result_serializer": JSONSerializer(),
    "cache_result_in_memory": False,
    "timeout_seconds": 60,
    "log_prints": True,
    "on_completion": [note],
    "on_failure": [note],
    "on_running": [note],
}
FACTS = (
    "name",
    "version",
    "description",
    "retries",
    "retry_delay_seconds",
    "timeout_seconds",
    "persist_result",
    "result_storage",
    "result_serializer",
    "cache_result_in_memory",
    "log_prints",
    "hooks",
)
FLOW_FACTS = (*FACTS, "flow_run_name", "task_runner", "should_validate_parameters")
TASK_FACTS = (
    *FACTS,
    "task_run_name",
    "tags",
    "retry_jitter_factor",
    "retry_condition_fn",
    "result_storage_key",
)


def body(x: int = 1) -> int:
    """Return its argument."""
    return x


def facts(definition: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what is said of a flow or task."""
    return {name: getattr(definition, name) for name in names}


# --- declaration ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [flow, task])
@pytest.mark.parametrize("hooks", [note, 5, True, "note", b"note", [note, "note"], [None], ["on_completion"]])
@pytest.mark.parametrize("option", ["on_running", "on_completion", "on_failure"])
def test_E7_hooks_are_a_list_of_functions(kind: Any, option: str, hooks: Any) -> None:
    """What is no list, or has something in it that cannot be called, is a TypeError that names the option."""
    with pytest.raises(TypeError, match=option):
        kind(**{option: hooks})(body)


@pytest.mark.parametrize("option", ["on_cancellation", "on_crashed"])
def test_E7_hooks_of_flows_alone_are_checked_too(option: str) -> None:
    """The hooks that only flows have are checked in the same way; tasks do not have them."""
    bad: Any = {option: [1]}
    with pytest.raises(TypeError, match=option):
        flow(**bad)(body)
    with pytest.raises(TypeError, match=option):
        task(**bad)(body)


@pytest.mark.parametrize("hooks", [(note,), {note}, iter([note])])
def test_E7_any_iterable_of_functions_will_do(hooks: Any) -> None:
    """Tuples, sets and iterators of hooks are taken, and hold for every run."""
    f = flow(on_completion=hooks)(body)
    assert f.hooks == {"on_completion": [note]}


def test_E10_a_flow_has_every_option(history: Any) -> None:
    """All options of flows are taken at once, and the flow runs."""
    f = flow(**{**FLOW_OPTIONS, "result_storage": None, "flow_run_name": "run {x}"})(body)
    assert f(5) == 5
    [created] = history.data("flow_run.created")
    assert (created["flow"], created["version"], created["name"]) == ("a flow", "7", "run 5")
    assert f.description == "what it does"


@pytest.mark.parametrize("option", [name for name in FLOW_OPTIONS if name != "name"])
def test_E10_none_is_every_options_default(option: str) -> None:
    """Each option may be None, which is the same as not giving it."""
    given: Any = {option: None}
    assert facts(flow(**given)(body), FACTS) == facts(flow(body), FACTS)


@pytest.mark.parametrize("option", [name for name in TASK_OPTIONS if name != "name"])
def test_E49_none_is_every_options_default(option: str) -> None:
    """Each option may be None, which is the same as not giving it."""
    given: Any = {option: None}
    assert facts(task(**given)(body), TASK_FACTS) == facts(task(body), TASK_FACTS)


def test_E49_a_task_has_every_option(history: Any) -> None:
    """All options of tasks are taken at once, and the task runs."""
    options = {**TASK_OPTIONS, "result_storage": None, "result_storage_key": None}
    t = task(**options)(body)

    @flow
    def f() -> int:
        return t(5)

    assert f() == 5
    [run] = history.task_runs("a task")
    assert (run["name"], run["tags"]) == ("run 5", ["a", "b"])
    assert (t.description, t.version) == ("what it does", "7")


def test_E49_the_docstring_is_the_description() -> None:
    """Without a description the docstring is it, as for flows (E12)."""
    assert task(body).description == flow(body).description == "Return its argument."


def test_E49_constructors_take_the_same_options() -> None:
    """`Flow(fn, ...)` and `Task(fn, ...)` are what the decorators make."""
    assert facts(Flow(body, **FLOW_OPTIONS), FLOW_FACTS[:-2]) == facts(flow(**FLOW_OPTIONS)(body), FLOW_FACTS[:-2])
    assert facts(Task(body, **TASK_OPTIONS), TASK_FACTS) == facts(task(**TASK_OPTIONS)(body), TASK_FACTS)


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        (flow, "retry", "retries"),
        (flow, "timeout", "timeout_seconds"),
        (flow, "on_complete", "on_completion"),
        (flow, "flow_run_names", "flow_run_name"),
        (task, "retry_delay_second", "retry_delay_seconds"),
        (task, "retry_condition", "retry_condition_fn"),
        (task, "tag", "tags"),
        (task, "task_run_nam", "task_run_name"),
    ],
)
def test_E10_unknown_options_are_refused(kind: Any, wrong: str, right: str) -> None:
    """An option that there is none of is a TypeError that names it and the nearest one, also in `with_options`."""
    unknown: Any = {wrong: 1}
    with pytest.raises(TypeError, match=f"'{wrong}'") as caught:
        kind(**unknown)(body)
    assert right in str(caught.value)
    with pytest.raises(TypeError, match=f"'{wrong}'") as caught:
        kind(body).with_options(**unknown)
    assert right in str(caught.value)


def test_E10_the_options_of_the_other_kind_are_unknown() -> None:
    """A task has no `task_runner`, and a flow no `tags`."""
    runner: Any = {"task_runner": SequentialTaskRunner}
    with pytest.raises(TypeError, match="task_runner"):
        task(**runner)(body)
    tags: Any = {"tags": ["a"]}
    with pytest.raises(TypeError, match="tags"):
        flow(**tags)(body)


@pytest.mark.parametrize("kind", [flow, task])
@pytest.mark.parametrize("retries", [-1, {"user_error": -1}, {"user_eror": 1}, {"": 1}])
def test_E10_retries_have_to_make_sense(kind: Any, retries: Any) -> None:
    """Negative retries and unknown causes are a ValueError."""
    with pytest.raises(ValueError, match="retries"):
        kind(retries=retries)(body)


@pytest.mark.parametrize("kind", [flow, task])
@pytest.mark.parametrize("retries", [1.5, "3", True, [1], {"user_error": "1"}, {"user_error": True}])
def test_E10_retries_have_to_be_numbers(kind: Any, retries: Any) -> None:
    """What is no whole number, and no mapping to whole numbers, is a TypeError."""
    with pytest.raises(TypeError, match="retries"):
        kind(retries=retries)(body)


def test_E10_an_unknown_cause_names_the_nearest() -> None:
    """The message for a mistyped cause class says which one may be meant."""
    budgets: Any = {"user_eror": 1}
    with pytest.raises(ValueError, match="user_error"):
        task(retries=budgets)(body)


@pytest.mark.parametrize("tags", ["abc", b"abc", 5, [1], ["a", None]])
def test_E49_tags_are_a_list_of_strings(tags: Any) -> None:
    """One string, or what is not all strings, is a TypeError: it would become tags of one letter each."""
    with pytest.raises(TypeError, match=r"[Tt]ags"):
        task(tags=tags)(body)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [({}, 1), ({"FLIGHTLOG_FLOW_DEFAULT_RETRIES": "2"}, 3)],
)
def test_E10_the_setting_gives_flows_their_retries(
    environ: dict[str, str], expected: int, configured: Configured
) -> None:
    """A flow that does not say it is tried again as often as the setting says, 0 by default."""
    configured(**environ)
    flaky = Flaky(ValueError("boom"))

    @flow
    def f() -> int:
        return flaky()

    assert f(return_state=True).is_failed()
    assert flaky.calls == expected


def test_E10_an_explicit_zero_beats_the_settings(configured: Configured, virtual_clock: Any) -> None:
    """`retries=0` and `retry_delay_seconds=0` hold against what the settings say."""
    configured(virtual_clock, FLIGHTLOG_FLOW_DEFAULT_RETRIES="2", FLIGHTLOG_FLOW_DEFAULT_RETRY_DELAY_SECONDS="30")
    flaky = Flaky(ValueError("boom"))

    @flow
    def f() -> int:
        return flaky()

    f.with_options(retries=0)(return_state=True)
    flow(retries=0)(f.fn)(return_state=True)
    assert flaky.calls == 2
    flow(retry_delay_seconds=0)(f.fn)(return_state=True)
    assert flaky.calls == 5
    assert not any(virtual_clock.slept)
    f(return_state=True)
    assert [delay for delay in virtual_clock.slept if delay] == pytest.approx([30, 30])


def test_E10_settings_are_looked_up_when_a_flow_runs(configured: Configured) -> None:
    """A flow that was called under one setting follows another one later."""
    flaky = Flaky(ValueError("boom"))

    @flow
    def f() -> int:
        return flaky()

    f(return_state=True)
    configured(FLIGHTLOG_FLOW_DEFAULT_RETRIES="1")
    f(return_state=True)
    configured(FLIGHTLOG_FLOW_DEFAULT_RETRIES="0")
    f(return_state=True)
    assert flaky.calls == 1 + 2 + 1


@pytest.mark.parametrize("kind", [flow, task])
def test_E16_a_second_one_of_the_same_name_warns_nothing(kind: Any) -> None:
    """Two functions under one name, and copies, are nobody's mistake: no warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = kind(name="same")(body)
        second = kind(name="same")(lambda: 2)
        third = first.with_options(name="same")
    assert caught == []
    assert (first.name, second.name, third.name) == ("same", "same", "same")


# --- copies with other options ----------------------------------------------------------------------


def test_E17_with_options_gives_a_new_flow() -> None:
    """The copy is another flow of the same function; what was not given is as before, and the original untouched."""
    f = flow(**FLOW_OPTIONS)(body)
    before = facts(f, FLOW_FACTS)
    copied = f.with_options()
    assert copied is not f
    assert isinstance(copied, Flow)
    assert copied.fn is f.fn
    names = tuple(name for name in FLOW_FACTS if name != "task_runner")
    assert facts(copied, names) == facts(f, names)
    assert type(copied.task_runner) is type(f.task_runner)
    changed = f.with_options(name="other", retries=5, on_failure=[print], log_prints=False)
    assert (changed.name, changed.retries, changed.hooks["on_failure"], changed.log_prints) == (
        "other",
        5,
        [print],
        False,
    )
    assert facts(f, FLOW_FACTS) == before


FLOW_CHANGES: dict[str, tuple[Any, str, Any]] = {
    "name": ("other", "name", "other"),
    "version": ("8", "version", "8"),
    "description": ("else", "description", "else"),
    "flow_run_name": ("{x}", "flow_run_name", "{x}"),
    "retries": (9, "retries", 9),
    "retry_delay_seconds": (4, "retry_delay_seconds", 4),
    "timeout_seconds": (5, "timeout_seconds", 5.0),
    "validate_parameters": (True, "should_validate_parameters", True),
    "persist_result": (True, "persist_result", True),
    "result_serializer": ("pickle", "result_serializer", "pickle"),
    "cache_result_in_memory": (True, "cache_result_in_memory", True),
    "log_prints": (False, "log_prints", False),
}


@pytest.mark.parametrize("option", FLOW_CHANGES)
def test_E17_each_option_can_be_changed_alone(option: str) -> None:
    """Changing one option changes nothing else."""
    value, attribute, expected = FLOW_CHANGES[option]
    f = flow(**FLOW_OPTIONS)(body)
    change: Any = {option: value}
    copied = f.with_options(**change)
    found = getattr(copied, attribute)
    assert (found.spec if option == "result_serializer" else found) == expected
    others = tuple(name for name in FLOW_FACTS if name not in (attribute, "task_runner"))
    assert facts(copied, others) == facts(f, others)


@pytest.mark.parametrize("kind", [flow, task])
def test_E17_zero_clears_timeout_and_retries(kind: Any) -> None:
    """`timeout_seconds=0` and `retries=0` mean none."""
    original = kind(timeout_seconds=5, retries=3)(body)
    copied = original.with_options(timeout_seconds=0, retries=0)
    assert (copied.timeout_seconds, copied.retries) == (None, 0)
    assert (original.timeout_seconds, original.retries) == (5.0, 3)


@pytest.mark.parametrize("kind", [flow, task])
@pytest.mark.parametrize("option", ["persist_result", "result_storage", "result_serializer", "log_prints"])
def test_E17_none_resets_what_has_a_default_elsewhere(kind: Any, option: str) -> None:
    """None is given, not left out: these options go back to what the parent flow or the settings say."""
    original = kind(**(FLOW_OPTIONS if kind is flow else TASK_OPTIONS))(body)
    change: Any = {option: None}
    assert getattr(original.with_options(**change), option) is None
    assert getattr(original, option) is not None
    assert getattr(original.with_options(), option) == getattr(original, option)


@pytest.mark.parametrize("kind", [flow, task])
def test_E17_the_copy_of_a_copy_remembers(kind: Any) -> None:
    """Options pile up over several copies, and a reset one stays reset."""
    first = kind(retries=3, log_prints=True)(body)
    second = first.with_options(retries=4)
    third = second.with_options(log_prints=None).with_options(name="third")
    assert (third.retries, third.log_prints, third.name) == (4, None, "third")
    assert (second.retries, second.log_prints, second.name) == (4, True, first.name)


@pytest.mark.parametrize("kind", [flow, task])
def test_E17_options_of_a_copy_are_checked(kind: Any) -> None:
    """`with_options` refuses what the decorator refuses."""
    original = kind(body)
    with pytest.raises(InvalidNameError):
        original.with_options(name="a/b")
    with pytest.raises(ValueError, match="retries"):
        original.with_options(retries=-1)
    with pytest.raises(TypeError, match="on_failure"):
        original.with_options(on_failure=[5])
    with pytest.raises(ValueError, match="50"):
        original.with_options(retry_delay_seconds=[1.0] * 51)


def test_E17_a_task_runner_can_be_changed() -> None:
    """The copy of a flow may have another runner; one that is not given stays the same kind."""
    f = flow(task_runner=SequentialTaskRunner())(body)
    assert f.with_options(retries=1).task_runner.sequential
    assert not flow(body).task_runner.sequential
    assert flow(body).with_options(task_runner=SequentialTaskRunner).task_runner.sequential


@pytest.mark.parametrize("kind", [flow, task])
def test_E17_hooks_that_were_attached_are_inherited(kind: Any) -> None:
    """A hook that was attached with `@f.on_completion` belongs to the copy too; one of the copy's to it alone."""
    original = kind(on_completion=[note])(body)

    def attached(*_: Any) -> None:
        """Look on."""

    def running(*_: Any) -> None:
        """Look on."""

    original.on_completion(attached)
    original.on_running(running)
    copied = original.with_options(name="copied")
    assert copied.hooks == {"on_completion": [note, attached], "on_running": [running]}

    copied.on_failure(note)
    assert "on_failure" not in original.hooks


@pytest.mark.parametrize("kind", [flow, task])
def test_E17_a_hook_of_a_copy_is_not_the_originals(kind: Any) -> None:
    """Attaching to a copy, or to a second flow with the same list, changes no other flow or task, nor the list."""
    hooks = [note]
    original = kind(on_completion=hooks)(body)
    copied = original.with_options()
    copied.on_completion(print)
    assert original.hooks == {"on_completion": [note]}
    assert copied.hooks == {"on_completion": [note, print]}
    assert hooks == [note]


def test_E17_an_unreadable_version_is_not_invented() -> None:
    """A copy has the version that was given, or the original's default."""
    assert flow(version="7")(body).with_options(name="x").version == "7"
    assert flow(body).with_options(name="x").version == flow(body).version


def test_E17_a_copy_runs_under_its_own_options(history: Any) -> None:
    """Both can be run, and each leaves its own name and retries in the log."""
    flaky = Flaky(ValueError("boom"))

    @flow(name="first")
    def f() -> int:
        return flaky()

    f.with_options(name="second", retries=2)(return_state=True)
    assert flaky.calls == 3
    f(return_state=True)
    assert flaky.calls == 4
    assert [data["flow"] for data in history.data("flow_run.created")] == ["second", "first"]


def test_E54_new_tags_replace_old_ones(history: Any) -> None:
    """Tags of `with_options` stand in the place of the old ones; without any they are kept; an empty list is none."""
    t = task(tags=["a", "b"])(body)
    assert t.with_options(retries=1).tags == {"a", "b"}
    assert t.with_options(tags=["c"]).tags == {"c"}
    assert t.with_options(tags=[]).tags == set()
    assert t.tags == {"a", "b"}

    @flow
    def f() -> int:
        t.with_options(tags=["c"])()
        t.with_options(tags=[])()
        return t()

    f()
    assert [run.get("tags", []) for run in history.task_runs("body")] == [["c"], [], ["a", "b"]]


def test_E54_the_run_name_is_kept(history: Any) -> None:
    """`task_run_name` is inherited by a copy, and None resets it."""
    t = task(task_run_name="number {x}")(body)

    @flow
    def f() -> None:
        t.with_options(retries=1)(1)
        t.with_options(task_run_name="no. {x}")(2)
        t.with_options(task_run_name=None)(3)

    f()
    names = [run["name"] for run in history.task_runs("body")]
    assert names[:2] == ["number 1", "no. 2"]
    assert names[2].startswith("body-")


def test_E54_a_copy_of_a_task_keeps_everything_else() -> None:
    """What was not given is as before, the key too; the original is untouched."""
    t = task(**TASK_OPTIONS)(body)
    before = facts(t, TASK_FACTS)
    copied = t.with_options(name="other")
    names = tuple(name for name in TASK_FACTS if name != "name")
    assert facts(copied, names) == facts(t, names)
    assert (copied.key, copied.fn) == (t.key, t.fn)
    assert copied is not t
    assert facts(t, TASK_FACTS) == before


# --- methods ----------------------------------------------------------------------------------------


class Counter:
    """Methods of every kind, decorated in both orders."""

    step = 10

    def __init__(self, start: int) -> None:
        self.start = start

    @task
    def add(self, x: int, y: int = 0) -> int:
        """Add to the start."""
        return self.start + x + y

    @task
    async def add_later(self, x: int) -> int:
        """Add to the start."""
        await asyncio.sleep(0)
        return self.start + x

    @task
    @classmethod
    def scale(cls, x: int) -> int:
        """Multiply with the step."""
        return cls.step * x

    @classmethod
    @task
    def scale_inside(cls, x: int) -> int:
        """Multiply with the step."""
        return cls.step * x

    @task
    @staticmethod
    def double(x: int) -> int:
        """Double."""
        return 2 * x

    @staticmethod
    @task
    def double_inside(x: int) -> int:
        """Double."""
        return 2 * x

    @flow
    def total(self, xs: list[int]) -> int:
        """Add all to the start."""
        return sum(self.add(x) for x in xs)

    @flow
    @classmethod
    def scaled(cls, x: int) -> int:
        """Multiply with the step."""
        return cls.step * x

    @classmethod
    @flow
    def scaled_inside(cls, x: int) -> int:
        """Multiply with the step."""
        return cls.step * x

    @flow
    @staticmethod
    def doubled(x: int) -> int:
        """Double."""
        return 2 * x

    @staticmethod
    @flow
    def doubled_inside(x: int) -> int:
        """Double."""
        return 2 * x


class Faster(Counter):
    """A class that inherits the methods."""

    step = 100


def test_E18_instance_methods_are_tasks(history: Any) -> None:
    """Called, submitted and mapped, a method belongs to its object; its runs have no trace of `self` in their name."""
    one, two = Counter(1), Counter(2)

    @flow
    def f() -> Any:
        mapped = two.add.map([1, 2], y=3)
        return [one.add(5), two.add(5, y=1), one.add.submit(x=7), *mapped]

    assert f() == [6, 8, 8, 6, 7]
    assert {run["task"] for run in history.task_runs("add")} == {"add"}


def test_E18_async_methods_are_tasks() -> None:
    """An async method is awaited, and works in sync flows as other async tasks do (E8)."""
    one = Counter(1)

    @flow
    async def f() -> Any:
        future = await one.add_later.submit(2)
        return [await one.add_later(1), await future.result()]

    @flow
    def g() -> Any:
        return one.add_later(3)

    assert asyncio.run(f()) == [2, 3]
    assert g() == 4


@pytest.mark.parametrize("name", ["scale", "scale_inside"])
def test_E18_class_methods_are_tasks(name: str) -> None:
    """In either order of decorators, by the class, by an object, and by a class that inherits it."""

    @flow
    def f() -> Any:
        return [getattr(owner, name)(2) for owner in (Counter, Counter(1), Faster, Faster(1))]

    assert f() == [20, 20, 200, 200]


def test_E18_class_methods_are_submitted_and_mapped() -> None:
    """A class method as a task has all that tasks have."""

    @flow
    def f() -> Any:
        scale: Any = Faster.scale
        return [scale.submit(2), *scale.map([1, 2]), scale.fn(3)]

    assert f() == [200, 100, 200, 300]


@pytest.mark.parametrize("name", ["double", "double_inside"])
def test_E18_static_methods_are_tasks(name: str) -> None:
    """In either order of decorators, by the class and by an object."""

    @flow
    def f() -> Any:
        values: list[Any] = []
        for owner in (Counter, Counter(1), Faster):
            method = getattr(owner, name)
            values += [method(2), method.submit(3)]
        return values

    assert f() == [4, 6] * 3


def test_E18_instance_methods_are_flows(history: Any) -> None:
    """A method can be a flow; its parameters but `self` are validated and cast."""
    text: Any = "2"
    assert Counter(5).total([1, text]) == 13
    assert Counter(5).total(xs=[]) == 0
    assert len(history.flow_runs("total")) == 2


@pytest.mark.parametrize("name", ["scaled", "scaled_inside"])
def test_E18_class_methods_are_flows(name: str) -> None:
    """In either order of decorators; the argument is cast."""
    assert [getattr(owner, name)("3") for owner in (Counter, Faster, Faster(1))] == [30, 300, 300]


@pytest.mark.parametrize("name", ["doubled", "doubled_inside"])
def test_E18_static_methods_are_flows(name: str) -> None:
    """In either order of decorators; the argument is cast."""
    assert [getattr(owner, name)("3") for owner in (Counter, Counter(1), Faster)] == [6, 6, 6]


def test_E18_a_method_without_its_object_is_given_one() -> None:
    """Taken from the class, an instance method is called with its object, as functions are."""

    unbound: Any = Counter.add
    bound: Any = Counter(4).add

    @flow
    def f() -> Any:
        return unbound(Counter(4), 1)

    assert f() == 5
    assert bound.fn(1) == 5
    assert unbound.fn(Counter(4), 1) == 5


def test_E18_copies_of_methods_belong_to_their_object() -> None:
    """`with_options` of a bound method gives a bound method: of the object, or of the class."""
    one = Counter(1)

    @flow
    def f() -> Any:
        return [
            one.add.with_options(retries=1)(5),
            one.add.with_options(name="other").submit(6).result(),
            Faster.double.with_options(name="other")(4),
        ]

    assert f() == [6, 7, 8]
    assert one.total.with_options(retries=1)([1]) == 2


def test_E18_copies_of_class_methods_belong_to_their_class() -> None:
    """`with_options` of a class method gives one of the same class, for tasks and flows."""

    @flow
    def f() -> Any:
        scale: Any = Faster.scale
        return scale.with_options(name="other")(2)

    scaled: Any = Faster.scaled
    assert f() == 200
    assert scaled.with_options(name="other")(2) == 200


def test_E18_an_objects_own_iterability_is_not_split() -> None:
    """Mapping a method of an object that is a list splits the arguments, not the object."""

    class Numbers(list[int]):
        @task
        def nth(self, n: int) -> int:
            return self[n]

    @flow
    def f() -> Any:
        return list(Numbers([5, 6, 7]).nth.map([0, 2]))

    assert f() == [5, 7]


def test_E18_methods_of_two_objects_are_told_apart_in_a_retry() -> None:
    """A retried flow gets each object's own value again, in whatever order it asks."""
    ran: list[int] = []

    class Source:
        def __init__(self, value: int) -> None:
            self.value = value

        @task
        def read(self) -> int:
            ran.append(self.value)
            return self.value

    one, two = Source(1), Source(2)
    flaky = Flaky(ValueError("boom"), 0)
    found: list[Any] = []

    @flow(retries=1)
    def f() -> int:
        sources = [one, two] if not found else [two, one]
        found.append([source.read() for source in sources])
        flaky()
        return 1

    f()
    assert found == [[1, 2], [2, 1]]


def test_E18_a_method_that_is_a_flow_is_resumed() -> None:
    """A failed run of a method is gone on with, with the object that the flow is taken from."""

    class Job:
        def __init__(self) -> None:
            self.ready = False

        @flow
        def work(self, x: int) -> int:
            if not self.ready:
                raise ConnectionError
            return x

    job = Job()
    run = job.work(3, return_state=True).state_details.flow_run_id
    assert isinstance(run, str)
    job.ready = True
    assert resume_run(run, flow=job.work) == 3


# --- generators -------------------------------------------------------------------------------------


@task
def numbers(n: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(n)


@task
async def async_numbers(n: int) -> AsyncIterator[int]:
    """Yield numbers."""
    for number in range(n):
        await asyncio.sleep(0)
        yield number


def test_E33_a_generator_that_a_function_returns_is_made_a_list() -> None:
    """A plain function that returns a generator gives a list, whether called, submitted, or as a flow."""

    @task
    def made(n: int) -> Any:
        return (2 * x for x in range(n))

    @flow
    def f() -> Any:
        return [made(2), made.submit(3).result(), made.submit(1).result()]

    @flow
    def g() -> Any:
        return (x for x in range(2))

    assert f() == [[0, 2], [0, 2, 4], [0]]
    assert g() == [0, 1]


def test_E33_an_async_function_that_returns_a_generator_gives_a_list() -> None:
    """Async tasks and flows make a list of a returned generator as sync ones do."""

    @task
    async def made(n: int) -> Any:
        await asyncio.sleep(0)
        return (2 * x for x in range(n))

    @flow
    async def f() -> Any:
        return [await made(2)]

    @flow
    async def g() -> Any:
        return (x for x in range(2))

    assert asyncio.run(f()) == [[0, 2]]
    assert asyncio.run(g()) == [0, 1]


def test_E33_a_stream_that_a_flow_returns_is_made_a_list() -> None:
    """A flow that returns what a generator task yields has the list of it as its value, sync or async."""

    @flow
    def f() -> Any:
        return numbers(2)

    @flow
    async def g() -> Any:
        return async_numbers(2)

    assert f() == [0, 1]
    assert asyncio.run(g()) == [0, 1]


def test_E33_an_async_generator_that_a_function_returns_is_made_a_list() -> None:
    """Also a plain async generator, returned by a coroutine function."""

    async def pieces() -> AsyncIterator[int]:
        yield 0
        yield 1

    @task
    async def made() -> Any:
        return pieces()

    @flow
    async def f() -> Any:
        return [await made()]

    @flow
    async def g() -> Any:
        return pieces()

    assert asyncio.run(g()) == [0, 1]
    assert asyncio.run(f()) == [[0, 1]]


def test_E18_a_generator_task_streams(history: Any) -> None:
    """What a generator task yields reaches the caller piece by piece, and the run completes with the list."""
    order: list[str] = []

    @task
    def stream() -> Iterator[int]:
        for x in range(2):
            order.append(f"made {x}")
            yield x

    @flow
    def f() -> Any:
        for x in stream():
            order.append(f"took {x}")
        return [stream(return_state=True).result(), stream.submit().result()]

    assert f() == [[0, 1], [0, 1]]
    assert order[:4] == ["made 0", "took 0", "made 1", "took 1"]
    assert history.states("stream") == [["Pending", "Running", "Completed"]] * 3


def test_E18_async_generator_tasks_stream(history: Any) -> None:
    """In an async flow an async generator task is iterated with `async for`; in a sync flow it is a list's iterator."""

    @flow
    async def f() -> Any:
        return [number async for number in async_numbers(3)]

    @flow
    def g() -> Any:
        pieces: Any = async_numbers(2)
        return [list(pieces), async_numbers.submit(2).result()]

    assert asyncio.run(f()) == [0, 1, 2]
    assert g() == [[0, 1], [0, 1]]
    assert history.states("async_numbers") == [["Pending", "Running", "Completed"]] * 3


def test_E18_generator_flows_stream(history: Any) -> None:
    """A flow that is a generator function yields while it runs; `return_state=True` gives the list as its value."""

    @flow
    def f(n: int) -> Iterator[int]:
        yield from numbers(n)

    text: Any = "2"
    pieces = f(text)
    assert next(pieces) == 0
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running"]
    assert list(pieces) == [1]
    assert history.flow_states(run) == ["Pending", "Running", "Completed"]
    state: Any = f(3, return_state=True)
    assert state.result() == [0, 1, 2]


def test_E18_async_generator_flows_stream(history: Any) -> None:
    """An async generator function as a flow is iterated with `async for`."""

    @flow
    async def f(n: int) -> AsyncIterator[int]:
        async for number in async_numbers(n):
            yield number * 2

    async def main() -> list[int]:
        return [number async for number in f(3)]

    assert asyncio.run(main()) == [0, 2, 4]
    [run] = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "Completed"]


def test_E18_a_caller_that_wants_no_more_ends_the_run(history: Any) -> None:
    """After a `break` the generator is closed, and the run completes with the pieces so far."""
    closed: list[bool] = []

    @task
    def endless() -> Iterator[int]:
        x = 0
        try:
            while True:
                yield x
                x += 1
        finally:
            closed.append(True)

    @flow
    def f() -> int:
        for x in endless():
            if x == 2:
                break
        return x

    assert f() == 2
    assert closed == [True]
    assert history.states("endless") == [["Pending", "Running", "Completed"]]


def test_E18_an_async_stream_that_is_left_ends_before_its_flow(history: Any) -> None:
    """After a `break` out of `async for` the task run has its end in the log before the flow run has its own."""

    @task
    async def endless() -> AsyncIterator[int]:
        x = 0
        while True:
            await asyncio.sleep(0)
            yield x
            x += 1

    @flow
    async def f() -> int:
        async for x in endless():
            if x == 2:
                break
        return x

    assert asyncio.run(f()) == 2
    ends = [e.type for e in history.events("task_run.completed", "task_run.cancelled", "flow_run.completed")]
    assert len(ends) == 2
    assert ends[-1] == "flow_run.completed"


def test_E18_a_stream_that_is_closed_in_time_completes(history: Any) -> None:
    """With `aclosing` an async stream's run completes with the pieces that were taken."""

    @flow
    async def f() -> Any:
        stream: Any = async_numbers(5)
        found = [await anext(stream), await anext(stream)]
        await stream.aclose()
        return found

    assert asyncio.run(f()) == [0, 1]
    assert history.states("async_numbers") == [["Pending", "Running", "Completed"]]


def test_E18_a_stream_that_fails_raises_at_its_place(history: Any) -> None:
    """The pieces before the failure arrive, then its exception; the run is Failed."""

    @task
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("boom")

    @flow
    def f() -> Any:
        found: list[int] = []
        with pytest.raises(ValueError, match="boom"):
            found.extend(broken())
        return found

    assert f() == [1]
    assert history.states("broken") == [["Pending", "Running", "Failed"]]


def test_E18_an_async_stream_that_fails_raises_at_its_place(history: Any) -> None:
    """The same in async code."""

    @task
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("boom")

    @flow
    async def f() -> Any:
        found: list[int] = []
        with pytest.raises(ValueError, match="boom"):
            async for number in broken():
                found.append(number)
        return found

    assert asyncio.run(f()) == [1]
    assert history.states("broken") == [["Pending", "Running", "Failed"]]


def test_E18_a_retried_stream_gives_no_piece_twice(history: Any) -> None:
    """The next attempt begins anew; what the caller has already is not given again."""
    flaky = Flaky(ValueError("boom"), 0)

    @task(retries=1)
    def unsteady() -> Iterator[int]:
        yield 0
        yield 1
        flaky()
        yield 2

    @flow
    def f() -> Any:
        return list(unsteady())

    assert f() == [0, 1, 2]
    assert history.states("unsteady") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]]


def test_E18_a_retried_flow_gets_the_pieces_again() -> None:
    """A generator task that completed does not run again in the flow's retry; its pieces come all the same."""
    ran: list[int] = []
    flaky = Flaky(ValueError("boom"), 0)

    @task
    def stream() -> Iterator[int]:
        ran.append(1)
        yield from (5, 6)

    @flow(retries=1)
    def f() -> list[int]:
        found = list(stream())
        flaky()
        return found

    assert f() == [5, 6]
    assert len(ran) == 1


def test_E18_a_resumed_flow_gets_the_pieces_again() -> None:
    """The same for a run that is resumed: the recorded list is what the iterator gives."""
    ran: list[int] = []
    flaky = Flaky(ValueError("boom"), 0)

    @task
    def stream() -> Iterator[int]:
        ran.append(1)
        yield from (5, 6)

    @flow
    def f() -> list[int]:
        found = list(stream())
        flaky()
        return found

    run = f(return_state=True).state_details.flow_run_id
    assert isinstance(run, str)
    assert resume_run(run, flow=f) == [5, 6]
    assert len(ran) == 1


def test_E18_a_resumed_async_flow_gets_the_pieces_again() -> None:
    """The same with `async for`."""
    ran: list[int] = []
    flaky = Flaky(ValueError("boom"), 0)

    @task
    async def stream() -> AsyncIterator[int]:
        ran.append(1)
        yield 5
        yield 6

    @flow
    async def f() -> list[int]:
        found = [piece async for piece in stream()]
        flaky()
        return found

    run = asyncio.run(f(return_state=True)).state_details.flow_run_id
    assert isinstance(run, str)
    assert asyncio.run(resume_run(run, flow=f)) == [5, 6]
    assert len(ran) == 1


def test_E18_a_resumed_flow_gets_the_pieces_of_a_subflow_again() -> None:
    """The same for a generator flow that completed as a subflow."""
    ran: list[int] = []
    flaky = Flaky(ValueError("boom"), 0)

    @flow
    def inner() -> Iterator[int]:
        ran.append(1)
        yield from (5, 6)

    @flow
    def outer() -> list[int]:
        found = list(inner())
        flaky()
        return found

    run = outer(return_state=True).state_details.flow_run_id
    assert isinstance(run, str)
    assert resume_run(run, flow=outer) == [5, 6]
    assert len(ran) == 1


def test_E18_a_stream_that_fails_while_it_is_left_still_ends(history: Any) -> None:
    """A generator with retries whose clean-up fails after a `break` has an end in the log, before the flow's."""

    @task(retries=1)
    def clumsy() -> Iterator[int]:
        try:
            yield 0
            yield 1
        finally:
            raise ValueError("while cleaning up")

    @flow
    def f() -> int:
        for _ in clumsy():
            break
        return 1

    assert f() == 1
    gc.collect()
    [states] = history.states("clumsy")
    assert states[-1] in ("Completed", "Failed")
    assert history.events()[-1].type == "flow_run.completed"


def test_E18_a_stream_that_is_cancelled_ends_with_its_flow(history: Any) -> None:
    """An async flow that is cancelled while it takes from a stream crashes at once, and the stream's run with it."""
    taken = asyncio.Event()

    @task
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    @flow
    async def f() -> None:
        async for _ in slow():
            taken.set()

    async def main() -> None:
        running = asyncio.ensure_future(f())
        await taken.wait()
        await asyncio.sleep(0.01)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert done == {running}

    asyncio.run(main())
    assert history.states("slow") == [["Pending", "Running", "Crashed"]]


def test_E37_a_flow_that_waits_for_a_stream_times_out(history: Any) -> None:
    """The time limit of an async flow holds while it waits for the next piece of a stream."""

    @task
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    @flow(timeout_seconds=0.05)
    async def f() -> None:
        async for _ in slow():
            pass

    async def main() -> bool:
        running = asyncio.ensure_future(f(return_state=True))
        done, _ = await asyncio.wait([running], timeout=0.2)
        running.cancel()
        [state] = await asyncio.gather(running, return_exceptions=True)
        return running in done and getattr(state, "name", None) == "TimedOut"

    assert asyncio.run(main())


def test_E18_the_time_of_a_stream_is_its_own(history: Any) -> None:
    """Time that the caller takes over a piece does not count against `timeout_seconds`."""

    @task(timeout_seconds=0.05)
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    @flow
    def f() -> Any:
        found: list[int] = []
        for piece in stream():
            time.sleep(0.1)
            found.append(piece)
        return found

    assert f() == [1, 2]
    assert history.states("stream") == [["Pending", "Running", "Completed"]]


def test_E18_a_stream_in_a_stream() -> None:
    """A generator task that takes from another one hands each piece on, and log lines belong to the right run."""

    @task
    def outer(n: int) -> Iterator[int]:
        for x in numbers(n):
            yield x * 10

    @flow
    def f() -> Any:
        first, second = outer(3), numbers(2)
        return [next(first), next(second), next(first), next(second), *first, *second]

    assert f() == [0, 0, 10, 1, 20]


def test_E18_code_between_the_pieces_belongs_to_the_caller(history: Any) -> None:
    """While a stream is half taken, calls and log lines of the caller are the caller's."""

    @task
    def speaking() -> Iterator[int]:
        get_run_logger().info("from the task")
        yield 1
        get_run_logger().info("again from the task")

    @task
    def beside() -> int:
        return 1

    @flow
    def f() -> int:
        for _ in speaking():
            get_run_logger().info("from the flow")
            beside()
        return 1

    f()
    [run] = history.task_runs("beside")
    assert "parent" not in run
    lines = [line for data in history.data("log.lines") for line in data["lines"]]
    assert [line[4] for line in lines] == ["from the task", "from the flow", "again from the task"]


def test_E18_a_stream_after_a_failed_upstream_does_not_run() -> None:
    """A generator task that is given a failed future does not start; asking for a piece says so."""

    @task
    def broken() -> int:
        raise ValueError("boom")

    @flow
    def f() -> Any:
        future = broken.submit()
        stream: Any = numbers(future)
        with pytest.raises(UnfinishedRun):
            next(stream)
        return 1

    assert f() == 1


def test_E18_a_stream_nobody_asks_leaves_no_warning(history: Any) -> None:
    """A generator task whose pieces nobody wants does not start, and the flow completes."""

    @flow
    def f() -> int:
        numbers(3)
        return 1

    assert f() == 1
    assert history.events("task_run.running") == []


def test_E18_decorated_generators_know_what_they_are() -> None:
    """`fn` is the function itself, and metadata are those of the function."""
    fn: Any = numbers.fn
    assert inspect.isgeneratorfunction(fn)
    assert list(fn(2)) == [0, 1]
    assert (numbers.isasync, async_numbers.isasync) == (False, True)


# --- retries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "expected"), [("7", [7, 7, 7]), ("1,2", [1, 2, 2]), ("[1, 2.5, 4]", [1, 2.5, 4])])
def test_E56_delays_by_the_settings(
    setting: str, expected: list[float], configured: Configured, virtual_clock: Any
) -> None:
    """Tasks that do not say it are tried again as the settings say, which take a list of delays too."""
    configured(virtual_clock, FLIGHTLOG_TASK_DEFAULT_RETRIES="3", FLIGHTLOG_TASK_DEFAULT_RETRY_DELAY_SECONDS=setting)
    flaky = Flaky(ValueError("boom"))

    @task
    def t() -> int:
        return flaky()

    @flow
    def f() -> int:
        t(return_state=True)
        return 1

    f()
    assert flaky.calls == 4
    assert virtual_clock.slept == pytest.approx(expected)


def test_E56_a_task_beats_the_settings_one_by_one(configured: Configured, virtual_clock: Any) -> None:
    """A task's own retries go with the setting's delays, its own delays with the setting's retries; 0 is a number."""
    configured(virtual_clock, FLIGHTLOG_TASK_DEFAULT_RETRIES="2", FLIGHTLOG_TASK_DEFAULT_RETRY_DELAY_SECONDS="9")
    flaky = Flaky(ValueError("boom"))
    t = task(name="t")(lambda: flaky())

    @flow
    def f(options: Any) -> list[float]:
        virtual_clock.slept.clear()
        t.with_options(**options)(return_state=True)
        return list(virtual_clock.slept)

    assert f({"retries": 1}) == pytest.approx([9])
    assert f({"retry_delay_seconds": 4}) == pytest.approx([4, 4])
    assert f({"retry_delay_seconds": 0}) == pytest.approx([0, 0])
    assert f({"retries": 0}) == []
    assert f({"retries": {}}) == []


def test_E56_the_settings_of_tasks_are_not_those_of_flows(configured: Configured) -> None:
    """A setting for tasks makes no flow be retried."""
    configured(FLIGHTLOG_TASK_DEFAULT_RETRIES="2")
    flaky = Flaky(ValueError("boom"))

    @flow
    def f() -> int:
        return flaky()

    f(return_state=True)
    assert flaky.calls == 1


@pytest.mark.parametrize("delays", [[1, "2"], {"a": 1}, "soon", b"1", {1, 2}, lambda _: "soon", lambda _: ["x"]])
def test_E56_other_delays_are_a_type_error(delays: Any) -> None:
    """What is no number, list of numbers, or function of that, is refused at declaration."""
    for kind in (flow, task):
        with pytest.raises(TypeError, match="retry_delay_seconds"):
            kind(retries=2, retry_delay_seconds=delays)(body)


def test_E56_fifty_delays_are_the_most() -> None:
    """Fifty delays are taken, more are a ValueError, also when a function gives them."""
    task(retries=50, retry_delay_seconds=[1.0] * 50)(body)
    for kind in (flow, task):
        with pytest.raises(ValueError, match="50"):
            kind(retries=60, retry_delay_seconds=lambda retries: [1.0] * retries)(body)


@pytest.mark.parametrize(
    ("factor", "retries", "expected"),
    [(10, 4, [10, 20, 40, 80]), (1, 0, []), (0.5, 3, [0.5, 1, 2]), (0, 2, [0, 0])],
)
def test_E57_exponential_backoff_doubles(factor: float, retries: int, expected: list[float]) -> None:
    """The i-th delay is the factor times two to the power of i."""
    assert exponential_backoff(backoff_factor=factor)(retries) == expected


def test_E57_exponential_backoff_stops_at_fifty() -> None:
    """For more retries than fifty there are fifty delays, so that the last one goes for the rest."""
    delays = exponential_backoff(1)(1000)
    assert (len(delays), delays[-1]) == (50, 2**49)
    assert task(retries=60, retry_delay_seconds=exponential_backoff(1))(body).retries == 60


def test_E57_a_task_waits_as_the_backoff_says(virtual_clock: Any) -> None:
    """As `retry_delay_seconds` it is asked with the number of retries."""
    flaky = Flaky(ValueError("boom"))

    @task(retries=4, retry_delay_seconds=exponential_backoff(backoff_factor=10))
    def t() -> int:
        return flaky()

    @flow
    def f() -> int:
        t(return_state=True)
        return 1

    f()
    assert virtual_clock.slept == pytest.approx([10, 20, 40, 80])


@pytest.mark.parametrize("factor", [-1, -0.001])
def test_E58_a_negative_jitter_is_refused(factor: float) -> None:
    """A factor below 0 is a ValueError, also in `with_options`."""
    with pytest.raises(ValueError, match="retry_jitter_factor"):
        task(retries=1, retry_jitter_factor=factor)(body)
    with pytest.raises(ValueError, match="retry_jitter_factor"):
        task(body).with_options(retry_jitter_factor=factor)


@pytest.mark.parametrize("factor", [0.1, 0.5, 1, 3])
def test_E58_jitter_keeps_the_mean_and_the_bound(factor: float, configured: Configured, virtual_clock: Any) -> None:
    """Delays differ, are spread evenly round the one that was given, and never above it by more than the factor."""
    chances = [0.0, 0.25, 0.5, 0.75, 1 - 2**-40]
    configured(virtual_clock, Chance(*chances))

    @task(retries=5, retry_delay_seconds=100, retry_jitter_factor=factor)
    def t() -> None:
        raise ValueError

    @flow
    def f() -> int:
        t(return_state=True)
        return 1

    f()
    slept = virtual_clock.slept
    assert len(set(slept)) == 5
    assert sum(slept) / 5 == pytest.approx(100, rel=1e-6)
    assert all(0 <= delay <= 100 * (1 + factor) + 1e-3 for delay in slept)


def test_E58_without_a_factor_nothing_is_left_to_chance(configured: Configured, virtual_clock: Any) -> None:
    """No factor, or 0, gives the delay as it was said, without asking for chance."""
    configured(virtual_clock, Chance())

    @flow
    def f() -> int:
        for factor in (None, 0):

            @task(retries=2, retry_delay_seconds=5, retry_jitter_factor=factor)
            def t() -> None:
                raise ValueError

            t(return_state=True)
        return 1

    f()
    assert virtual_clock.slept == pytest.approx([5] * 4)


def test_E59_the_condition_decides_on_each_failure(history: Any) -> None:
    """It is asked with task, task run and failed state; False ends the run Failed at once."""
    asked: list[Any] = []
    flaky = Flaky(ValueError("first"), ValueError("second"), 3)

    def worth_it(task: Any, task_run: Any, state: Any) -> bool:
        asked.append((task, task_run.run_count, state.type, str(state.result(raise_on_failure=False))))
        return "first" in str(state.message)

    @task(retries=5, retry_condition_fn=worth_it)
    def t() -> int:
        return flaky()

    @flow
    def f() -> None:
        t.submit()

    with pytest.raises(ValueError, match="second"):
        f()
    assert asked == [(t, 1, "FAILED", "first"), (t, 2, "FAILED", "second")]
    assert history.states("t") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]]


@pytest.mark.parametrize("in_async", [False, True])
def test_E59_the_condition_may_be_async(in_async: bool) -> None:
    """An async condition is awaited, for sync tasks and for async ones."""
    asked: list[str] = []
    flaky = Flaky(ValueError("boom"), 5)

    async def worth_it(task: Any, _: Any, __: Any) -> bool:
        await asyncio.sleep(0)
        asked.append(task.name)
        return True

    @task(retries=1, retry_condition_fn=worth_it)
    def t() -> int:
        return flaky()

    @task(retries=1, retry_condition_fn=worth_it)
    async def u() -> int:
        return flaky()

    @flow
    def f() -> Any:
        return t()

    @flow
    async def g() -> Any:
        return await u()

    assert (asyncio.run(g()) if in_async else f()) == 5
    assert asked == ["u" if in_async else "t"]


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("oh"), SystemExit(3), KeyboardInterrupt(), StopIteration(), GeneratorExit()]
)
@pytest.mark.parametrize("in_async", [False, True])
def test_E59_a_condition_that_raises_says_no(error: BaseException, in_async: bool, history: Any) -> None:
    """Whatever it raises is logged, and the run ends Failed with its own failure; the flow goes on."""
    flaky = Flaky(ValueError("boom"))

    def broken(*_: Any) -> bool:
        raise error

    async def broken_later(*_: Any) -> bool:
        raise error

    @task(retries=5, retry_condition_fn=broken_later if in_async else broken)
    def t() -> int:
        return flaky()

    @flow
    def f() -> Any:
        state = t(return_state=True)
        return [state.is_failed(), str(state.result(raise_on_failure=False))]

    assert f() == [True, "boom"]
    assert flaky.calls == 1
    assert any(type(error).__name__ in line for line in history.log_lines())


def test_E59_without_retries_nobody_asks() -> None:
    """With 0 retries, and when they are used up, the condition is not called."""
    asked: list[int] = []

    def worth_it(_: Any, task_run: Any, __: Any) -> bool:
        asked.append(task_run.run_count)
        return True

    @task(retry_condition_fn=worth_it)
    def t() -> None:
        raise ValueError

    @flow
    def f() -> int:
        t(return_state=True)
        assert asked == []
        t.with_options(retries=2)(return_state=True)
        return 1

    f()
    assert asked == [1, 2]


def test_E59_success_asks_nobody() -> None:
    """The condition is for failures only."""
    asked: list[int] = []

    @task(retries=3, retry_condition_fn=lambda *_: asked.append(1))
    def t() -> int:
        return 5

    @flow
    def f() -> int:
        return t()

    assert f() == 5
    assert asked == []


@pytest.mark.parametrize("condition", [True, "yes", 5, []])
def test_E59_the_condition_has_to_be_a_function(condition: Any) -> None:
    """What cannot be called is a TypeError."""
    with pytest.raises(TypeError, match="retry_condition_fn"):
        task(retries=1, retry_condition_fn=condition)(body)


def test_E60_time_outs_are_retried(history: Any) -> None:
    """An attempt whose time is over is tried again as one that raised."""
    calls: list[int] = []

    @task(retries=1, timeout_seconds=0.05)
    async def t() -> int:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(30)
        return 5

    @flow
    async def f() -> int:
        return await t()

    assert asyncio.run(f()) == 5
    assert history.states("t") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]]


def test_E61_time_outs_that_use_up_the_retries_end_timed_out(history: Any) -> None:
    """The last state is TimedOut, of type FAILED, and never Crashed."""

    @task(retries=1, timeout_seconds=0.02)
    async def t() -> None:
        await asyncio.sleep(30)

    @flow
    async def f() -> Any:
        state = await t(return_state=True)
        return [state.name, state.type]

    assert asyncio.run(f()) == ["TimedOut", "FAILED"]
    assert history.states("t") == [["Pending", "Running", "AwaitingRetry", "Retrying", "TimedOut"]]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_E61_returned_failures_that_use_up_the_retries_end_failed(retries: int, history: Any) -> None:
    """A Failed state that is returned each time ends Failed, with the name and message of the last one."""
    calls: list[int] = []

    @task(retries=retries)
    def t() -> Any:
        calls.append(1)
        return Failed(message=f"no {len(calls)}")

    @flow
    def f() -> Any:
        state: Any = t.submit().wait()
        return [state.type, state.message]

    assert f() == ["FAILED", f"no {retries + 1}"]
    assert len(calls) == retries + 1
    assert history.events("task_run.crashed") == []


# --- budgets by cause -------------------------------------------------------------------------------


def _timing_out(script: list[str], calls: list[str]) -> Callable[[], Any]:
    async def run() -> str:
        doing = script[min(len(calls), len(script) - 1)]
        calls.append(doing)
        if doing == "late":
            await asyncio.sleep(30)
        if doing == "error":
            raise ValueError("boom")
        if doing == "memory":
            raise MemoryError
        return doing

    return run


@pytest.mark.parametrize(
    ("script", "attempts", "ends"),
    [
        (["error", "error", "done"], 2, "Failed"),
        (["error", "done"], 2, "Completed"),
        (["late", "late", "done"], 3, "Completed"),
        (["late", "late", "late", "done"], 3, "TimedOut"),
        (["late", "error", "late", "done"], 4, "Completed"),
        (["error", "late", "error", "done"], 3, "Failed"),
        (["memory", "done"], 1, "Failed"),
    ],
)
def test_E55_each_cause_has_its_own_budget(script: list[str], attempts: int, ends: str, history: Any) -> None:
    """An attempt is repeated as long as the budget of what went wrong lasts, whatever other causes have used."""
    calls: list[str] = []
    t = task(name="t", retries={"user_error": 1, "timed_out": 2}, timeout_seconds=0.02)(_timing_out(script, calls))

    @flow
    async def f() -> int:
        await t(return_state=True)
        return 1

    asyncio.run(f())
    assert len(calls) == attempts
    [states] = history.states("t")
    assert states[-1] == ends


def test_E34_flows_have_budgets_too(history: Any) -> None:
    """A flow's budget for a cause is used up by attempts that fail of that cause."""
    calls: list[str] = []
    script = ["late", "error", "late", "done"]
    budgets: Any = {"user_error": 1, "timed_out": 1}
    f = flow(name="f", retries=budgets, timeout_seconds=0.02)(_timing_out(script, calls))
    state = asyncio.run(f(return_state=True))
    assert calls == ["late", "error", "late"]
    assert state.name == "TimedOut"
    assert [data.get("attempt", 1) for data in history.data("flow_run.running")] == [1, 2, 3]


def test_E55_a_returned_failure_counts_as_the_users(history: Any) -> None:
    """A Failed state that a task returns takes from `user_error`."""
    calls: list[int] = []

    @task(retries={"timed_out": 5, "user_error": 1})
    def t() -> Any:
        calls.append(1)
        return Failed(message="no")

    @flow
    def f() -> int:
        future: Any = t.submit()
        future.wait()
        return 1

    f()
    assert len(calls) == 2
    assert history.states("t") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]]


def test_E55_no_budget_is_no_retry(configured: Configured) -> None:
    """A cause without a budget is not retried, nor is anything with an empty mapping, whatever the settings say."""
    configured(FLIGHTLOG_TASK_DEFAULT_RETRIES="3", FLIGHTLOG_FLOW_DEFAULT_RETRIES="3")
    flaky = Flaky(ValueError("boom"))

    @flow(retries={"timed_out": 2})
    def f() -> int:
        return flaky()

    f(return_state=True)
    assert flaky.calls == 1
    f.with_options(retries={})(return_state=True)
    assert flaky.calls == 2
    f.with_options(retries={"user_error": 1})(return_state=True)
    assert flaky.calls == 4


def test_E55_delays_go_by_the_number_of_the_retry(virtual_clock: Any) -> None:
    """With budgets, too, the i-th retry waits the i-th delay, and the last one goes for the rest."""
    flaky = Flaky(MemoryError(), ValueError("a"), ValueError("b"), 5)

    @task(retries={"user_error": 2, "out_of_memory": 1}, retry_delay_seconds=[1, 2])
    def t() -> int:
        return flaky()

    @flow
    def f() -> Any:
        return t()

    assert f() == 5
    assert virtual_clock.slept == pytest.approx([1, 2, 2])


def test_E59_the_condition_is_asked_within_the_budget_only() -> None:
    """A condition cannot make more of a budget than there is, but less."""
    asked: list[str] = []

    def worth_it(_: Any, __: Any, state: Any) -> bool:
        asked.append(type(state.result(raise_on_failure=False)).__name__)
        return True

    @task(retries={"user_error": 1}, retry_condition_fn=worth_it)
    def t() -> None:
        raise ValueError

    @flow
    def f() -> int:
        t(return_state=True)
        t.with_options(retries={"timed_out": 4})(return_state=True)
        return 1

    f()
    assert asked == ["ValueError"]


def test_E56_the_time_of_the_next_attempt_is_a_time(virtual_clock: Any, history: Any) -> None:
    """With jitter, too, the event says when the retry is due, and it is slept exactly so long."""

    @task(retries=1, retry_delay_seconds=60, retry_jitter_factor=0.5)
    def t() -> None:
        raise ValueError

    @flow
    def f() -> int:
        t(return_state=True)
        return 1

    f()
    [waiting] = history.events("task_run.awaiting_retry")
    due = (waiting.data["scheduled"] - waiting.occurred_at) / 1e6
    assert virtual_clock.slept == pytest.approx([due])
    assert 30 <= due <= 90
    assert datetime.fromtimestamp(waiting.data["scheduled"] / 1e6).year == 2023  # noqa: DTZ006 - the year alone
