"""Variables, under the names that users know: ``from flightlog.variables import Variable, get``."""

from flightlog.engine.variables import Variable
from flightlog.engine.variables import get_value as get

__all__ = ["Variable", "get"]
