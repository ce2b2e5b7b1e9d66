"""Slots of concurrency limits: taking them, waiting for them, giving them back. Each step is one conditional append."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flightlog.engine.bridge import Waits
from flightlog.engine.caching import PATIENCE
from flightlog.engine.context import CURRENT, RunContext, TaskRunContext, check
from flightlog.engine.promises import Promise
from flightlog.engine.recovery import is_dead
from flightlog.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError, VersionConflict
from flightlog.events.inline import Kept
from flightlog.events.liveness import this_process
from flightlog.events.model import Append, NewEvent
from flightlog.events.store import Unit
from flightlog.events.types import (
    SLOTS_ACQUIRED,
    SLOTS_AWAITED,
    SLOTS_EXPIRED,
    SLOTS_GIVEN_UP,
    SLOTS_RELEASED,
    limit_stream,
)
from flightlog.ids import id_text
from flightlog.projections.concurrency import taken

if TYPE_CHECKING:
    from flightlog.engine.runtime import Engine


_LONGEST = 1e9
"""Seconds: some thirty years, for those who say infinity."""


class NoSlots(Exception):
    """A limit has no slots at all; the text says which."""


@dataclass(slots=True)
class Slots:
    """Slots that somebody wants, and then holds.

    Attributes:
        engine: gives log, clock and ids.
        names: the limits.
        count: how many slots of each.
        run: what holds them: ``flow_run_id`` and ``task_run_id``, as far as there are any.
        decays: whether they free themselves with time, and are never given back.
        strict: whether a limit that there is not is an error.
        wake: set when the waiting is to end early.
        held: the limits of which slots are held.
    """

    engine: "Engine"
    names: Sequence[str]
    count: int = 1
    run: dict[str, bytes] = field(default_factory=dict)
    decays: bool = False
    strict: bool = False
    wake: threading.Event = field(default_factory=threading.Event)
    held: list[str] = field(default_factory=list)
    _holder: bytes = b""
    _waiting: list[str] = field(default_factory=list)
    _wanted: list[str] = field(default_factory=list)
    _said: bool = False

    async def acquire(
        self, waits: Waits, timeout: float | None = None, waiting: Callable[[str], Unit] | None = None
    ) -> None:
        """Take the slots of all limits at once; wait until they are free.

        Args:
            waits: how to wait.
            timeout: seconds to wait at the most; None for as long as it takes.
            waiting: called with a sentence when the waiting begins; puts it on record.

        Raises:
            NoSlots: a limit is 0.
            ConcurrencySlotAcquisitionError: more slots are wanted than there are; or a limit that does not decay is to.
            AcquireConcurrencySlotTimeoutError: the time is over.
        """
        engine = self.engine
        self._holder = engine.ids.new()
        end = None if timeout is None else engine.clock.now() + round(min(timeout, _LONGEST) * 1e6)
        self._full(await engine.looked(waits, self._limits))
        if not self._wanted:
            return  # nothing limits it
        gate = engine.gates.of(tuple(sorted(self._wanted)))
        turn = gate.enter()
        try:
            if not turn.done():
                await self._queue(waits, turn, timeout, waiting)
            await self._acquire(waits, end, timeout, waiting)
        finally:
            self._give_up()
            gate.leave(turn)

    async def _queue(
        self, waits: Waits, turn: Promise[None], timeout: float | None, waiting: Callable[[str], Unit] | None
    ) -> None:
        """Wait until those of this process that came before have their slots."""
        if waiting is not None and not self._said:
            self._said = True
            unit = waiting(f"It waits for its turn at {_quoted(self._wanted)}: others of this process came before it.")
            await waits.commit(self.engine.log, unit)
        if not await waits.until(turn, timeout):
            raise self._late(self._wanted, timeout)

    async def _acquire(
        self, waits: Waits, end: int | None, timeout: float | None, waiting: Callable[[str], Unit] | None
    ) -> None:
        engine, delay, looked = self.engine, PATIENCE[0], False
        while True:
            limits: dict[str, Kept] = await engine.looked(waits, self._limits)
            full = self._full(limits)
            if full and not looked:
                looked = True
                await waits.commit(engine.log, engine.log.enqueue([]))  # what was given back just now may be in line
                continue
            if not full:
                if await self._take(waits, limits):
                    return
                continue
            if await self._expire(waits, limits, full):
                continue
            if end is not None and engine.clock.now() >= end:
                raise self._late(full, timeout)
            if (context := CURRENT.get()) is not None:
                check(context)
                self._refuse_to_wait_for_itself(context, limits, full)
            await self._wait(waits, limits, full, waiting)
            await waits.sleep(engine.clock, delay, self.wake)
            delay = min(1.5 * delay, PATIENCE[1])

    def _late(self, names: Sequence[str], timeout: float | None) -> AcquireConcurrencySlotTimeoutError:
        return AcquireConcurrencySlotTimeoutError(
            f"No slot of {_quoted(names)} became free within {timeout:g} seconds."
        )

    def _refuse_to_wait_for_itself(self, context: RunContext, limits: dict[str, Kept], full: Sequence[str]) -> None:
        """Tell a run that waits for slots which only the runs hold that it was called in.

        Raises:
            ConcurrencySlotAcquisitionError: that is so.
        """
        above: set[bytes] = set()
        parent = context.parent if self.run.get("task_run_id") == _key_of(context) else context
        while parent is not None:
            above.add(_key_of(parent))
            parent = parent.parent
        for name in full:
            holders = limits[name].state["holders"].values()
            if holders and all(holder.get("task_run_id") in above for holder in holders):
                raise ConcurrencySlotAcquisitionError(
                    f"The task waits for a slot of {name!r}, all of which are held by the tasks that it was called in: "
                    "it would wait for ever. Raise the limit, or take the tag off one of them."
                )

    def _limits(self) -> dict[str, Kept]:
        """Return the limits that there are, by name."""
        found = {name: self.engine.kept("concurrency", limit_stream(name)) for name in self.names}
        if self.strict and (missing := [name for name, kept in found.items() if kept.state is None]):
            raise ConcurrencySlotAcquisitionError(f"There is no concurrency limit {_quoted(missing)}.")
        limits = {name: kept for name, kept in found.items() if kept.state is not None}
        self._wanted = list(limits)
        return limits

    def _full(self, limits: dict[str, Kept]) -> list[str]:
        """Return the limits that have too few free slots.

        Raises:
            NoSlots, ConcurrencySlotAcquisitionError: they will never have enough.
        """
        now, full = self.engine.clock.now(), []
        for name, kept in limits.items():
            limit, decay = kept.state["limit"], kept.state["decay"]
            if limit == 0:
                raise NoSlots(f"The concurrency limit {name!r} is 0: nothing may run under it.")
            if self.count > limit:
                raise ConcurrencySlotAcquisitionError(
                    f"{self.count} slots of {name!r} cannot be had: its limit is {limit}."
                )
            if self.decays and not decay:
                raise ConcurrencySlotAcquisitionError(
                    f"{name!r} is no rate limit: its slots do not decay. Set its slot_decay_per_second."
                )
            if taken(kept.state, now) + self.count > limit:
                full.append(name)
        return full

    async def _take(self, waits: Waits, limits: dict[str, Kept]) -> bool:
        """Take the slots, if nothing has changed meanwhile; tell if so."""
        if not limits:
            return True
        told = self._told() | ({"decays": True} if self.decays else {})
        # Before it is so: should the waiting be broken off, it may be so all the same, and is given back then.
        self.held = [] if self.decays else list(limits)
        appends = [self._append(name, SLOTS_ACQUIRED, told, kept.version) for name, kept in limits.items()]
        unit = self.engine.log.enqueue(appends)
        try:
            await waits.commit(self.engine.log, unit)
        except VersionConflict:
            self.held = []
            return False
        self._waiting = []
        return True

    async def _expire(self, waits: Waits, limits: dict[str, Kept], full: Sequence[str]) -> bool:
        """Free the slots of those whose process is gone; tell if there were any."""
        appends, log = [], self.engine.log
        for name in full:
            state, version = limits[name].state, limits[name].version
            everybody = [*state["holders"].items(), *state["waiters"].items()]
            gone = [who for who, facts in everybody if is_dead(log, facts["process"], facts["since"])]
            if gone:
                events = [self._event(SLOTS_EXPIRED, {"holder": bytes.fromhex(who)}) for who in gone]
                appends.append(Append(limit_stream(name), events, version))
        if not appends:
            return False
        with suppress(VersionConflict):  # somebody else was first, or something else has changed: look again
            await waits.commit(log, log.enqueue(appends))
        return True

    async def _wait(
        self, waits: Waits, limits: dict[str, Kept], full: list[str], waiting: Callable[[str], Unit] | None
    ) -> None:
        """Put on record that the waiting begins."""
        if self._waiting:
            return
        self._waiting = list(limits)
        log = self.engine.log
        unit = log.enqueue([self._append(name, SLOTS_AWAITED, self._told()) for name in limits])
        if waiting is not None:
            self._said = True
            unit = waiting(f"It waits for a free slot of {_holders(full[0], limits[full[0]].state)}.")
        await waits.commit(log, unit)

    def _give_up(self) -> None:
        """Take the waiting back that came to nothing."""
        if self._waiting:
            told = {"holder": self._holder}
            self.engine.log.enqueue([self._append(name, SLOTS_GIVEN_UP, told) for name in self._waiting])
            self._waiting = []

    def released(self) -> list[Append]:
        """Return what gives back the slots that are held."""
        held, self.held = self.held, []
        return [self._append(name, SLOTS_RELEASED, {"holder": self._holder}) for name in held]

    def _told(self) -> dict[str, Any]:
        return {"holder": self._holder, "slots": self.count, "process": this_process(), **self.run}

    def _event(self, type_: str, data: dict[str, Any]) -> NewEvent:
        return NewEvent(self.engine.ids.new(), type_, data, self.engine.clock.now())

    def _append(self, name: str, type_: str, data: dict[str, Any], version: int | None = None) -> Append:
        return Append(limit_stream(name), [self._event(type_, data)], version)


def _key_of(context: RunContext) -> bytes:
    run: bytes = context.task_run.key if isinstance(context, TaskRunContext) else context.flow_context.flow_run.key
    return run


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _holders(name: str, state: dict[str, Any]) -> str:
    """Return a limit and who holds its slots, in words."""
    holders = [holder for holder in state["holders"].values() if "flow_run_id" in holder]
    by = f", by the flow run {id_text(holders[0]['flow_run_id'])}" if holders else ""
    more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
    return f"{name!r}: {state['limit']} of {state['limit']} are taken{by}{more}"


def limit_states(engine: "Engine") -> dict[str, dict[str, Any]]:
    """Return what every limit has come to, by name."""
    return {state["name"]: state for state in engine.kept_states("concurrency").values()}
