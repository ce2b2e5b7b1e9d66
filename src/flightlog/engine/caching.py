"""The result cache at work: whether a call has to run, and what is put down when it has."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flightlog.clock import isoformat
from flightlog.engine import results
from flightlog.engine.bridge import Waits
from flightlog.engine.cache_policies import CacheKeyFnPolicy, IsolationLevel, NoKey, key_of
from flightlog.engine.context import CURRENT, IN_HOOK, TaskRunContext, check
from flightlog.engine.outcomes import text_of
from flightlog.engine.recovery import is_dead
from flightlog.engine.run_logs import get_run_logger
from flightlog.engine.transitions import Wait
from flightlog.errors import CorruptResult, LogCorrupt, MissingResult, TakenOver, VersionConflict
from flightlog.events.inline import Kept
from flightlog.events.liveness import this_process
from flightlog.events.model import Append, NewEvent
from flightlog.events.store import Unit
from flightlog.events.subjects import HIDDEN
from flightlog.events.types import CACHE_CLAIMED, CACHE_RELEASED, CACHE_STORED, cache_stream
from flightlog.ids import id_text
from flightlog.masking import MASKER

if TYPE_CHECKING:
    from flightlog.engine.results import Keeping

PATIENCE = (0.01, 0.1)
"""Seconds between two looks at what somebody else holds: the first, and the longest."""
_SHOWN = 2000
_LATEST = 2**62


class Fresh:
    """Values that were computed in this process and are in line for the next commit: they count here already."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[Unit, dict[str, Any], Mapping[bytes, bytes]]] = {}

    def add(self, stream: str, entry: dict[str, Any], unit: Unit, blobs: Mapping[bytes, bytes]) -> None:
        """Remember an entry until it is committed, and the blobs that it refers to."""
        with self._lock:
            self._entries = {name: found for name, found in self._entries.items() if not found[0].done}
            self._entries[stream] = unit, entry, blobs

    def get(self, stream: str) -> tuple[dict[str, Any], Mapping[bytes, bytes]] | None:
        """Return the entry of a key, if it is not committed yet, with the blobs that it refers to."""
        found = self._entries.get(stream)
        return None if found is None or found[0].done else found[1:]


@dataclass(slots=True)
class Lookup:
    """What the cache has for a call.

    Attributes:
        context: the task run.
        facts: what the log is told: the key, its parts, and why the function runs or where the value comes from.
        stream: the stream of the key.
        reference: to the recorded value, if there is one that counts.
        value: that value.
        epoch: of the stream, if others wait for this run to compute the value: whoever is taken over is refused.
    """

    context: TaskRunContext
    facts: dict[str, Any]
    stream: str
    reference: Mapping[str, Any] | None = None
    value: Any = None
    epoch: int | None = None
    _entry: dict[str, Any] | None = None

    def told(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the log is told of the cache once the function has returned: why its value is not kept there."""
        reason = result.get("not_recorded")
        if reason is None:
            return {}
        return {"cache": {**self.facts, "uncached": f"Its result was not recorded ({reason})."}}

    @property
    def hit(self) -> bool:
        """Whether there is a value."""
        return self.reference is not None

    def stored(self, reference: Mapping[str, Any]) -> list[Append]:
        """Return what puts the computed value into the cache, together with the run's end."""
        if "not_recorded" in reference:
            return self.released()
        task, engine = self.context.task, self.context.flow_context.engine
        now = engine.clock.now()
        told = {"key": self.facts["key"], "task": task.name, "result": dict(reference), **self._who()}
        if task.cache_expiration is not None:
            told["expires"] = min(now + round(task.cache_expiration.total_seconds() * 1e6), _LATEST)
        self._entry = {**told, "at": now, "expires": told.get("expires")}
        append, self.epoch = self._append(CACHE_STORED, told), None
        return [append]

    def in_line(self, unit: Unit, blobs: Mapping[bytes, bytes]) -> None:
        """Let the computed value count in this process from now on; the log has it in its next commit."""
        if self._entry is not None:
            self.context.flow_context.engine.fresh.add(self.stream, self._entry, unit, blobs)
            self._entry = None

    def released(self) -> list[Append]:
        """Return what lets others compute the value, if they wait for this run."""
        if self.epoch is None:
            return []
        append, self.epoch = self._append(CACHE_RELEASED, {"task_run_id": self.context.task_run.key}), None
        return [append]

    def claim(self, version: int) -> Append:
        """Return what makes others wait for this run, if nobody was first."""
        append = self._append(CACHE_CLAIMED, {**self._who(), "process": this_process()})
        append.expected_version = version
        return append

    def _who(self) -> dict[str, Any]:
        flow_run = self.context.flow_context.flow_run.key
        return {"flow_run_id": flow_run, "task_run_id": self.context.task_run.key}

    def _append(self, type_: str, data: dict[str, Any]) -> Append:
        engine = self.context.flow_context.engine
        event = NewEvent(engine.ids.new(), type_, data, engine.clock.now(), self.context.task_run.cause)
        return Append(self.stream, [event], None, self.epoch)


def lookup_of(context: TaskRunContext, keeping: "Keeping") -> Lookup | str:
    """Return a call's key, nothing looked up yet; or why the call runs uncached."""
    if not keeping.persist:
        return "Its results are not recorded (persist_result=False)."
    parts = _parts(context)
    if isinstance(parts, str):
        return parts
    engine, task = context.flow_context.engine, context.task
    key = parts["key"] if isinstance(task.cache_policy, CacheKeyFnPolicy) else key_of(parts)
    text = key.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, key=engine.key, digest_size=32, person=b"flightlog cache").digest()
    if context.task_run.subjects:
        return Lookup(context, {"key": HIDDEN}, cache_stream(digest))
    shown = {name: MASKER.mask(part)[:_SHOWN] for name, part in parts.items()}
    return Lookup(context, {"key": MASKER.mask(key)[:_SHOWN], "parts": shown}, cache_stream(digest))


