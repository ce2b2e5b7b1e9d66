"""Notifications beside flows: the rules are folded and messages sent by the process that runs flows, in a thread.

Where nobody has configured anything it costs a look at two files and one fact of the log, and nothing else is imported.
"""

import threading
import time
from pathlib import Path
from typing import Final

from flightlog.errors import FlightlogError, LogError
from flightlog.plugins.offers import Surroundings

FACT: Final = "notifications"
"""What the store is told once there ever was a rule: without it nobody need look."""
_LONGEST_WAIT: Final = 1.0
_PAUSE: Final = 0.5
_SHORT_WAIT: Final = 0.05


class NotificationService:
    """Folds rules and sends messages while a process runs flows."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._until = 0.0

    def start(self, surroundings: Surroundings) -> None:
        """Begin, if there is a file that configures notifications, or the log has rules."""
        from flightlog.notifications.finding import find_file

        file = find_file(Path.cwd(), surroundings.settings.home)
        if file is None and FACT not in surroundings.log.store.facts():
            return
        if file is not None:
            synchronise(surroundings, file)  # before the first run: its failure is to be told already
        self._begin(surroundings, only_usable=False)

    def send_left(self, surroundings: Surroundings, seconds: float) -> None:
        """Send what other processes have left, for so many seconds at the most.

        Args:
            surroundings: the log, time, identity.
            seconds: how long it may take.
        """
        if FACT in surroundings.log.store.facts():
            self._begin(surroundings, only_usable=True)
            self.stop(seconds)

    def _begin(self, surroundings: Surroundings, *, only_usable: bool) -> None:
        work = (surroundings, only_usable)
        self._thread = threading.Thread(target=self._run, args=work, name="flightlog-notifications", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Send what is due, for so many seconds at the most, and end; the rest goes out with the next process."""
        self._until = time.monotonic() + seconds
        self._stop.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, surroundings: Surroundings, only_usable: bool) -> None:
        try:
            with Working(surroundings, only_usable=only_usable) as working:
                while not self._stop.is_set():
                    working.step()
                    working.wait(_LONGEST_WAIT, self._stop)
                working.finish(self._until)
        except FlightlogError as error:
            _warn(str(error))


class Working:
    """Rules at work on a log: folding and sending, a step at a time.

    Args:
        surroundings: the log, time, identity.
        only_usable: whether channels that cannot be used from here are left to others.

    Attributes:
        follower: folds.
        delivery: knows what is due.
        senders: send it, while the folding goes on.
    """

    def __init__(self, surroundings: Surroundings, *, only_usable: bool = False) -> None:
        from flightlog.notifications.delivery import Delivery
        from flightlog.notifications.following import Follower
        from flightlog.notifications.sending import Senders
        from flightlog.projections.asides import Asides
        from flightlog.projections.places import place_of

        self._is_out = False
        self._log = surroundings.log
        self._clock = surroundings.clock
        self._asides = Asides(surroundings.log, place_of(surroundings.settings.log_url))
        self.follower: Follower = Follower(surroundings.log, asides=self._asides, mask=surroundings.mask)
        self.delivery: Delivery = Delivery(
            surroundings.log, surroundings.clock, surroundings.ids, mask=surroundings.mask, only_usable=only_usable
        )
        self.senders: Senders = Senders(self.delivery)

    def __enter__(self) -> "Working":
        return self

    def __exit__(self, *_: object) -> None:
        self.follower.close()
        self._asides.close()

    def step(self) -> bool:
        """Fold what has come and begin to send what is due; tell if there was anything."""
        try:
            folded, begun = self.follower.step(), self.senders.step()
        except LogError:  # a full disk, a server that restarts: the cursor is where it was
            self._is_out = True
            return False
        self._is_out = False
        return bool(folded or begun)

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait until there are new events, something is due, or `stop` is set."""
        position = self.follower.position
        try:
            due = min((one for one in (self.follower.next_due, self.senders.next_due) if one is not None), default=None)
        except LogError:
            self._is_out = True
            due = None
        if self._is_out or position is None:
            stop.wait(min(seconds, _PAUSE))
            return
        if due is not None:
            seconds = min(seconds, max(0.0, (due - self._clock.now()) / 1e6))
        self._log.wait(position, seconds, stop)

    def finish(self, until: float) -> None:
        """Go on until there is nothing more to fold, and what is due was tried.

        Args:
            until: when to break off at the latest, by `time.monotonic`.
        """
        while (self.step() or self.senders.busy) and (left := until - time.monotonic()) > 0:
            self.senders.join(min(left, _SHORT_WAIT))


def synchronise(surroundings: Surroundings, file: Path) -> None:
    """Bring the log's configuration to what the file says; a file that is wrong changes nothing."""
    from flightlog.notifications.configuring import Configurator
    from flightlog.notifications.files import read_file

    configurator = Configurator(surroundings.log, surroundings.clock, surroundings.ids, "file")
    try:
        configurator.synchronise(read_file(file), str(file))
    except FlightlogError as error:
        _warn(f"{error} The rules stay as they were.")


def _warn(text: str) -> None:
    import logging

    logging.getLogger("flightlog.notifications").warning(text)
