"""Holding slots of concurrency limits in async code: ``from flightlog.concurrency.asyncio import concurrency``."""

from flightlog.engine.concurrency import concurrency_async as concurrency
from flightlog.engine.concurrency import rate_limit_async as rate_limit
from flightlog.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]
