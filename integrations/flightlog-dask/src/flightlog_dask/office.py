"""What a Dask worker has of a flow run whose tasks run in it. See `flightlog_dask.transport` for the other side."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import get_worker

from flightlog.clusters import Seat
from flightlog_dask.outbox import Outbox

_LOOK_SECONDS = 1.0
_AT_WORK = ("executing", "long-running")


def queue_for(run: str, worker: str) -> str:
    """Return the name of the queue that takes what is for a worker's seats of a flow run."""
    return f"{run}-{worker}"


def run_call(run: str, number: int, *upstream: bytes | None) -> bytes | None:
    """Take a seat for a call of a task, and do what is to be done: the function that Dask runs.

    Args:
        run: the name of the flow run's queue.
        number: the call's number.
        *upstream: what the seats of the calls that it rests on returned.
    """
    worker = get_worker()
    key = worker.get_current_task()
    office = _office(worker, run)
    seat = Seat(number, worker.address, upstream, office.send)
    with office.taken(seat, key):
        return seat.serve()


class Office:
    """A flow run's seats in a worker, and the way of their messages.

    Args:
        worker: the Dask worker.
        run: the name of the flow run's queue.
    """

    def __init__(self, worker: Any, run: str) -> None:
        self._worker = worker
        self._inbox = queue_for(run, worker.address)
        self._outbox = Outbox(worker.scheduler, run)
        self._loop: asyncio.AbstractEventLoop = worker.loop.asyncio_loop
        self._seats: dict[str, tuple[Seat, Any]] = {}
        self.closed = False
        self.opened = asyncio.run_coroutine_threadsafe(self._open(), self._loop)

    async def _open(self) -> None:
        await self._worker.scheduler.queue_create(name=self._inbox)
        self._tasks = [self._loop.create_task(work) for work in (self._follow(), self._look())]

    @contextmanager
    def taken(self, seat: Seat, key: Any) -> Iterator[None]:
        """Pass messages to a seat while this is open; `key` is that of its Dask task."""
        self._seats[seat.id] = (seat, key)
        try:
            yield
        finally:
            del self._seats[seat.id]

    def send(self, message: bytes) -> None:
        """Send a message to the flow run's process; from any thread."""
        with suppress(RuntimeError):  # the loop may be closed by then
            self._loop.call_soon_threadsafe(self._post, message)

    def _post(self, message: bytes) -> None:
        if not self.closed:
            self._outbox.put(message)

    async def _follow(self) -> None:
        """Pass on what is for the seats, until there is nothing more to come."""
        try:
            while not self.closed:
                record = await self._worker.scheduler.queue_get(name=self._inbox, timeout=None)
                for message in record["value"]:
                    if message is None:
                        return
                    seat, _ = self._seats.get(message[0], (None, None))
                    if seat is not None:
                        seat.deliver(message[1])
        except Exception:  # noqa: BLE001 - the worker has lost its scheduler, or that the queue
            return
        finally:
            self._close()

    async def _look(self) -> None:
        """Free the seats of tasks that Dask wants no more: the flow run's process may be gone."""
        while not self.closed:
            await asyncio.sleep(_LOOK_SECONDS)
            seats = list(self._seats.values())
            unwanted = [seat for seat, key in seats if not self._is_wanted(key)]
            for seat in unwanted:
                seat.leave()

    def _is_wanted(self, key: Any) -> bool:
        task = self._worker.state.tasks.get(key)
        return task is not None and task.state in _AT_WORK

    def _close(self) -> None:
        self.closed = True
        for seat, _ in list(self._seats.values()):
            seat.leave()
        with _lock:
            for place, office in list(_offices.items()):
                if office is self:
                    del _offices[place]


_lock = threading.Lock()
_offices: dict[tuple[str, str], Office] = {}


def _office(worker: Any, run: str) -> Office:
    """Return a worker's office for a flow run, once it is open."""
    place = (worker.address, run)
    with _lock:
        office = _offices.get(place)
        if office is None:
            office = _offices[place] = Office(worker, run)
    office.opened.result()
    return office
