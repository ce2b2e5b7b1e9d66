"""``flightlog metrics``: how runs went over time."""

import dataclasses
from datetime import timedelta

import click

from flightlog.cli.printing import (
    as_of_option,
    color_option,
    json_option,
    nearest,
    note,
    print_json,
    say,
    table,
)
from flightlog.cli.reading import projected
from flightlog.clock import duration, isoformat

_HOUR = 3_600_000_000
_DAY_HOURS = 24.0
_MOST_HOURS = 1_000_000


@click.command()
@click.option(
    "--hours", default=_DAY_HOURS, show_default=True, type=click.FloatRange(0, min_open=True), help="How far back."
)
@click.option("--flow", help="Only that flow and its tasks.")
@click.option("--by-hour", is_flag=True, help="One row for each hour.")
@click.option("--prometheus", is_flag=True, help="All since the beginning, in Prometheus's text format.")
@as_of_option
@json_option
@color_option
def metrics(hours: float, flow: str | None, by_hour: bool, prometheus: bool, as_of: str | None, as_json: bool) -> None:
    """Show how runs ended and how long they took, by flow and task.

    \b
    Examples:
      flightlog metrics
      flightlog metrics --flow etl --by-hour --json
      flightlog metrics --as-of 2026-01-31T06:00
      flightlog metrics --prometheus > /var/lib/node_exporter/flightlog.prom
    """
    from flightlog.projections.prometheus import exposition
    from flightlog.projections.queries import list_metrics, list_names

    if prometheus and (flow or by_hour or as_json or hours != _DAY_HOURS):
        raise click.UsageError("--prometheus prints all since the beginning; of the others it takes --as-of only.")
    if not hours <= _MOST_HOURS:
        raise click.BadParameter(f"{hours} hours are more than a log is old.", param_hint="--hours")
    with projected(as_of) as projector:
        if prometheus:
            say(exposition(projector).rstrip("\n"))
            return
        since = projector.now() - round(timedelta(hours=hours).total_seconds() * 1e6)
        views = list_metrics(projector, since=since, flow=flow, every=_HOUR if by_hour else None)
        flows = [] if views else list_names(projector)[0]
    if as_json:
        documents = [dataclasses.asdict(view) for view in views]
        for document in documents:
            document["bucket"] = None if document["bucket"] is None else isoformat(document["bucket"])
        print_json(documents)
        return
    if not views:
        note(f"No runs ended in that time.{nearest(flow, flows, '--flow')}")
        return
    rows = [
        (
            "" if view.bucket is None else isoformat(view.bucket)[:16],
            view.flow,
            view.task,
            *(str(count or "") for count in (view.completed, view.failed, view.crashed, view.cancelled, view.retried)),
            *(duration(round(view.quantiles[q] * 1e6)) if view.quantiles else "" for q in (0.5, 0.95, 0.99)),
        )
        for view in views
    ]
    headers = ["HOUR", "FLOW", "TASK", "COMPLETED", "FAILED", "CRASHED", "CANCELLED", "RETRIED", "P50", "P95", "P99"]
    if not by_hour:
        headers, rows = headers[1:], [row[1:] for row in rows]
    table(headers, rows)
