"""Code of a run that has ended, but goes on: it may start nothing more."""

import threading
from typing import Any

from flightlog import flow, task


def test_E37_code_of_a_timed_out_attempt_does_not_go_on_in_the_next(history: Any) -> None:
    """A sync attempt that timed out is left to itself, and cannot run tasks in the name of the next attempt."""
    go, ended = threading.Event(), threading.Event()
    attempts: list[int] = []

    @task
    def step(n: int) -> int:
        return n

    @flow(timeout_seconds=0.2, retries=1)
    def slow_once() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            try:
                go.wait(20)
                return step(666)
            finally:
                ended.set()
        go.set()
        ended.wait(20)
        return step(1)

    assert slow_once() == 1
    assert len(history.task_runs("step")) == 1


def test_E62_code_of_a_timed_out_task_can_run_no_task(history: Any) -> None:
    """A sync task that timed out cannot call other tasks any more."""
    go, ended = threading.Event(), threading.Event()

    @task
    def inner() -> int:
        return 1

    @task(timeout_seconds=0.05)
    def outer() -> int:
        try:
            go.wait(20)
            return inner()
        finally:
            ended.set()

    @flow
    def f() -> bool:
        state = outer(return_state=True)
        go.set()
        ended.wait(20)
        return state.name == "TimedOut"

    assert f() is True
    assert history.task_runs("inner") == []
