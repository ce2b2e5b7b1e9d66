"""Input for flow runs, under the names that users know: ``from flightlog.input import RunInput, send_input``."""

from flightlog.engine.messages import ReceivedInput, receive_input, send_input
from flightlog.engine.run_inputs import RunInput

__all__ = ["ReceivedInput", "RunInput", "receive_input", "send_input"]
