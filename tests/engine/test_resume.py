"""Resume, restart and fork: what completed does not run again."""

import asyncio
import os
import threading
from typing import Any

import pytest
from pydantic import SecretStr

from flightlog import flow, task
from flightlog.engine.calls import Past
from flightlog.engine.history import read_history
from flightlog.engine.recovery import is_lost, mark_lost
from flightlog.engine.resuming import fork_run, restart_run, resume_run
from flightlog.engine.runtime import current_engine
from flightlog.errors import CallsDiffer, CannotResume, RunNotFound
from flightlog.events.liveness import key_of
from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import flow_run_stream
from flightlog.ids import RandomIds, parse_id
from flightlog.testing import VirtualClock

pytestmark = pytest.mark.usefixtures("own_home")


class World:
    """What the bodies of tasks see and change.

    Attributes:
        ran: which bodies ran, in order.
        broken: whether the world is broken just now.
        factor: something that code depends on.
    """

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.broken = True
        self.factor = 1


world = World()


@pytest.fixture(autouse=True)
def new_world() -> None:
    """Give each test a world of its own."""
    world.__init__()  # type: ignore[misc]


@pytest.fixture(autouse=True, params=["sqlite", "postgres"])
def each_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test on a log of either kind."""
    if request.param == "postgres":
        monkeypatch.setenv("FLIGHTLOG_LOG_URL", request.getfixturevalue("postgres_url"))


@task
def extract(n: int) -> list[int]:
    """Return numbers."""
    world.ran.append(f"extract {n}")
    return list(range(n))


@task
def load(values: list[int]) -> int:
    """Add numbers up, if the world is whole."""
    world.ran.append(f"load {values}")
    if world.broken:
        raise ConnectionError("no database")
    return sum(values)


@flow
def etl(n: int = 3) -> int:
    """Extract and load."""
    return load(extract(n * world.factor))


def run_id(state: Any) -> str:
    """Return the flow run's id that a state belongs to."""
    identifier = state.state_details.flow_run_id
    assert isinstance(identifier, str)
    return identifier


def states(run: str) -> list[str]:
    """Return the types of a flow run's own events."""
    log = current_engine().log
    return [e.type.partition(".")[2] for e in log.read(flow_run_stream(run)) if e.type.startswith("flow_run.")]


def test_a_failed_run_goes_on_where_it_failed() -> None:
    """What completed returns what is recorded; the task that failed runs again, in the same run."""
    run = run_id(etl(return_state=True))
    world.broken = False
    assert resume_run(run, flow=etl) == 3
    assert world.ran == ["extract 3", "load [0, 1, 2]", "load [0, 1, 2]"]
    assert states(run) == ["created", "running", "failed", "scheduled", "running", "completed"]
    history = read_history(current_engine().log, parse_id(run))
    assert [call.name for call in history.calls.values()] == [
        "extract-" + extract.key_hash + "-0",
        "load-" + load.key_hash + "-0",
    ]
    assert history.epoch == 2


def test_a_completed_run_is_not_resumed() -> None:
    """There is nothing to do, and the message says what one could want instead."""
    world.broken = False
    run = run_id(etl(return_state=True))
    with pytest.raises(CannotResume, match="completed: nothing is left to do"):
        resume_run(run, flow=etl)


def test_an_unknown_run_is_told() -> None:
    """An id that nobody knows, and what is no id."""
    with pytest.raises(RunNotFound):
        resume_run("01890a5d-ac96-774b-bcce-b302099a8057")
    with pytest.raises(RunNotFound, match="no id"):
        resume_run("brave-heron")


def test_a_run_that_is_going_is_not_resumed() -> None:
    """Its process lives: this one."""
    found: list[str] = []

    @task
    def look() -> None:
        engine = current_engine()
        created = next(engine.log.read_all(types=["flow_run.created"]))
        run = created.stream.partition("/")[2]
        assert mark_lost(engine.log, [parse_id(run)], actor="test") == []
        thread = threading.Thread(target=lambda: found.append(_refusal(run)))
        thread.start()
        thread.join()

    @flow
    def going() -> None:
        look()

    going()
    assert "still going" in found[0]


def _refusal(run: str) -> str:
    with pytest.raises(CannotResume) as caught:
        resume_run(run, flow=etl)
    return str(caught.value)


def test_within_a_run_nothing_is_resumed() -> None:
    """A flow cannot resume itself, or another run."""

    @flow
    def outer() -> None:
        resume_run("01890a5d-ac96-774b-bcce-b302099a8057")

    with pytest.raises(CannotResume, match="within"):
        outer()


