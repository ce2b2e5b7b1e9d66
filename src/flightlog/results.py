"""What belongs to results, under the names that users know: ``from flightlog.results import ResultStorage``.

Where and how results are kept is said by options of flows and tasks; there are no stores or factories to be made.
"""

from flightlog.engine.serializers import Serializer as ResultSerializer
from flightlog.engine.storages import ResultStorage
from flightlog.errors import CorruptResult, MissingResult

__all__ = ["CorruptResult", "MissingResult", "ResultSerializer", "ResultStorage"]
