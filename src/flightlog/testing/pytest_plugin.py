"""Fixtures for pytest: they are there once Flightlog is installed. Nothing is imported before a test asks for one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flightlog.testing.harness import FlowTest


@pytest.fixture
def flightlog_test() -> "Iterator[FlowTest]":
    """Run the test's flows on a log in memory, under a clock that nobody waits for; return what was recorded."""
    from flightlog.testing.harness import flightlog_test_harness

    with flightlog_test_harness() as test:
        yield test
