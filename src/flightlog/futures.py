"""Futures, under the name that users know: ``from flightlog.futures import as_completed, wait``."""

from flightlog.engine.futures import AsyncFuture, Future
from flightlog.engine.gathering import DoneAndNotDone, FutureList, as_completed, wait

PrefectFuture = Future
PrefectFutureList = FutureList

__all__ = [
    "AsyncFuture",
    "DoneAndNotDone",
    "Future",
    "FutureList",
    "PrefectFuture",
    "PrefectFutureList",
    "as_completed",
    "wait",
]