def test_a_call_with_other_arguments_stops_the_run() -> None:
    """The difference is told, nothing of the user's runs, and `rerun` goes on all the same."""
    run = run_id(etl(return_state=True))
    world.broken, world.factor = False, 2
    with pytest.raises(CallsDiffer, match=r"'extract' with other arguments than 'extract-.*-0' had"):
        resume_run(run, flow=etl)
    assert world.ran == ["extract 3", "load [0, 1, 2]"]
    assert states(run)[-1] == "failed"
    assert resume_run(run, flow=etl, on_change="rerun") == sum(range(6))
    assert world.ran[2:] == ["extract 6", "load [0, 1, 2, 3, 4, 5]"]


def test_user_code_cannot_swallow_a_difference() -> None:
    """`except Exception` around a call does not keep a run alive whose code differs."""

    @flow
    def careless() -> int:
        try:
            extract(3 * world.factor)
        except Exception:
            return -1
        return load([1])

    run = run_id(careless(return_state=True))
    world.factor, world.broken = 2, False
    with pytest.raises(CallsDiffer):
        resume_run(run, flow=careless)


def test_restart_runs_a_task_and_all_after_it() -> None:
    """By the task's name or a run's; an unknown one is told with the nearest."""
    world.broken = False
    run = run_id(etl(return_state=True))
    assert restart_run(run, from_task="load", flow=etl) == 3
    assert world.ran == ["extract 3", "load [0, 1, 2]", "load [0, 1, 2]"]
    assert restart_run(run, from_task=f"extract-{extract.key_hash}-0", flow=etl) == 3
    assert world.ran[3:] == ["extract 3", "load [0, 1, 2]"]
    with pytest.raises(RunNotFound, match="Did you mean 'load'"):
        restart_run(run, from_task="loda", flow=etl)


def test_a_fork_is_a_run_of_its_own() -> None:
    """It takes over what completed, says from where, and leaves the other run as it is."""
    run = run_id(etl(return_state=True))
    before = list(current_engine().log.read(flow_run_stream(run)))
    world.broken = False
    state = fork_run(run, flow=etl, return_state=True)
    assert state.result() == 3
    fork = run_id(state)
    assert fork != run
    assert world.ran == ["extract 3", "load [0, 1, 2]", "load [0, 1, 2]"]
    assert [e.id for e in current_engine().log.read(flow_run_stream(run))] == [e.id for e in before]
    events = list(current_engine().log.read(flow_run_stream(fork)))
    assert events[0].data["forked_from"] == parse_id(run)
    assert events[0].data["forked_at"] == before[-1].id
    cached = next(e for e in events if e.type == "task_run.completed")
    assert cached.data["name"] == "Cached"
    original = next(e for e in before if e.type == "task_run.completed")
    assert cached.data["result"] == original.data["result"]


def test_a_fork_may_have_other_parameters_and_an_earlier_end() -> None:
    """Up to an event, by position; with other parameters calls run anew where they are given other values."""
    world.broken = False
    run = run_id(etl(return_state=True))
    log = current_engine().log
    extracted = next(e for e in log.read(flow_run_stream(run)) if e.type == "task_run.completed")
    assert fork_run(run, at=extracted.position, flow=etl) == 3
    assert world.ran == ["extract 3", "load [0, 1, 2]", "load [0, 1, 2]"]
    assert fork_run(run, flow=etl, parameters={"n": 5}) == 10
    assert world.ran[3:] == ["extract 5", "load [0, 1, 2, 3, 4]"]
    with pytest.raises(RunNotFound, match="no event 999999"):
        fork_run(run, at=999999, flow=etl)
    with pytest.raises(CannotResume, match="Did you mean 'n'"):
        fork_run(run, flow=etl, parameters={"nn": 5})


def test_a_fork_of_a_fork_and_its_restart() -> None:
    """What was taken over can be taken over again, and kept when the fork is restarted."""
    world.broken = False
    run = run_id(etl(return_state=True))
    fork = run_id(fork_run(run, flow=etl, return_state=True))
    again = run_id(fork_run(fork, flow=etl, return_state=True))
    assert world.ran == ["extract 3", "load [0, 1, 2]"]
    assert restart_run(again, from_task="load", flow=etl) == 3
    assert world.ran[2:] == ["load [0, 1, 2]"]


