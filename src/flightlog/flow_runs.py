"""What is done to flow runs, under the names that users know: ``from flightlog.flow_runs import pause_flow_run``."""

from flightlog.engine.cancelling import cancel_run
from flightlog.engine.pausing import pause_flow_run, resume_flow_run, suspend_flow_run
from flightlog.engine.resuming import fork_run, restart_run, resume_run

__all__ = [
    "cancel_run",
    "fork_run",
    "pause_flow_run",
    "restart_run",
    "resume_flow_run",
    "resume_run",
    "suspend_flow_run",
]
