"""Task runners: how submitted tasks run."""

import signal
import threading
import time
from typing import Any

import pytest

from flightlog import flow, task
from flightlog.task_runners import ConcurrentTaskRunner, SequentialTaskRunner, TaskRunner, ThreadPoolTaskRunner


@task
def give(x: Any) -> Any:
    """Return what it is given."""
    return x


@pytest.mark.parametrize(
    ("runner", "name", "kind"),
    [
        (ConcurrentTaskRunner(), "concurrent", "CONCURRENT"),
        (SequentialTaskRunner(), "sequential", "SEQUENTIAL"),
    ],
)
def test_E104_runners_have_a_name_and_a_kind(runner: TaskRunner, name: str, kind: str) -> None:
    """A runner is named by its class without `taskrunner`, and says how it runs tasks."""
    assert runner.name == name
    assert runner.concurrency_type == kind


def test_E104_duplicate_gives_a_new_runner() -> None:
    """A duplicate is another object of the same kind with the same options."""
    runner = ConcurrentTaskRunner(max_workers=3)
    other = runner.duplicate()
    assert other is not runner
    assert type(other) is type(runner)
    assert SequentialTaskRunner().duplicate().name == "sequential"


@pytest.mark.parametrize("kind", [ConcurrentTaskRunner, SequentialTaskRunner])
def test_E104_submitting_before_the_start_is_refused(kind: Any) -> None:
    """A runner that has not been started takes nothing, with a RuntimeError."""
    with pytest.raises(RuntimeError):
        kind().submit(None)


@pytest.mark.parametrize("kind", [ConcurrentTaskRunner, SequentialTaskRunner])
def test_E104_starting_twice_is_refused(kind: Any) -> None:
    """A runner that runs cannot be started again, with a RuntimeError."""
    runner = kind()
    with runner.start(), pytest.raises(RuntimeError), runner.start():
        pass


def test_E105_submitted_tasks_overlap_with_the_concurrent_runner() -> None:
    """Submitted sync tasks run at the same time, in threads."""
    barrier = threading.Barrier(3)

    @task
    def meet() -> str:
        barrier.wait(30)
        return threading.current_thread().name

    @flow
    def f() -> Any:
        futures = [meet.submit() for _ in range(3)]
        return {"threads": {future.result() for future in futures}}

    assert len(f()["threads"]) == 3


def test_E106_submit_runs_to_completion_with_the_sequential_runner() -> None:
    """`submit` returns when the task has ended, in order, in the same thread."""
    order: list[Any] = []

    @task
    def t(x: int) -> None:
        order.append((x, threading.current_thread()))

    @flow(task_runner=SequentialTaskRunner())
    def f() -> None:
        for x in range(3):
            future = t.submit(x)
            assert future.state.is_completed()
            order.append("submitted")

    f()
    assert [entry if isinstance(entry, str) else entry[0] for entry in order] == [
        0,
        "submitted",
        1,
        "submitted",
        2,
        "submitted",
    ]
    assert {entry[1] for entry in order if not isinstance(entry, str)} == {threading.current_thread()}


def test_E106_a_failure_does_not_raise_at_submit() -> None:
    """With the sequential runner a failed task gives a future, as with others."""

    @task
    def broken() -> None:
        raise ValueError("boom")

    @flow(task_runner=SequentialTaskRunner())
    def f() -> int:
        future = broken.submit()
        with pytest.raises(ValueError, match="boom"):
            future.result()
        return 1

    assert f() == 1


def test_E111_the_thread_pool_runner_is_known_by_both_names() -> None:
    """`ThreadPoolTaskRunner` is the concurrent runner, and bounds its threads."""
    seen: set[str] = set()

    @task
    def t() -> None:
        seen.add(threading.current_thread().name)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def f() -> None:
        for _ in range(20):
            t.submit()

    f()
    assert 1 <= len(seen) <= 3


@pytest.mark.parametrize("workers", [1, 2])
def test_E111_nested_submits_do_not_deadlock(workers: int) -> None:
    """Tasks that submit tasks and wait for them end, also when the pool is full."""

    @task
    def leaf(x: int) -> int:
        return x

    @task
    def middle(x: int) -> int:
        return sum(future.result() for future in leaf.map([x, x]))

    @task
    def top(x: int) -> int:
        return sum(future.result() for future in [middle.submit(x), middle.submit(x)])

    @flow(task_runner=ConcurrentTaskRunner(max_workers=workers))
    def f() -> Any:
        return {"sums": [future.result() for future in top.map(range(5))]}

    assert f() == {"sums": [4 * x for x in range(5)]}


