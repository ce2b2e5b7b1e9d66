"""A run that is cancelled, or interrupted by Ctrl-C, wherever a signal can reach our own code leaves a lawful log."""

import dis
import random
import sys
from collections import Counter
from contextvars import copy_context
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from tests.engine.invariants import violations

import flightlog
from flightlog import flow, task
from flightlog.concurrency import set_limit
from flightlog.concurrency.sync import concurrency
from flightlog.engine.cache_policies import INPUTS
from flightlog.engine.cancelling import may_strike
from flightlog.engine.context import DEFERRED
from flightlog.engine.runtime import Engine, using
from flightlog.errors import RunCancelled
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore

_OURS = str(Path(flightlog.__file__).parent / "engine")
_attempts: Counter[str] = Counter()
# It may strike between making one of our coroutines and running it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@task(tags=["one"], cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"), retries=1)
def shaky(n: int) -> int:
    """Fail at first."""
    _attempts["shaky"] += 1
    if _attempts["shaky"] == 1:
        raise ValueError("x")
    return n


@flow
def child(n: int) -> int:
    """Call a task."""
    return shaky(n)


@flow
def parent() -> int:
    """Hold a slot, and call a task and a subflow."""
    with concurrency("block"):
        first = shaky(1)
    return first + child(2)


@cache
def _stops(code: CodeType) -> frozenset[int]:
    """Return where Python lets a signal in: at the start of a function, after a call, and where a loop begins anew."""
    found, before = set(), ""
    for instruction in dis.get_instructions(code):
        if before in ("RESUME", "CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD"):
            found.add(instruction.offset)
        before = instruction.opname
    return frozenset(found)


class _Striker:
    """Strikes at one place of our code: as a request to cancel that comes by a signal, or as Ctrl-C."""

    def __init__(self, engine: Engine, at: int, how: str) -> None:
        self.engine = engine
        self.left = at
        self.how = how
        self.where = "nowhere"
        self._entered = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            self._entered = True  # when such a call returns, no signal is let in
            if not frame.f_code.co_filename.startswith(_OURS):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            entered, self._entered = self._entered, False
            if frame.f_lasti in _stops(frame.f_code) and not entered:
                self.left -= 1
                if self.left == 0:
                    self._strike(frame)
        return self

    def _strike(self, frame: FrameType) -> None:
        sys.settrace(None)
        self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
        here = may_strike(frame)
        if self.how == "interrupt":
            if here:
                raise KeyboardInterrupt
            DEFERRED.append(KeyboardInterrupt())
        if self.how == "interrupt":
            return
        outermost = [one.progress for one in self.engine.inbox._runs.values() if one.progress.context.parent is None]
        for progress in outermost:
            error = RunCancelled(progress.run.id, "Cancelled by engine")
            progress.cancelled = progress.context.stopped = error
            for other in self.engine.inbox._runs.values():
                other.progress.context.wake.set()
            if progress.interruptible and here and self.how == "cancel":
                raise error


def struck(settings: Any, at: int, how: str) -> tuple[int, str, list[str]]:
    """Run the flow on a fresh log and strike at a place.

    Returns:
        tuple: how many places were left to go; where it struck; what is wrong with the log.
    """
    _attempts.clear()
    engine = Engine(Log(MemoryStore()), b"k" * 32, settings)
    try:
        with using(engine):
            set_limit("tag:one", 1)
            set_limit("block", 1)
            striker = _Striker(engine, at, how)
            wrong: list[str] = []
            sys.settrace(striker)
            try:
                copy_context().run(parent, return_state=True)
            except (KeyboardInterrupt, RunCancelled):
                pass
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {str(error)[:150]}")
            finally:
                sys.settrace(None)
                DEFERRED.clear()
            if list(engine.log.read_all(types=["flow_run.created"])):
                wrong += violations(engine)
            return striker.left, striker.where, wrong
    finally:
        engine.log.close()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", ["cancel", "interrupt"])
def test_I7_struck_anywhere_nothing_stays_held_and_every_run_has_an_end(how: str, seed: int, engine: Engine) -> None:
    """Twenty places by chance: legal transitions, no run left Running, and no slot or claim left."""
    places = 1_000_000 - struck(engine.settings, 1_000_000, how)[0]
    assert places > 500
    chance = random.Random(seed)
    found = {}
    for _ in range(20):
        _, where, wrong = struck(engine.settings, chance.randint(1, places), how)
        if wrong:
            found[where] = wrong
    assert found == {}
