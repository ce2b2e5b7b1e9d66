"""Processes, threads and event loops that fight for one slot and one cache key, some of them killed."""

import asyncio
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.engine.invariants import check_claims, check_runs

from flightlog import flow, pause_flow_run, resume_flow_run, resume_run, task
from flightlog.concurrency import set_limit
from flightlog.concurrency.asyncio import concurrency as concurrency_async
from flightlog.concurrency.sync import concurrency
from flightlog.engine.cache_policies import INPUTS
from flightlog.engine.context import TaskRunContext
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.errors import NotPausedError
from flightlog.events.liveness import key_of, this_process

_SPAWN = multiprocessing.get_context("spawn")


def _witness(text: str) -> None:
    descriptor = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


@task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"), tags=["one"])
def compute(key: int) -> int:
    """Be computed once."""
    context = TaskRunContext.get()
    assert context is not None
    _witness(f"start {key} {os.getpid()}")
    time.sleep(0.002)
    _witness(f"end {key} {os.getpid()}")
    return key


@task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"), tags=["one"])
async def compute_async(key: int) -> int:
    """Be computed once, in an event loop."""
    _witness(f"start {key} {os.getpid()}")
    await asyncio.sleep(0.002)
    _witness(f"end {key} {os.getpid()}")
    return key


@flow
def sync_fight(keys: list[int]) -> list[int]:
    """Want some keys and, between them, the slot itself."""
    found: list[int] = compute.map(keys).result()
    with concurrency("block"):
        _witness(f"inside {os.getpid()}")
    return found


@flow
async def async_fight(keys: list[int]) -> list[int]:
    """Want some keys at once, in an event loop."""
    found = list(await asyncio.gather(*map(compute_async, keys)))
    async with concurrency_async("block"):
        _witness(f"inside {os.getpid()}")
    return found


def _fighter(home: str, seed: int) -> None:
    os.environ |= {"FLIGHTLOG_HOME": home, "WITNESS": f"{home}/witness", "FLIGHTLOG_LOGGING_LEVEL": "CRITICAL"}
    keys = list(range(6))
    random.Random(seed).shuffle(keys)
    threads = [threading.Thread(target=sync_fight, args=(keys,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    asyncio.run(async_fight([key + 10 for key in keys]))
    for thread in threads:
        thread.join()
    close_engine()


def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    home = str(tmp_path / "home")
    monkeypatch.setenv("FLIGHTLOG_HOME", home)
    return home


@pytest.mark.parametrize("seed", range(2))
def test_I7_fights_for_a_slot_and_a_key_with_killings(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processes, one killed: no limit exceeded, each key computed once unless its computer died, all end."""
    home = _home(tmp_path, monkeypatch)
    set_limit("tag:one", 2)
    set_limit("block", 1)
    chance = random.Random(seed)
    fighters = [_SPAWN.Process(target=_fighter, args=(home, 100 * seed + n)) for n in range(4)]
    for fighter in fighters:
        fighter.start()
    witness = Path(home) / "witness"
    wanted = chance.randint(1, 8)
    end = time.monotonic() + 30
    while (not witness.exists() or len(witness.read_text().splitlines()) < wanted) and time.monotonic() < end:
        time.sleep(0.002)
    starter = int(witness.read_text().splitlines()[wanted - 1].split()[-1])
    killed = next(fighter for fighter in fighters if fighter.pid == starter)
    killed.kill()
    for fighter in fighters:
        fighter.join(40)
    late = [fighter for fighter in fighters if fighter.is_alive()]
    for fighter in late:
        fighter.kill()
        fighter.join()
    assert not late, "some never ended"
    assert [fighter.exitcode for fighter in fighters if fighter is not killed] == [0, 0, 0]
    events = list(current_engine().log.read_all())
    assert check_claims(events, at_rest=False) == []
    assert check_runs(events, at_rest=False) == []
    lines = [line.split() for line in witness.read_text().splitlines()]
    for key in {line[1] for line in lines if line[0] == "start"}:
        by = [int(line[2]) for line in lines if line[:2] == ["start", key]]
        assert len([pid for pid in by if pid != killed.pid]) <= 1, (key, by)
        assert len(by) <= 2, (key, by)


@flow
def paused() -> str:
    """Wait for somebody."""
    pause_flow_run()
    return "on"


def _pauses(home: str) -> None:
    os.environ |= {"FLIGHTLOG_HOME": home, "FLIGHTLOG_LOGGING_LEVEL": "CRITICAL"}
    paused()


def test_I12_answering_a_paused_run_whose_process_was_killed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is there to go on: whoever answers is told so, the run is on record as Crashed, and can be resumed."""
    home = _home(tmp_path, monkeypatch)
    log = current_engine().log
    process = _SPAWN.Process(target=_pauses, args=(home,))
    process.start()
    end = time.monotonic() + 30
    while not (found := list(log.read_all(types=["flow_run.paused"]))) and time.monotonic() < end:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    run = found[0].stream.partition("/")[2]
    with pytest.raises(NotPausedError):
        resume_flow_run(run)
    assert [event.type for event in log.read_all(types=["flow_run.crashed", "flow_run.answered"])] == [
        "flow_run.crashed"
    ]

    def answer() -> None:
        end = time.monotonic() + 20
        while len(list(log.read_all(types=["flow_run.paused"]))) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        resume_flow_run(run)

    thread = threading.Thread(target=answer)
    thread.start()
    assert resume_run(run, flow=paused) == "on"
    thread.join()


def test_I7_a_slot_that_is_held_outside_of_flows_leaves_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other machines see by the beats that its holder lives: without them they would take the slot after a minute."""
    _home(tmp_path, monkeypatch)
    set_limit("block", 1)
    engine = current_engine()
    with concurrency("block"):
        engine.heart._beat()
        beats: dict[str, Any] = dict(engine.log.store.beats())
    assert key_of(this_process()) in beats
