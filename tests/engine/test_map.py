# mypy: disable-error-code="untyped-decorator"

"""Mapping: one call per item."""

import io
from collections.abc import Callable
from typing import Any

import pytest

import flightlog
from flightlog import allow_failure, unmapped
from flightlog.errors import MappingLengthMismatch, MappingMissingIterable
from flightlog.task_runners import SequentialTaskRunner

flow: Callable[..., Any] = flightlog.flow
task: Callable[..., Any] = flightlog.task


@task
def give(x: Any) -> Any:
    """Return what it is given."""
    return x


@task
def pair(x: Any, y: Any = "default") -> Any:
    """Return both."""
    return x, y


@task
def fail_on_two(x: int) -> int:
    """Fail for 2."""
    if x == 2:
        raise ValueError("two")
    return x


def mapped(*args: Any, **kwargs: Any) -> Any:
    """Return the values of a map of `pair` in a flow."""

    @flow
    def f() -> Any:
        return {"values": [future.result() for future in pair.map(*args, **kwargs)]}

    return f()["values"]


def test_E72_lists_are_split() -> None:
    """Each child gets one item of each iterable."""
    assert mapped([1, 2], ["a", "b"]) == [(1, "a"), (2, "b")]


def test_E72_a_future_of_a_list_is_split_and_linked(history: Any) -> None:
    """A future among the arguments is resolved; all children link to it."""

    @task
    def numbers() -> list[int]:
        return [1000, 2000, 3000]

    @flow
    def f() -> Any:
        return [future.result() for future in give.map(numbers.submit())]

    assert f() == [1000, 2000, 3000]
    upstream = history.task_runs("numbers")[0]["task_run_id"]
    assert [run["inputs"]["x"] for run in history.task_runs("give")] == [[upstream]] * 3


def test_E72_a_list_of_futures_links_each_child_to_its_own(history: Any) -> None:
    """`map([f1, f2])` links each child only to its own upstream."""

    @flow
    def f() -> Any:
        return [future.result() for future in pair.map([give.submit(1), give.submit(2)], 5)]

    assert f() == [(1, 5), (2, 5)]
    upstream = [run["task_run_id"] for run in history.task_runs("give")]
    assert [run["inputs"]["x"] for run in history.task_runs("pair")] == [[ref] for ref in upstream]


def test_E72_nested_futures_are_resolved_in_each_child() -> None:
    """Futures deeper inside the items become values."""

    @flow
    def f() -> Any:
        return [future.result() for future in give.map([{"a": give.submit(1)}, [give.submit(2)]])]

    assert f() == [{"a": 1}, [2]]


def test_E72_wait_for_applies_to_every_child(history: Any) -> None:
    """Each child waits for what is in `wait_for`."""

    @flow
    def f() -> int:
        bad = fail_on_two.submit(2)
        assert {child.wait().name for child in give.map([1, 2], wait_for=[bad])} == {"NotReady"}
        return 1

    f()


@pytest.mark.parametrize("static", ["ab", b"ab", 5, None, io.StringIO("ab")])
def test_E73_strings_and_scalars_are_static(static: Any) -> None:
    """Strings, bytes, files and what is not iterable go to every child whole."""
    assert mapped([1, 2], static) == [(1, static), (2, static)]


def test_E73_dicts_iterate_keys() -> None:
    """A dict is split into its keys."""
    assert mapped({"a": 1, "b": 2}, 0) == [("a", 0), ("b", 0)]


def test_E73_generators_sets_and_ranges_are_consumed() -> None:
    """Any iterable is split, generators too."""
    assert mapped((x for x in [1, 2]), range(2)) == [(1, 0), (2, 1)]
    assert sorted(mapped({3, 4}, 0)) == [(3, 0), (4, 0)]


def test_E73_unmapped_is_static() -> None:
    """`unmapped(x)` goes to every child whole."""
    assert mapped([1, 2], unmapped([7, 8, 9])) == [(1, [7, 8, 9]), (2, [7, 8, 9])]


