"""Pauses under attack: hostile inputs, two at once, deadlines, forks and restarts of runs that wait for somebody."""

import asyncio
import enum
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from tests.engine.conftest import History, VirtualClock
from tests.engine.invariants import violations

from flightlog import (
    flow,
    pause_flow_run,
    restart_run,
    resume_flow_run,
    resume_run,
    suspend_flow_run,
    task,
)
from flightlog.engine import pausing
from flightlog.engine.resuming import fork_run
from flightlog.engine.runtime import Engine
from flightlog.errors import FlowPauseTimeout, InvalidInput, NotPausedError
from flightlog.input import RunInput


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"


class Person(BaseModel):
    """A model within a plain type."""

    name: str


def _when_paused(history: History, then: Callable[[str], object]) -> tuple[threading.Thread, list[Any]]:
    """Do something, in a thread, with the id of the first flow run that is paused; collect what comes of it."""
    found: list[Any] = []

    def work() -> None:
        end = time.monotonic() + 20
        while not history.events("flow_run.paused") and time.monotonic() < end:
            time.sleep(0.005)
        try:
            found.append(then(history.events("flow_run.paused")[-1].stream.partition("/")[2]))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (list[Colour], ["red"], [Colour.RED]),
        (Colour | None, "red", Colour.RED),
        (list[Person], [{"name": "Ann"}], [Person(name="Ann")]),
        (dict[str, Person], {"x": {"name": "Ann"}}, {"x": Person(name="Ann")}),
    ],
)
def test_E151_plain_types_may_have_models_and_enumerations_in_them(
    kind: Any, given: Any, expected: Any, history: History
) -> None:
    """Their schema has definitions that it refers to: an answer that fits is taken."""

    @flow
    def f() -> object:
        return suspend_flow_run(kind)

    f(return_state=True)
    (run,) = history.flow_runs("f")
    assert resume_run(run, flow=f, run_input=given) == expected


def test_E150_an_answer_that_does_not_fit_a_nested_model_leaves_the_run_paused(history: History) -> None:
    """Refused as InvalidInput, whatever depth the mistake is at."""

    @flow
    def f() -> object:
        return suspend_flow_run(list[Person])

    f(return_state=True)
    (run,) = history.flow_runs("f")
    with pytest.raises(InvalidInput):
        resume_flow_run(run, [{"name": 5}])
    assert history.flow_states(run)[-1] == "Suspended"


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "given",
    [
        {"text": "\ud800"},
        {"text": "\x00\u202e\u0085"},
        {"text": float("nan")},
        {"text": "x" * 3_000_000},
        {"text": _deep(200)},
        {"text": _deep(100_000)},
        {"text": b"bytes"},
        {"text": object()},
        {"text": {1, 2}},
        {"text": {("a", "b"): 1}},
    ],
    ids=["surrogate", "controls", "nan", "huge", "deep", "too-deep", "bytes", "object", "set", "keys"],
)
def test_E150_hostile_answers_are_taken_or_refused(given: Any, history: History, engine: Engine) -> None:
    """Whatever is answered, either the flow gets it, or it is an InvalidInput and the run stays paused."""

    @flow
    def f() -> object:
        return suspend_flow_run(dict[str, Any])

    f(return_state=True)
    (run,) = history.flow_runs("f")
    try:
        resume_flow_run(run, given)
    except InvalidInput:
        assert history.flow_states(run)[-1] == "Suspended"
        resume_flow_run(run, {"text": "fits"})
        given = {"text": "fits"}
    got = resume_run(run, flow=f)
    assert got == given or got["text"] != got["text"]
    assert violations(engine) == []


