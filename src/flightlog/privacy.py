"""Personal data that can be erased: ``from flightlog.privacy import Personal``."""

from flightlog.engine.privacy import Personal

__all__ = ["Personal"]
