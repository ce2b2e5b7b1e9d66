"""Variables, under the name that users know: ``from flightlog.variables import Variable``."""

from flightlog.engine.variables import Variable

__all__ = ["Variable"]
