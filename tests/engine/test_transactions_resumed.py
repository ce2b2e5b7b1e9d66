"""Transactions that were cut short: what is on record of them is whole again when the run goes on."""

import threading
from typing import Any

import pytest
from tests.engine.conftest import History, lose_run

from flightlog import flow, resume_run, suspend_flow_run, task
from flightlog.cache_policies import INPUTS
from flightlog.engine.resuming import fork_run
from flightlog.engine.runtime import Engine
from flightlog.task_runners import ConcurrentTaskRunner
from flightlog.transactions import Transaction, transaction


class World:
    """What tasks have done, and whether the world is as it was when the process was killed.

    Attributes:
        did: what tasks and their hooks did, in order.
        moment: ``killed`` while the process is to be killed, then ``broken`` or ``whole``.
    """

    def __init__(self, engine: Engine) -> None:
        self.did: list[str] = []
        self.moment = "killed"
        self._engine = engine

    def pass_by(self) -> None:
        """Be killed here, fail, or go on."""
        if self.moment == "killed":
            lose_run(self._engine)
        elif self.moment == "broken":
            raise ConnectionError("no network")

    def written(self) -> Any:
        """Return a task that writes, with what undoes it and what makes it final."""

        @task
        def write(name: str) -> str:
            self.did.append(f"wrote {name}")
            return name

        @write.on_rollback
        def undo(transaction: Transaction) -> None:
            self.did.append("undone")

        @write.on_commit
        def publish(transaction: Transaction) -> None:
            self.did.append("published")

        return write


@pytest.fixture
def world(engine: Engine) -> World:
    """Return a world in which the process is killed at first."""
    return World(engine)


def _killed(flow_: Any, history: History) -> str:
    """Run a flow that is killed, and return its id."""
    with pytest.raises(BaseException, match="taken over"):
        flow_()
    return history.flow_runs(flow_.name)[-1]


def test_E79_a_part_that_completed_before_a_crash_is_rolled_back(world: World, history: History) -> None:
    """It is not run again, but undone when a later part fails; the crash itself undoes nothing."""
    write = world.written()

    @task
    def send() -> None:
        world.pass_by()

    @flow
    def f() -> None:
        with transaction():
            write("a")
            write("b")
            send()

    run = _killed(f, history)
    assert world.did == ["wrote a", "wrote b"]
    world.moment = "broken"
    assert resume_run(run, flow=f, return_state=True).is_failed()
    assert world.did == ["wrote a", "wrote b", "undone", "undone"]
    assert history.states("write") == [["Pending", "Running", "Completed", "RolledBack"]] * 2
    created = [data["task_run_id"] for data in history.task_runs("write")]
    assert [data["task_run_id"] for data in history.data("task_run.rolled_back")] == created[::-1]
    world.moment = "whole"
    resume_run(run, flow=f)
    assert world.did[4:] == ["wrote a", "wrote b", "published", "published"]


def test_E79_a_transaction_that_had_not_committed_before_a_crash_commits_once(world: World, history: History) -> None:
    """The hooks of parts that are on record are called when the block ends, and not once more by a later resume."""
    write = world.written()

    @task
    def send() -> None:
        world.pass_by()

    @flow
    def f() -> None:
        with transaction():
            write("a")
            send()
        world.did.append("after")
        if world.moment == "late":
            raise ConnectionError("after the transaction")

    run = _killed(f, history)
    world.moment = "late"
    resume_run(run, flow=f, return_state=True)
    assert world.did == ["wrote a", "published", "after"]
    resume_run(run, flow=f, return_state=True)
    world.moment = "whole"
    resume_run(run, flow=f)
    assert world.did == ["wrote a", "published", "after", "after", "after"]
    (committed,) = history.data("transaction.committed")
    created = [data["task_run_id"] for task_name in ("write", "send") for data in history.task_runs(task_name)]
    assert committed["task_run_ids"] == created


def test_E79_a_part_of_a_transaction_that_has_committed_is_not_rolled_back_later(
    world: World, history: History
) -> None:
    """In a resumed run the block may fail where it did not before: what has been committed stays."""
    write = world.written()

    @flow
    def f() -> None:
        with transaction():
            write("a")
            if world.moment == "broken":
                raise ConnectionError
        world.pass_by()
        write("b")

    run = _killed(f, history)
    assert world.did == ["wrote a", "published"]
    world.moment = "broken"
    assert resume_run(run, flow=f, return_state=True).is_failed()
    assert world.did == ["wrote a", "published"]
    assert history.states("write")[0] == ["Pending", "Running", "Completed"]


