"""Runners of clusters, on a cluster of threads: what a cluster may do wrong, and what calls in it may do."""

import asyncio
import itertools
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Self

import pytest
from tests.engine.conftest import History

from flightlog import flow, task
from flightlog.clusters import RelayedTaskRunner, Seat, Ticket, Transport
from flightlog.context import FlowRunContext
from flightlog.testing import RunnerContract


class Threads(Transport):
    """A cluster of threads, which may be made to go wrong.

    Attributes:
        wrong: what happens to the next calls: an exception that `run` raises, a text that it reports, or nothing.
        gone: the workers that are not there any more.
        given: the tasks that it was given, and how many others each rests on.
        empty: whether it has no worker.
    """

    def __init__(self) -> None:
        self.wrong: list[Any] = []
        self.gone: set[str] = set()
        self.given: list[tuple[str, int]] = []
        self.empty = False
        self._seats: dict[str, Seat] = {}
        self._names = itertools.count(1)
        self._threads: list[threading.Thread] = []

    def start(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Keep what is to be called."""
        self._deliver, self.lost = deliver, lost

    def run(self, ticket: Ticket, upstream: Sequence[Any], ended: Callable[[str | None], None]) -> Any:
        """Take a seat in a thread."""
        self.given.append((ticket.task, len(upstream)))
        wrong = self.wrong.pop(0) if self.wrong else None
        if isinstance(wrong, Exception):
            raise wrong
        handle: Future[bytes | None] = Future()
        work = (ticket, upstream, ended, handle, wrong)
        self._threads.append(threading.Thread(target=self._work, args=work))
        self._threads[-1].start()
        return handle

    def again(self, ticket: Ticket) -> None:
        """Run a call once more, as clusters do on their own account."""
        self.run(ticket, [], lambda _: None)

    def _work(
        self,
        ticket: Ticket,
        upstream: Sequence["Future[bytes | None]"],
        ended: Callable[[str | None], None],
        handle: "Future[bytes | None]",
        wrong: str | None,
    ) -> None:
        if wrong is not None:
            handle.set_result(None)
            ended(wrong)
            return
        values = [above.result() for above in upstream]
        seat = Seat(ticket.number, f"worker {next(self._names)}", values, self._deliver)
        self._seats[seat.id] = seat
        handle.set_result(seat.serve())
        ended(None)

    def send(self, worker: str, seat: str, message: bytes) -> None:
        """Pass a message on."""
        self._seats[seat].deliver(message)

    def missing(self, workers: Iterable[str]) -> set[str]:
        """Return those that are gone."""
        return set(workers) & self.gone

    def is_empty(self) -> bool:
        """Tell what was set."""
        return self.empty

    def stop(self) -> None:
        """End what is left."""
        for seat in self._seats.values():
            seat.leave()
        for thread in self._threads:
            thread.join(20)


class ThreadsTaskRunner(RelayedTaskRunner):
    """Runs tasks in a cluster of threads."""

    cluster: Threads

    def duplicate(self) -> Self:
        """Return another one."""
        return type(self)()

    def _connect(self) -> Transport:
        self.cluster = Threads()
        return self.cluster

    def _disconnect(self) -> None:
        pass


class TestThreads(RunnerContract):
    """The contract holds without any cluster's own ways."""

    @pytest.fixture
    def runner(self) -> ThreadsTaskRunner:
        """Return a runner."""
        return ThreadsTaskRunner()


def cluster() -> Threads:
    """Return the cluster of the present flow run."""
    context: Any = FlowRunContext.get()
    found: Threads = context.task_runner.cluster
    return found


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Shared:
    """What tests and their tasks share, since all is in one process."""

    def __init__(self) -> None:
        self.here = threading.Event()
        self.free = threading.Event()
        self.calls: list[int] = []


SHARED = Shared()


def shared() -> Shared:
    """Return what is shared: a function travels by its name."""
    return SHARED


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    SHARED.__init__()  # type: ignore[misc]
    yield
    SHARED.free.set()


@task
def give(x: Any) -> Any:
    """Return what it is given."""
    return x


@task
def add(x: int, y: int) -> int:
    """Return a sum."""
    return x + y


def test_a_cluster_that_gives_a_call_up_is_asked_again_and_at_last_that_crashes(history: History) -> None:
    """Three times in a row; what such a call rests on is not to blame."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> Any:
        cluster().wrong = ["one", "two"]
        values = [give.submit(1).result()]
        cluster().wrong = ["one", "two", "three"]
        return values, str(give.submit(1).wait()), give.submit(2).result()

    values, state, after = f()
    assert (values, after) == ([1], 2)
    assert state == "Crashed('No worker of the cluster has begun with the task: three.')"
    assert history.data("task_run.crashed")[0]["cause"] == "lost_worker"


def test_a_cluster_that_takes_no_call_crashes_it() -> None:
    """With what it says; retries for lost workers ask again."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> Any:
        cluster().wrong = [OSError("no room")]
        told = str(give.submit(1).wait())
        cluster().wrong = [OSError("no room")]
        return told, give.with_options(retries={"lost_worker": 1}).submit(1).result()

    told, value = f()
    assert told == "Crashed('The cluster does not take the task: OSError: no room')"
    assert value == 1


@task
def wait_a_moment() -> int:
    """Wait until this may end."""
    shared().here.set()
    shared().free.wait(20)
    return 20


def test_what_rests_on_a_call_that_the_cluster_gave_up_gets_its_value_from_here() -> None:
    """The cluster calls it wrong too, since it rests on something that is: it is given again, alone."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> Any:
        first = wait_a_moment.submit()
        shared().here.wait(20)
        cluster().wrong = ["it rests on what is wrong"]
        second = add.submit(first, 1)
        wait_for(lambda: not cluster().wrong)
        shared().free.set()
        return second.result(), cluster().given

    assert f() == (21, [("wait_a_moment", 0), ("add", 1), ("add", 0)])


def test_a_call_that_the_cluster_runs_again_on_its_own_account_is_told_that_it_has_ended(history: History) -> None:
    """Whatever a cluster does when a worker or a value is lost: nothing runs twice that nobody asked for."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> Any:
        future: Any = give.submit([1])
        assert future.result() == [1]
        cluster().again(Ticket(1, "give", "give"))
        cluster().again(Ticket(77, "unknown", "unknown"))
        return give.submit(future).result()

    assert f() == [1]
    assert history.states("give") == [["Pending", "Running", "Completed"]] * 2


@task(retries={"lost_worker": 1})
def stays() -> int:
    """Stay at the first call."""
    shared().calls.append(1)
    if len(shared().calls) == 1:
        while not shared().free.is_set():
            time.sleep(0.01)
    return len(shared().calls)


def test_a_second_worker_for_a_call_means_that_the_first_is_lost(history: History) -> None:
    """The attempt of the first is Crashed or tried again there, by the rules of the engine."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> int:
        future = stays.submit()
        wait_for(lambda: shared().calls)
        cluster().again(Ticket(1, "stays", "stays"))
        return future.result()

    assert f() == 2
    assert history.states("stays") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]]
    assert "the cluster has taken another" in history.data("task_run.awaiting_retry")[0]["message"]


@task
def stay() -> None:
    """Stay until this is stopped."""
    while True:
        time.sleep(0.01)


def test_a_worker_that_is_missing_crashes_its_call(history: History) -> None:
    """Though nobody else says anything of it."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> str:
        future = stay.submit()
        cluster().gone.add("worker 1")
        return str(future.wait())

    assert f() == "Crashed('The worker worker 1 was lost while the task ran in it.')"


@pytest.mark.parametrize("how", ["empty", "lost"])
def test_without_a_cluster_everything_crashes(how: str) -> None:
    """What runs, what waits for a worker, what wants to try again, and what comes later."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> Any:
        running: list[Any] = [stay.submit(), stay.with_options(retries={"lost_worker": 2}).submit()]
        wait_for(lambda: all(future.task_run and future.task_run.run_count for future in running))
        if how == "empty":
            cluster().empty = True
        else:
            cluster().lost("It is gone.")
        return [str(future.wait()) for future in (*running, give.submit(1))]

    text = "The cluster has no worker left." if how == "empty" else "It is gone."
    states = f()
    assert states[:2] == [f"Crashed({text!r})"] * 2
    if how == "lost":
        assert states[2] == f"Crashed({text!r})"


@task(timeout_seconds=0.2)
def too_long() -> None:
    """Take longer than it may, with a call inside."""
    give(1)
    while True:
        time.sleep(0.01)


@task
def catches() -> Any:
    """Call a task that takes too long, and go on."""
    try:
        too_long()
    except TimeoutError:
        return give(2), add(1, 2)
    return None


def test_a_time_limit_of_a_call_in_a_task_leaves_the_task_alone(history: History) -> None:
    """The task that made the call catches what it raises, and goes on calling others."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> Any:
        return catches.submit().result()

    assert f() == (2, 3)
    assert history.states("too_long") == [["Pending", "Running", "TimedOut"]]


@task
def beat() -> None:
    """Beat until this is stopped."""
    while True:
        shared().calls.append(1)
        time.sleep(0.01)


@task(timeout_seconds=0.3)
def has_beaten() -> None:
    """Have another task beat."""
    beat()


@pytest.mark.parametrize("which", ["alone", "nested"])
def test_a_time_limit_stops_the_code_with_all_that_it_called(history: History, which: str) -> None:
    """Also where that is another task without one; nothing of it goes on."""
    slow = has_beaten if which == "nested" else beat.with_options(timeout_seconds=0.3)

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> Any:
        state: Any = slow.submit().wait()
        return state.name, state.message

    assert f() == ("TimedOut", "Task run exceeded timeout of 0.3 seconds")
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "flightlog-timed"])
    assert shared().calls
    if which == "nested":
        assert history.states("beat") == [["Pending", "Running", "Crashed"]]
        (crashed,) = history.data("task_run.crashed")
        assert re.fullmatch(r"Abandoned: the task run 'has_beaten-.*' exceeded its time limit.", crashed["message"])
        assert crashed["cause"] == "timed_out"


