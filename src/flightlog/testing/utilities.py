"""The harness, under the names of Prefect: ``from flightlog.testing.utilities import prefect_test_harness``."""

from flightlog.testing.harness import flightlog_test_harness

prefect_test_harness = flightlog_test_harness

__all__ = ["flightlog_test_harness", "prefect_test_harness"]
