"""The tags of task runs that are on record already: of a run that is resumed, retried, forked."""

import threading
import time

import pytest
from tests.engine.conftest import History, lose_run

from flightlog import flow, resume_run, tags, task
from flightlog.concurrency import set_limit
from flightlog.engine.resuming import fork_run
from flightlog.engine.runtime import Engine
from flightlog.runtime import task_run
from flightlog.task_runners import ConcurrentTaskRunner


class Gauge:
    """Tells how many were inside at the same time, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


def test_E141_a_tag_limit_holds_in_a_run_that_is_resumed(engine: Engine, history: History) -> None:
    """Mapped runs that are on record run again one at a time; so do they in a flow's own retry."""
    set_limit("tag:db", 1)
    gauge, broken = Gauge(), [True]

    @task(tags=["db"])
    def t(x: int) -> int:
        if broken:
            raise ConnectionError("no database")
        with gauge:
            time.sleep(0.02)
        return x

    @flow
    def f() -> int:
        return sum(t.map([1, 2, 3, 4]).result())

    assert f(return_state=True).is_failed()
    broken.clear()
    assert resume_run(history.flow_runs("f")[0], flow=f) == 10
    assert gauge.most == 1
    assert len(history.data("slots.acquired")) == 8
    assert len(history.task_runs("t")) == 4


@pytest.mark.parametrize("how", ["resumed", "retried", "forked"])
def test_E147_a_run_that_runs_again_has_the_tags_of_a_new_one(how: str, history: History) -> None:
    """The task's, the flow run's, and those that hold at the call: in the run's context, and on record."""
    seen: list[list[str]] = []
    broken = [True]

    @task(tags=["own"])
    def whole() -> list[str]:
        return list(task_run.tags)

    @task(tags=["own"])
    def shaky() -> None:
        seen.append(task_run.tags)
        if broken:
            if how == "retried":
                broken.clear()
            raise ConnectionError

    @flow(retries=1 if how == "retried" else 0)
    def f() -> list[str]:
        with tags("inner"):
            found: list[str] = whole()
            shaky()
        return found

    with tags("outer"):
        state = f(return_state=True)
    (run,) = history.flow_runs("f")
    broken.clear()
    if how == "resumed":
        resume_run(run, flow=f)
    elif how == "forked":
        with tags("outer"):
            fork_run(run, flow=f)
    else:
        assert state.is_completed()
    expected = ["inner", "outer", "own"]
    assert seen == [expected, expected]
    assert [created["tags"] for created in history.data("task_run.created")] == [expected] * (
        4 if how == "forked" else 2
    )
    assert not [data for data in history.data("task_run.scheduled") if "tags" in data]


def test_a_run_that_runs_again_with_other_tags_says_so(history: History) -> None:
    """The code has changed meanwhile: the new tags count, and stand in the event that it runs again."""
    seen: list[list[str]] = []

    @task
    def t(x: int) -> None:
        seen.append(task_run.tags)
        if len(seen) < 3:
            raise ConnectionError

    @flow
    def f() -> None:
        t.with_options(tags=["first"] if not seen else ["second"])(1)

    f(return_state=True)
    run = history.flow_runs("f")[0]
    resume_run(run, flow=f, return_state=True)
    resume_run(run, flow=f)
    assert seen == [["first"], ["second"], ["second"]]
    assert [data.get("tags") for data in history.data("task_run.scheduled")] == [["second"], None]


def test_tags_are_those_of_the_submission_whoever_runs_it(engine: Engine, history: History) -> None:
    """A thread that waits for a future, and runs it itself, does so in the context in which it was submitted."""
    seen: list[list[str]] = []
    lose = [True]

    @task
    def inner() -> None:
        seen.append(task_run.tags)

    @task
    def outer() -> None:
        with tags("submitted"):
            future = inner.submit()
        if lose:
            lose_run(engine)
        with tags("waiting"):
            future.result()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> None:
        outer.submit().result()

    with pytest.raises(BaseException, match="taken over"):
        f()
    lose.clear()
    seen.clear()
    resume_run(history.flow_runs("f")[0], flow=f)
    assert seen == [["submitted"]]
