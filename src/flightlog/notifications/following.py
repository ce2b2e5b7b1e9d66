"""The fold of rules beside the live log: one process of all at a time, from a durable cursor, with a memory put aside.

The cursor says up to where decisions are on record. The memory is only a shortcut: where it is missing, or of another
version, the rules are folded anew up to the cursor, in silence; what they decide from there on is put on record.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from flightlog.clock import Clock
from flightlog.errors import LogError, LogWriteError
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.subscriptions import Subscription
from flightlog.notifications.decisions import Decision
from flightlog.notifications.folding import Fold
from flightlog.notifications.outages import CHANNEL_DOWN
from flightlog.notifications.recording import appends_of
from flightlog.notifications.rules import Rule
from flightlog.notifications.state import VERSION, Memory
from flightlog.projections.asides import Asides

NAME: Final = "notifications"
_BATCH: Final = 500
_ASIDE_EVENTS: Final = 2_000
_RUNS: Final = 256


class Created:
    """Finds what created a run, in the log: the flow run's own event, or that of a task run in it.

    Args:
        log: the log.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: OrderedDict[str, tuple[int, dict[bytes | None, Mapping[str, Any]]]] = OrderedDict()

    def __call__(self, stream: str, task_run: bytes | None) -> Mapping[str, Any]:
        """Return the payload of the event that created a run; nothing if there is none."""
        version, found = self._known.pop(stream, (0, {}))
        if task_run not in found and (task_run is not None or version == 0):
            for event in self._log.read(stream, version):
                version = event.version
                if event.type in ("flow_run.created", "task_run.created"):
                    found[event.data.get("task_run_id")] = event.data
                if task_run in found:
                    break
        self._known[stream] = version, found
        if len(self._known) > _RUNS:
            self._known.popitem(last=False)
        return found.get(task_run, {})


class Follower(Subscription):
    """Folds the rules over the log as it grows, and puts what they decide on record.

    Args:
        log: the log.
        clock: time; the log's own by default, which is one for all machines.
        asides: where the memory is put aside; nowhere by default.
        mask: replaces known secrets in messages.
    """

    def __init__(
        self, log: Log, *, clock: Clock | None = None, asides: Asides | None = None, mask: Callable[[str], str] = str
    ) -> None:
        super().__init__(log, NAME, self._fold, clock=clock)
        self._asides = asides
        self._mask = mask
        self._rules: Fold | None = None
        self._since_aside = 0

    def step(self) -> int | None:
        """Fold one batch, and what is due by the clock; return how much was done, or None if another one works."""
        done = super().step()
        if done is None:
            self._rules = None  # another one goes on from here; what we remember gets old
            return None
        return done or self._tick()

    def _claim(self) -> Any:
        cursor = super()._claim()
        if cursor is not None:
            # Another one may have gone on meanwhile, and given it back: what we remember ends before the cursor.
            self._rules = self._caught_up(self._rules or self._remembered(), cursor.position)
        return cursor

    def _remembered(self) -> Fold:
        """Return the fold as it was put aside."""
        content = None if self._asides is None else self._asides.load(NAME, VERSION)
        return Fold(Created(self.log), Memory() if content is None else Memory.unpacked(content))

    def _caught_up(self, fold: Fold, position: int) -> Fold:
        """Fold in silence what has come up to the cursor: it is decided already."""
        while fold.memory.position < position:
            events = self._page(fold, fold.memory.position)
            for event in events:
                if event.position <= position:
                    fold.apply(event)
            if not events or events[-1].position > position:
                break
        return fold

    def _page(self, fold: Fold, after: int) -> list[Event]:
        """Return the next events that the rules need, up to one after which they need others."""
        types = fold.types
        events = self.log.page(after, None if types is None else sorted(types), _BATCH)
        for number, event in enumerate(events):
            if event.type.startswith("rule."):
                return events[: number + 1]
        return events

    def _read(self, after: int) -> tuple[list[Event], int]:
        assert self._rules is not None
        end = self.log.head().position
        events = self._page(self._rules, after)
        if not events:
            return events, max(end, after)
        is_all = len(events) < _BATCH and not events[-1].type.startswith("rule.")
        return events, max(end, events[-1].position) if is_all else events[-1].position

    def _fold(self, events: list[Event]) -> None:
        fold = self._rules
        assert fold is not None
        with self._in_step():
            fresh = [event for event in events if event.position > fold.memory.position]
            self._record(fold, [decision for event in fresh for decision in fold.apply(event)])
        self._since_aside += len(events)
        if self._since_aside >= _ASIDE_EVENTS:
            self.put_aside()

    def _tick(self) -> int:
        """Let happen what is due by the clock; return how much was decided."""
        fold = self._rules
        if fold is None or fold.next_due is None or fold.next_due > self._now():
            return 0
        now = self._now()
        self.log.store.settle()  # what is committed from here on is recorded later than `now`
        while done := super().step():
            pass
        if done is None:
            return 0
        with self._in_step():
            decisions = fold.tick(now)
            self._record(fold, decisions)
        self.put_aside()
        return len(decisions)

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """Forget all if decisions could not be put on record: the memory would be ahead of the log."""
        try:
            yield
        except BaseException:
            self._rules = None
            super().close()  # what is remembered comes back with the cursor
            raise

    def _record(self, fold: Fold, decisions: list[Decision]) -> None:
        if not decisions:
            return
        appends = appends_of(decisions, lambda name: _rule(fold, name), self.log, self._mask)
        try:
            self.log.append_all(appends)
        except LogWriteError:
            raise
        except LogError:
            # Some are on record already: of one that died, or was taken for dead, before it could move the cursor.
            fresh = [one for one in appends if self.log.event(one.events[0].id) is None]
            if len(fresh) == len(appends):
                raise
            self.log.append_all(fresh)

    @property
    def next_due(self) -> int | None:
        """When something is due by the clock, in microseconds since 1970; None if nothing is, or another one works."""
        return None if self._rules is None else self._rules.next_due

    def put_aside(self) -> None:
        """Put aside what is remembered."""
        self._since_aside = 0
        if self._asides is not None and self._rules is not None:
            self._asides.save(NAME, VERSION, self._rules.memory.packed())

    def close(self) -> None:
        """Put aside what is remembered, and give the cursor back."""
        with suppress(LogError):  # then it is folded anew next time
            self.put_aside()
        super().close()
        self._rules = None


def _rule(fold: Fold, name: str) -> Rule:
    """Return a rule; one that has gone since the event that it decided on still has its name."""
    return fold.rules.get(name) or (CHANNEL_DOWN if name == CHANNEL_DOWN.name else Rule(name=name))
