"""What code can know of its run: the context, `flightlog.runtime`, and tags."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import flightlog
from flightlog import flow, runtime, tags, task
from flightlog.context import FlowRunContext, TaskRunContext, get_run_context
from flightlog.engine.resuming import fork_run, resume_run
from flightlog.errors import MissingContextError
from flightlog.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

FLOW_FACTS: dict[str, Any] = {
    "id": None,
    "name": None,
    "tags": [],
    "parameters": {},
    "run_count": 0,
    "flow_name": None,
    "flow_version": None,
    "parent_flow_run_id": None,
    "parent_deployment_id": None,
    "api_url": None,
    "ui_url": None,
}
TASK_FACTS: dict[str, Any] = {
    "id": None,
    "name": None,
    "tags": [],
    "parameters": {},
    "run_count": 0,
    "task_name": None,
}
DEPLOYMENT_FACTS: dict[str, Any] = {
    "id": None,
    "name": None,
    "version": None,
    "flow_run_id": None,
    "parameters": {},
}
NAMED = {"flow_run": FLOW_FACTS, "task_run": TASK_FACTS, "deployment": DEPLOYMENT_FACTS}


def all_facts() -> dict[str, dict[str, Any]]:
    """Return all facts as they are here."""
    return {name: {fact: getattr(getattr(runtime, name), fact) for fact in facts} for name, facts in NAMED.items()}


@task
def tagged() -> list[str]:
    """Return the tags of its own run."""
    found: list[str] = runtime.task_run.tags
    return found


@task
async def tagged_later() -> list[str]:
    """Return the tags of its own run."""
    await asyncio.sleep(0)
    found: list[str] = runtime.task_run.tags
    return found


def recorded(history: Any, task_name: str = "tagged") -> list[list[str]]:
    """Return the tags that the log has of a task's runs."""
    return [run.get("tags", []) for run in history.task_runs(task_name)]


def run_id(state: Any) -> str:
    """Return the id of the flow run that a state belongs to."""
    identifier = state.state_details.flow_run_id
    assert isinstance(identifier, str)
    return identifier


# --- the context ------------------------------------------------------------------------------------


def test_E145_there_is_no_context_outside() -> None:
    """Outside a run `get_run_context` raises, and the classes' `get` gives None."""
    with pytest.raises(MissingContextError, match="no active flow or task run"):
        get_run_context()
    with pytest.raises(RuntimeError):
        get_run_context()
    assert FlowRunContext.get() is None
    assert TaskRunContext.get() is None


