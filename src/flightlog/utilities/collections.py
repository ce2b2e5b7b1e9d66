"""`quote`, under the name that it has in Prefect 2.0."""

from flightlog.engine.annotations import quote

__all__ = ["quote"]
