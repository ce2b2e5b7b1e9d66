"""The beats of a process that runs flows: what tells other machines and containers that it is alive."""

import threading
from types import TracebackType

from flightlog.errors import LogError
from flightlog.events.liveness import BEAT_SECONDS, key_of, this_process
from flightlog.events.log import Log


class Heart:
    """Beats while flow runs are under way, from the log's own thread.

    Args:
        log: where the beats are left.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._runs = 0
        self._left_beats = False
        log.add_ticker(self._beat, BEAT_SECONDS)

    def __enter__(self) -> None:
        with self._lock:
            self._runs += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._runs -= 1

    def _beat(self) -> None:
        if self._runs:
            self._left_beats = True
            self._leave(there=True)

    def stop(self) -> None:
        """Take the beats back: the process is about to let go of the log."""
        if self._left_beats:
            self._left_beats = False
            self._leave(there=False)

    def _leave(self, *, there: bool) -> None:
        store = self._log.store
        try:
            # By the log's clock, not this machine's: others compare it with their own time.
            store.beat(key_of(this_process()), store.now() if there else None)
        except LogError:
            return  # the run itself will be told, if the log stays away