def test_E145_the_context_of_a_flow(history: Any) -> None:
    """In a flow it is a FlowRunContext, with flow, run, runner, parameters and start time; there is no task's."""
    found: list[Any] = []

    @flow(flow_run_name="once", task_runner=SequentialTaskRunner)
    def f(x: int, y: str = "b") -> None:
        found.extend([get_run_context(), FlowRunContext.get(), TaskRunContext.get()])

    text: Any = "1"
    f(text)
    context, same, none = found
    assert isinstance(context, FlowRunContext)
    assert same is context
    assert none is None
    assert context.flow is f
    assert context.flow_run.name == "once"
    assert [context.flow_run.id] == history.flow_runs("f")
    assert isinstance(context.task_runner, SequentialTaskRunner)
    assert dict(context.parameters) == {"x": 1, "y": "b"}
    assert context.start_time.utcoffset() == timedelta(0)
    assert abs(context.start_time - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize("submitted", [False, True])
def test_E145_the_context_of_a_task(submitted: bool) -> None:
    """In a task it is a TaskRunContext; the FlowRunContext around it is that of its flow run."""
    found: list[Any] = []

    @task(task_run_name="mine")
    def t(x: int) -> None:
        found.extend([get_run_context(), TaskRunContext.get(), FlowRunContext.get()])

    @flow
    def f() -> None:
        if submitted:
            t.submit(5).wait()
        else:
            t(5)
        found.append(get_run_context())

    f()
    context, same, around, after = found
    assert isinstance(context, TaskRunContext)
    assert same is context
    assert context.task is t
    assert context.task_run.name == "mine"
    assert dict(context.parameters) == {"x": 5}
    assert around is after
    assert around.flow is f


def test_E145_contexts_in_async_code() -> None:
    """Coroutines that run at the same time each have their own context."""

    @task
    async def t(n: int) -> bool:
        context = get_run_context()
        assert isinstance(context, TaskRunContext)
        for _ in range(3):
            await asyncio.sleep(0)
            assert get_run_context() is context
        return dict(context.parameters) == {"n": n}

    @flow
    async def f() -> Any:
        found = await asyncio.gather(*[t(n) for n in range(4)])
        assert isinstance(get_run_context(), FlowRunContext)
        return list(found)

    @flow
    def g() -> Any:
        return t(7)

    assert asyncio.run(f()) == [True] * 4
    assert g() is True


def test_E145_contexts_nest() -> None:
    """In a subflow, and in a task that a task calls, the context is the inner one; afterwards the outer one again."""
    names: list[str] = []

    def note() -> None:
        context = get_run_context()
        names.append(context.task.name if isinstance(context, TaskRunContext) else context.flow.name)  # type: ignore[attr-defined]

    @task
    def leaf() -> None:
        note()

    @flow
    def inner() -> None:
        note()
        leaf()
        note()

    @task
    def middle() -> None:
        note()
        inner()
        note()

    @flow
    def outer() -> None:
        note()
        middle()
        note()

    outer()
    assert names == ["outer", "middle", "inner", "leaf", "inner", "middle", "outer"]
    assert FlowRunContext.get() is None


def test_E145_a_failed_run_leaves_no_context_behind() -> None:
    """After a flow that raised there is none, nor in a thread of one's own."""
    found: list[Any] = []

    @flow
    def f() -> None:
        thread = threading.Thread(target=lambda: found.append(FlowRunContext.get()))
        thread.start()
        thread.join()
        raise ValueError("boom")

    f(return_state=True)
    assert found == [None]
    assert FlowRunContext.get() is None


# --- the facts of the runtime -----------------------------------------------------------------------


def test_E146_outside_a_run_there_is_nothing() -> None:
    """Every fact is None, empty or 0; the scheduled time is the present, in UTC."""
    assert all_facts() == NAMED
    when = runtime.flow_run.scheduled_start_time
    assert when.utcoffset() == timedelta(0)
    assert abs(when - datetime.now(UTC)) < timedelta(minutes=5)


def test_E146_what_is_no_fact_is_an_attribute_error() -> None:
    """A fact that there is none of is an AttributeError, as for other objects; `dir` tells those that there are."""
    for name, facts in NAMED.items():
        with pytest.raises(AttributeError, match="nothing_like_it"):
            _ = getattr(runtime, name).nothing_like_it
        assert set(facts) <= set(dir(getattr(runtime, name)))
        assert not hasattr(getattr(runtime, name), "_private")


def test_E146_lists_and_dicts_are_the_askers_own() -> None:
    """What is changed in a list or dict of facts changes nothing else."""

    @flow
    def f(x: int) -> Any:
        runtime.flow_run.parameters["x"] = 99
        runtime.flow_run.tags.append("mine")
        return [runtime.flow_run.parameters, runtime.flow_run.tags, x]

    assert f(1) == [{"x": 1}, [], 1]
    runtime.flow_run.parameters["y"] = 1
    runtime.deployment.parameters["y"] = 1
    assert all_facts() == NAMED


def test_E146_the_facts_of_a_flow_run(history: Any) -> None:
    """In a flow they are those of its run; there is no task run."""
    found: list[Any] = []

    @flow(flow_run_name="once", version="7")
    def f(x: int, y: str = "b") -> None:
        found.append(all_facts())
        when = runtime.flow_run.scheduled_start_time
        assert abs(when - datetime.now(UTC)) < timedelta(minutes=5)

    text: Any = "1"
    with tags("b", "a"):
        f(text)
    [run] = history.flow_runs("f")
    assert found == [
        {
            "flow_run": {
                **FLOW_FACTS,
                "id": run,
                "name": "once",
                "tags": ["a", "b"],
                "parameters": {"x": 1, "y": "b"},
                "run_count": 1,
                "flow_name": "f",
                "flow_version": "7",
            },
            "task_run": TASK_FACTS,
            "deployment": DEPLOYMENT_FACTS,
        }
    ]


@pytest.mark.parametrize("submitted", [False, True])
def test_E146_the_facts_of_a_task_run(submitted: bool, history: Any) -> None:
    """In a task they are those of its run, and of the flow run around it."""

    @task(task_run_name="mine {x}", tags=["blue"])
    def t(x: int) -> Any:
        facts = all_facts()
        return [facts["task_run"], facts["flow_run"]["flow_name"], facts["flow_run"]["id"]]

    @flow
    def f() -> Any:
        return t.submit(5).result() if submitted else t(5)

    own, name, around = f()
    [run] = history.task_runs("t")
    assert own == {
        "id": own["id"],
        "name": "mine 5",
        "tags": ["blue"],
        "parameters": {"x": 5},
        "run_count": 1,
        "task_name": "t",
    }
    assert own["id"].replace("-", "") == run["task_run_id"].hex()
    assert (name, [around]) == ("f", history.flow_runs("f"))


def test_E146_resolved_values_are_the_parameters() -> None:
    """Futures among a task's arguments are replaced by their values in the facts, too."""

    @task
    def one() -> int:
        return 1

    @task
    def t(x: Any) -> Any:
        return runtime.task_run.parameters

    @flow
    def f() -> Any:
        return t([one.submit()])

    assert f() == {"x": [1]}


def test_E146_the_facts_in_async_code() -> None:
    """Each coroutine sees its own run."""

    @task(task_run_name="number {n}")
    async def t(n: int) -> Any:
        await asyncio.sleep(0)
        return [runtime.task_run.name, runtime.flow_run.flow_name]

    @flow
    async def f() -> Any:
        return list(await asyncio.gather(*[t(n) for n in range(3)]))

    assert asyncio.run(f()) == [[f"number {n}", "f"] for n in range(3)]


def test_E146_a_subflow_knows_its_parent() -> None:
    """`parent_flow_run_id` is the id of the flow run that it was called in, also by way of a task."""

    @flow
    def inner() -> Any:
        return [runtime.flow_run.parent_flow_run_id, runtime.flow_run.id, runtime.task_run.id]

    @task
    def t() -> Any:
        return inner()

    @flow
    def outer() -> Any:
        return [runtime.flow_run.parent_flow_run_id, runtime.flow_run.id, inner(), t()]

    above, own, first, second = outer()
    assert above is None
    assert first[0] == second[0] == own
    assert len({own, first[1], second[1]}) == 3
    assert first[2] is second[2] is None


def test_E146_run_counts_go_up(history: Any) -> None:
    """With each attempt of a flow or task its `run_count` is one more."""
    counts: list[tuple[int, int]] = []

    @task(retries=1)
    def t() -> None:
        counts.append((runtime.flow_run.run_count, runtime.task_run.run_count))
        raise ValueError("boom")

    @flow(retries=1)
    def f() -> None:
        t()

    f(return_state=True)
    assert [flow_count for flow_count, _ in counts] == [1, 1, 2, 2]
    assert [task_count for _, task_count in counts] == [1, 2, 3, 4]


def test_E146_after_a_run_there_is_nothing_again() -> None:
    """The facts of a run end with it, however it ends."""

    @flow
    def f() -> None:
        raise ValueError("boom")

    f(return_state=True)
    assert all_facts() == NAMED


def test_E146_a_function_that_names_the_run_is_inside_of_it() -> None:
    """`flow_run_name=` functions can ask for the facts of their run (E24)."""

    @flow(flow_run_name=lambda: f"{runtime.flow_run.flow_name} of {runtime.flow_run.parameters['x']}")
    def f(x: int) -> Any:
        return runtime.flow_run.name

    assert f(3) == "f of 3"


@pytest.mark.parametrize("inside", [False, True])
def test_E146_the_environment_stands_in(inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable for a fact wins over it, in a run and outside, and is cast to what the fact usually is."""
    values = {
        "FLOW_RUN__ID": "an-id",
        "FLOW_RUN__NAME": "5",
        "FLOW_RUN__TAGS": "a, b,c",
        "FLOW_RUN__PARAMETERS": '{"x": [1, 2]}',
        "FLOW_RUN__RUN_COUNT": "7",
        "FLOW_RUN__SCHEDULED_START_TIME": "2024-02-29T12:00:00+01:00",
        "TASK_RUN__RUN_COUNT": "3",
        "TASK_RUN__TASK_NAME": "other",
        "DEPLOYMENT__NAME": "nightly",
        "DEPLOYMENT__PARAMETERS": "{}",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"FLIGHTLOG__RUNTIME__{name}", value)

    def facts() -> Any:
        return [
            runtime.flow_run.id,
            runtime.flow_run.name,
            runtime.flow_run.tags,
            runtime.flow_run.parameters,
            runtime.flow_run.run_count,
            runtime.flow_run.scheduled_start_time,
            runtime.task_run.run_count,
            runtime.task_run.task_name,
            runtime.deployment.name,
            runtime.deployment.parameters,
        ]

    expected = [
        "an-id",
        "5",
        ["a", "b", "c"],
        {"x": [1, 2]},
        7,
        datetime(2024, 2, 29, 11, 0, tzinfo=UTC),
        3,
        "other",
        "nightly",
        {},
    ]

    @task
    def t(y: int) -> Any:
        return facts()

    @flow
    def f(x: int) -> Any:
        return t(1)

    assert (f(5) if inside else facts()) == expected


def test_E146_a_time_of_the_environment_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time without a zone is one in UTC, so that it can be compared with the fact that it stands for."""
    monkeypatch.setenv("FLIGHTLOG__RUNTIME__FLOW_RUN__SCHEDULED_START_TIME", "2024-02-29T12:00:00")
    assert runtime.flow_run.scheduled_start_time == datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert runtime.flow_run.scheduled_start_time < datetime.now(UTC)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("run_count", "many"),
        ("run_count", ""),
        ("parameters", "{"),
        ("parameters", ""),
        ("parameters", "5"),
        ("scheduled_start_time", "soon"),
        ("tags", ","),
        ("tags", ""),
        ("id", ""),
    ],
)
def test_E146_asking_never_raises(fact: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the environment, a fact can be asked for, inside and outside."""
    monkeypatch.setenv(f"FLIGHTLOG__RUNTIME__FLOW_RUN__{fact.upper()}", value)
    seen: list[Any] = []

    @flow
    def f() -> int:
        seen.append(getattr(runtime.flow_run, fact))
        return 1

    assert f() == 1
    seen.append(getattr(runtime.flow_run, fact))
    assert len(seen) == 2


def test_E146_an_override_changes_nothing_but_the_fact(monkeypatch: pytest.MonkeyPatch, history: Any) -> None:
    """The run itself and its record are as they are."""
    monkeypatch.setenv("FLIGHTLOG__RUNTIME__FLOW_RUN__NAME", "pretended")

    @flow(flow_run_name="real")
    def f() -> Any:
        context = FlowRunContext.get()
        return [runtime.flow_run.name, context.flow_run.name if context else None]

    assert f() == ["pretended", "real"]
    assert history.data("flow_run.created")[0]["name"] == "real"


# --- tags -------------------------------------------------------------------------------------------


def test_E147_tags_are_yielded_as_a_set() -> None:
    """`with tags(...) as current` gives the tags that hold; nested ones add up, and end with their block."""
    with tags("a", "b", "a") as outer:
        assert outer == {"a", "b"}
        assert isinstance(outer, set)
        with tags("b", "c") as inner:
            assert inner == {"a", "b", "c"}
        with tags() as same:
            assert same == {"a", "b"}
        outer.add("mine")
        with tags("d") as again:
            assert again == {"a", "b", "d"}
    with tags() as none:
        assert none == set()


def test_E147_tags_end_with_their_block_also_when_it_raises(history: Any) -> None:
    """After an exception in the block the tags do not hold any more."""
    with pytest.raises(ValueError, match="boom"), tags("a"):
        raise ValueError("boom")

    @flow
    def f() -> Any:
        with pytest.raises(ValueError, match="boom"), tags("b"):
            raise ValueError("boom")
        return [runtime.flow_run.tags, tagged()]

    assert f() == [[], []]
    assert recorded(history) == [[]]


@pytest.mark.parametrize("wrong", [5, None, b"a", ["a"], ("a",)])
def test_E147_tags_are_strings(wrong: Any) -> None:
    """Anything else is a TypeError, before the block begins."""
    with pytest.raises(TypeError, match=r"[Tt]ags"), tags("a", wrong):
        raise AssertionError("not to be reached")
    with tags() as none:
        assert none == set()


def test_E147_flow_runs_have_the_tags_around_them(history: Any) -> None:
    """The tags are on record, sorted, and asked for as a fact; a flow without any has none."""

    @flow
    def f() -> Any:
        return runtime.flow_run.tags

    with tags("b", "a"):
        assert f() == ["a", "b"]
    assert f() == []
    assert [data.get("tags", []) for data in history.data("flow_run.created")] == [["a", "b"], []]


def test_E147_task_runs_have_all_tags(history: Any) -> None:
    """A task run has the task's tags, the flow run's, and those of the blocks that it is called in."""
    blue = tagged.with_options(tags=["blue", "a"])

    @flow
    def h() -> Any:
        found = [blue(), tagged()]
        with tags("x", "a"):
            found.append(blue())
            with tags("y"):
                found += [blue.submit().result(), tagged.submit().result()]
        found.append(blue())
        return found

    with tags("a", "flow"):
        found = h()
    expected = [
        ["a", "blue", "flow"],
        ["a", "flow"],
        ["a", "blue", "flow", "x"],
        ["a", "blue", "flow", "x", "y"],
        ["a", "flow", "x", "y"],
        ["a", "blue", "flow"],
    ]
    assert found == expected
    assert recorded(history) == expected


def test_E147_mapped_runs_have_the_tags(history: Any) -> None:
    """Every child of a `map` has them."""

    @task(tags=["t"])
    def t(_: int) -> Any:
        return runtime.task_run.tags

    @flow
    def f() -> Any:
        with tags("x"):
            return list(t.map([1, 2]))

    assert f() == [["t", "x"]] * 2
    assert recorded(history, "t") == [["t", "x"]] * 2


def test_E147_tags_in_async_code(history: Any) -> None:
    """Blocks in coroutines that run at the same time do not mix."""

    async def work(name: str) -> Any:
        with tags(name):
            await asyncio.sleep(0)
            first = await tagged_later()
            future = await tagged_later.submit()
            return [first, await future.result(), tagged()]

    @flow
    async def f() -> Any:
        return list(await asyncio.gather(work("a"), work("b")))

    with tags("all"):
        assert asyncio.run(f()) == [[["a", "all"]] * 3, [["all", "b"]] * 3]
    assert sorted(recorded(history, "tagged_later")) == [["a", "all"]] * 2 + [["all", "b"]] * 2


def test_E147_async_tasks_in_sync_flows_have_the_tags() -> None:
    """They run on another thread, but were called here."""

    @flow
    def f() -> Any:
        with tags("x"):
            return [tagged_later(), tagged_later.submit().result()]

    assert f() == [["x"], ["x"]]


def test_E147_subflows_have_the_tags(history: Any) -> None:
    """A subflow has the tags of the flow around it and of the block that it is called in; so have its tasks."""

    @flow
    def inner() -> Any:
        with tags("deep"):
            return [runtime.flow_run.tags, tagged()]

    @flow
    def outer() -> Any:
        with tags("x"):
            first = inner()
        return [first, inner()]

    with tags("a"):
        assert outer() == [[["a", "x"], ["a", "deep", "x"]], [["a"], ["a", "deep"]]]
    by_flow = [(data["flow"], data.get("tags", [])) for data in history.data("flow_run.created")]
    assert by_flow == [("outer", ["a"]), ("inner", ["a", "x"]), ("inner", ["a"])]


def test_E147_tags_inside_a_task(history: Any) -> None:
    """Blocks in a task go for what the task calls; the task's own tags do not."""

    @task(tags=["own"])
    def t() -> Any:
        with tags("x"):
            return [tagged(), tagged.submit().result(), runtime.task_run.tags]

    @flow
    def f() -> Any:
        return t()

    assert f() == [["x"], ["x"], ["own"]]


def test_E147_a_call_has_the_tags_of_the_place_where_it_was_submitted() -> None:
    """When it starts, the block may have ended."""
    gate = threading.Event()

    @task
    def wait() -> None:
        gate.wait(30)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> Any:
        wait.submit()
        with tags("x"):
            future = tagged.submit()
        with tags("y"):
            gate.set()
            return future.result()

    assert f() == ["x"]


@pytest.mark.parametrize("waiting", [False, True])
def test_E147_tags_hold_for_what_a_submitted_task_calls(waiting: bool) -> None:
    """What a task calls has the tags of the block that the task was submitted in, whether it had to wait or not."""
    gate = threading.Event()

    @task
    def first() -> None:
        gate.wait(30)

    @task
    def second(_: Any = None) -> Any:
        return [runtime.task_run.tags, tagged()]

    @flow
    def f() -> Any:
        future = first.submit()
        with tags("x"):
            found = second.submit(future if waiting else None)
        gate.set()
        return found.result()

    assert f() == [["x"], ["x"]]


def test_E147_tags_hold_for_waiting_calls_of_a_resumed_run(history: Any) -> None:
    """In a resumed run, too, a call that waits for another one has the tags of its own place."""
    gate = threading.Event()
    broken = [True]

    @task
    def first() -> int:
        if broken:
            raise ConnectionError
        gate.wait(30)
        return 1

    @task
    def second(x: int) -> Any:
        return runtime.task_run.tags

    @flow
    def f() -> Any:
        future = first.submit()
        if broken:
            future.result()
        with tags("x"):
            found = second.submit(future)
        gate.set()
        return found.result()

    run = run_id(f(return_state=True))
    broken.clear()
    assert resume_run(run, flow=f) == ["x"]
    assert recorded(history, "second") == [["x"]]


@pytest.mark.parametrize("go_on", [resume_run, fork_run])
def test_E147_a_run_that_goes_on_keeps_its_tags(go_on: Callable[..., Any], history: Any) -> None:
    """A run that is resumed or forked outside the block has the tags that it began with, and so have its new tasks."""
    broken = [True]

    @flow
    def f() -> Any:
        if broken:
            raise ConnectionError
        return [runtime.flow_run.tags, tagged()]

    with tags("a"):
        run = run_id(f(return_state=True))
    broken.clear()
    with tags("later"):
        found, of_task = go_on(run, flow=f)
    assert "a" in found
    assert of_task == found
    assert recorded(history) == [of_task]


def test_E147_retried_flows_keep_the_tags(history: Any) -> None:
    """Attempts of a flow, and tasks in each of them, have the same tags."""
    left = [ValueError("boom")]

    @flow(retries=1)
    def f() -> Any:
        found = [runtime.flow_run.tags, tagged.with_options(name=f"number {len(left)}")()]
        if left:
            raise left.pop()
        return found

    with tags("a"):
        assert f() == [["a"], ["a"]]
    assert all(run.get("tags") == ["a"] for run in history.data("task_run.created"))


def test_E147_a_run_without_tags_records_none(history: Any) -> None:
    """There is nothing about tags in its events."""

    @flow
    def f() -> Any:
        return tagged()

    f()
    [created] = history.data("flow_run.created")
    [run] = history.task_runs("tagged")
    assert created.get("tags", []) == run.get("tags", []) == []


def test_E147_odd_tags_are_taken_as_they_are(history: Any) -> None:
    """Blanks, commas, letters of any kind, and the empty tag."""
    odd = ["", " a ", "a,b", "☃", "A"]

    @flow
    def f() -> Any:
        return runtime.flow_run.tags

    with tags(*odd):
        assert f() == sorted(odd)
    assert history.data("flow_run.created")[0]["tags"] == sorted(odd)


def test_E147_the_names_are_where_users_look_for_them() -> None:
    """`flightlog.tags` and `flightlog.context.tags` are one, and so is `get_run_context`."""
    from flightlog import context

    assert flightlog.tags is context.tags
    assert flightlog.get_run_context is context.get_run_context


def test_E24_a_function_that_names_task_runs_can_ask_for_their_facts(history: Any) -> None:
    """As for flows: its task, its parameters and its flow run; of runs that have ended by then it sees the values."""
    seen: list[Any] = []

    def name() -> str:
        seen.append(get_run_context())
        facts = runtime.task_run
        return f"{runtime.flow_run.flow_name}-{facts.task_name}-with-{facts.parameters['x']}-{sorted(facts.tags)}"

    @task(task_run_name=name, tags=["a"])
    def t(x: Any) -> Any:
        return x

    @task(task_run_name="no. {x}")
    def u(x: Any) -> Any:
        return x

    @flow(name="f")
    def f() -> Any:
        anyt: Any = t
        future = anyt.submit(1)
        future.wait()
        return [anyt(future), u([future, u(2, return_state=True)])]

    f()
    names = [run["name"] for run in history.data("task_run.created")]
    assert names == ["f-t-with-1-['a']", "f-t-with-1-['a']", "no. 2", "no. [1, 2]"]
    assert [context.task_run.run_count for context in seen] == [1, 1]


def test_E24_a_function_that_names_task_runs_calls_nothing(history: Any) -> None:
    """It is no part of the flow: a task that is called in it is called outside, and the flow fails."""

    @task
    def inner() -> int:
        return 1

    @task(task_run_name=lambda: str(inner()))
    def t() -> None:
        pass

    @flow
    def f() -> None:
        t()

    with pytest.raises(MissingContextError):
        f()
    assert history.data("task_run.created") == []
