"""Cancellation at awkward moments: twice, just before the end, in streams, while others hold what is waited for."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from tests.engine.conftest import History
from tests.engine.invariants import violations

from flightlog import cancel_run, flow, get_run_context, suspend_flow_run, task
from flightlog.concurrency import set_limit
from flightlog.engine.cache_policies import INPUTS
from flightlog.engine.runtime import Engine
from flightlog.errors import CancelledRun


def _cancel_now(engine: Engine, flow_run_id: str | None = None) -> None:
    """Request that the run which this code belongs to (or another one) is cancelled, and deliver that here and now."""
    run = get_run_context().flow_context.flow_run.id if flow_run_id is None else flow_run_id
    engine.log.flush()
    assert cancel_run(run, engine=engine) == "requested"
    engine.inbox.look()


def _until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


def _in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Call a function in a thread; return the thread, and a list that its value, or what it raises, comes into."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


def test_E152_cancelling_an_async_flow_twice_ends_it(engine: Engine, history: History) -> None:
    """A second request, while the hooks of the first are called, changes nothing: the run ends as Cancelled."""

    async def on_cancellation(flow: Any, flow_run: Any, state: Any) -> None:
        _cancel_now(engine, flow_run.id)
        await asyncio.sleep(0.01)

    @flow(on_cancellation=[on_cancellation])
    async def f() -> None:
        _cancel_now(engine)
        await asyncio.sleep(20)

    async def main() -> None:
        with pytest.raises(CancelledRun):
            await f()

    asyncio.run(main())
    (run,) = history.flow_runs("f")
    assert history.flow_states(run)[-2:] == ["Cancelling", "Cancelled"]
    assert violations(engine) == []


def test_E152_an_async_flow_that_is_timed_out_while_it_is_being_cancelled_has_an_end(
    engine: Engine, history: History
) -> None:
    """The caller's own `asyncio.timeout` strikes in the hook for the cancellation: the run is not left Cancelling."""
    inside = asyncio.Event()

    async def on_cancellation(flow: Any, flow_run: Any, state: Any) -> None:
        inside.set()
        await asyncio.sleep(20)

    @flow(on_cancellation=[on_cancellation])
    async def f() -> None:
        _cancel_now(engine)
        await asyncio.sleep(20)

    async def main() -> None:
        running = asyncio.create_task(f(return_state=True))
        await inside.wait()
        running.cancel()
        await asyncio.wait([running], timeout=10)
        assert running.done()
        assert running.cancelled() or not isinstance(running.exception(), AssertionError)

    asyncio.run(main())
    (run,) = history.flow_runs("f")
    assert history.flow_states(run)[-1] in ("Cancelled", "Crashed")
    assert violations(engine) == []


def test_E152_a_request_that_comes_as_an_async_flow_returns_cancels_nobody_else(engine: Engine) -> None:
    """The flow's last step has no await any more: the caller gets its value or CancelledRun, and his code goes on."""

    @flow
    async def f() -> str:
        await asyncio.sleep(0)
        _cancel_now(engine)
        return "done"

    async def main() -> str:
        state = await f(return_state=True)
        assert state.is_completed() or state.is_cancelled()
        await asyncio.sleep(0.01)
        return "goes on"

    assert asyncio.run(main()) == "goes on"
    assert violations(engine) == []


def test_E152_a_request_that_comes_as_an_async_subflow_returns_spares_its_parent(
    engine: Engine, history: History
) -> None:
    """Only the subflow was to be cancelled: its parent does not crash."""

    @flow
    async def child() -> str:
        _cancel_now(engine)
        return "done"

    @flow
    async def f() -> str:
        with suppress(CancelledRun):
            await child()
        await asyncio.sleep(0.01)
        return "on"

    with suppress(asyncio.CancelledError):
        asyncio.run(f())
    (run,) = history.flow_runs("f")
    assert history.flow_states(run)[-1] == "Completed"


def test_E152_a_request_while_a_failed_attempt_waits_for_its_tasks_is_not_lost(
    engine: Engine, history: History
) -> None:
    """The flow's function has raised and its tasks still run when the request comes: no further attempt begins."""
    asked, attempts = threading.Event(), []

    @task
    def slow() -> None:
        assert asked.wait(20)

    @flow(retries=2)
    def f() -> None:
        attempts.append(1)
        slow.submit()
        raise ValueError("x")

    def ask() -> None:
        assert _until(lambda: any("Running" in states for states in history.states("slow")))
        time.sleep(0.1)  # the flow's function is over by now, and the flow waits for its task
        _cancel_now(engine, history.flow_runs("f")[0])
        asked.set()

    thread, _ = _in_thread(ask)
    state = f(return_state=True)
    thread.join()
    assert state.is_cancelled()
    assert len(attempts) == 1


def test_E152_code_that_turns_a_cancellation_into_an_error_is_not_tried_again(engine: Engine) -> None:
    """An async flow with retries raises something else when it is cancelled: the request still counts."""
    attempts = []

    @flow(retries=3)
    async def f() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            _cancel_now(engine)
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            raise RuntimeError("aborted") from None

    asyncio.run(f(return_state=True))
    assert len(attempts) == 1