def test_parameters_that_are_not_recorded_are_asked_for() -> None:
    """A secret is not in the log: resume needs it again, and takes nothing else."""

    @flow
    def secretive(n: int, password: SecretStr) -> int:
        world.ran.append(password.get_secret_value())
        return load([n])

    run = run_id(secretive(1, SecretStr("hunter2-hunter2"), return_state=True))
    world.broken = False
    with pytest.raises(CannotResume, match=r"needs password again.*--param password="):
        resume_run(run, flow=secretive)
    with pytest.raises(CannotResume, match="'n' is on record"):
        resume_run(run, flow=secretive, parameters={"n": 2})
    assert resume_run(run, flow=secretive, parameters={"password": SecretStr("correct-horse")}) == 1
    assert world.ran == ["hunter2-hunter2", "load [1]", "correct-horse", "load [1]"]


def test_results_that_are_not_recorded_run_again_visibly() -> None:
    """With `persist_result=False` there is nothing to return; the event that says so is in the log."""

    @task(persist_result=False)
    def fleeting() -> int:
        world.ran.append("fleeting")
        return 1

    @flow
    def f() -> int:
        return load([fleeting()])

    run = run_id(f(return_state=True))
    world.broken = False
    assert resume_run(run, flow=f) == 1
    assert world.ran == ["fleeting", "load [1]", "fleeting", "load [1]"]
    events = current_engine().log.read(flow_run_stream(run))
    said = [e.data["message"] for e in events if e.type == "task_run.scheduled" and "message" in e.data]
    assert said == ["The call runs again: its result was not recorded (persist_result=False)."]


@pytest.mark.parametrize("retried", [False, True])
def test_calls_whose_arguments_cannot_be_compared_run_again_visibly(retried: bool) -> None:
    """A lock means nothing in another process: such a call has no digest, whether the flow is resumed or retried."""

    @task
    def guarded(n: int, lock: Any) -> int:
        world.ran.append(f"guarded {n}")
        return n

    @task
    def flaky(n: int) -> int:
        world.ran.append(f"flaky {n}")
        if world.ran.count(f"flaky {n}") == 1:
            raise ConnectionError
        return n

    @flow(retries=1 if retried else 0)
    def f() -> int:
        lock = threading.Lock()
        return flaky(guarded(1, lock) + guarded(2, lock))

    state = f(return_state=True)
    run = run_id(state)
    assert (state.result() if retried else resume_run(run, flow=f)) == 3
    assert world.ran == ["guarded 1", "guarded 2", "flaky 3"] * 2
    events = list(current_engine().log.read(flow_run_stream(run)))
    said = [e.data["message"] for e in events if e.type == "task_run.scheduled" and "message" in e.data]
    assert said == ["The call runs again: its arguments cannot be compared with those that it had before."] * 2
    assert sum(e.type == "task_run.created" for e in events) == 3


def test_async_flows_are_resumed() -> None:
    """The call is awaited; gathered tasks are matched by their arguments, in whatever order they come."""

    @task
    async def square(n: int) -> int:
        world.ran.append(f"square {n}")
        if world.broken and n == 2:
            raise ConnectionError
        return n * n

    @flow
    async def squares(order: list[int]) -> int:
        numbers = order if world.broken else list(reversed(order))
        return sum(await asyncio.gather(*[square(n) for n in numbers]))

    run = run_id(asyncio.run(squares([1, 2, 3], return_state=True)))
    world.broken = False
    assert asyncio.run(resume_run(run, flow=squares)) == 14
    assert world.ran == ["square 1", "square 2", "square 3", "square 2"]


def test_a_subflow_that_failed_gets_a_new_run_with_what_completed() -> None:
    """In a resumed run and in a flow's own retry alike."""

    @flow
    def inner(n: int) -> int:
        return load(extract(n))

    @flow
    def outer() -> int:
        return inner(2) + 1

    run = run_id(outer(return_state=True))
    world.broken = False
    assert resume_run(run, flow=outer) == 2
    assert world.ran == ["extract 2", "load [0, 1]", "load [0, 1]"]

    @flow
    def flaky(n: int) -> int:
        value = extract(n)
        world.broken = not world.broken
        return load(value)

    @flow(retries=1)
    def retried() -> int:
        return flaky(4)

    world.ran.clear()
    assert retried() == 6
    assert world.ran == ["extract 4", "load [0, 1, 2, 3]", "load [0, 1, 2, 3]"]


def _crash(run: str) -> None:
    """Put on record that a run crashed, as whoever finds its process gone does."""
    log = current_engine().log
    history = read_history(log, parse_id(run))
    event = NewEvent(RandomIds().new(), "flow_run.crashed", {"cause": "lost_worker"}, 1, actor="test")
    log.append_all([Append(flow_run_stream(run), [event], history.version, history.epoch + 1)])


