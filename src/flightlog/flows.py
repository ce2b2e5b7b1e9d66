"""What belongs to flows, under the names that users know: ``from flightlog.flows import Flow``."""

from flightlog.engine.flows import Flow, flow

__all__ = ["Flow", "flow"]
