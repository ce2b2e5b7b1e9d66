"""Task runners of clusters: submitted tasks run in workers of Dask, Ray or the like, which collections bring.

A collection brings a `Transport`: how its cluster runs a function, and how messages pass between a worker and the
process that has the flow run. All else is here and in `flightlog.engine.seats`, for all of them:

A call is given to the cluster when it is submitted, with the calls that it rests on, so that the cluster can schedule
it. Once a worker has come to it, it takes a `Seat` there and asks. The process that has the flow run drives the call as
any other: it commits that the call is running, sends the function, and follows what that logs, calls and returns. When
the end is committed it says so, and only then the seat returns the value to those that rest on it. So only one process
writes the log, a worker that dies takes no record with it, and one that a cluster starts again on its own account is
told that there is nothing to do.
"""

import itertools
import pickle
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

from flightlog.engine.bridge import check_time
from flightlog.engine.context import CURRENT, check, get_run_context
from flightlog.engine.futures import BaseFuture
from flightlog.engine.processes import RelayedWaits
from flightlog.engine.seats import ASK, END, STOP
from flightlog.engine.task_runners import Pool, TaskRunner
from flightlog.engine.travel import Way
from flightlog.engine.worker import DONE, EVENT, LACKS, LINE, RAISED, RUN, Body, packed_body
from flightlog.errors import LogError, LostWorker, TakenOver
from flightlog.events.log import Log

_AT_ONCE = 1000
_LOOK_SECONDS = 0.5
_WATCH_SECONDS = 1.0
_TRIES = 3
_SMALL = frozenset({type(None), bool, int, float, complex})


class Ticket(NamedTuple):
    """A call that is given to a cluster.

    Attributes:
        number: the call's number, for its `Seat`.
        task: the task's name.
        name: the task run's name.
    """

    number: int
    task: str
    name: str