def test_E152_a_request_while_a_flow_is_being_suspended_is_not_lost(engine: Engine, history: History) -> None:
    """The flow wants to be suspended and waits for its tasks when the request comes: it is not left Suspended."""
    asked = threading.Event()

    @task
    def slow() -> None:
        assert asked.wait(20)

    @flow
    def f() -> None:
        slow.submit()
        suspend_flow_run()

    def ask() -> None:
        assert _until(lambda: any("Running" in states for states in history.states("slow")))
        time.sleep(0.1)
        _cancel_now(engine, history.flow_runs("f")[0])
        asked.set()

    thread, _ = _in_thread(ask)
    state = f(return_state=True)
    thread.join()
    assert state.is_cancelled()


def test_E152_cancelling_an_idle_stream_spares_the_flow_that_runs_meanwhile(engine: Engine, history: History) -> None:
    """A generator flow waits for its consumer while another flow runs in the main thread: only the stream is hit."""

    @flow
    def pieces() -> Iterator[int]:
        yield 1
        yield 2

    @flow
    def other() -> str:
        engine.log.flush()
        _cancel_now(engine, history.flow_runs("pieces")[0])
        for _ in range(20):
            time.sleep(0.002)
        return "other"

    stream: Any = pieces()
    assert next(stream) == 1
    try:
        assert other() == "other"
    except BaseException as error:
        pytest.fail(f"the other flow was hit: {error!r}")
    finally:
        stream.close()


def test_E152_a_coroutine_that_a_sync_flow_waits_for_is_cancelled_too(engine: Engine, history: History) -> None:
    """A sync flow that calls an async task is cancelled: the coroutine ends, instead of going on without its run."""
    ready, ended = threading.Event(), threading.Event()

    @task
    async def waits() -> None:
        ready.set()
        try:
            await asyncio.sleep(20)
        finally:
            ended.set()

    @flow
    def f() -> None:
        run: Any = waits
        run()

    def ask() -> None:
        assert ready.wait(20)
        _cancel_now(engine, history.flow_runs("f")[0])

    thread, _ = _in_thread(ask)
    assert f(return_state=True).is_cancelled()
    thread.join()
    assert ended.wait(2)


def test_E152_async_tasks_that_a_sync_flow_submitted_are_cancelled(engine: Engine, history: History) -> None:
    """They stop at their next await, as the coroutines of async flows do; the flow does not use up its grace."""
    ready, ended = threading.Event(), threading.Event()

    @task
    async def waits() -> None:
        ready.set()
        try:
            await asyncio.sleep(20)
        finally:
            ended.set()

    @flow
    def f() -> None:
        waits.submit()
        assert ready.wait(20)
        _cancel_now(engine)
        time.sleep(20)

    assert f(return_state=True).is_cancelled()
    assert ended.is_set()
    assert history.states("waits")[0][-1] == "Cancelled"


def test_E152_a_flow_in_another_thread_that_waits_for_a_future_is_cancelled(engine: Engine, history: History) -> None:
    """It need not wait until the task has come to its end."""
    ready, release = threading.Event(), threading.Event()

    @task
    def blocks() -> None:
        ready.set()
        release.wait(20)

    @flow
    def f() -> None:
        blocks.submit().result()

    engine.settings = _with(engine.settings, cancel_grace_seconds=0.05)
    thread, found = _in_thread(lambda: f(return_state=True))
    assert ready.wait(20)
    _cancel_now(engine, history.flow_runs("f")[0])
    thread.join(2)
    waited = thread.is_alive()
    release.set()
    thread.join()
    assert not waited
    assert found[0].is_cancelled()


def _with(settings: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(settings, **changes)


@pytest.mark.parametrize("what", ["slot", "cache"])
def test_E152_a_run_that_waits_for_what_another_holds_is_cancelled(what: str, engine: Engine, history: History) -> None:
    """Waiting for a slot, or for the value of a cache key, ends at once; nothing is left in the limit or the key."""
    ready, release = threading.Event(), threading.Event()
    policy = INPUTS.configure(isolation_level="SERIALIZABLE") if what == "cache" else None
    if what == "slot":
        set_limit("tag:one", 1)

    @task(tags=["one"], cache_policy=policy)
    def t() -> int:
        ready.set()
        release.wait(20)
        return 1

    @flow
    def holds() -> None:
        t()

    @flow
    def waits() -> None:
        t.submit().result()

    first, _ = _in_thread(lambda: holds(return_state=True))
    assert ready.wait(20)
    second, found = _in_thread(lambda: waits(return_state=True))
    name = "AwaitingConcurrencySlot" if what == "slot" else "AwaitingCache"
    assert _until(lambda: any(name in states for states in history.states("t")))
    _cancel_now(engine, history.flow_runs("waits")[0])
    second.join(10)
    waited = second.is_alive()
    release.set()
    first.join()
    second.join()
    assert not waited
    assert found[0].is_cancelled()
    assert violations(engine) == []
