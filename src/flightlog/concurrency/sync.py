"""Holding slots of concurrency limits in sync code: ``from flightlog.concurrency.sync import concurrency``."""

from flightlog.engine.concurrency import concurrency, rate_limit
from flightlog.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]
