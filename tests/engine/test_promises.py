"""Promises: set once by one thread, waited for by others; and the threads that set them."""

import asyncio
import threading
import time
from typing import Any

import pytest

from flightlog import flow, task
from flightlog.engine import task_runners
from flightlog.engine.promises import Promise
from flightlog.task_runners import ConcurrentTaskRunner


def test_those_who_wait_get_the_value() -> None:
    """Threads and event loops that wait, and those that come late, all get it."""
    promise: Promise[int] = Promise()
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(promise.value()) if promise.wait(10) else None)]
    threads += [threading.Thread(target=lambda: got.append(asyncio.run(promise.settled()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    promise.set(7)
    for thread in threads:
        thread.join(10)
    assert got == [7] * 4
    assert promise.done()
    assert asyncio.run(promise.settled()) == 7


def test_waiting_ends_with_its_time() -> None:
    """A wait has a time limit; a negative one is over at once."""
    promise: Promise[None] = Promise()
    assert promise.wait(0.01) is False
    assert promise.wait(-1) is False
    promise.set(None)
    assert promise.wait(0) is True


def test_a_callback_that_fails_keeps_nobody_from_being_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The other callbacks are called, before and after the value is set."""
    promise: Promise[int] = Promise()
    told: list[str] = []
    promise.then(lambda: 1 / 0)
    promise.then(lambda: told.append("first"))
    promise.set(1)
    promise.then(lambda: told.append("late"))
    assert told == ["first", "late"]


def test_a_coroutine_that_waited_may_be_cancelled() -> None:
    """Setting the value later disturbs nobody."""
    promise: Promise[int] = Promise()

    async def main() -> int:
        waiting = asyncio.create_task(promise.settled())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        threading.Thread(target=promise.set, args=(3,)).start()
        return await promise.settled()

    assert asyncio.run(main()) == 3


def _pool_threads() -> list[Any]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("flightlog-task")]


def test_no_more_threads_than_workers_and_idle_ones_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool's threads come with the work and go without it."""
    monkeypatch.setattr(task_runners, "_IDLE_SECONDS", 0.02)
    most = 0

    @task
    def count(i: int) -> int:
        nonlocal most
        most = max(most, len(_pool_threads()))
        return i

    def all_ended() -> bool:
        return not _pool_threads()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=3))
    def many() -> tuple[int, bool, int]:
        first = sum(future.result() for future in [count.submit(i) for i in range(50)])
        deadline = time.monotonic() + 10
        while not all_ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        ended = all_ended()
        return first, ended, count.submit(5).result()  # a thread is made again

    assert many() == (sum(range(50)), True, 5)
    assert 1 <= most <= 3
