"""Seals the log while flows run and when the process lets go of it, as the settings say; no run waits for it."""

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from flightlog.clock import Clock
from flightlog.errors import LogError
from flightlog.events.keys import load_signing_key
from flightlog.events.log import Log
from flightlog.events.opening import is_memory
from flightlog.ids import Ids
from flightlog.settings import Settings

LOOK_SECONDS: Final = 5.0
"""How often it is looked whether it is time."""
EXIT_SECONDS: Final = 2.0
"""How long the end of a process waits for its seal; what takes longer is left to ``flightlog audit seal``."""
_PAUSE_SECONDS: Final = 0.01  # after each page of events that is read, for the flows' sake


class Sealer:
    """Seals a log by policy.

    Args:
        log: the log.
        settings: say when, and have the key.
        clock: time.
        ids: identity.
    """

    def __init__(self, log: Log, settings: Settings, clock: Clock, ids: Ids) -> None:
        self._log = log
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._started = False
        self._commits = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look, unless that is done; called with each outermost flow run."""
        policy = self._settings.log_seal
        if self._started or is_memory(self._log.store.location):
            return
        self._started = True
        _STARTED.add(self)
        if policy.events is not None or policy.seconds is not None:
            self._log.add_ticker(self._look, LOOK_SECONDS)

    def _look(self) -> None:
        """See to it that the log is sealed if it is time: in a thread of its own, so that nobody's commit waits."""
        if self._log.commits == self._commits or (self._thread is not None and self._thread.is_alive()):
            return
        self._commits = self._log.commits
        self._thread = threading.Thread(target=self._seal_if_due, name="flightlog-seal", daemon=True)
        self._thread.start()

    def _seal_if_due(self) -> None:
        try:
            if self._is_due():
                self._seal(lambda _: time.sleep(_PAUSE_SECONDS))
        except LogError:
            return  # it will be tried again; a log that is really away tells those who need it

    def _is_due(self) -> bool:
        policy, head = self._settings.log_seal, self._log.head()
        if policy.seconds is None and head.position < (policy.events or 0):
            return False  # what most processes come to at their end: without an import
        from flightlog.events.sealing import latest_seal

        last = latest_seal(self._log)
        count = head.position if last is None else head.position - last.last - 1
        if policy.events is not None and count >= policy.events:
            return True
        since = 0 if last is None else last.occurred_at
        return policy.seconds is not None and count > 0 and self._clock.now() - since >= policy.seconds * 1e6

    def _seal(self, progress: Callable[[int], None]) -> None:
        from flightlog.events.sealing import seal

        key = load_signing_key(self._log, self._settings)
        seal(self._log, key, clock=self._clock, ids=self._ids, progress=progress)

    def stop(self) -> None:
        """Seal once more if the policy says so, within `EXIT_SECONDS`: the process is about to let go of the log."""
        if not self._started or self._log.closed:
            return
        self._started = False
        if not self._log.store.answers():
            return  # no process waits at its end for a server that is away
        deadline = time.monotonic() + EXIT_SECONDS

        def in_time(_: int) -> None:
            if time.monotonic() > deadline:
                raise LogError("Sealing takes too long.")

        try:
            if self._thread is not None:
                self._thread.join(EXIT_SECONDS)
            self._log.flush()  # so that it covers all that this process has to record
            if self._settings.log_seal.at_exit or self._is_due():
                self._seal(in_time)
        except LogError:
            return  # the log itself tells what could not be recorded; what is not sealed, `doctor` does


_STARTED: "weakref.WeakSet[Sealer]" = weakref.WeakSet()


def _stop_all() -> None:
    for sealer in list(_STARTED):
        sealer.stop()


# After the log's own, and before that of what runs beside flows; so it is called between the two.
atexit.register(_stop_all)
