"""What users test their flows with: a harness, a fixture, a clock that nobody waits for, and silent loggers."""

import time
from datetime import timedelta

import pytest

from flightlog import flow, get_run_logger, task
from flightlog.cache_policies import INPUTS
from flightlog.errors import MissingContextError
from flightlog.testing import FlowTest, VirtualClock, disable_run_logger, flightlog_test_harness


@task(retries=3, retry_delay_seconds=[60, 3600, 86400])
def patient() -> str:
    """Succeed at the fourth attempt."""
    from flightlog.runtime import task_run

    if task_run.run_count < 4:
        raise ConnectionError("not yet")
    return "done"


@flow
def waits() -> str:
    """Wait for more than a day."""
    get_run_logger().info("begun")
    return patient()


def test_E157_a_harness_takes_no_time_and_leaves_nothing() -> None:
    """Retries and delays of a day pass at once; states, events and log lines can be looked at."""
    with flightlog_test_harness() as test:
        before = test.clock.now()
        assert waits() == "done"
        assert test.clock.now() - before >= timedelta(seconds=60 + 3600 + 86400) / timedelta(microseconds=1)
        assert test.states("patient") == [
            ["Pending", "Running", *["AwaitingRetry", "Retrying"] * 3, "Completed"],
        ]
        assert test.states("waits") == [["Pending", "Running", "Completed"]]
        assert test.log_lines() == ["begun"]
        assert [event.type for event in test.events("flow_run.completed")] == ["flow_run.completed"]
        assert test.data("flow_run.created")[0]["flow"] == "waits"
    with flightlog_test_harness() as another:
        assert not another.events()


def test_the_fixture_is_there_without_an_import(flightlog_test: FlowTest) -> None:
    """`flightlog_test` comes with the installed package."""
    assert waits() == "done"
    assert len(flightlog_test.states("patient")) == 1
    assert isinstance(flightlog_test.clock, VirtualClock)
    flightlog_test.clock.advance(10)


def test_expirations_follow_the_clock(flightlog_test: FlowTest) -> None:
    """What expires after an hour has expired when the clock says so."""
    calls = []

    @task(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
    def cached(x: int) -> int:
        calls.append(x)
        return x

    @flow
    def f() -> None:
        cached(1)
        flightlog_test.clock.sleep(3000)
        cached(1)
        flightlog_test.clock.sleep(3000)
        cached(1)

    f()
    assert calls == [1, 1]


def test_E139_a_tasks_function_can_be_tested_with_a_silent_logger() -> None:
    """`disable_run_logger` lets `task.fn` use `get_run_logger`; outside of it that is an error."""

    @task
    def logs(x: int) -> int:
        get_run_logger().info("never seen")
        return x

    with disable_run_logger():
        assert logs.fn(3) == 3
    with pytest.raises(MissingContextError):
        logs.fn(3)


def test_the_machines_clock_can_be_had() -> None:
    """For what really has to wait."""
    from flightlog.clock import SystemClock

    with flightlog_test_harness(SystemClock()) as test:
        assert abs(test.clock.now() / 1e6 - time.time()) < 60