class Transport(ABC):
    """How a cluster runs functions, and how messages pass between its workers and this process.

    A collection implements this, and in its workers makes a `Seat` for each call, whose `serve` it returns.
    """

    @abstractmethod
    def start(self, deliver: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Begin to take messages from workers.

        Args:
            deliver: to be called with each message of a seat, in the order in which it sent them; from any thread.
            lost: to be called, with the reason, when the cluster as a whole is out of reach.
        """

    @abstractmethod
    def run(self, ticket: Ticket, upstream: Sequence[Any], ended: Callable[[str | None], None]) -> Any:
        """Have a seat made for a call in a worker, once those that it rests on have returned.

        Args:
            ticket: the call.
            upstream: what this method returned for the calls that it rests on: what their seats return is the seat's
                `upstream`, in this order.
            ended: to be called once the seat has returned (None), or with what went wrong; from any thread.

        Returns:
            What stands for it; the cluster is to keep what the seat returns for as long as somebody has this.
        """

    @abstractmethod
    def send(self, worker: str, seat: str, message: bytes) -> None:
        """Send a message to a seat in a worker, for its `deliver`: in order, and without waiting for it."""

    @abstractmethod
    def missing(self, workers: Iterable[str]) -> set[str]:
        """Return those of some workers that are not there any more."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Tell whether the cluster has no worker, and none is to be expected."""

    @abstractmethod
    def stop(self) -> None:
        """Take no messages any more, and give back what this holds; there may be seats that are still occupied."""


class _RemoteWorker:
    """A worker of a cluster that has come to a call; see `flightlog.engine.processes.Peer`."""

    way = Way.TO_CLUSTER

    def __init__(self, transport: Transport, worker: str, seat: str, beside: dict[int, int]) -> None:
        self.worker = worker
        self.seat = seat
        self.lost: LostWorker | None = None
        self.returned: Any = None
        self._transport = transport
        self._beside = beside
        self._inbox: queue.SimpleQueue[tuple[str, int, Any] | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._under_way: list[int] = []

    def begin(self, body: Body) -> int:
        """Have a function called; return the number of the call."""
        content = packed_body(body, self.way, self._beside)
        number = next(self._numbers)
        self._post(RUN, number, (content, body.timed))
        self._under_way.append(number)
        return number

    def send(self, kind: str, content: Any) -> None:
        """Send a message to the call that is under way."""
        self._post(kind, self._under_way[-1], content)

    def _post(self, kind: str, number: int, content: Any) -> None:
        if self.lost is not None:
            raise self.lost
        try:
            self._transport.send(self.worker, self.seat, pickle.dumps((kind, number, content), 5))
        except Exception as error:  # noqa: BLE001 - the cluster's own code
            raise LostWorker(f"The worker {self.worker} is out of reach: {type(error).__name__}: {error}.") from None

    def receive(self, until: float | None) -> tuple[str, Any]:
        """Wait for a message of the call that is under way.

        Raises:
            LostWorker: the worker is gone.
            TimedOut: the time is over.
            RunCancelled, Abandoned: the run is to go on no more.
        """
        context = CURRENT.get()
        while True:
            left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, max(0.0, until - time.monotonic()))
            with suppress(queue.Empty):
                message = self._inbox.get(timeout=left)
                if message is None:
                    self._inbox.put(None)
                    assert self.lost is not None
                    raise self.lost
                kind, number, content = message
                if kind in (DONE, RAISED, LACKS) and number == self._under_way[-1]:
                    self._under_way.pop()
                    return kind, content
                if kind in (LINE, EVENT) or number == self._under_way[-1]:
                    return kind, content
                continue  # it is of a call that was stopped
            if context is not None:
                check(context)
            check_time(until)

    def stop(self, number: int) -> None:
        """Have a call, and those that were made in it, go on no more."""
        while self._under_way and self._under_way[-1] >= number:
            self._under_way.pop()
        with suppress(LostWorker):
            self._post(STOP, number, None)

    def end(self, keep: bool) -> None:
        """Let the seat return: the value that it has, or none."""
        with suppress(LostWorker):
            self._post(END, 0, keep)

    def put(self, kind: str, number: int, content: Any) -> None:
        """Take a message from the seat."""
        self._inbox.put((kind, number, content))

    def lose(self, reason: str) -> None:
        """Note that it is gone; who waits for it is told."""
        if self.lost is None:
            self.lost = LostWorker(reason)
            self._inbox.put(None)


class _Call:
    """A call that was given to a cluster.

    Attributes:
        ticket: what the cluster knows of it.
        future: its future; None once it has ended.
        context: the context that it was submitted in.
        upstream: the calls that it rests on, as far as the cluster has them.
        handle: what stands for it in the cluster.
        attempt: how often it was given to the cluster.
        given: whether the cluster has it at present.
        peer: the worker that has come to it last.
        begun: whether it is being driven.
        failure: why no worker comes to it, to be raised where one is waited for.
        tries: how often the cluster gave it up since a worker has come.
        value: what its seat returns, taken out; None if that has nothing.
    """

    def __init__(self, ticket: Ticket, future: BaseFuture[Any], context: Context, upstream: "list[_Call]") -> None:
        self.ticket = ticket
        self.future: BaseFuture[Any] | None = future
        self.context = context
        context.run(_CALL.set, self)
        self.upstream = upstream
        self.handle: Any = None
        self.attempt = 0
        self.given = False
        self.peer: _RemoteWorker | None = None
        self.begun = False
        self.failure: LostWorker | None = None
        self.tries = 0
        self.value: Any = None

    def beside(self, have: Sequence[bool]) -> dict[int, int]:
        """Return which objects its seat has from those before it, by their `id`, as numbers of its `upstream`."""
        values = [above.value for above in self.upstream]
        pairs = enumerate(zip(values, have, strict=False))
        return {id(value): number for number, (value, there) in pairs if there and type(value) not in _SMALL}

    def conclude(self, *, committed: bool) -> bool:
        """Keep what others may still ask for, now that it has ended; tell if its seat is to return its value."""
        assert self.future is not None
        state = self.future.state
        keep = committed and self.peer is not None and state.is_completed() and state.data is self.peer.returned
        self.value = state.data if keep else None
        if not self.begun:
            self.handle = None  # the cluster need not come to it any more
        self.future, self.upstream, self.context = None, [], Context()
        return keep


_CALL: ContextVar[_Call | None] = ContextVar("flightlog_cluster_call", default=None)


class _Dispatch:
    """All that a flow run has given to a cluster.

    Args:
        log: the log.
        transport: the way to the cluster.
    """

    def __init__(self, log: Log, transport: Transport) -> None:
        self._log = log
        self._transport = transport
        self._pool = Pool(log, _AT_ONCE, RelayedWaits(self))
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()  # for all that follows
        self._open: dict[int, _Call] = {}
        self._peers: dict[str, _RemoteWorker] = {}
        self._known: WeakKeyDictionary[BaseFuture[Any], _Call] = WeakKeyDictionary()
        self._lost: str | None = None
        self._ended: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        transport.start(self._deliver, self._lose_all)
        self._thread = threading.Thread(target=self._attend, name="flightlog-cluster", daemon=True)
        self._thread.start()

    # --- giving calls to the cluster ----------------------------------------------------------------

    def knows(self, future: BaseFuture[Any]) -> bool:
        """Tell whether a future's call was given to the cluster."""
        return future in self._known

    def submit(self, future: BaseFuture[Any]) -> None:
        """Give a future's call to the cluster."""
        work: Any = future._work
        context = future._context
        if work is None or context is None:
            return  # it was cancelled just now
        upstream = [self._known[source] for source in dict.fromkeys(work.sources()) if source in self._known]
        ticket = Ticket(next(self._numbers), work.call.task.name, future.name)
        call = _Call(ticket, future, context, upstream)
        with self._changed:
            self._open[ticket.number] = self._known[future] = call
        future.add_done_callback(lambda _: self._ended.put(call))
        self._hand_over(call)

    def _hand_over(self, call: _Call) -> None:
        """Have the cluster find a worker for a call."""
        with self._changed:
            if call.future is None:
                return
            early = any(above.handle is None and above.future is not None for above in call.upstream)
            if not early:
                call.attempt += 1
                call.given = self._lost is None
                call.upstream = [above for above in call.upstream if above.handle is not None]
            handles = [above.handle for above in call.upstream]
            context = call.context.copy()
        if early:  # something that it rests on is between two attempts
            self._hand_over_later(call)
            return
        if not call.given:
            self._give_up(call, self._lost or "")
            return
        ended = partial(self._returned, call, call.attempt)
        try:
            call.handle = context.run(self._transport.run, call.ticket, handles, ended)
        except Exception as error:  # noqa: BLE001 - the cluster's own code
            self._give_up(call, f"The cluster does not take the task: {type(error).__name__}: {error}")

    def _returned(self, call: _Call, attempt: int, wrong: str | None) -> None:
        """Note that the cluster has nothing more to do for a call; if that has not ended, something went wrong."""
        with self._changed:
            if call.future is None or call.future.done() or attempt != call.attempt:
                return
            call.given, call.handle = False, None
            call.tries += 1
            peer, begun = call.peer, call.begun
            rests, call.upstream = bool(call.upstream), []  # it may be that which went wrong: values travel along then
            self._changed.notify_all()
        wrong = wrong or "the worker has left it"
        if peer is not None and peer.lost is None:
            peer.lose(f"The worker {peer.worker} was lost while the task ran in it: {wrong}.")
        elif not rests and call.tries >= _TRIES:
            self._give_up(call, f"No worker of the cluster has begun with the task: {wrong}.")
        elif not begun:
            self._hand_over_later(call)

    def _hand_over_later(self, call: _Call) -> None:
        """Have the cluster find a worker for a call once all that it rests on has ended."""
        future = call.future
        work: Any = None if future is None else future._work
        waiting = set() if work is None else {source for source in work.sources() if not source.done()}

        def ended(source: BaseFuture[Any]) -> None:
            waiting.discard(source)
            if not waiting:
                self._hand_over(call)

        if not waiting:
            self._hand_over(call)
        for source in list(waiting):
            source.add_done_callback(ended)

    def _give_up(self, call: _Call, reason: str) -> None:
        """Let a call fail where it waits for a worker, by the rules of the engine."""
        with self._changed:
            call.failure, call.given = LostWorker(reason), False
            self._changed.notify_all()
            begins, call.begun = not call.begun, True
        if begins:
            self._drive(call)

    # --- workers that have come to a call -----------------------------------------------------------

    def _drive(self, call: _Call) -> None:
        """Have a call driven by a thread of the pool."""
        if (future := call.future) is not None:
            self._pool.submit(future)

    def _deliver(self, content: bytes) -> None:
        """Take a message from a seat."""
        seat, kind, number, message = pickle.loads(content)  # noqa: S301 - from the cluster that runs our code
        if kind == ASK:
            self._asked(seat, *message)
        elif (peer := self._peers.get(seat)) is not None:
            peer.put(kind, number, message)

    def _asked(self, seat: str, number: int, worker: str, have: Sequence[bool]) -> None:
        """Take note of a worker that has come to a call; begin with that, or let it go on there."""
        with self._changed:
            call = self._open.get(number)
            peer = _RemoteWorker(self._transport, worker, seat, {} if call is None else call.beside(have))
            if call is None or call.future is None or call.future.done():
                peer.end(False)
                return
            self._peers[seat] = peer
            before, call.peer, call.tries = call.peer, peer, 0
            begins, call.begun = not call.begun, True
            self._changed.notify_all()
        if before is not None:
            before.lose(f"The worker {before.worker} was lost while the task ran in it; the cluster has taken another.")
        if begins:
            self._drive(call)

    def take(self) -> _RemoteWorker:
        """Return the worker that has come to the present call; wait for one, should the last be lost.

        Raises:
            LostWorker: no worker comes.
        """
        call, context = _CALL.get(), CURRENT.get()
        assert call is not None
        while True:
            with self._changed:
                if call.peer is not None and call.peer.lost is None:
                    return call.peer
                if self._lost is not None:
                    raise LostWorker(self._lost)
                failure, call.failure = call.failure, None
                if failure is not None:
                    raise failure
                if call.given:
                    self._changed.wait(_LOOK_SECONDS)
            if not call.given:
                self._hand_over(call)
            if context is not None:
                check(context)

    def give_back(self, worker: _RemoteWorker) -> None:
        """Do nothing: the worker stays with the call until that has ended."""

    # --- what has ended, and what is lost -----------------------------------------------------------

    def _attend(self) -> None:
        """Let seats return once the ends of their calls are committed, and look for workers that are lost."""
        watched = 0.0
        while True:
            ended: list[_Call | None] = []
            with suppress(queue.Empty):
                ended.append(self._ended.get(timeout=_WATCH_SECONDS))
                while True:
                    ended.append(self._ended.get_nowait())
            self._conclude([call for call in ended if call is not None])
            if None in ended:
                return
            if time.monotonic() - watched >= _WATCH_SECONDS:
                self._watch()
                watched = time.monotonic()

    def _conclude(self, calls: list[_Call]) -> None:
        """Let the seats of calls that have ended return, once that is committed: one commit for all."""
        if not calls:
            return
        committed = True
        try:
            self._log.commit(self._log.enqueue([]))
        except (LogError, TakenOver):
            committed = False  # whoever drives the next call is told so
        for call in calls:
            with self._changed:
                self._open.pop(call.ticket.number, None)
                peer, keep = call.peer, call.conclude(committed=committed)
                if peer is not None:
                    self._peers.pop(peer.seat, None)
            if peer is not None:
                peer.end(keep)

    def _watch(self) -> None:
        """Look which workers are still there."""
        with self._changed:
            peers = [peer for peer in self._peers.values() if peer.lost is None]
            waiting = bool(self._open)
        try:
            missing = self._transport.missing({peer.worker for peer in peers}) if peers else set()
            empty = waiting and self._transport.is_empty()
        except Exception:  # noqa: BLE001 - the cluster's own code: if it is gone, it says so itself
            return
        for peer in peers:
            if peer.worker in missing:
                peer.lose(f"The worker {peer.worker} was lost while the task ran in it.")
        if empty:
            self._lose_all("The cluster has no worker left.")

    def _lose_all(self, reason: str) -> None:
        """Note that the cluster is out of reach."""
        with self._changed:
            self._lost = self._lost or reason
            peers = list(self._peers.values())
            waiting = [call for call in self._open.values() if call.peer is None or call.peer.lost is not None]
        for peer in peers:
            peer.lose(reason)
        for call in waiting:
            self._give_up(call, reason)

    def stop(self) -> None:
        """End what is still under way, and give back what this holds."""
        self._pool.stop()
        self._ended.put(None)
        self._thread.join()
        for peer in list(self._peers.values()):
            peer.stop(0)
            peer.end(False)
        self._transport.stop()


_MAKING = threading.Lock()  # for all runners: one of its own would keep them from being pickled


class RelayedTaskRunner(TaskRunner):
    """Runs submitted tasks in workers of a cluster; only the process that has the flow run writes the log.

    The base of the runners of collections. Functions, arguments and results travel by cloudpickle. What a task in a
    worker logs, and the tasks and flows that it calls, are recorded as anywhere else; it cannot submit.
    """

    runs_coroutines = False
    lends = False
    starts_slowly = True

    def __init__(self) -> None:
        super().__init__()
        self._transport: Transport | None = None
        self._dispatch: _Dispatch | None = None

    @property
    def concurrency_type(self) -> str:
        """``PARALLEL``."""
        return "PARALLEL"

    @abstractmethod
    def duplicate(self) -> Self:
        """Return a runner like this one that has not been started."""

    @abstractmethod
    def _connect(self) -> Transport:
        """Bring up the cluster, or connect to it, and return the way to it."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Give back what `_connect` has brought up, though it may have failed half way."""

    def orders(self, source: BaseFuture[Any]) -> bool:
        """Tell whether the cluster has the call of a future."""
        return self._dispatch is not None and self._dispatch.knows(source)

    def _begin(self) -> None:
        self._transport = self._connect()

    def _submit(self, future: BaseFuture[Any]) -> None:
        with _MAKING:
            if self._dispatch is None:
                assert self._transport is not None
                self._dispatch = _Dispatch(get_run_context().flow_context.engine.log, self._transport)
        self._dispatch.submit(future)

    def _stop(self) -> None:
        dispatch, self._dispatch, self._transport = self._dispatch, None, None
        try:
            if dispatch is not None:
                dispatch.stop()
        finally:
            self._disconnect()


__all__ = ["RelayedTaskRunner", "Ticket", "Transport"]
