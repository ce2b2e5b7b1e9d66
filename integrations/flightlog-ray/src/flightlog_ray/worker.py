"""What runs in a Ray worker for a call of a task. See `flightlog_ray.transport` for the other side."""

import itertools
import os
import threading
from contextlib import suppress
from typing import Any

import ray

from flightlog.clusters import Seat


def run_call(mailbox: Any, number: int, *upstream: bytes | None) -> tuple[None, bytes | None]:
    """Take a seat for a call of a task, and do what is to be done: the function that Ray runs.

    Args:
        mailbox: the flow run's `flightlog_ray.mailbox.Mailbox`.
        number: the call's number.
        *upstream: what the seats of the calls that it rests on returned.

    Returns:
        None, which is small, so that the flow run's process can ask whether there is an error; and the value.
    """
    numbers, lock = itertools.count(), threading.Lock()

    def send(message: bytes) -> None:
        with lock:
            mailbox.tell.remote(seat.id, next(numbers), message)

    node = ray.get_runtime_context().get_node_id()
    seat = Seat(number, f"{os.getpid()} on node {node[:8]}", upstream, send)
    threading.Thread(target=_follow, args=(mailbox, seat), name="flightlog-seat", daemon=True).start()
    try:
        return None, seat.serve()
    finally:
        mailbox.forget.remote(seat.id)


def _follow(mailbox: Any, seat: Seat) -> None:
    """Pass on what is for a seat. Not in the main thread, which would give up its CPU by waiting for Ray."""
    try:
        while not seat.ended:
            for message in ray.get(mailbox.collect.remote(seat.id)):
                seat.deliver(message)
    except Exception:  # noqa: BLE001 - the mailbox is gone, and the flow run's process with it
        with suppress(Exception):
            seat.leave()