def test_E111_dependencies_do_not_deadlock_a_full_pool() -> None:
    """Tasks that wait for tasks submitted before them end with a single worker."""

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> Any:
        first = give.submit(1)
        chain = [first]
        for _ in range(50):
            chain.append(give.submit(chain[-1]))
        return {"last": chain[-1].result(), "all": [future.result() for future in give.map(chain)]}

    assert f() == {"last": 1, "all": [1] * 51}


def test_E111_a_flow_in_a_submitted_task_does_not_deadlock() -> None:
    """A flow in a task of a full pool has its own runner."""

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def inner(x: int) -> Any:
        return {"x": give.submit(x).result()}

    @task
    def t(x: int) -> Any:
        return inner(x)["x"]

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> Any:
        return {"values": [future.result() for future in t.map([1, 2, 3])]}

    assert f() == {"values": [1, 2, 3]}


def test_E112_direct_calls_do_not_use_the_runner() -> None:
    """A direct call runs in the flow's own thread."""
    seen: list[Any] = []

    @task
    def t() -> None:
        seen.append(threading.current_thread())

    @flow
    def f() -> None:
        seen.append(threading.current_thread())
        t()

    f()
    assert seen[0] is seen[1] is threading.current_thread()


def test_E112_one_runner_instance_serves_many_runs() -> None:
    """A runner that was given as an instance is not used up by a run."""

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def f(x: int) -> Any:
        return {"x": give.submit(x).result()}

    assert [f(x)["x"] for x in range(3)] == [0, 1, 2]
    threads = [threading.Thread(target=f, args=(x,)) for x in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_E14_what_is_no_runner_is_refused() -> None:
    """Something else as a task runner is a TypeError at decoration; a name that nothing has, a ValueError."""
    runner: Any = 7
    with pytest.raises(TypeError):
        flow(task_runner=runner)(give.fn)
    runner = "sequentail"
    with pytest.raises(ValueError, match="Did you mean 'sequential'"):
        flow(task_runner=runner)(give.fn)


def test_E104_a_runner_leaves_no_threads() -> None:
    """After a flow run its worker threads are gone."""

    @flow
    def f() -> None:
        for x in range(10):
            give.submit(x)

    before = threading.active_count()
    f()
    for thread in threading.enumerate():
        if "worker" in thread.name.lower() or "task" in thread.name.lower():
            thread.join(10)
    assert threading.active_count() <= before + 1


class Refusing(ConcurrentTaskRunner):
    """A runner that takes nothing, as if no thread could be started."""

    def submit(self, future: Any) -> None:
        """Refuse."""
        raise RuntimeError("can't start new thread")


@pytest.mark.timeout(20, method="signal")
def test_E110_a_runner_that_cannot_take_a_task_does_not_hang_the_flow() -> None:
    """If a task cannot be submitted, the flow ends: it does not wait for the task for ever."""

    @flow(task_runner=Refusing())
    def f() -> None:
        give.submit(1)

    assert f(return_state=True).is_failed()


@pytest.mark.timeout(20, method="signal")
def test_E63_an_argument_that_cannot_be_looked_into_is_passed_on() -> None:
    """An argument whose iteration raises is passed on as it is, also in a flow with retries."""

    class Bad(list[int]):
        def __iter__(self) -> Any:
            raise RuntimeError("iter")

    @flow(retries=1)
    def f() -> None:
        give.submit(Bad([1]))

    assert f(return_state=True).is_completed()


@pytest.mark.timeout(30, method="signal")
def test_E39_an_interrupt_while_a_flow_waits_for_its_tasks_leaves_none_without_an_end(history: Any) -> None:
    """When Ctrl-C ends a flow that waits for what it submitted, tasks that had not begun are Cancelled."""
    returned = threading.Event()

    @task
    def interrupting() -> None:
        returned.wait(30)
        time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        go.wait(30)

    go = threading.Event()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> None:
        interrupting.submit()
        give.submit(1)
        give.submit(2)
        returned.set()

    with pytest.raises(KeyboardInterrupt):
        f()
    go.set()
    assert [states[-1] for states in history.states("give")] == ["Cancelled", "Cancelled"]
