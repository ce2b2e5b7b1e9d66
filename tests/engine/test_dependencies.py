# mypy: disable-error-code="untyped-decorator"

"""Dependencies: futures and states in arguments, runs that cannot start, and what the log knows of inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

import flightlog
from flightlog import allow_failure, quote
from flightlog.engine.futures import Future
from flightlog.errors import UpstreamTaskError
from flightlog.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

flow: Callable[..., Any] = flightlog.flow
task: Callable[..., Any] = flightlog.task


@task
def give(x: Any) -> Any:
    """Return what it is given."""
    return x


@task
def take(x: Any) -> Any:
    """Return what it is given, in a list."""
    return [x]


@task
def broken(*_: Any) -> Any:
    """Fail."""
    raise ValueError("boom")


@dataclass
class Box:
    """A dataclass."""

    content: Any
    more: list[Any] = field(default_factory=list)


class Model(BaseModel):
    """A pydantic model."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    content: Any
    more: list[Any] = []


def inputs_of(history: Any, run: dict[str, Any]) -> dict[str, list[str]]:
    """Return a task run's inputs with the names of the runs."""
    names = {data["task_run_id"]: data["name"] for data in history.data("task_run.created")}
    return {key: [names[ref] for ref in refs] for key, refs in (run.get("inputs") or {}).items()}


def name_of(history: Any, task_name: str, n: int = 0) -> str:
    """Return the name of a task's n-th run."""
    return str(history.task_runs(task_name)[n]["name"])


@pytest.mark.parametrize("runner", [ConcurrentTaskRunner, SequentialTaskRunner])
def test_E63_futures_and_states_become_their_values(runner: Any) -> None:
    """A future or state as an argument is awaited and replaced by its data, for calls and submits."""

    @flow(task_runner=runner)
    def f() -> Any:
        future = give.submit(1)
        state = give(2, return_state=True)
        return take(future), take(state), take.submit(future).result(), take.submit(x=state).result()

    assert f() == ([1], [2], [1], [2])


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda x: [x, 0], lambda y: y[0]),
        (lambda x: (0, x), lambda y: y[1]),
        (lambda x: {x}, lambda y: next(iter(y))),
        (lambda x: {"a": x}, lambda y: y["a"]),
        (lambda x: {x: "a"}, lambda y: next(iter(y))),
        (lambda x: {"a": [({"b": x},)]}, lambda y: y["a"][0][0]["b"]),
        (lambda x: Box(x), lambda y: y.content),
        (lambda x: Box(0, [x]), lambda y: y.more[0]),
        (lambda x: Model(content=x), lambda y: y.content),
        (lambda x: Model(content=0, more=[x]), lambda y: y.more[0]),
        (lambda x: [Box([Model(content=(x,))])], lambda y: y[0].content[0].content[0]),
    ],
)
@pytest.mark.parametrize("what", ["future", "state"])
def test_E63_futures_in_nested_containers_are_replaced_in_a_copy(wrap: Any, unwrap: Any, what: str) -> None:
    """Futures and states anywhere in containers are replaced in a copy; the caller's stay as they are."""

    @flow
    def f() -> Any:
        inner: Any = give.submit("value")
        if what == "state":
            inner = inner.wait()
        given = wrap(inner)
        [received] = take.submit(given).result()
        assert unwrap(received) == "value"
        assert type(received) is type(given)
        assert unwrap(given) is inner
        return 1

    assert f() == 1


def test_E63_subclasses_of_containers_keep_their_type() -> None:
    """Subclasses of containers keep their type when they hold futures."""
    from collections import OrderedDict, namedtuple

    pair = namedtuple("pair", "a b")

    @flow
    def f() -> Any:
        future = give.submit(1)
        [ordered] = take(OrderedDict(a=future))
        [named] = take(pair(future, 2))
        assert ordered == OrderedDict(a=1)
        assert tuple(named) == (1, 2)
        assert named.a == 1
        return 1

    f()


