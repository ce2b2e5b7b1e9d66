"""How a flow run reaches the workers of a Ray cluster: Ray tasks that have seats, and an actor for their messages."""

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import ray

from flightlog.clusters import Ticket, Transport
from flightlog_ray.mailbox import Mailbox
from flightlog_ray.options import OPTIONS
from flightlog_ray.worker import run_call

_START_SECONDS = 120.0


class _Given(NamedTuple):
    """What stands for a seat in Ray: whether it has returned, and what."""

    returned: Any
    value: Any


class RayTransport(Transport):
    """A flow run's way to the Ray cluster that this process is connected to."""

    def __init__(self) -> None:
        self._mailbox: Any = None
        self._run_call: Any = ray.remote(run_call)
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        self._stopped = False

    def start(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Make the mailbox, and follow what seats say."""
        actor: Any = ray.remote(Mailbox)
        self._mailbox = actor.options(num_cpus=0, max_concurrency=100_000).remote()
        ray.get(self._mailbox.ready.remote(), timeout=_START_SECONDS)
        threading.Thread(target=self._follow, args=(deliver, lost), name="flightlog-ray", daemon=True).start()

    def _follow(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        try:
            while True:
                for message in ray.get(self._mailbox.told.remote()):
                    deliver(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing comes through any more
            if not self._stopped:
                lost(f"The Ray cluster is out of reach: {_text(error)}.")

    def run(self, ticket: Ticket, upstream: Sequence[Any], ended: Callable[[str | None], None]) -> Any:
        """Give a seat to Ray: a task that rests on those of the calls that this one rests on."""
        options = {"max_retries": 0, "name": ticket.task, **OPTIONS.get(), "num_returns": 2}
        values = [given.value for given in upstream]
        given = _Given(*self._run_call.options(**options).remote(self._mailbox, ticket.number, *values))

        def tell(future: Any) -> None:
            error = future.exception()
            ended(None if error is None else _text(error))

        given.returned.future().add_done_callback(tell)
        return given

    def send(self, worker: str, seat: str, message: bytes) -> None:
        """Send a message to a seat."""
        if not self._stopped:
            with suppress(Exception):  # the follower says what is wrong
                self._mailbox.post.remote(seat, next(self._numbers[seat]), message)

    def missing(self, workers: Iterable[str]) -> set[str]:
        """Return nothing: Ray itself tells of each task whose worker died."""
        return set()

    def is_empty(self) -> bool:
        """Return False: Ray starts workers as they are needed."""
        return False

    def stop(self) -> None:
        """End the mailbox; seats that are still occupied notice."""
        self._stopped = True
        with suppress(Exception):
            ray.get(self._mailbox.ready.remote(), timeout=5)  # what was posted is through
            ray.kill(self._mailbox)


def _text(error: BaseException) -> str:
    """Return what an error of Ray says, in a line."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}".rstrip(": .")