async def look_up(waits: Waits, lookup: Lookup, keeping: "Keeping") -> None:
    """Look a call's key up. Where somebody else computes its value, and the policy is SERIALIZABLE, wait for that."""
    context = lookup.context
    engine, task = context.flow_context.engine, context.task
    # A stream is as slow as whoever reads it, who may be the one that would wait for it.
    serializable = task.cache_policy.isolation_level is IsolationLevel.SERIALIZABLE and not task.isgenerator
    delay, waiting = PATIENCE[0], False
    while True:
        fresh = engine.fresh.get(lookup.stream)
        if fresh is not None and (await _take(waits, lookup, *fresh, keeping) or not serializable):
            return
        kept: Kept = await engine.looked(waits, partial(engine.kept, "result_cache", lookup.stream))
        entry = kept.state or {}
        if await _take(waits, lookup, entry, {}, keeping) or not serializable:
            return
        claim = entry.get("claim")
        if claim is None or _counts_no_more(context, claim):
            lookup.epoch = kept.version + 1
            unit = engine.log.enqueue([lookup.claim(kept.version)])
            try:
                await waits.commit(engine.log, unit)
            except (VersionConflict, TakenOver):
                lookup.epoch = None
                continue
            return
        if not waiting:
            waiting = True
            await _say_so(waits, context, claim)
        await waits.sleep(engine.clock, delay, context.flow_context.wake)
        check(context)
        delay = min(1.5 * delay, PATIENCE[1])


def _parts(context: TaskRunContext) -> dict[str, str] | str:
    """Return the parts of a call's key; why it has none, which is logged if it should have one."""
    policy = context.task.cache_policy
    token, inside = CURRENT.set(context), IN_HOOK.set(context)
    try:
        parts: dict[str, str] | None = policy.parts(context, context.parameters)
    except NoKey as reason:
        get_run_logger(context).error("The task runs uncached: %s.", reason)
        told = str(reason)
        return f"{told[:1].upper()}{told[1:]}."
    except Exception as error:  # noqa: BLE001 - the border between user code and ours
        get_run_logger(context).exception("The cache key could not be computed; the task runs uncached.")
        return MASKER.mask(f"Its cache key could not be computed: {type(error).__name__}: {text_of(error)}")[:_SHOWN]
    finally:
        IN_HOOK.reset(inside)
        CURRENT.reset(token)
    if parts is not None:
        return parts
    if not isinstance(policy, CacheKeyFnPolicy):
        return f"Its cache policy {policy!r} gave no key."
    return f"Its cache_key_fn {getattr(policy.cache_key_fn, '__name__', 'it')!r} returned None."


async def _take(
    waits: Waits, lookup: Lookup, entry: Mapping[str, Any], blobs: Mapping[bytes, bytes], keeping: "Keeping"
) -> bool:
    """Take the value of an entry if it counts; note why, if it does not.

    Args:
        waits: how to wait.
        lookup: gets the value.
        entry: what the cache has.
        blobs: those that the log has not yet.
        keeping: how values of the task are kept.
    """
    context = lookup.context
    engine, task = context.flow_context.engine, context.task
    lookup.facts["miss"] = "Nothing is recorded for this key."
    if "result" not in entry:
        return False
    expires = entry["expires"]
    if engine.settings.tasks_refresh_cache if task.refresh_cache is None else task.refresh_cache:
        lookup.facts["miss"] = "It was asked to be computed anew (refresh_cache)."
        return False
    if expires is not None and expires <= engine.clock.now():
        lookup.facts["miss"] = f"The recorded value expired at {isoformat(expires)}."
        return False
    reference = entry["result"]

    def blob(digest: bytes) -> bytes:
        return blobs.get(digest) or engine.log.blob(digest)

    fetch = partial(results.fetch, engine.key, reference, blob, keeping, vault=engine.vault)
    try:
        lookup.value = await waits.elsewhere(fetch) if "storage" in reference else fetch()
    except (results.NotLoadable, MissingResult, CorruptResult, LogCorrupt) as error:
        lookup.facts["miss"] = MASKER.mask(f"The recorded value cannot be had: {text_of(error)}")[:_SHOWN]
        return False
    del lookup.facts["miss"]
    lookup.facts |= {name: entry[name] for name in ("flow_run_id", "task_run_id")}
    lookup.reference = reference
    return True


def _counts_no_more(context: TaskRunContext, claim: Mapping[str, Any]) -> bool:
    """Tell whether a claim need not be waited for: its process is gone, or it waits for this very call."""
    above: Any = context
    while isinstance(above, TaskRunContext):
        if above.task_run.key == claim["task_run_id"]:
            return True
        above = above.parent
    return is_dead(context.flow_context.engine.log, claim["process"], claim["at"])


async def _say_so(waits: Waits, context: TaskRunContext, claim: Mapping[str, Any]) -> None:
    run, engine = context.task_run, context.flow_context.engine
    message = (
        f"It waits for the task run {id_text(claim['task_run_id'])} of the flow run {id_text(claim['flow_run_id'])}, "
        "which computes the value of the same cache key."
    )
    unit = run.journal.put([run.record(Wait({"name": "AwaitingCache", "message": message}))])
    await waits.commit(engine.log, unit)