def test_E63_collecting_parameters_are_resolved() -> None:
    """Futures among `*args` and `**kwargs` are resolved."""

    @task
    def t(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    @flow
    def f() -> Any:
        future = give.submit(1)
        return [t(future, 2, a=future)]

    assert f() == [((1, 2), {"a": 1})]


def test_E64_a_task_whose_upstream_failed_does_not_run(history: Any) -> None:
    """It is NotReady with a message that names the upstream run, which is not final."""
    calls: list[Any] = []

    @task
    def after(x: Any) -> None:
        calls.append(x)

    states: list[Any] = []

    @flow
    def f() -> int:
        states.append(after.submit(broken.submit()).wait())
        return 1

    f()
    [state] = states
    assert calls == []
    assert (state.name, state.type, state.is_final()) == ("NotReady", "PENDING", False)
    assert history.states("after") == [["Pending", "NotReady"]]
    upstream = history.task_runs("broken")[0]["task_run_id"].hex()
    assert state.message.replace("-", "") == f"Upstream task run '{upstream}' did not reach a 'COMPLETED' state."


def test_E64_wait_for_blocks_as_arguments_do(history: Any) -> None:
    """A failed run in `wait_for` keeps the task from running."""

    @flow
    def f() -> int:
        bad = broken.submit()
        good = give.submit(1)
        assert give.submit(2, wait_for=[bad]).wait().name == "NotReady"
        assert give.submit(2, wait_for=[good]).wait().name == "Completed"
        assert give(3, wait_for=[bad.wait()], return_state=True).name == "NotReady"
        return 1

    f()


def test_E64_not_ready_states_of_a_flow_that_returns_none_count() -> None:
    """NotReady runs are not completed, so the flow fails; the call raises the first failure."""

    @flow
    def f() -> None:
        take.submit(broken.submit())

    state = f(return_state=True)
    assert state.is_failed()
    assert state.message == "1/2 states failed."
    with pytest.raises(ValueError, match="boom"):
        f()


def test_E64_not_ready_is_passed_on(history: Any) -> None:
    """What depends on a NotReady run is NotReady as well."""

    @flow
    def f() -> int:
        last = take.submit(take.submit(broken.submit()))
        assert last.wait().name == "NotReady"
        return 1

    f()
    assert history.states("take") == [["Pending", "NotReady"]] * 2


def test_E64_a_direct_call_whose_upstream_failed_raises() -> None:
    """A direct call that cannot run has no value, so it raises."""

    @flow
    def f() -> int:
        state = broken(return_state=True)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            take(state)
        assert not isinstance(caught.value, ValueError)
        return 1

    f()


def test_E64_no_finished_line_is_logged_for_not_ready(capfd: Any) -> None:
    """A run that is NotReady has not finished."""

    @flow
    def f() -> int:
        take.submit(broken.submit())
        return 1

    f()
    text = capfd.readouterr().err
    assert "Finished in state NotReady" not in text


def test_E65_allow_failure_delivers_the_exception() -> None:
    """Round a future, a state or a collection, `allow_failure` delivers a failed run's exception object."""

    @flow
    def f() -> int:
        future = broken.submit()
        error = future.wait().data
        assert isinstance(error, ValueError)
        assert take(allow_failure(future)) == [error]
        assert take(allow_failure(future.wait())) == [error]
        assert take(allow_failure([give.submit(1), future])) == [[1, error]]
        assert take.submit([allow_failure(future), 5]).result() == [[error, 5]]
        return 1

    f()


def test_E65_allow_failure_in_wait_for_and_map() -> None:
    """`allow_failure` works in `wait_for` and for `map`, too."""

    @flow
    def f() -> int:
        future = broken.submit()
        error = future.wait().data
        assert give(1, wait_for=[allow_failure(future)]) == 1
        futures = take.map(allow_failure([future, give.submit(2)]))
        assert [child.result() for child in futures] == [[error], [2]]
        return 1

    f()


def test_E65_allow_failure_of_something_good_changes_nothing() -> None:
    """The mark is taken off values and completed runs."""

    @flow
    def f() -> Any:
        return [take(allow_failure(give.submit(1))), take(allow_failure(5))]

    assert f() == [[1], [5]]


def test_E65_allow_failure_does_not_allow_crashes() -> None:
    """A crashed upstream still blocks."""

    @task
    def crash() -> None:
        raise KeyboardInterrupt

    seen: list[Any] = []

    @flow
    def f() -> int:
        future = crash.submit()
        state = take(allow_failure(future), return_state=True)
        seen.append(state.name)
        return 1

    f()
    assert seen == ["NotReady"]


def test_E66_a_quoted_future_arrives_as_a_future() -> None:
    """`quote(x)` gives the task x itself."""

    @flow
    def f() -> int:
        future = give.submit(1)
        box = [future]
        [received] = take(quote(future))
        assert received is future
        assert isinstance(received, Future)
        [received] = take(quote(box))
        assert received is box
        return 1

    f()


def test_E66_a_quoted_failure_does_not_block_and_is_not_tracked(history: Any) -> None:
    """What is quoted is no dependency."""

    @flow
    def f() -> int:
        bad = broken.submit()
        assert take(quote(bad), return_state=True).is_completed()
        return 1

    f()
    assert inputs_of(history, history.task_runs("take")[0]).get("x", []) == []


def test_E66_a_flow_that_returns_a_quoted_state_does_not_adopt_it() -> None:
    """A quoted failed state is a value: the flow is Completed."""

    @flow
    def f() -> Any:
        return quote(broken(return_state=True))

    assert f(return_state=True).is_completed()


def test_E68_inputs_are_recorded_by_parameter(history: Any) -> None:
    """The created event refers to the runs of futures and states, per parameter, and for `wait_for`."""

    @task
    def t(a: Any, b: Any, c: Any) -> None:
        pass

    @flow
    def f() -> None:
        first = give.submit("a")
        second = give.submit("b", return_state=True)
        third = take.submit("c")
        t.submit(first, [{"x": second}], 5, wait_for=[third])

    f()
    inputs = inputs_of(history, history.task_runs("t")[0])
    assert {key: refs for key, refs in inputs.items() if refs} == {
        "a": [name_of(history, "give", 0)],
        "b": [name_of(history, "give", 1)],
        "wait_for": [name_of(history, "take")],
    }


def test_E68_results_are_tracked_by_identity(history: Any) -> None:
    """A plain result that is passed on refers to the run that made it."""

    @flow
    def f() -> None:
        take(give(["x"]))
        take(give.submit(["y"]).result())

    f()
    first, second = history.task_runs("take")
    assert inputs_of(history, first)["x"] == [name_of(history, "give", 0)]
    assert inputs_of(history, second)["x"] == [name_of(history, "give", 1)]


def test_E68_elements_of_a_result_are_tracked_one_level_deep(history: Any) -> None:
    """Unpacking a tuple keeps the link, going deeper does not."""

    @task
    def pair() -> Any:
        return ["left"], [["deep"]]

    @flow
    def f() -> None:
        left, right = pair()
        take(left)
        take(right[0])

    f()
    first, second = history.task_runs("take")
    assert inputs_of(history, first)["x"] == [name_of(history, "pair")]
    assert inputs_of(history, second).get("x", []) == []


@pytest.mark.parametrize("value", [True, False, None, ..., NotImplemented, 0, -5, 256])
def test_E69_shared_objects_are_not_tracked(value: Any, history: Any) -> None:
    """Objects of which Python has only one are no evidence of where they came from."""

    @flow
    def f() -> int:
        take(give(value))
        return 1

    f()
    assert inputs_of(history, history.task_runs("take")[0]).get("x", []) == []


def test_E69_other_numbers_are_tracked(history: Any) -> None:
    """A big number is an object of its own."""

    @task
    def big() -> int:
        return 12345 * 67891

    @flow
    def f() -> int:
        take(big())
        return 1

    f()
    assert inputs_of(history, history.task_runs("take")[0])["x"] == [name_of(history, "big")]


def test_E70_transformed_results_lose_the_link(history: Any) -> None:
    """What plain Python makes of a result is not the result."""

    @flow
    def f() -> None:
        take(len(give(["x"])) * 12345)

    f()
    assert inputs_of(history, history.task_runs("take")[0]).get("x", []) == []


def test_E70_ordinary_values_in_wait_for_neither_block_nor_fail() -> None:
    """`wait_for` takes anything."""

    @flow
    def f() -> Any:
        return [give(1, wait_for=[5, "a", None]), give.submit(2, wait_for=["b"]).result()]

    assert f() == [1, 2]


def test_E71_nested_task_runs_name_their_parent(history: Any) -> None:
    """A task run made in a task refers to it as its parent."""

    @task
    def outer() -> Any:
        return give(1)

    @flow
    def f() -> None:
        outer.submit()

    f()
    [parent] = history.task_runs("outer")
    [child] = history.task_runs("give")
    assert child["parent"] == parent["task_run_id"]
    assert parent.get("parent") is None


def test_E63_a_failed_dependency_deep_in_an_argument_blocks(history: Any) -> None:
    """A failed future inside a dataclass in a list keeps the task from running."""

    @flow
    def f() -> int:
        assert take.submit([Box(more=[broken.submit()], content=1)]).wait().name == "NotReady"
        return 1

    f()


def test_E42_a_subflow_with_a_failed_upstream_raises() -> None:
    """A failed run given to a subflow raises UpstreamTaskError in the parent."""

    @flow
    def child(x: Any) -> None:
        pass

    @flow
    def f() -> None:
        child(broken.submit())

    state = f(return_state=True)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), UpstreamTaskError)


@dataclass
class Node:
    """A dataclass whose objects refer to each other."""

    parent: Any = None
    children: list[Any] = field(default_factory=list)


@pytest.mark.parametrize("kind", ["list", "dict", "dataclass"])
@pytest.mark.parametrize("how", ["call", "submit"])
def test_E63_cyclic_arguments_are_passed_on(kind: str, how: str) -> None:
    """An argument that contains itself reaches the task, as it does without the decorator."""
    cyclic: Any
    if kind == "list":
        cyclic = []
        cyclic.append(cyclic)
    elif kind == "dict":
        cyclic = {}
        cyclic["me"] = cyclic
    else:
        cyclic = Node()
        cyclic.children.append(Node(parent=cyclic))

    @task
    def t(x: Any) -> int:
        return 1 if x is cyclic else 2

    @flow
    def f() -> Any:
        return t(cyclic) if how == "call" else t.submit(cyclic).result()

    assert f() == 1


def test_E63_deeply_nested_arguments_are_passed_on() -> None:
    """An argument that is nested deeper than Python's stack reaches the task."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]

    @task
    def t(x: Any) -> int:
        return len(x)

    @flow
    def f() -> Any:
        return t(deep)

    assert f() == 1