def test_E79_a_rolled_back_part_runs_again_when_the_flow_is_retried(history: History) -> None:
    """Its value is not the recorded one: it was undone."""
    did, attempts = [], []

    @task
    def write() -> str:
        did.append("wrote")
        return "a"

    @write.on_rollback
    def undo(transaction: Transaction) -> None:
        did.append("undone")

    @flow(retries=1)
    def f() -> str:
        attempts.append(1)
        with transaction():
            found: str = write()
            if len(attempts) == 1:
                raise ConnectionError
        return found

    assert f() == "a"
    assert did == ["wrote", "undone", "wrote"]
    assert history.states("write")[0][-3:] == ["AwaitingRerun", "Retrying", "Completed"]


def test_E79_a_value_from_the_cache_is_no_part(world: World, history: History) -> None:
    """It belongs to the run that computed it: it is neither rolled back nor committed, also in a resumed run."""
    write = world.written().with_options(cache_policy=INPUTS)

    @flow
    def first() -> None:
        write("a")

    @flow
    def f() -> None:
        with transaction():
            write("a")
            world.pass_by()

    first()
    run = _killed(f, history)
    world.moment = "broken"
    assert resume_run(run, flow=f, return_state=True).is_failed()
    world.moment = "whole"
    resume_run(run, flow=f)
    assert world.did == ["wrote a"]
    assert [states[-1] for states in history.states("write")] == ["Completed", "Cached"]


def test_E79_the_cached_value_of_a_part_that_is_rolled_back_after_a_crash_counts_no_more(
    world: World, history: History
) -> None:
    """Whatever its key would be by now."""
    keys = ["then", "now"]
    write = world.written().with_options(cache_key_fn=lambda context, parameters: keys[0])

    @flow
    def f() -> None:
        with transaction():
            write("a")
            world.pass_by()

    @flow
    def later() -> None:
        write("a")

    run = _killed(f, history)
    world.moment = "broken"
    keys.reverse()
    resume_run(run, flow=f, return_state=True)
    keys.reverse()
    later()
    assert world.did == ["wrote a", "undone", "wrote a"]


def test_E79_a_fork_does_not_undo_what_the_original_did(world: World, history: History) -> None:
    """What it takes over is the original's: that may go on with it."""
    write = world.written()

    @flow
    def f() -> None:
        with transaction():
            write("a")
            world.pass_by()

    run = _killed(f, history)
    world.moment = "broken"
    assert fork_run(run, flow=f, return_state=True).is_failed()
    assert world.did == ["wrote a"]
    world.moment = "whole"
    resume_run(run, flow=f)
    assert world.did == ["wrote a", "published"]


def test_a_suspended_run_keeps_its_transaction(world: World, history: History) -> None:
    """Suspending is no failure: nothing is undone or runs twice, and the transaction commits after the answer."""
    write = world.written()

    @flow
    def f() -> None:
        with transaction():
            write("a")
            suspend_flow_run()
            write("b")

    assert f(return_state=True).name == "Suspended"
    assert world.did == ["wrote a"]
    resume_run(history.flow_runs("f")[0], flow=f)
    assert world.did == ["wrote a", "wrote b", "published", "published"]


def test_E79_a_part_that_ends_after_the_others_were_settled_follows_them(history: History) -> None:
    """A submitted task may still be running when the block ends: it is rolled back, or committed, when it completes."""
    go, did = threading.Event(), []

    @task
    def slow() -> None:
        go.wait(20)
        did.append("wrote")

    @slow.on_rollback
    def undo(transaction: Transaction) -> None:
        did.append("undone")

    @slow.on_commit
    def publish(transaction: Transaction) -> None:
        did.append("published")

    @flow
    def f(fail: bool) -> None:
        try:
            with transaction():
                slow.submit()
                if fail:
                    raise ValueError
        finally:
            did.append("block ended")
            go.set()

    f(True, return_state=True)
    assert did == ["block ended", "wrote", "undone"]
    assert history.states("slow") == [["Pending", "Running", "Completed", "RolledBack"]]
    did.clear()
    go.clear()
    f(False)
    assert did == ["block ended", "wrote", "published"]


def test_E79_a_part_belongs_to_the_transaction_that_it_was_submitted_in(history: History) -> None:
    """Also if it is run by a thread that waits for it outside of the block, in a pool with no other thread."""
    did = []

    @task
    def write() -> None:
        did.append("wrote")

    @write.on_commit
    def publish(transaction: Transaction) -> None:
        did.append("published")

    @task
    def outer() -> None:
        with transaction():
            future = write.submit()
        future.result()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def f() -> None:
        outer.submit().result()

    f()
    assert did == ["wrote", "published"]


