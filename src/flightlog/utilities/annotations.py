"""Marks on arguments, under the name that they have in Prefect 2.1 and later."""

from flightlog.engine.annotations import allow_failure, quote, unmapped

__all__ = ["allow_failure", "quote", "unmapped"]
