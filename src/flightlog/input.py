"""Input for paused flow runs, under the name that users know: ``from flightlog.input import RunInput``."""

from flightlog.engine.run_inputs import RunInput

__all__ = ["RunInput"]
