"""Those that hand events to plug-ins: as this process commits them, or all of them from a durable cursor."""

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from flightlog.errors import LogError
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.store import Committed
from flightlog.events.subscriptions import Subscription
from flightlog.plugins.event_types import learn_event_types
from flightlog.plugins.hooks import DURABLE, OBSERVERS
from flightlog.plugins.host import Host
from flightlog.plugins.plugin import Plugin
from flightlog.plugins.record import ABOUT_PLUGINS, is_about
from flightlog.plugins.states import States

_BATCH: Final = 500
_LOOK_SECONDS: Final = 0.1
"""Between two looks at what is committed: to look more often would cost flows more, for the sake of smaller batches."""
_LONGEST_FEED: Final = 100_000
_LONGEST_PAUSE: Final = 30.0


class Feed:
    """What was committed and is to be handed over. One thread at a time puts, and one takes.

    Args:
        longest: how many events wait at the most; those that come then are left out.

    Attributes:
        left_out: how many events were left out.
        closed: whether nobody takes any more.
    """

    def __init__(self, longest: int = _LONGEST_FEED) -> None:
        self._longest = longest
        self._batches: deque[Committed] = deque()
        self._put = self._taken = 0  # each counted by one thread only: together they say how many wait
        self.left_out = 0
        self.closed = False

    def put(self, committed: Committed) -> None:
        """Have events wait."""
        if self.closed:
            return
        if self._put - self._taken < self._longest:
            self._put += len(committed.records)
            self._batches.append(committed)
        else:
            self.left_out += len(committed.records)

    def take(self) -> list[Committed]:
        """Return the oldest that wait, with some 500 events at the most."""
        taken: list[Committed] = []
        number = 0
        while self._batches and number < _BATCH:
            taken.append(self._batches.popleft())
            number += len(taken[-1].records)
        self._taken += number
        return taken

    def close(self) -> None:
        """Take no more."""
        self.closed = True
        self._batches.clear()


class Tail:
    """Hands a plug-in the events that this process commits.

    They come from memory: to read them back from the log would cost a flow of quick tasks a tenth of its speed.

    Args:
        host: calls the plug-in.
        plugin: the plug-in.
        log: the log.
        feed: what is committed.
    """

    def __init__(self, host: Host, plugin: Plugin, log: Log, feed: Feed) -> None:
        self.plugin = plugin
        self._feed = feed
        self._host = host
        self._log = log
        self._states = States(log)
        self._told_left_out = 0
        hooks = [hook for hook in OBSERVERS if hook in plugin.manifest.hooks]
        self._first, self._of_states = hooks[0], set(hooks) - {"on_events"}

    def run(self, ending: threading.Event) -> None:
        """Hand over until `ending` is set, and then what is committed by then."""
        last = False
        try:
            while self.plugin.is_usable and not last:
                last = ending.wait(_LOOK_SECONDS)
                self._hand_over_all()
        finally:
            self._feed.close()

    def _hand_over_all(self) -> None:
        while self.plugin.is_usable and (committed := self._feed.take()):
            self._hand_over(committed)

    def _hand_over(self, committed: Sequence[Committed]) -> None:
        if (left_out := self._feed.left_out) > self._told_left_out:
            self._host.lag(self.plugin, self._first, f"{left_out - self._told_left_out} events were left out")
            self._told_left_out = left_out
        if self._first == "on_events" and (events := self._events(committed)):
            self._host.call(self.plugin, "on_events", {"events": events})
        if self._of_states:
            try:
                self._tell_states(self._events(committed))  # fresh ones, whatever it has done to the others
            except LogError as error:
                self._host.complain(self.plugin, self._first, f"a run could not be looked up: {error}")

    def _events(self, committed: Sequence[Committed]) -> list[Event]:
        fetch = self._log.blob
        events = [Event(at, time, record, fetch, type_) for one in committed for at, time, record, type_ in one.each()]
        if all(ABOUT_PLUGINS.isdisjoint(one.types) for one in committed):  # as nearly always: a look at each costs time
            return events
        return [event for event in events if not is_about(self.plugin, event)]

    def _tell_states(self, events: Sequence[Event]) -> None:
        for change in self._states.changes(events):
            hook = f"on_{change.kind}_state"
            if hook in self._of_states and self.plugin.is_usable:
                self._host.call(self.plugin, hook, {"change": change})


class Follower:
    """Hands a plug-in every event from a durable cursor, which all processes share.

    Args:
        host: calls the plug-in.
        plugin: the plug-in.
        log: the log.
        start: the position after which a plug-in begins that was never seen; None for the log's present end.
    """

    def __init__(self, host: Host, plugin: Plugin, log: Log, start: int | None) -> None:
        self.plugin = plugin
        self._host = host
        self._log = log
        self._subscription = Subscription(log, f"plugin:{plugin.name}", self._hand_over, start=start)
        with suppress(LogError):
            self._subscription.begin()

    def run(self, ending: threading.Event) -> None:
        """Hand over until `ending` is set, and then what is committed by then."""
        learn_event_types(self._host)
        while self.plugin.is_usable and not ending.is_set():
            try:
                self._subscription.run(ending)
            except NotTaken:
                ending.wait(min(_LONGEST_PAUSE, 0.5 * 2**self.plugin.in_a_row))
            except LogError as error:
                self._host.complain(self.plugin, DURABLE, f"the log cannot be read: {error}")
                ending.wait(_LONGEST_PAUSE)
        with suppress(NotTaken, LogError):
            self.drain()

    def drain(self) -> int | None:
        """Hand over what there is now; return how many events that was, or None if another process is at it.

        Raises:
            NotTaken: the plug-in failed.
        """
        end, count = self._log.head().position, 0
        try:
            while self.plugin.is_usable:
                done = self._subscription.step()
                if done is None:
                    return count or None
                count += done
                if (self._subscription.position or 0) >= end:  # more may come for ever, if it appends events itself
                    break
        finally:
            self._subscription.close()
        return count

    def _hand_over(self, events: list[Event]) -> None:
        fresh = [event for event in events if not is_about(self.plugin, event)]
        if fresh and (problem := self._host.call(self.plugin, DURABLE, {"events": fresh}).problem) is not None:
            raise NotTaken(problem)


class NotTaken(Exception):
    """A plug-in failed on events that it must not miss: they come again."""
