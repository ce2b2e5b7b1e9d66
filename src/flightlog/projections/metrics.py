"""The metrics projection: how many runs ended how, and how long they took, so that nobody ever counts history.

One row per hour, flow and task. Durations are counted in the bins of a DDSketch (Masson, Rim, Lee: "DDSketch: A Fast
and Fully-Mergeable Quantile Sketch", VLDB 2019): rows can be added up over any stretch of time, and every quantile is
right to within one percent.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from ddsketch.mapping import LogarithmicMapping
from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from flightlog.events.model import Event
from flightlog.events.types import FLOW_RUN, STATES, TASK_RUN, TERMINAL, flow_run_of
from flightlog.projections.projection import Look, Put

ACCURACY = 0.01
BUCKET = 3600 * 1_000_000
"""The width of a bucket of time, in microseconds."""
COUNTS = ("completed", "failed", "crashed", "cancelled", "retried")

metadata = MetaData()
metrics = Table(
    "metrics",
    metadata,
    Column("task", Text, primary_key=True),  # first: most who ask want the flows' own rows, which have none
    Column("bucket", BigInteger, primary_key=True),
    Column("flow", Text, primary_key=True),
    *(Column(name, Integer) for name in COUNTS),
    Column("microseconds", BigInteger),
    Column("bins", Text),
    Index("metrics_by_bucket", "bucket"),
    sqlite_with_rowid=False,
)
running = Table(
    "metric_runs",
    metadata,
    Column("run", LargeBinary, primary_key=True),
    Column("flow", Text),
    Column("task", Text),
    Column("started", BigInteger),
    sqlite_with_rowid=False,
)
_UNKNOWN = "<unknown>"
_ENDS = tuple(s for s, (type_, _) in STATES.items() if type_ in TERMINAL and s != "rolled_back")


@cache
def mapping() -> LogarithmicMapping:
    """Return what says which bin a duration falls into."""
    return LogarithmicMapping(ACCURACY)


class MetricsProjection:
    """Folds ends of runs and attempts into counts and durations. A flow run's row has an empty task."""

    name: str = "metrics"
    version: int = 1
    tables: Sequence[Table] = (metrics, running)
    types: frozenset[str] | None = frozenset(
        f"{kind}.{suffix}"
        for kind in (FLOW_RUN, TASK_RUN)
        for suffix in (
            "created",
            "running",
            "awaiting_retry",
            *(s for s in STATES if STATES[s][0] in TERMINAL and s != "rolled_back"),
        )
    )

    def apply(self, event: Event, look: Look, /) -> Iterable[Put]:
        """Return what an event changes."""
        flow_run = flow_run_of(event.stream)
        if flow_run is None:
            return
        kind, _, suffix = event.type.partition(".")
        data = event.data
        run = flow_run if kind == FLOW_RUN else data["task_run_id"]
        if suffix == "created":
            if kind == FLOW_RUN:
                yield Put("metric_runs", (run,), {"flow": data["flow"], "task": ""}, new=True)
            elif "child_flow_run_id" not in data:  # a subflow's own run is counted
                parent = look("metric_runs", (flow_run,)) or {}
                told = {"flow": parent.get("flow", _UNKNOWN), "task": data["task"]}
                yield Put("metric_runs", (run,), told, new=True)
            return
        known = look("metric_runs", (run,))
        if known is None:
            return
        if suffix == "running":
            yield Put("metric_runs", (run,), {"started": event.occurred_at})
            return
        yield from _count(event, suffix, known, look)


def _count(event: Event, suffix: str, known: Any, look: Look) -> Iterable[Put]:
    key = (known["task"], event.occurred_at // BUCKET * BUCKET, known["flow"])
    column = "retried" if suffix == "awaiting_retry" else suffix
    before = look("metrics", key) or {}
    values: dict[str, Any] = {column: (before.get(column) or 0) + 1}
    started = known.get("started")
    # When a lost process ended, nobody knows: only when that was noticed.
    if started is not None and suffix != "awaiting_retry" and event.data.get("cause") != "lost_worker":
        took = max(event.occurred_at - started, 1)
        values["microseconds"] = (before.get("microseconds") or 0) + took
        bins = counted(before.get("bins"))
        bin_ = str(mapping().key(took / 1e6))
        bins[bin_] = bins.get(bin_, 0) + 1
        values["bins"] = bins
    yield Put("metrics", key, values)


def counted(bins: str | dict[str, int] | None) -> dict[str, int]:
    """Return how many durations are in each bin, from how a row has it: as JSON once it is stored."""
    return json.loads(bins) if isinstance(bins, str) else dict(bins or {})