def test_E150_of_two_who_answer_at_once_one_is_told_that_he_was_late(history: History, engine: Engine) -> None:
    """Eight people answer at the same time: one answer is on record, and it is the one that the flow gets."""

    @flow
    def f() -> int:
        answer: int = suspend_flow_run(int)
        return answer

    f(return_state=True)
    (run,) = history.flow_runs("f")
    gate, found = threading.Barrier(8), []

    def answer(n: int) -> None:
        gate.wait(20)
        try:
            resume_flow_run(run, n, engine=engine)
            found.append(n)
        except NotPausedError:
            pass

    threads = [threading.Thread(target=answer, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert len(history.events("flow_run.answered")) == 1
    assert resume_run(run, flow=f) == found[0]


def test_E148_two_pauses_of_one_async_flow_at_once(history: History, engine: Engine) -> None:
    """Gathered pauses: both can be answered, or the second one says clearly why not; the engine does not fall over."""

    @flow
    async def f() -> None:
        await asyncio.gather(pause_flow_run(key="a", timeout=0.3), pause_flow_run(key="b", timeout=0.3))

    state = asyncio.run(f(return_state=True))
    assert not isinstance(state.data, AssertionError), state
    assert violations(engine) == []


def test_E148_an_answer_that_was_accepted_counts_however_late_it_is_seen(
    virtual_clock: VirtualClock, history: History, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered just before the deadline, seen after it: whoever answered was told that it counts, so it does."""
    look = pausing._answer
    answered: list[str] = []

    def look_and_then_answer(context: Any, key: str, after: int = 0) -> Any:
        found = look(context, key, after)
        deadlines = [data["deadline"] for data in history.data("flow_run.paused")]
        if deadlines and not answered and deadlines[0] - virtual_clock.now() <= 2_000_000:
            answered.append(resume_flow_run(context.flow_run.id, engine=engine))
            virtual_clock.microseconds = deadlines[0]
        return found

    monkeypatch.setattr(pausing, "_answer", look_and_then_answer)

    @flow
    def f() -> str:
        pause_flow_run(timeout=10)
        return "on"

    state = f(return_state=True)
    assert answered == ["paused"]
    assert state.is_completed(), state


def test_E149_a_run_may_be_suspended_without_end(history: History) -> None:
    """`timeout=float("inf")`: it waits for as long as it takes."""

    @flow
    def f() -> str:
        suspend_flow_run(timeout=float("inf"))
        return "on"

    assert f(return_state=True).name == "Suspended"
    (run,) = history.flow_runs("f")
    assert resume_run(run, flow=f) == "on"


def test_E149_a_fork_of_a_run_that_was_answered_is_not_asked_again(history: History) -> None:
    """A fork goes on from a moment in another run's past: what was answered until then is answered."""

    @flow
    def f() -> int:
        answer: int = suspend_flow_run(int)
        return answer

    f(return_state=True)
    (run,) = history.flow_runs("f")
    assert resume_run(run, flow=f, run_input=7) == 7
    state = fork_run(run, flow=f, return_state=True)
    assert state.is_completed(), state
    assert state.result() == 7


def test_E149_a_suspended_run_can_be_forked_and_restarted(history: History, engine: Engine) -> None:
    """The fork waits on its own; the run itself can be restarted, waits again, and ends well."""
    calls = []

    @task
    def before() -> int:
        calls.append(1)
        return len(calls)

    @flow
    def f() -> tuple[int, int]:
        first = before()
        return first, suspend_flow_run(int)

    f(return_state=True)
    (run,) = history.flow_runs("f")
    assert fork_run(run, flow=f, return_state=True).name == "Suspended"
    fork = history.flow_runs("f")[1]
    assert len(calls) == 1
    assert restart_run(run, flow=f, from_task="before", return_state=True).name == "Suspended"
    assert len(calls) == 2
    assert resume_run(fork, flow=f, run_input=5) == (1, 5)
    assert resume_run(run, flow=f, run_input=6) == (2, 6)
    assert violations(engine) == []


def test_E151_an_answer_that_a_validator_refused_can_be_corrected(history: History) -> None:
    """The model's own validator raises in the flow: resuming the failed run asks once more, instead of never again."""

    class Even(RunInput):
        n: int

        @field_validator("n")
        @classmethod
        def even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("odd")
            return value

    @flow
    def f() -> int:
        answer: Even = suspend_flow_run(Even)
        return answer.n

    f(return_state=True)
    (run,) = history.flow_runs("f")
    assert resume_run(run, flow=f, run_input={"n": 1}, return_state=True).is_failed()
    state = resume_run(run, flow=f, return_state=True)
    if state.name == "Suspended":
        state = resume_run(run, flow=f, run_input={"n": 2}, return_state=True)
    assert state.is_completed(), state


def test_E149_suspending_with_gathered_tasks_and_a_subflow(history: History, engine: Engine) -> None:
    """What was begun ends before the run is let go of; nothing of it runs again, whatever order it was made in."""
    calls: list[str] = []

    @task
    async def t(n: int) -> int:
        await asyncio.sleep(0.001 * n)
        calls.append(f"t{n}")
        return n

    @flow
    async def child(n: int) -> int:
        calls.append(f"child{n}")
        return await t(10 + n)

    @flow
    async def f() -> list[Any]:
        values = await asyncio.gather(t(3), child(1), t(1), child(2), t(2))
        answer = await suspend_flow_run(int)
        return [*values, answer]

    async def main() -> None:
        assert (await f(return_state=True)).name == "Suspended"
        (run,) = history.flow_runs("f")
        assert await resume_run(run, flow=f, run_input=9) == [3, 11, 1, 12, 2, 9]

    asyncio.run(main())
    assert sorted(calls) == ["child1", "child2", "t1", "t11", "t12", "t2", "t3"]
    assert violations(engine) == []


def test_E149_a_suspended_run_is_resumed_by_one_of_many(history: History, engine: Engine) -> None:
    """Six threads resume it at once: its code goes on in one of them, and the others are told so."""
    calls, gate = [], threading.Barrier(6)

    @flow
    def f() -> None:
        suspend_flow_run()
        calls.append(1)
        time.sleep(0.05)

    f(return_state=True)
    (run,) = history.flow_runs("f")
    found: list[Any] = []

    def go_on() -> None:
        gate.wait(20)
        try:
            found.append(resume_run(run, flow=f, return_state=True))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=go_on) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1, found
    assert sum(not isinstance(one, Exception) for one in found) == 1
    assert violations(engine) == []


def test_E148_an_interrupt_while_paused_ends_the_run_and_it_can_be_resumed(history: History, engine: Engine) -> None:
    """Ctrl-C in the wait: Crashed; resumed, it is paused again, and goes on once it is answered."""
    import signal

    @flow
    def f() -> str:
        pause_flow_run()
        return "on"

    main = threading.main_thread().ident
    assert main is not None
    thread, _ = _when_paused(history, lambda _: signal.pthread_kill(main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        f()
    thread.join()
    (run,) = history.flow_runs("f")
    assert history.flow_states(run)[-1] == "Crashed"
    with pytest.raises(NotPausedError):
        resume_flow_run(run)

    def answer(_: str) -> None:
        end = time.monotonic() + 20
        while len(history.events("flow_run.paused")) < 2 and time.monotonic() < end:
            time.sleep(0.005)
        resume_flow_run(run, engine=engine)

    thread, _ = _when_paused(history, answer)
    assert resume_run(run, flow=f) == "on"
    thread.join()
    assert violations(engine) == []


def test_E148_a_pause_that_fails_beside_the_flow_is_retried(history: History) -> None:
    """Another coroutine of the flow fails while it is paused: the attempt failed, and the retries count."""
    attempts = []

    async def fails() -> None:
        await asyncio.sleep(0.02)
        raise ValueError("x")

    @flow(retries=1)
    async def f() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            await asyncio.gather(pause_flow_run(timeout=5), fails())
        return "on"

    state = asyncio.run(f(return_state=True))
    assert len(attempts) == 2, state


def test_E149_expired_pauses_are_refused_and_the_run_fails(virtual_clock: VirtualClock, history: History) -> None:
    """Too late is too late: FlowPauseTimeout for whoever resumes it, and Failed on record, once."""

    @flow
    def f() -> None:
        suspend_flow_run(timeout=5)

    f(return_state=True)
    (run,) = history.flow_runs("f")
    virtual_clock.microseconds += 5_000_000
    with pytest.raises(FlowPauseTimeout):
        resume_flow_run(run)
    with pytest.raises(NotPausedError):
        resume_flow_run(run)
    assert history.flow_states(run)[-1] == "Failed"
