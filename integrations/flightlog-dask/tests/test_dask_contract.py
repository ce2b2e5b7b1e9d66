"""The Dask runner passes the contract of runners with workers, on a cluster of separate processes."""

import pytest

from flightlog.testing import WorkerContract
from flightlog_dask import DaskTaskRunner


class TestDask(WorkerContract):
    """Two workers, each started anew by its nanny when it dies."""

    @pytest.fixture
    def runner(self, cluster: "Cluster") -> DaskTaskRunner:  # noqa: F821 - of conftest
        """Return a runner that is connected to the session's cluster."""
        return DaskTaskRunner(address=cluster.address)
