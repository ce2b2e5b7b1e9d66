"""The Ray runner passes the contract of runners with workers."""

import pytest

from flightlog.testing import WorkerContract
from flightlog_ray import RayTaskRunner


class TestRay(WorkerContract):
    """One Ray for all tests, with two CPUs."""

    @pytest.fixture
    def runner(self, instance: None) -> RayTaskRunner:
        """Return a runner on the session's Ray."""
        return RayTaskRunner()