def test_E73_an_unmapped_future_is_resolved() -> None:
    """A future in `unmapped` is resolved for each child."""

    @flow
    def f() -> Any:
        return [child.result() for child in pair.map([1, 2], unmapped(give.submit([3])))]

    assert f() == [(1, [3]), (2, [3])]


def test_E73_defaults_are_static() -> None:
    """A default is not split, even if it is iterable."""

    @task
    def t(x: int, y: Any = (1, 2, 3)) -> Any:
        return x, y

    @flow
    def f() -> Any:
        return [child.result() for child in t.map([1, 2])]

    assert f() == [(1, (1, 2, 3)), (2, (1, 2, 3))]


def test_E73_collected_keywords_are_split() -> None:
    """Iterables among `**kwargs` are split."""

    @task
    def t(x: int, **more: Any) -> Any:
        return x, more

    @flow
    def f() -> Any:
        return [child.result() for child in t.map([1, 2], a=[3, 4], b=5)]

    assert f() == [(1, {"a": 3, "b": 5}), (2, {"a": 4, "b": 5})]


def test_E74_different_lengths_are_refused(history: Any) -> None:
    """Iterables of different lengths raise inside the flow, with the lengths per parameter."""

    @flow
    def f() -> None:
        pair.map([1, 2], [1, 2, 3])

    state = f(return_state=True)
    error = state.result(raise_on_failure=False)
    assert isinstance(error, MappingLengthMismatch)
    assert "x" in str(error)
    assert "2" in str(error)
    assert "y" in str(error)
    assert "3" in str(error)
    assert history.task_runs("pair") == []


def test_E74_no_iterable_is_refused() -> None:
    """Without an iterable argument `map` raises."""

    @flow
    def f() -> None:
        pair.map(1, unmapped([2]))

    with pytest.raises(MappingMissingIterable):
        f()


def test_E74_an_empty_iterable_gives_an_empty_list(history: Any) -> None:
    """Mapping over nothing makes no runs."""

    @flow
    def f() -> int:
        assert pair.map([], 5) == []
        return 1

    f()
    assert history.task_runs("pair") == []


def test_E75_one_failing_child_does_not_stop_the_others() -> None:
    """Downstream maps mark only the matching children NotReady."""

    @flow
    def f() -> int:
        first = fail_on_two.map([1, 2, 3])
        second = give.map(first)
        assert [child.wait().name for child in first] == ["Completed", "Failed", "Completed"]
        assert [child.wait().name for child in second] == ["Completed", "NotReady", "Completed"]
        return 1

    f()


def test_E75_the_sequential_runner_keeps_the_order() -> None:
    """With the sequential runner children run in order."""
    order: list[int] = []

    @task
    def t(x: int) -> None:
        order.append(x)

    @flow(task_runner=SequentialTaskRunner())
    def f() -> None:
        t.map(range(20))

    f()
    assert order == list(range(20))


def test_E65_allow_failure_in_map_delivers_exceptions() -> None:
    """`map(allow_failure(futures))` runs all children."""

    @flow
    def f() -> Any:
        values = [child.result() for child in give.map(allow_failure(fail_on_two.map([1, 2])))]
        return {"types": [type(value).__name__ for value in values]}

    assert f() == {"types": ["int", "ValueError"]}


def test_E74_a_failed_future_as_the_iterable_cannot_be_split() -> None:
    """When the iterable itself failed, its failure comes out."""

    @flow
    def f() -> None:
        give.map(fail_on_two.submit(2))

    assert f(return_state=True).is_failed()


def test_E72_a_large_map_keeps_the_order() -> None:
    """The futures of a thousand children are in the order of the items."""

    @flow
    def f() -> Any:
        return {"v": [child.result() for child in give.map(range(1000))]}

    assert f() == {"v": list(range(1000))}