def test_after_a_crash_a_failure_that_was_dealt_with_stays_one() -> None:
    """The run had gone on after it: with another outcome it might take another way."""

    @task
    def picky() -> int:
        world.ran.append("picky")
        raise KeyError("gone")

    @flow
    def dealing() -> str:
        try:
            picky()
        except KeyError as error:
            found = str(error)
        run = next(current_engine().log.read_all(types=["flow_run.created"])).stream.partition("/")[2]
        if world.broken:
            current_engine().log.flush()
            _crash(run)
        load([1])
        return found

    with pytest.raises(BaseException, match="taken over"):
        dealing()
    run = next(current_engine().log.read_all(types=["flow_run.created"])).stream.partition("/")[2]
    world.broken = False
    assert resume_run(run, flow=dealing) == "'gone'"
    assert world.ran == ["picky", "load [1]"]


def test_I7_a_late_write_of_a_run_that_was_taken_over_is_refused() -> None:
    """The old owner's next event is refused, no body starts, and its run ends quietly; the new owner's goes on."""
    gate, taken = threading.Event(), threading.Event()
    ended: list[BaseException | None] = []
    runs: list[str] = []

    @task
    def slow(n: int) -> int:
        world.ran.append(f"slow {n}")
        if n == 1 and world.broken:
            runs.append(next(current_engine().log.read_all(types=["flow_run.created"])).stream.partition("/")[2])
            gate.set()
            taken.wait(30)
        return n

    @flow
    def pair() -> int:
        return slow(1) + slow(2)

    def old_owner() -> None:
        try:
            pair()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=old_owner)
    thread.start()
    assert gate.wait(30)
    _crash(runs[0])
    world.broken = False
    assert resume_run(runs[0], flow=pair) == 3
    count = len(list(current_engine().log.read(flow_run_stream(runs[0]))))
    taken.set()
    thread.join(30)
    assert type(ended[0]).__name__ == "TakenOver"
    assert world.ran == ["slow 1", "slow 1", "slow 2"]
    assert len(list(current_engine().log.read(flow_run_stream(runs[0])))) == count


def test_a_process_elsewhere_is_judged_by_its_beats_and_the_logs_clock() -> None:
    """On another machine a run is lost when it has left no beat for a minute, whatever this machine's clock says."""
    run = run_id(etl(return_state=True))
    clock = VirtualClock()
    log = Log(MemoryStore(clock, current_engine().log.log_id))
    rows = [row for row in current_engine().log.store.indexed(0, 100) if row.version <= 2]
    log.store.adopt([row._replace(recorded_at=clock.now()) for row in rows], {})
    history = read_history(log, parse_id(run))
    assert history.running is not None
    history.running = {**history.running, "boot": "another machine's"}
    assert not is_lost(log, history)
    clock.sleep(61)
    assert is_lost(log, history)
    log.store.beat(key_of(history.running), log.store.now())
    assert not is_lost(log, history)
    clock.sleep(61)
    assert is_lost(log, history)
    log.close()


