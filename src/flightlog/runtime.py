"""Facts about the run that code belongs to: ``from flightlog.runtime import flow_run, task_run, deployment``.

Outside a run every fact is None, empty, 0 or the present; nothing here ever raises. For tests, an environment variable
such as ``FLIGHTLOG__RUNTIME__FLOW_RUN__NAME`` stands in for a fact; it is read as what the fact usually is.
"""

from flightlog.engine.facts import deployment, flow_run, task_run

__all__ = ["deployment", "flow_run", "task_run"]
