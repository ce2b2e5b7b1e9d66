"""Pausing and suspending flow runs, answering them, and cancelling them."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator
from tests.engine.conftest import History, VirtualClock

from flightlog import (
    cancel_run,
    flow,
    get_run_context,
    pause_flow_run,
    resume_flow_run,
    resume_run,
    suspend_flow_run,
    task,
)
from flightlog.clock import to_datetime
from flightlog.engine.runtime import Engine
from flightlog.errors import (
    CancelledRun,
    CannotCancel,
    CannotResume,
    FlowPauseTimeout,
    InvalidInput,
    NotPausedError,
    PausedRun,
)
from flightlog.input import RunInput, receive_input, send_input


class Approval(RunInput):
    """What somebody has to say."""

    approved: bool
    note: str = ""


def _when_paused(history: History, then: Callable[[str], None]) -> threading.Thread:
    """Do something, in a thread, with the id of the first flow run that is paused."""

    def work() -> None:
        end = time.monotonic() + 20
        while not (found := history.events("flow_run.paused")) and time.monotonic() < end:
            time.sleep(0.005)
        then(found[-1].stream.partition("/")[2])

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_E148_a_paused_flow_waits_until_it_is_resumed(history: History) -> None:
    """Paused, then Running again in the same attempt; who resumed it is on record."""
    counts = []

    @flow
    def f() -> str:
        pause_flow_run()
        counts.append(get_run_context().flow_context.flow_run.run_count)
        return "on"

    thread = _when_paused(history, lambda run: _resume(run, None, "cli:ann"))
    assert f() == "on"
    thread.join()
    (run,) = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "Paused", "Running", "Completed"]
    types = [event.type for event in history.events() if event.stream.endswith(run)]
    assert types == [
        "flow_run.created", "flow_run.running", "flow_run.paused", "flow_run.answered", "flow_run.resumed",
        "flow_run.completed",
    ]  # fmt: skip
    assert history.events("flow_run.answered")[0].actor == "cli:ann"
    assert counts == [1]


def _resume(run: str, run_input: Any = None, actor: str = "engine") -> None:
    resume_flow_run(run, run_input, actor=actor)


def test_E148_an_async_flow_is_paused_without_blocking_the_loop(history: History) -> None:
    """`await pause_flow_run()`: other coroutines go on meanwhile."""
    ticks = []

    @flow
    async def f() -> str:
        async def tick() -> None:
            while True:
                ticks.append(1)
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        await pause_flow_run()
        ticking.cancel()
        return "on"

    thread = _when_paused(history, _resume)
    assert asyncio.run(f()) == "on"
    thread.join()
    assert len(ticks) > 1


def test_E148_nobody_resumes_it_in_time(virtual_clock: VirtualClock, history: History) -> None:
    """After `timeout` the run fails with FlowPauseTimeout, and says that it was never resumed."""

    @flow
    def f() -> None:
        pause_flow_run(timeout=60)

    state = f(return_state=True)
    assert state.is_failed()
    assert "paused and never resumed" in str(state.message)
    with pytest.raises(FlowPauseTimeout):
        state.result()
    assert 59.9 <= sum(virtual_clock.slept) <= 61


def test_E148_tasks_cannot_be_paused() -> None:
    """In a task both are a RuntimeError."""

    @task
    def t(suspend: bool) -> None:
        (suspend_flow_run if suspend else pause_flow_run)()

    @flow
    def f(suspend: bool) -> None:
        t(suspend)

    with pytest.raises(RuntimeError, match="Cannot pause task runs"):
        f(False)
    with pytest.raises(RuntimeError, match="Cannot suspend task runs"):
        f(True)


def test_E148_new_tasks_of_a_paused_run_wait_and_running_ones_finish(history: History) -> None:
    """What was submitted and has begun goes on to its end; what has not begun, begins after the pause."""
    order = []
    running, paused = threading.Event(), threading.Event()

    @task
    def begun() -> None:
        running.set()
        paused.wait(10)
        order.append("begun ended")

    @task
    def later() -> None:
        order.append("later ran")

    @task
    def launches() -> None:
        begun()
        later()

    @flow
    def f() -> None:
        launches.submit()
        running.wait(10)
        pause_flow_run()
        order.append("resumed")

    def then(run: str) -> None:
        paused.set()
        end = time.monotonic() + 10
        while "begun ended" not in order and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.05)
        assert "later ran" not in order
        resume_flow_run(run)

    thread = _when_paused(history, then)
    f()
    thread.join()
    assert order[0] == "begun ended"
    assert set(order[1:]) == {"resumed", "later ran"}


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (Approval, {"approved": True}, Approval(approved=True)),
        (int, 7, 7),
        (int, {"value": 7}, 7),
        (list[str], ["a"], ["a"]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Approval.with_initial_data("Look at it", note="fine"), {"approved": False}, "fine"),
    ],
)
def test_E151_input_arrives_as_what_was_asked_for(history: History, kind: Any, given: Any, expected: Any) -> None:
    """Models, plain types (with or without the field `value`), and models with initial data."""

    @flow
    def f() -> Any:
        return pause_flow_run(wait_for_input=kind)

    thread = _when_paused(history, lambda run: _resume(run, given))
    value = f()
    thread.join()
    assert (value.note if expected == "fine" else value) == expected


def test_E150_input_that_does_not_fit_leaves_the_run_paused(history: History) -> None:
    """An answer that is missing, of another shape, or has more fields, is refused; the run waits on."""
    refused = []

    @flow
    def f() -> Any:
        return pause_flow_run(wait_for_input=Approval)

    def then(run: str) -> None:
        for wrong in (None, {}, {"approved": "perhaps"}, {"approved": True, "more": 1}, 5):
            with pytest.raises(InvalidInput) as caught:
                resume_flow_run(run, wrong)
            refused.append(caught.value)
        assert history.flow_states(run)[-1] == "Paused"
        resume_flow_run(run, {"approved": True, "note": "n"})
        with pytest.raises(NotPausedError):
            resume_flow_run(run, {"approved": False})

    thread = _when_paused(history, then)
    assert f() == Approval(approved=True, note="n")
    thread.join()
    assert len(refused) == 5
    assert all(isinstance(error, RuntimeError) for error in refused)


class Wish(RunInput):
    """What is asked of whoever answers."""

    approved: bool
    color: Literal["red", "blue"]
    note: str = ""
    count: int | None = Field(None, ge=1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"approved": "x", "color": "red"}, 'approved is to be boolean, not "x"'),
        (
            {"color": "green", "nots": 1, "count": 0},
            'it has no field \'nots\' (did you mean \'note\'?); color is to be "red" or "blue", not "green"; count ',
        ),
        (
            {"approved": True, "count": "x"},
            'count is to be integer (at least 1) or null, not "x"; color ("red" or "blue")',
        ),
        ([], "the input is to be {approved: boolean, color: "),
    ],
)
def test_E150_input_that_does_not_fit_is_told_field_by_field(given: Any, told: str, history: History) -> None:
    """One sentence names every field that does not fit, what it is to be, and that the run stays paused."""

    @flow
    def f() -> str:
        return suspend_flow_run(wait_for_input=Wish).color  # type: ignore[no-any-return]

    assert f(return_state=True).is_paused()
    (run,) = history.flow_runs("f")
    with pytest.raises(InvalidInput, match=re.escape(f"does not fit, and the run stays paused: {told}")):
        resume_run(run, flow=f, run_input=given)
    with pytest.raises(
        InvalidInput, match=r"waits for input \(approved: boolean; .*note: string = \"\".*run_input={'appr"
    ):
        resume_run(run, flow=f)
    assert history.flow_states(run)[-1] == "Suspended"
    assert resume_run(run, flow=f, run_input={"approved": True, "color": "blue"}) == "blue"


def test_E150_the_state_and_the_console_say_how_it_is_answered(history: History, capfd: Any) -> None:
    """Suspended or paused: until when, the command, the call, and the fields; the call's exception says it, too."""

    @flow
    def f() -> Any:
        return suspend_flow_run(wait_for_input=Wish.with_initial_data("Publish it?", note="fine"))

    @flow
    def g() -> Any:
        with pytest.raises(FlowPauseTimeout):
            pause_flow_run(wait_for_input=int, timeout=0.05)

    with pytest.raises(PausedRun) as raised:
        f()
    assert g() is None
    suspended, paused = history.flow_runs("f")[0], history.flow_runs("g")[0]
    message = history.data("flow_run.paused")[0]["message"]
    assert str(raised.value) == f"The run is Suspended, so it has no value yet. {message}"
    assert message.splitlines()[1:] == [
        "  Publish it?",
        f'To go on: flightlog runs resume {suspended[:18]} --input \'{{"approved": true, "color": "red"}}\'',
        f"In Python: flightlog.resume_run(\"{suspended}\", run_input={{'approved': True, 'color': 'red'}})",
        "The input:",
        "  approved: boolean",
        '  color: "red" or "blue"',
        '  note: string = "fine"',
        "  count: integer (at least 1) or null = null",
    ]
    shown = capfd.readouterr().err
    assert f"- Suspended. {message}" in shown
    assert "- Paused. It waits for input until " in shown
    assert f'In Python: flightlog.resume_flow_run("{paused}", 1)\n' in shown


