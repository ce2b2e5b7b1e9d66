"""How messages pass between a flow run's process and the workers of a Dask cluster: through queues of its scheduler.

Neither side need be able to reach the other. A queue of the flow run takes what its seats say; each worker with seats
of it has one that takes what is for them (`flightlog_dask.office` is the other side). What is sent while a message is
on its way goes with the next one.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from distributed import Client, Queue

from flightlog.clusters import Ticket, Transport
from flightlog_dask.office import queue_for, run_call
from flightlog_dask.outbox import Outbox

_EMPTY_SECONDS = 15.0
_EMPTY_SECONDS_WHERE_IT_GROWS = 600.0
_END_SECONDS = 5.0
_DRAIN_SECONDS = 1.0


class DaskTransport(Transport):
    """A flow run's way to a Dask cluster.

    Args:
        client: is connected to it.
        grows: whether somebody else may bring workers, though there is none.
    """

    def __init__(self, client: Client, *, grows: bool) -> None:
        self._client = client
        self._run = f"flightlog-{uuid.uuid4().hex}"
        self.patience = _EMPTY_SECONDS_WHERE_IT_GROWS if grows else _EMPTY_SECONDS
        self._empty_since: float | None = None
        self._outboxes: dict[str, Outbox] = {}
        self._stopped = False

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        found: Any = self._client.loop
        loop: asyncio.AbstractEventLoop = found.asyncio_loop
        return loop

    def start(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Make the queue that takes what seats say, and follow it."""
        self._queue = Queue(self._run, client=self._client)
        self._following = asyncio.run_coroutine_threadsafe(self._follow(deliver, lost), self._loop)

    async def _follow(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        while True:
            try:
                messages = await self._queue.get()
            except Exception:  # noqa: BLE001 - whatever it is, the client has lost its scheduler
                if not self._stopped:
                    await asyncio.to_thread(lost, "The Dask scheduler is out of reach.")
                return
            if messages is None:
                return
            for message in messages:
                deliver(message)

    def run(self, ticket: Ticket, upstream: Sequence[Any], ended: Callable[[str | None], None]) -> Any:
        """Submit a seat to Dask: a task that depends on those of the calls that this one rests on."""
        key = f"{ticket.task}-{uuid.uuid4().hex}"
        future = self._client.submit(run_call, self._run, ticket.number, *upstream, key=key, pure=False)
        future.add_done_callback(partial(self._tell, ended))
        return future

    def _tell(self, ended: Callable[[str | None], None], future: Any) -> None:
        """Tell how a seat's task in Dask has ended."""
        if future.status == "finished":
            ended(None)
        elif future.status == "error":
            error = future.exception()
            ended(f"{type(error).__name__}: {error}")
        elif self._client.status == "running":
            ended(f"Dask calls its task {future.status}")
        else:
            ended("the Dask scheduler is out of reach")

    def send(self, worker: str, seat: str, message: bytes) -> None:
        """Send a message to a seat in a worker."""
        with suppress(RuntimeError):  # the loop may be closed by then
            self._loop.call_soon_threadsafe(self._post, worker, [seat, message])

    def _post(self, worker: str, message: Any) -> None:
        if worker not in self._outboxes:
            self._outboxes[worker] = Outbox(self._client.scheduler, queue_for(self._run, worker))
        self._outboxes[worker].put(message)

    def missing(self, workers: Iterable[str]) -> set[str]:
        """Return those of some workers that the scheduler does not know any more."""
        asked = list(workers)
        return set(asked) - set(self._client.nthreads(asked))

    def is_empty(self) -> bool:
        """Tell whether there has been no worker for some time."""
        if self._client.nthreads():
            self._empty_since = None
            return False
        now = time.monotonic()
        self._empty_since = self._empty_since or now
        return now - self._empty_since > self.patience

    def stop(self) -> None:
        """Tell the workers that there is nothing more to come, and delete the queues."""
        self._stopped = True
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_END_SECONDS)

    async def _close(self) -> None:
        for outbox in self._outboxes.values():
            outbox.put(None)
        await asyncio.gather(*(outbox.sent() for outbox in self._outboxes.values()))
        await self._queue.put(None)
        await asyncio.gather(*(self._delete(worker) for worker in self._outboxes))
        self._queue.close()

    async def _delete(self, worker: str) -> None:
        """Delete a worker's queue, once that has taken what is in it, or is gone."""
        queue = await Queue(queue_for(self._run, worker), client=self._client)
        end = time.monotonic() + _DRAIN_SECONDS
        while await queue.qsize() and time.monotonic() < end:  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.02)
        queue.close()
        queue.close()  # for the worker, which made it and cannot do so
