"""The metrics projection as Prometheus reads it: the text exposition format, version 0.0.4."""

from flightlog.projections.projector import Projector
from flightlog.projections.queries import MetricView, list_metrics

_STATES = ("completed", "failed", "crashed", "cancelled")


def exposition(projector: Projector) -> str:
    """Return all runs since the log began, as counters and summaries."""
    views = list_metrics(projector)
    lines = [
        "# HELP flightlog_runs_total Runs that have ended, by flow, task (empty for the flow itself) and final state.",
        "# TYPE flightlog_runs_total counter",
        *(
            f"flightlog_runs_total{_labels(view, state=state)} {getattr(view, state)}"
            for view in views
            for state in _STATES
        ),
        "# HELP flightlog_retries_total Attempts that failed and were tried again.",
        "# TYPE flightlog_retries_total counter",
        *(f"flightlog_retries_total{_labels(view)} {view.retried}" for view in views),
        "# HELP flightlog_run_duration_seconds How long runs that have ended took.",
        "# TYPE flightlog_run_duration_seconds summary",
    ]
    for view in views:
        name = "flightlog_run_duration_seconds"
        lines += [f"{name}{_labels(view, quantile=str(q))} {value:.9g}" for q, value in view.quantiles.items()]
        lines += [f"{name}_sum{_labels(view)} {view.seconds:.9g}", f"{name}_count{_labels(view)} {view.ended}"]
    return "\n".join([*lines, ""])


def _labels(view: MetricView, **more: str) -> str:
    labels = {"flow": view.flow, "task": view.task, **more}
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