def test_an_unexpected_error_of_a_commit_is_told_to_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever for a submitted call whose start could not be committed."""

    @flow
    def submitting() -> int:
        store = current_engine().log.store
        write = store.write
        pool = [True]

        def broken(units: Any, *, wait: bool) -> bool:
            if threading.current_thread().name.startswith("flightlog-task") and pool:
                pool.clear()
                raise MemoryError("not even an error of ours")
            return write(units, wait=wait)

        monkeypatch.setattr(store, "write", broken)
        state = extract.submit(2).wait()
        return state is not None and state.is_crashed()

    assert submitting() is True


def test_a_subflow_that_failed_twice_goes_on_from_its_latest_run() -> None:
    """Each failure makes a run of its own; what completed in the latest one counts, not what the first one had."""

    @flow
    def inner() -> int:
        extract(1)
        if world.factor < 2:
            raise ConnectionError("early")
        extract(2)
        return load([1])

    @flow
    def outer() -> int:
        return inner()

    run = run_id(outer(return_state=True))
    world.factor = 2
    assert resume_run(run, flow=outer, return_state=True).is_failed()
    assert world.ran == ["extract 1", "extract 2", "load [1]"]
    world.broken = False
    assert resume_run(run, flow=outer) == 1
    assert world.ran == ["extract 1", "extract 2", "load [1]", "load [1]"]


def test_a_restart_that_failed_still_knows_what_it_was_to_run_again() -> None:
    """What comes after the task that was restarted from runs again, also if the restart itself did not get there."""

    @flow
    def chain() -> int:
        return len(extract(load(extract(2))))

    world.broken = False
    run = run_id(chain(return_state=True))
    world.broken = True
    assert restart_run(run, from_task="load", flow=chain, return_state=True).is_failed()
    world.broken = False
    assert resume_run(run, flow=chain) == 1
    assert world.ran == ["extract 2", "load [0, 1]", "extract 1", "load [0, 1]", "load [0, 1]", "extract 1"]


def test_a_fork_goes_on_inside_a_task_that_calls_tasks() -> None:
    """The outer task did not complete and is made anew; what it had called and what completed does not run again."""

    @task
    def outer(n: int) -> int:
        return load(extract(n))

    @flow
    def f() -> int:
        return outer(2)

    run = run_id(f(return_state=True))
    world.broken = False
    assert fork_run(run, flow=f) == 1
    assert world.ran == ["extract 2", "load [0, 1]", "load [0, 1]"]


@pytest.mark.parametrize("event", ["task_run.created", "task_run.running"])
def test_a_fork_at_the_beginning_of_a_subflow_starts_it_anew(event: str) -> None:
    """At that event the subflow's own run has left nothing yet."""

    @flow
    def inner() -> int:
        return len(extract(2))

    @flow
    def f() -> int:
        return inner()

    run = run_id(f(return_state=True))
    at = next(e for e in current_engine().log.read(flow_run_stream(run)) if e.type == event)
    assert fork_run(run, at=at.position, flow=f) == 2
    assert world.ran == ["extract 2", "extract 2"]


def test_a_task_that_was_not_ready_twice_is_one_task_run() -> None:
    """What could not start in the run and in its resume is the same call, and leaves no other task run behind."""

    @flow
    def f() -> int:
        broken = load.submit([1])
        return len(extract.submit(broken).result())

    run = run_id(f(return_state=True))
    assert resume_run(run, flow=f, return_state=True).is_failed()
    world.broken = False
    assert resume_run(run, flow=f) == 1
    created = [e for e in current_engine().log.read(flow_run_stream(run)) if e.type == "task_run.created"]
    assert len(created) == 2


def test_a_run_that_is_gone_on_with_names_its_process_at_once() -> None:
    """From the takeover on nobody takes it for lost, though the process that it had before is gone."""
    run = run_id(etl(return_state=True))
    engine = current_engine()
    history = read_history(engine.log, parse_id(run))
    dead = {**(history.running or {}), "started": 1}
    stream = flow_run_stream(run)

    def told(type_: str, data: dict[str, Any]) -> None:
        engine.log.append(stream, [NewEvent(RandomIds().new(), type_, data, engine.clock.now())])

    told("flow_run.scheduled", {"name": "AwaitingRerun"})
    told("flow_run.running", {"attempt": 2, **dead})
    assert is_lost(engine.log, read_history(engine.log, parse_id(run)))
    assert resume_run(run, flow=etl, return_state=True).is_failed()
    taken = [e for e in engine.log.read(stream) if e.type == "flow_run.scheduled"][-1]
    assert taken.data["pid"] == os.getpid()
    before_it_started = read_history(engine.log, parse_id(run), until=taken.position)
    assert (before_it_started.rules.type, is_lost(engine.log, before_it_started)) == ("SCHEDULED", False)


def test_after_a_retry_began_what_failed_before_it_runs_again() -> None:
    """A failure that the flow's own retry was to repeat is not kept when the process dies before that."""

    @flow(retries=1)
    def f() -> int:
        return load(extract(1))

    world.broken = True
    state = f(return_state=True)
    run = run_id(state)
    engine = current_engine()
    events = list(engine.log.read(flow_run_stream(run)))
    retry = next(e for e in events if e.type == "flow_run.awaiting_retry")
    began = next(e for e in events if e.type == "flow_run.running" and e.position > retry.position)
    history = read_history(engine.log, parse_id(run), until=began.position)
    failed = next(call for call in history.calls.values() if call.task == "load")
    assert (failed.type, failed.ended < history.retried) == ("FAILED", True)
    assert not Past(history, keep_failures=True).keeps_failure(failed)


def test_a_run_that_never_began_cannot_be_resumed() -> None:
    """Parameters that do not fit are not recorded but for their types; the message says what to do."""
    run = run_id(etl("many", return_state=True))
    with pytest.raises(CannotResume, match=r"never began: its parameters do not fit.*Start a new run"):
        resume_run(run, flow=etl)
