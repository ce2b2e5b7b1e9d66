"""Concurrency limits: ``set_limit("database", 5)``, and then ``flightlog.concurrency.sync`` or ``.asyncio``."""

from flightlog.engine.concurrency import delete_limit, set_limit

__all__ = ["delete_limit", "set_limit"]