def test_python_looks_for_nothing_once_a_call_that_was_stopped_has_ended() -> None:
    """One taken back on its way would have all threads look for it for good, and CPython 3.11 trace for ever."""

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> Any:
        state: Any = beat.with_options(timeout_seconds=0.1).submit().wait()
        return state.name

    assert f() == "TimedOut"
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "flightlog-timed"])
    traced = threading.Event()

    def trace() -> None:
        sys.settrace(lambda *_: None)
        shared()
        sys.settrace(None)
        traced.set()

    threading.Thread(target=trace, daemon=True).start()
    assert traced.wait(10)


def test_a_flow_that_a_task_calls_may_have_such_a_runner_itself() -> None:
    """The runner travels with the flow."""

    @flow(task_runner=ThreadsTaskRunner)
    def inner() -> int:
        return 5

    @task
    def calls() -> int:
        return inner()

    @flow(task_runner=ThreadsTaskRunner)
    def f() -> int:
        return calls.submit().result()

    assert f() == 5


SOURCES: list[Any] = []


def test_calls_that_wait_for_others_of_another_runner_are_given_when_these_have_ended() -> None:
    """A cluster does not know those: it is not to hold a worker for what cannot begin."""

    @flow(task_runner=ThreadsTaskRunner)
    def inner(_: Any) -> Any:
        future = add.submit(SOURCES.pop(), 1)
        before = list(cluster().given)
        shared().free.set()
        return before, future.result()

    @flow
    def f() -> Any:
        SOURCES.append(wait_a_moment.submit())
        return inner(0)

    assert f() == ([], 21)


async def _async_flow(started: list[str]) -> Any:
    class Slow(ThreadsTaskRunner):
        def _connect(self) -> Transport:
            begun.set()
            assert ticked.wait(20)
            return super()._connect()

    begun, ticked = threading.Event(), threading.Event()

    @flow(task_runner=Slow)
    async def f() -> Any:
        return give.submit(1).result()

    async def tick() -> None:
        while not begun.is_set():
            await asyncio.sleep(0.001)
        started.append("ticked")
        ticked.set()

    _, value = await asyncio.gather(tick(), f())
    return value


def test_a_cluster_that_takes_time_to_start_does_not_hold_up_the_event_loop() -> None:
    """Other coroutines run meanwhile."""
    started: list[str] = []
    assert asyncio.run(_async_flow(started)) == 1
    assert started == ["ticked"]
