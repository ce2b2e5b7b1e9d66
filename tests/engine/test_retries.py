"""Retries of tasks and flows, and what a retried flow uses again."""

import asyncio
from typing import Any

import pytest

from flightlog import flow, get_run_context, task
from flightlog.engine.context import TaskRunContext
from flightlog.states import Failed


class Flaky:
    """Fails a number of times, then returns the count of calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise ValueError(f"failure {self.calls}")
        return self.calls


def test_E55_the_states_of_a_task_that_is_retried(history: Any) -> None:
    """Each retry is AwaitingRetry and Retrying on the same run; the value is the last attempt's."""
    flaky = Flaky(2)

    @task(retries=3)
    def t() -> int:
        return flaky()

    @flow
    def f() -> int:
        return t()

    assert f() == 3
    assert history.states("t") == [
        ["Pending", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Completed"]
    ]


def test_E55_exhausted_retries_end_failed(history: Any) -> None:
    """After n+1 attempts the run is Failed with the last failure (E61)."""
    flaky = Flaky(99)

    @task(retries=2)
    def t() -> int:
        return flaky()

    @flow
    def f() -> None:
        t.submit()

    with pytest.raises(ValueError, match="failure 3"):
        f()
    assert flaky.calls == 3
    [states] = history.states("t")
    assert states == ["Pending", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Failed"]


def test_E55_run_count_is_visible_in_the_task() -> None:
    """`run_count` is 1, 2, 3 ... in the attempts."""
    seen: list[int] = []

    @task(retries=2)
    def t() -> None:
        context: Any = get_run_context()
        assert isinstance(context, TaskRunContext)
        seen.append(context.task_run.run_count)
        raise ValueError

    @flow
    def f() -> int:
        t.submit()
        return 1

    f()
    assert seen == [1, 2, 3]


def test_E55_async_tasks_are_retried(history: Any) -> None:
    """Retries work for async tasks, too."""
    flaky = Flaky(1)

    @task(retries=1)
    async def t() -> int:
        await asyncio.sleep(0)
        return flaky()

    @flow
    async def f() -> int:
        return await t()

    assert asyncio.run(f()) == 2
    assert history.states("t") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]]


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        (10, [10, 10, 10]),
        (0.5, [0.5, 0.5, 0.5]),
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2], [1, 2, 2]),
        (lambda retries: [10 * 2**i for i in range(retries)], [10, 20, 40]),
    ],
)
def test_E56_delays_before_retries(delays: Any, expected: list[float], virtual_clock: Any) -> None:
    """A number goes for all retries, a list item by item with the last repeated, a function gives the list."""

    @task(retries=3, retry_delay_seconds=delays)
    def t() -> None:
        raise ValueError

    @flow
    def f() -> int:
        t(return_state=True)
        return 1

    f()
    assert virtual_clock.slept == pytest.approx(expected)


def test_E56_the_event_says_when_the_retry_is_due(virtual_clock: Any, history: Any) -> None:
    """The time of the next attempt is on the AwaitingRetry event, and it starts no earlier."""

    @task(retries=1, retry_delay_seconds=60)
    def t() -> None:
        raise ValueError

    @flow
    def f() -> int:
        t(return_state=True)
        return 1

    f()
    [waiting] = history.events("task_run.awaiting_retry")
    assert waiting.data["scheduled"] == waiting.occurred_at + 60_000_000
    again = history.events("task_run.running")[1]
    assert again.occurred_at >= waiting.data["scheduled"]


def test_E56_delays_are_checked_at_decoration() -> None:
    """More than 50 delays are a ValueError, other types a TypeError."""
    with pytest.raises(ValueError, match="50"):
        task(retries=60, retry_delay_seconds=[1.0] * 51)(lambda: 1)
    delays: Any = "soon"
    with pytest.raises(TypeError):
        task(retries=1, retry_delay_seconds=delays)(lambda: 1)


def test_E56_a_function_of_delays_is_called_at_declaration() -> None:
    """The function gets the number of retries, once, when the task is declared."""
    calls: list[int] = []

    def delays(retries: int) -> list[float]:
        calls.append(retries)
        return [0.0] * retries

    @task(name="t", retries=4, retry_delay_seconds=delays)
    def t() -> None:
        raise ValueError

    assert calls == [4]

    @flow
    def f() -> int:
        t(return_state=True)
        return 1

    f()
    assert calls == [4]