def test_I1_a_part_is_on_record_as_rolled_back_before_it_is_undone(engine: Engine, history: History) -> None:
    """Were it the other way round, a crash in between would leave undone work that counts as done."""
    seen: list[str] = []

    @task
    def write() -> None:
        pass

    @write.on_rollback
    def undo(transaction: Transaction) -> None:
        events = engine.log.read_all(types=["task_run.rolled_back"])
        seen.extend(event.type for event in events)

    @flow
    def f() -> None:
        with transaction():
            write()
            raise ValueError

    f(return_state=True)
    assert seen == ["task_run.rolled_back"]


def test_E78_what_an_attempt_that_timed_out_did_is_rolled_back_before_the_next_begins(history: History) -> None:
    """Nobody knows when its block would end; what the next attempt does must not be undone by it then."""
    go, ended = threading.Event(), threading.Event()
    did, attempts = [], []

    @task
    def write() -> None:
        did.append("wrote")

    @write.on_rollback
    def undo(transaction: Transaction) -> None:
        did.append("undone")

    def hang() -> None:
        try:
            with transaction():
                write()
                go.wait(20)
        finally:
            ended.set()

    @flow(timeout_seconds=1, retries=1)
    def f() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            hang()
        with transaction():
            write()

    f()
    go.set()
    assert ended.wait(20)
    assert did == ["wrote", "undone", "wrote"]
    assert history.states("write")[0][-4:] == ["RolledBack", "AwaitingRerun", "Retrying", "Completed"]


@pytest.mark.parametrize("how", ["resumed", "retried"])
def test_E79_a_subflow_is_rolled_back_with_its_tasks(how: str, world: World, history: History) -> None:
    """Its value counts no more: it is gone through again when its caller is resumed, or tried again."""
    write = world.written()

    @flow
    def child() -> str:
        return str(write("a"))

    @flow(retries=1 if how == "retried" else 0)
    def f() -> str:
        with transaction():
            found: str = child()
            if len(world.did) == 1:
                raise ConnectionError
        return found

    state = f(return_state=True)
    (inner,) = history.flow_runs("child")
    if how == "resumed":
        assert history.flow_states(inner) == ["Pending", "Running", "Completed", "RolledBack"]
        assert resume_run(history.flow_runs("f")[0], flow=f) == "a"
    else:
        assert state.result() == "a"
    assert world.did == ["wrote a", "undone", "wrote a", "published"]
    assert history.flow_states(inner)[3:] == ["RolledBack", "AwaitingRerun", "Running", "Completed"]
    assert history.states("child") == [history.flow_states(inner)[:5] + ["Retrying", "Completed"]]


def test_E79_a_subflow_that_completed_before_a_crash_is_rolled_back_with_its_tasks(
    world: World, history: History
) -> None:
    """Nothing of it runs again, at whatever depth; its tasks are undone, the last first. So it is with a commit."""
    write = world.written()

    @flow
    def grandchild() -> None:
        write("b")

    @flow
    def child() -> None:
        write("a")
        grandchild()
        write("c")

    @flow
    def f() -> None:
        with transaction():
            child()
            world.pass_by()

    run = _killed(f, history)
    assert world.did == ["wrote a", "wrote b", "wrote c"]
    world.moment = "broken"
    resume_run(run, flow=f, return_state=True)
    assert world.did[3:] == ["undone"] * 3
    ends = [states[-1] for name in ("write", "child", "grandchild") for states in history.states(name)]
    ends += [history.flow_states(history.flow_runs(name)[0])[-1] for name in ("child", "grandchild")]
    assert ends == ["RolledBack"] * 7
    world.moment = "killed"
    world.did.clear()
    _killed_again(run, f)
    assert world.did == ["wrote a", "wrote b", "wrote c"]
    world.moment = "whole"
    resume_run(run, flow=f)
    assert world.did[3:] == ["published"] * 3


def _killed_again(run: str, flow_: Any) -> None:
    with pytest.raises(BaseException, match="taken over"):
        resume_run(run, flow=flow_)


def test_an_outermost_flow_that_was_rolled_back_can_be_resumed(world: World, history: History) -> None:
    """A transaction around flows undoes what they did; a run that was undone is not done."""
    write = world.written()

    @flow
    def f() -> str:
        return str(write("a"))

    with pytest.raises(ConnectionError), transaction():
        f()
        raise ConnectionError
    (run,) = history.flow_runs("f")
    assert history.flow_states(run)[-1] == "RolledBack"
    assert resume_run(run, flow=f) == "a"
    assert world.did == ["wrote a", "undone", "wrote a"]
