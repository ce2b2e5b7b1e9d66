"""What belongs to flows, under the names that users know: ``from flightlog.flows import Flow``."""

from flightlog.engine.flows import Flow, flow
from flightlog.engine.loading import load_flow
from flightlog.engine.loading import load_flow as load_flow_from_entrypoint

__all__ = ["Flow", "flow", "load_flow", "load_flow_from_entrypoint"]