def test_E60_a_returned_failed_state_is_retried(history: Any) -> None:
    """A task that returns a Failed state is retried like one that raised."""
    calls: list[int] = []

    @task(retries=2)
    def t() -> Any:
        calls.append(1)
        return Failed(message="not yet") if len(calls) < 3 else "good"

    @flow
    def f() -> Any:
        return [t()]

    assert f() == ["good"]
    assert history.states("t") == [
        ["Pending", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Completed"]
    ]


def test_E34_a_flow_is_retried_in_the_same_run(virtual_clock: Any, history: Any) -> None:
    """Attempts share the flow run; between them it is AwaitingRetry for the delay."""
    flaky = Flaky(2)

    @flow(retries=2, retry_delay_seconds=30)
    def f() -> int:
        return flaky()

    assert f() == 3
    [run] = history.flow_runs("f")
    names = history.flow_states(run)
    assert names[:3] == ["Pending", "Running", "AwaitingRetry"]
    assert [event.type.partition(".")[2] for event in history.events()] == [
        "created",
        "running",
        "awaiting_retry",
        "running",
        "awaiting_retry",
        "running",
        "completed",
    ]
    assert "failure 1" in history.data("flow_run.awaiting_retry")[0]["message"]
    assert [data.get("attempt", 1) for data in history.data("flow_run.running")] == [1, 2, 3]
    assert virtual_clock.slept == pytest.approx([30, 30])


def test_E34_a_flow_that_always_fails_ends_failed(history: Any) -> None:
    """After n+1 executions the flow is Failed."""
    flaky = Flaky(99)

    @flow(retries=2)
    def f() -> int:
        return flaky()

    state = f(return_state=True)
    assert state.is_failed()
    assert flaky.calls == 3
    assert len(history.events("flow_run.failed")) == 1


def test_E34_failed_tasks_fail_and_retry_a_flow_that_returns_none() -> None:
    """A flow whose aggregate failed is retried as one that raised."""
    flaky = Flaky(1)

    @task
    def t() -> int:
        return flaky()

    @flow(retries=1)
    def f() -> None:
        t.submit()

    state = f(return_state=True)
    assert state.is_completed()
    assert flaky.calls == 2


def test_E35_completed_tasks_are_not_run_again(history: Any) -> None:
    """On a retry of the flow a completed task's result is used again; the failed one runs again."""
    flaky = Flaky(1)
    calls: list[int] = []

    @task
    def good(x: int) -> int:
        calls.append(x)
        return x * 1000

    @task
    def bad() -> int:
        return flaky()

    @flow(retries=1)
    def f() -> Any:
        return [good(1), good.submit(2).result(), bad()]

    assert f() == [1000, 2000, 2]
    assert calls == [1, 2]
    assert len(history.task_runs("good")) == 2


def test_E35_the_retries_of_tasks_start_anew() -> None:
    """Task retries=2 times flow retries=1 makes six executions."""
    flaky = Flaky(99)

    @task(retries=2)
    def t() -> int:
        return flaky()

    @flow(retries=1)
    def f() -> None:
        t()

    f(return_state=True)
    assert flaky.calls == 6


def test_E35_a_completed_subflow_is_not_run_again(history: Any) -> None:
    """A child flow that completed is used again, one that failed gets a new flow run."""
    flaky = Flaky(1)
    calls: list[int] = []

    @flow
    def good_child() -> int:
        calls.append(1)
        return 7

    @flow
    def bad_child() -> int:
        return flaky()

    @flow(retries=1)
    def f() -> Any:
        return [good_child(), bad_child()]

    assert f() == [7, 2]
    assert calls == [1]
    assert len(history.flow_runs("good-child")) == 1
    first, second = history.flow_runs("bad-child")
    assert history.flow_states(first) == ["Pending", "Running", "Failed"]
    assert history.flow_states(second) == ["Pending", "Running", "Completed"]


def test_E36_a_retry_that_branches_differently_gets_no_stale_value() -> None:
    """A recorded result is used again only if the inputs are the same (decision 6)."""
    attempts: list[int] = []

    @task
    def t(x: str) -> str:
        return x.upper()

    @flow(retries=1)
    def f() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            t("first")
            raise ValueError
        return t("second")

    assert f() == "SECOND"


def test_E36_the_same_call_at_the_same_place_is_used_again() -> None:
    """Calls with equal inputs at their place are not run again, new ones are."""
    attempts: list[int] = []
    calls: list[int] = []

    @task
    def t(x: int) -> int:
        calls.append(x)
        return x

    @flow(retries=1)
    def f() -> Any:
        attempts.append(1)
        values = [t(1), t(2)]
        if len(attempts) == 1:
            raise ValueError
        return values + [t(3)]

    assert f() == [1, 2, 3]
    assert calls == [1, 2, 3]


def test_E36_mutated_results_are_delivered_as_recorded() -> None:
    """What the first attempt did to a result in memory does not leak into the input check's answer."""
    attempts: list[int] = []

    @task
    def source() -> list[int]:
        return [1]

    @task
    def total(x: list[int]) -> int:
        return sum(x)

    @flow(retries=1)
    def f() -> int:
        attempts.append(1)
        numbers = source()
        if len(attempts) == 1:
            numbers.append(100)
            total(numbers)
            raise ValueError
        return total(numbers) - sum(numbers)

    assert f() == 0


def test_E35_a_mapped_flow_runs_only_the_failed_children_again() -> None:
    """Of a map only the children that failed run again."""
    calls: list[int] = []

    @task
    def t(x: int) -> int:
        calls.append(x)
        if x == 2 and calls.count(2) == 1:
            raise ValueError
        return x

    @flow(retries=1)
    def f() -> Any:
        return [child.result() for child in t.map([1, 2, 3])]

    assert f() == [1, 2, 3]
    assert sorted(calls) == [1, 2, 2, 3]


def test_E34_the_final_state_after_a_retry_counts_the_last_attempt_only() -> None:
    """A task that failed in the first attempt and is not called again does not fail the second."""
    attempts: list[int] = []

    @task
    def bad() -> None:
        raise ValueError

    @task
    def good() -> int:
        return 1

    @flow(retries=1)
    def f() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            bad()
        good()

    state = f(return_state=True)
    assert len(attempts) == 2
    assert state.is_completed()


def test_E39_an_interrupt_is_not_retried() -> None:
    """A crash uses no retries."""
    calls: list[int] = []

    @task(retries=3)
    def t() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    @flow(retries=3)
    def f() -> None:
        t()

    with pytest.raises(KeyboardInterrupt):
        f()
    assert calls == [1]


def test_E35_repeated_equal_calls_are_each_used_once() -> None:
    """Of several equal calls each result is used again for one call, and new calls run."""
    attempts: list[int] = []
    calls: list[int] = []

    @task
    def ticket() -> int:
        calls.append(1)
        return len(calls)

    @flow(retries=1)
    def f() -> Any:
        attempts.append(1)
        tickets = [ticket(), ticket()]
        if len(attempts) == 1:
            raise ValueError
        return tickets + [ticket()]

    assert f() == [1, 2, 3]


def test_E35_a_task_that_rests_on_one_that_ran_again_runs_again() -> None:
    """If an upstream gives another value in the retry, what rests on it runs with the new value."""
    attempts: list[int] = []

    @task
    def now() -> int:
        if len(attempts) == 1:
            raise ValueError
        return len(attempts)

    @task
    def double(x: int) -> int:
        return 2 * x

    @flow(retries=1)
    def f() -> Any:
        attempts.append(1)
        return [double.submit(now.submit()).result()]

    assert f() == [4]


def test_E35_arguments_that_have_no_pickle_run_again() -> None:
    """A call whose arguments cannot be told apart is not used again: it runs."""
    attempts: list[int] = []
    calls: list[int] = []

    @task
    def t(function: Any) -> Any:
        calls.append(1)
        return function()

    @flow(retries=1)
    def f() -> Any:
        attempts.append(1)
        number = len(attempts)
        value = t(lambda: number)
        if len(attempts) == 1:
            raise ValueError
        return value

    assert f() == 2
    assert len(calls) == 2


def test_E34_retries_of_a_subflow_stay_in_its_run(history: Any) -> None:
    """A subflow with retries has one flow run, and its parent sees only the end."""
    flaky = Flaky(1)

    @flow(retries=1)
    def child() -> int:
        return flaky()

    @flow
    def parent() -> Any:
        return [child()]

    assert parent() == [2]
    [run] = history.flow_runs("child")
    assert "AwaitingRetry" in history.flow_states(run)


def test_E34_an_async_flow_is_retried(virtual_clock: Any) -> None:
    """Retries and their delays work for async flows."""
    flaky = Flaky(2)

    @task
    async def t() -> int:
        await asyncio.sleep(0)
        return flaky()

    @flow(retries=2, retry_delay_seconds=7)
    async def f() -> int:
        return await t()

    assert asyncio.run(f()) == 3
    assert virtual_clock.slept == pytest.approx([7, 7])


def test_E56_async_tasks_wait_their_delays(virtual_clock: Any) -> None:
    """Delays go for async tasks, too."""
    flaky = Flaky(2)

    @task(retries=2, retry_delay_seconds=[1, 5])
    async def t() -> int:
        return flaky()

    @flow
    async def f() -> int:
        return await t.submit().result()

    assert asyncio.run(f()) == 3
    assert virtual_clock.slept == pytest.approx([1, 5])
