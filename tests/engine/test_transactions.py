"""Transactions: values, commit and rollback hooks, nesting, keys, and what resuming makes of them."""

from typing import Any

import pytest
from tests.engine.conftest import History

from flightlog import flow, resume_run, task
from flightlog.cache_policies import INPUTS
from flightlog.transactions import CommitMode, Transaction, TransactionState, transaction


class Store(list[str]):
    """What tasks have written, with what undid it."""


def _writers(store: Store) -> Any:
    @task
    def write(name: str) -> str:
        store.append(name)
        return name

    @write.on_rollback
    def undo(transaction: Transaction) -> None:
        store.append(f"undone {transaction.get('what', '')}")

    @write.on_commit
    def done(transaction: Transaction) -> None:
        store.append("committed")

    return write


def test_E79_a_failure_rolls_back_what_had_completed_the_last_first(history: History) -> None:
    """The hooks get the transaction, the exception goes on, and the runs end as RolledBack, which is Completed."""
    store = Store()
    first, second = _writers(store), _writers(store)

    @task
    def fail() -> None:
        raise ValueError("no")

    @flow
    def f() -> None:
        with transaction() as t:
            t.set("what", "both")
            first("a")
            second.with_options(name="other")("b")
            fail()

    with pytest.raises(ValueError, match="no"):
        f()
    assert store == ["a", "b", "undone both", "undone both"]
    assert history.states("write") == [["Pending", "Running", "Completed", "RolledBack"]]
    assert history.states("other") == [["Pending", "Running", "Completed", "RolledBack"]]
    rolled = [data["task_run_id"] for data in history.data("task_run.rolled_back")]
    created = [data["task_run_id"] for data in history.data("task_run.created")]
    assert rolled == [created[1], created[0]]


def test_E79_commit_hooks_run_at_the_outer_end(history: History) -> None:
    """Not when a task completes, nor when an inner block ends."""
    store = Store()
    write = _writers(store)

    @flow
    def f() -> None:
        with transaction() as outer:
            write("a")
            with transaction() as inner:
                write("b")
            store.append(inner.state)
            assert inner.is_staged()
            assert outer.is_active()
        assert outer.is_committed()
        assert inner.is_committed()

    f()
    assert store == ["a", "b", "STAGED", "committed", "committed"]


def test_E79_an_outer_failure_rolls_back_what_an_inner_block_has_staged() -> None:
    """Staged is not committed; an eager inner block is."""
    store = Store()
    write = _writers(store)

    @flow
    def f(mode: str) -> None:
        with transaction():
            with transaction(commit_mode=mode):
                write("inner")
            raise ValueError("outer")

    f("LAZY", return_state=True)
    assert store == ["inner", "undone "]
    store.clear()
    f("EAGER", return_state=True)
    assert store == ["inner", "committed"]


def test_E78_values_are_copies_and_are_looked_up_outwards() -> None:
    """Set here or around; an unknown one is a ValueError, unless there is a default."""
    with transaction() as outer:
        value = [1]
        outer.set("x", value)
        value.append(2)
        with transaction() as inner:
            assert inner.get("x") == [1]
            inner.get("x").append(3)
            assert inner.get("x") == [1]
            inner.set("x", "own")
            assert (inner.get("x"), outer.get("x")) == ("own", [1])
            assert inner.get("y", None) is None
            with pytest.raises(ValueError, match="'y'"):
                inner.get("y")


def test_E78_states_and_modes() -> None:
    """PENDING, ACTIVE, STAGED, COMMITTED, ROLLED_BACK; OFF commits only when it is told to."""
    with transaction() as one:
        assert one.state is TransactionState.ACTIVE
    assert one.is_committed()
    with transaction(commit_mode=CommitMode.OFF) as off:
        pass
    assert off.is_rolled_back()
    with transaction(commit_mode="OFF") as told:
        assert told.commit()
        assert not told.commit()
    assert told.is_committed()
    with transaction(commit_mode="LAZY") as root:
        pass
    assert root.is_committed()
    with pytest.raises(KeyError), transaction() as broken:
        raise KeyError
    assert broken.is_rolled_back()
    with pytest.raises(ValueError, match="SOMETIMES"), transaction(commit_mode="SOMETIMES"):
        raise AssertionError


def test_E79_a_key_that_has_committed_need_not_be_gone_through_again() -> None:
    """Its block can ask, and skip; `overwrite` forgets; one that was rolled back has not committed."""
    done = []

    def go(*, fail: bool = False, overwrite: bool = False) -> None:
        with transaction(key="load 2026-01-01", overwrite=overwrite) as t:
            if t.is_committed():
                return
            done.append(1)
            if fail:
                raise ValueError("not this time")

    with pytest.raises(ValueError, match="not this time"):
        go(fail=True)
    go()
    go()
    flow(go)()
    assert len(done) == 2
    go(overwrite=True)
    assert len(done) == 3


def test_a_rolled_back_task_runs_again_when_the_run_is_resumed(history: History) -> None:
    """It had completed, but it was undone; so does its cached value not count."""
    store, calls, broken = Store(), [], [True]
    write = _writers(store)

    @task(cache_policy=INPUTS)
    def cached(x: int) -> int:
        calls.append(x)
        return x

    @flow
    def f() -> str:
        with transaction():
            name: str = write("a")
            cached(1)
            if broken:
                raise ValueError("not yet")
        return name

    state = f(return_state=True)
    assert state.is_failed()
    broken.clear()
    run = history.flow_runs("f")[0]
    assert resume_run(run, flow=f) == "a"
    assert store == ["a", "undone ", "a", "committed"]
    assert calls == [1, 1]


def test_submitted_tasks_are_part_of_the_transaction(history: History) -> None:
    """Whatever thread they run in."""
    store = Store()
    write = _writers(store)

    @flow
    def f() -> None:
        with transaction():
            write.map(["a", "b"]).result()
            raise ValueError

    f(return_state=True)
    assert sorted(store) == ["a", "b", "undone ", "undone "]
    assert [states[-1] for states in history.states("write")] == ["RolledBack", "RolledBack"]


def test_a_rollback_hook_that_fails_changes_nothing(history: History) -> None:
    """It is logged; the next one is called; the user's own exception goes on."""
    undone = []

    @task
    def t(n: int) -> int:
        return n

    @t.on_rollback
    def fails(transaction: Transaction) -> None:
        undone.append(1)
        raise RuntimeError("cannot undo")

    @flow
    def f() -> None:
        with transaction():
            t(1)
            t(2)
            raise KeyError("the user's own")

    with pytest.raises(KeyError, match="the user's own"):
        f()
    assert undone == [1, 1]
    assert len([line for line in history.log_lines() if "cannot undo" in line]) == 2
