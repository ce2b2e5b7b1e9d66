"""For those who bring a task runner for a cluster: Dask, Ray and the like.

Such a runner inherits from `RelayedTaskRunner` and brings a `Transport`; in a worker, each call has a `Seat`. It passes
`flightlog.testing.RunnerContract`.
"""

from flightlog.engine.clusters import RelayedTaskRunner, Ticket, Transport
from flightlog.engine.seats import Seat

__all__ = ["RelayedTaskRunner", "Seat", "Ticket", "Transport"]