def test_E150_input_for_a_run_that_asks_for_none_is_refused(history: History) -> None:
    """Input that would be ignored is an error; so is `resume_run` where the run's own process waits."""
    refused: list[Exception] = []

    @flow
    def f() -> None:
        raise ValueError

    @flow
    def g() -> Any:
        return pause_flow_run(wait_for_input=int)

    f(return_state=True)
    with pytest.raises(InvalidInput, match="does not wait for input"):
        resume_run(history.flow_runs("f")[0], flow=f, run_input=1)

    def answer(run: str) -> None:
        try:
            resume_run(run, flow=g, run_input=1)
        except CannotResume as error:
            refused.append(error)
        resume_flow_run(run, 1)

    thread = _when_paused(history, answer)
    assert g() == 1
    thread.join(30)
    run = history.flow_runs("g")[0]
    assert f'is paused, and goes on in its own process: flightlog.resume_flow_run("{run}", 1).' in str(refused[0])


def test_E151_a_models_own_validators_raise_in_the_flow(history: History) -> None:
    """What JSON Schema cannot say is found when the flow goes on, and raised there."""

    class Even(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def even(cls, n: int) -> int:
            if n % 2:
                raise ValueError("odd")
            return n

    @flow
    def f() -> str:
        try:
            pause_flow_run(wait_for_input=Even)
        except ValueError as error:
            return str(error)
        return "no error"

    thread = _when_paused(history, lambda run: _resume(run, {"n": 3}))
    assert "odd" in f()
    thread.join()


def test_I10_secrets_are_not_asked_for() -> None:
    """An input with a secret field would stand in the log, so it is refused where it is asked for."""

    class Login(RunInput):
        password: SecretStr

    @flow
    def f() -> None:
        pause_flow_run(wait_for_input=Login)

    with pytest.raises(TypeError, match="the log holds none"):
        f()


def test_E151_what_was_asked_and_shown_is_on_record(history: History) -> None:
    """The pause carries key, deadline, shape and description; the answer what was shown and given."""

    @flow
    def f() -> Any:
        return pause_flow_run(wait_for_input=Approval.with_initial_data("Ship it?"), timeout=100, key="ship")

    thread = _when_paused(history, lambda run: _resume(run, {"approved": True}))
    f()
    thread.join()
    (asked,) = history.events("flow_run.paused")
    assert asked.data["key"] == "ship"
    assert asked.data["shown"] == "Ship it?"
    assert json.loads(asked.data["input_schema"])["required"] == ["approved"]
    assert abs(asked.data["deadline"] - asked.occurred_at - 100_000_000) < 5_000_000
    (answer,) = history.data("flow_run.answered")
    assert answer == {"key": "ship", "input": '{"approved": true}', "shown": "Ship it?"}


def test_E149_a_suspended_run_holds_no_process_and_goes_on_with_what_is_recorded(history: History) -> None:
    """The call returns a state Suspended; resumed, recorded calls and answered pauses are not repeated."""
    calls = []

    @task
    def before() -> int:
        calls.append("before")
        return 1

    @task
    def after(n: int) -> int:
        calls.append("after")
        return n

    @flow
    def f() -> int:
        first = before()
        number = suspend_flow_run(wait_for_input=int)
        second = suspend_flow_run(wait_for_input=int)
        return after(first + number + second)

    state = f(return_state=True)
    assert (state.name, state.type) == ("Suspended", "PAUSED")
    details, [paused] = state.state_details, history.data("flow_run.paused")
    assert details.pause_timeout == to_datetime(paused["deadline"])
    assert (details.pause_key, details.pause_reschedule) == (paused["key"], True)
    (run,) = history.flow_runs("f")
    assert history.flow_states(run) == ["Pending", "Running", "Suspended"]
    with pytest.raises(InvalidInput, match="waits for input"):
        resume_run(run, flow=f)
    again = resume_run(run, flow=f, run_input=10, return_state=True)
    assert again.name == "Suspended"
    assert resume_flow_run(run, 100) == "suspended"
    with pytest.raises(NotPausedError):
        resume_flow_run(run, 100)
    assert resume_run(run, flow=f) == 111
    assert calls == ["before", "after"]


def test_E149_calling_a_flow_that_suspends_itself_raises_paused_run(history: History) -> None:
    """Without `return_state` the call raises PausedRun, which says how to go on; hooks of the end are not called."""

    @flow(on_failure=[lambda *_: pytest.fail("no end")], on_completion=[lambda *_: pytest.fail("no end")])
    def f() -> None:
        suspend_flow_run()

    with pytest.raises(PausedRun, match="flightlog runs resume"):
        f()
    with pytest.raises(PausedRun):
        asyncio.run(flow(_suspends_async)())


async def _suspends_async() -> None:
    await suspend_flow_run()


def test_E149_subflows_cannot_be_suspended() -> None:
    """A RuntimeError in the subflow."""

    @flow
    def child() -> None:
        suspend_flow_run()

    @flow
    def f() -> None:
        child()

    with pytest.raises(RuntimeError, match="Cannot suspend subflows"):
        f()


def test_E149_a_suspended_run_that_nobody_resumes_fails(virtual_clock: VirtualClock, history: History) -> None:
    """After its time whoever looks finds it failed, and cannot resume it."""

    @flow
    def f() -> None:
        suspend_flow_run(timeout=60)

    f(return_state=True)
    (run,) = history.flow_runs("f")
    virtual_clock.sleep(61)
    with pytest.raises(FlowPauseTimeout):
        resume_flow_run(run)
    assert history.flow_states(run)[-1] == "Failed"
    assert history.data("flow_run.failed")[0]["message"] == "The run was suspended and never resumed."


def test_a_retried_flow_is_not_paused_again_for_the_same_key(history: History) -> None:
    """An answer counts for all attempts of the run."""
    attempts = []

    @flow(retries=1)
    def f() -> int:
        number: int = pause_flow_run(wait_for_input=int)
        attempts.append(number)
        if len(attempts) == 1:
            raise ValueError
        return number

    thread = _when_paused(history, lambda run: _resume(run, 4))
    assert f() == 4
    thread.join()
    assert attempts == [4, 4]
    assert len(history.events("flow_run.paused")) == 1


def test_E150_a_run_that_is_not_paused(history: History) -> None:
    """Resuming one that has ended is NotPausedError."""

    @flow
    def f() -> None:
        pass

    f()
    (run,) = history.flow_runs("f")
    with pytest.raises(NotPausedError, match="Completed"):
        resume_flow_run(run)
    with pytest.raises(CannotResume):
        resume_run(run, flow=f)


# --- cancelling ---------------------------------------------------------------------------------------


def _once(ready: threading.Event, history: History, flow_name: str, engine: Engine, **options: Any) -> threading.Thread:
    """Cancel the first run of a flow, from another thread, once something is ready."""

    def work() -> None:
        assert ready.wait(20)
        engine.log.flush()
        (run,) = history.flow_runs(flow_name)
        assert cancel_run(run, engine=engine, **options) == "requested"

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_E152_a_sync_flow_is_stopped_in_the_middle_of_a_blocking_call(engine: Engine, history: History) -> None:
    """Requested by somebody, delivered, acknowledged by each child: on record in that order; the call raises."""
    ready, hooked = threading.Event(), []

    @task
    def blocks() -> None:
        ready.set()
        time.sleep(30)

    def on_cancellation(flow: Any, flow_run: Any, state: Any) -> None:
        hooked.append(state.name)

    @flow(on_cancellation=[on_cancellation])
    def f() -> None:
        blocks()

    thread = _once(ready, history, "f", engine, reason="wrong day", actor="cli:ann")
    with pytest.raises(CancelledRun, match="Cancelled by cli:ann: wrong day"):
        f()
    thread.join()
    types = [event.type for event in history.events() if event.type.partition(".")[2].startswith("cancel")]
    assert types[0] == "flow_run.cancel_requested"
    assert set(types[1:]) == {"flow_run.cancelling", "flow_run.cancelled", "task_run.cancelled"}
    assert types.index("flow_run.cancelling") < types.index("flow_run.cancelled")
    assert hooked == ["Cancelling"]


def test_E152_an_async_flow_is_cancelled_at_its_await(engine: Engine, history: History) -> None:
    """Flow and tasks of an event loop end as Cancelled; the caller gets CancelledRun, not a cancelled coroutine."""
    ready = threading.Event()

    @task
    async def waits() -> None:
        ready.set()
        await asyncio.sleep(30)

    @flow
    async def f() -> None:
        await asyncio.gather(waits(), waits())

    async def main() -> str:
        with pytest.raises(CancelledRun):
            await f()
        await asyncio.sleep(0)
        return "goes on"

    thread = _once(ready, history, "f", engine)
    assert asyncio.run(main()) == "goes on"
    thread.join()
    (run,) = history.flow_runs("f")
    assert history.flow_states(run)[-2:] == ["Cancelling", "Cancelled"]
    assert [states[-1] for states in history.states("waits")] == ["Cancelled", "Cancelled"]


def test_E152_submitted_tasks_end_and_those_not_begun_are_cancelled(engine: Engine, history: History) -> None:
    """Code in threads is stopped at its next call; what has not begun never does."""
    ready = threading.Event()

    @task
    def step(n: int) -> None:
        if n == 0:
            ready.set()

    @task
    def works(n: int) -> None:
        for _ in range(600):
            step(n)
            time.sleep(0.05)

    from flightlog.task_runners import ConcurrentTaskRunner

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def f() -> None:
        works.map(list(range(6)))
        time.sleep(30)

    thread = _once(ready, history, "f", engine)
    state = f(return_state=True)
    thread.join()
    assert state.is_cancelled()
    states = history.states("works")
    assert len(states) == 6
    assert all(one[-1] == "Cancelled" for one in states)
    assert sum("Running" in one for one in states) <= 2


def test_E152_a_run_that_waits_for_its_retry_is_cancelled_at_once(engine: Engine, history: History) -> None:
    """The wait before the next attempt, of a flow or of a task in a thread, ends early."""
    ready = threading.Event()

    @task(retries=1, retry_delay_seconds=30)
    def fails() -> None:
        ready.set()
        raise ValueError

    @flow
    def f() -> None:
        fails.submit().result()

    thread = _once(ready, history, "f", engine)
    assert f(return_state=True).is_cancelled()
    thread.join()
    assert history.states("fails")[0][-1] == "Cancelled"


def test_E152_a_parent_takes_its_subflows_with_it(engine: Engine, history: History) -> None:
    """Subflows of a cancelled run end as Cancelled too."""
    ready = threading.Event()

    @flow
    def child() -> None:
        ready.set()
        time.sleep(30)

    @flow
    def f() -> None:
        child()

    thread = _once(ready, history, "f", engine)
    assert f(return_state=True).is_cancelled()
    thread.join()
    (run,) = history.flow_runs("child")
    assert history.flow_states(run)[-1] == "Cancelled"


def test_E152_a_subflow_alone_can_be_cancelled(engine: Engine, history: History) -> None:
    """It ends as Cancelled; its parent is told by CancelledRun, and goes on."""
    ready = threading.Event()

    @task
    def step() -> None:
        ready.set()

    @flow
    def child() -> None:
        for _ in range(600):
            step()
            time.sleep(0.02)

    @flow
    def f() -> str:
        try:
            child()
        except CancelledRun:
            return "the parent goes on"
        return "not cancelled"

    thread = _once(ready, history, "child", engine)
    assert f() == "the parent goes on"
    thread.join()


def test_E152_user_code_cannot_swallow_a_cancellation(engine: Engine, history: History) -> None:
    """`except Exception` does not catch it."""
    ready = threading.Event()

    @flow
    def f() -> str:
        try:
            ready.set()
            time.sleep(30)
        except Exception:
            return "swallowed"
        return "not cancelled"

    thread = _once(ready, history, "f", engine)
    assert f(return_state=True).is_cancelled()
    thread.join()


def test_E152_a_suspended_run_is_cancelled_directly_and_an_ended_one_not_at_all(history: History) -> None:
    """No process has it: it is Cancelled at once. What has ended cannot be cancelled."""

    @flow
    def f() -> None:
        suspend_flow_run()

    f(return_state=True)
    (run,) = history.flow_runs("f")
    assert cancel_run(run, reason="not needed") == "cancelled"
    assert history.flow_states(run)[-1] == "Cancelled"
    with pytest.raises(CannotCancel, match="Cancelled"):
        cancel_run(run)
    with pytest.raises(NotPausedError):
        resume_flow_run(run)


def test_E152_a_paused_run_is_cancelled(engine: Engine, history: History) -> None:
    """The wait for an answer ends."""
    ready = threading.Event()

    @flow
    def f() -> None:
        ready.set()
        pause_flow_run()

    thread = _once(ready, history, "f", engine)
    assert f(return_state=True).is_cancelled()
    thread.join()


def test_E91_a_cancelled_run_can_be_resumed_and_keeps_what_completed(engine: Engine, history: History) -> None:
    """Resuming a cancelled run does not repeat completed calls."""
    ready, calls = threading.Event(), []

    @task
    def quick() -> int:
        calls.append("quick")
        return 1

    @flow
    def f() -> int:
        value = quick()
        if len(calls) == 1:
            calls.append("blocked")
            ready.set()
            time.sleep(30)
        return value

    thread = _once(ready, history, "f", engine)
    assert f(return_state=True).is_cancelled()
    thread.join()
    (run,) = history.flow_runs("f")
    assert resume_run(run, flow=f) == 1
    assert calls == ["quick", "blocked"]


# --- input that is sent ---------------------------------------------------------------------------------


class Order(RunInput):
    """What is sent."""

    n: int


def test_E151_input_is_sent_received_and_answered(history: History) -> None:
    """By type, in order; with metadata it can be responded to; other types are left alone."""
    done = []

    @flow
    def asks(other: str) -> Any:
        Order(n=1).send_to(other)
        send_input("text", other)
        Order(n=2).send_to(other)
        return next(receive_input(int, timeout=20))

    @flow
    def answers() -> None:
        run = get_run_context().flow_context.flow_run.id
        thread = threading.Thread(target=lambda: done.append(asks(run)))
        thread.start()
        received = Order.receive(timeout=20, with_metadata=True)
        first, second = next(received), next(received)
        assert (first.value, second.value) == (Order(n=1), Order(n=2))
        assert next(receive_input(str, timeout=20)) == "text"
        second.respond(first.value.n + second.value.n)
        thread.join()

    answers()
    assert done == [3]
    assert len(history.data("flow_run.input_sent")) == 4


def test_E151_one_input_is_taken(virtual_clock: VirtualClock) -> None:
    """`next` gives one, in async code to be awaited, and raises TimeoutError when none comes; `anext` gives one too."""

    def run() -> str:
        return get_run_context().flow_context.flow_run.id

    @flow
    def f() -> Any:
        receiver = receive_input(int, timeout=5)
        for number in (1, 2):
            send_input(number, run())
        taken = [receiver.next(), receiver.next()]
        with pytest.raises(TimeoutError, match="'int' came within 5 seconds"):
            receiver.next()
        return taken

    @flow
    async def later() -> Any:
        receiver = receive_input(int, timeout=5)
        for number in (1, 2):
            send_input(number, run())
        taken = [await receiver.next(), await anext(receiver)]
        with pytest.raises(TimeoutError, match="'int' came within 5 seconds"):
            await receiver.next()
        return taken

    assert f() == asyncio.run(later()) == [1, 2]


def test_E151_receiving_ends_when_its_time_is_over(virtual_clock: VirtualClock) -> None:
    """Quietly, or with TimeoutError; keys that are excluded are not given again; async code iterates too."""

    @flow
    def f() -> list[Any]:
        run = get_run_context().flow_context.flow_run.id
        send_input(1, run)
        (first,) = list(receive_input(int, timeout=5, with_metadata=True))
        assert first.sender == run
        with pytest.raises(TimeoutError, match="'int'"):
            list(receive_input(int, timeout=5, exclude_keys=[first.key], raise_timeout_error=True))
        return list(receive_input(int, timeout=5))

    assert f() == [1]

    @flow
    async def g() -> list[Any]:
        run = get_run_context().flow_context.flow_run.id
        await send_input({"a": 1}, run)
        return [one async for one in receive_input(dict, timeout=5)]

    assert asyncio.run(g()) == [{"a": 1}]
