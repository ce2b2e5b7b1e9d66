"""The read side: what server and command line ask. Typed answers from the projections."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any

from sqlalchemy import case, func, or_, select

from flightlog.errors import RunNotFound
from flightlog.events.liveness import is_gone
from flightlog.events.types import TERMINAL, flow_run_stream, logs_stream
from flightlog.ids import id_text, parse_id
from flightlog.names import did_you_mean
from flightlog.projections.logs import log_lines
from flightlog.projections.metrics import BUCKET, COUNTS, counted, mapping, metrics
from flightlog.projections.projector import Projector
from flightlog.projections.runs import attempts, dependencies, flow_runs, task_runs

_SHORTEST_PREFIX = 8


@dataclass(frozen=True, slots=True)
class FlowRunView:
    """A flow run as it is now. Times are in microseconds since 1970 (UTC), None if not yet.

    Attributes:
        not_recorded: why its value is not recorded, if it is not.
        lost: whether it is called running though its process is gone, as far as this machine can tell.
    """

    id: str
    name: str
    flow: str
    version: str | None
    state_type: str
    state_name: str
    message: str | None
    created: int
    started: int | None
    ended: int | None
    run_count: int
    parent_flow_run_id: str | None
    entrypoint: str | None
    parameters: str | None
    not_recorded: str | None
    host: str | None
    boot: str | None
    pid: int | None
    process_started: int | None
    namespace: int | None
    tags: tuple[str, ...]
    lost: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.state_type in TERMINAL


@dataclass(frozen=True, slots=True)
class TaskRunView:
    """A task run as it is now.

    Attributes:
        uncached: why it was not cached though it was to be.
        runs_again: why, though it has completed, it runs again when its flow run is gone on with; None if it does not.
    """

    id: str
    name: str
    task: str
    state_type: str
    state_name: str
    message: str | None
    created: int
    started: int | None
    ended: int | None
    run_count: int
    parent: str | None
    child_flow_run_id: str | None
    tags: tuple[str, ...]
    uncached: str | None
    runs_again: str | None


@dataclass(frozen=True, slots=True)
class AttemptView:
    """An attempt of a run: the flow run's own or a task run's."""

    run_id: str
    attempt: int
    started: int | None
    ended: int | None
    state_type: str
    cause: str | None
    error_type: str | None
    error: str | None
    traceback: str | None


@dataclass(frozen=True, slots=True)
class DependencyView:
    """A task run was given what another one made."""

    task_run_id: str
    parameter: str
    upstream: str


@dataclass(frozen=True, slots=True)
class LineView:
    """A log line."""

    at: int
    level: int
    task_run: str | None
    message: str


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """How many task runs of one task are in each state type."""

    task: str
    counts: dict[str, int]
    retried: int


def _flow_run(projector: Projector, row: Any) -> FlowRunView:
    """Return a flow run; what is called running is lost if its process is gone, as far as this machine can tell."""
    run: FlowRunView = _view(FlowRunView, row)
    if run.state_type != "RUNNING" or run.pid is None or projector.is_past:
        return run
    return replace(run, lost=is_gone(process_of(run)) is True)


def _view(kind: type[Any], row: Any) -> Any:
    values = {name: getattr(row, name) for name in kind.__dataclass_fields__ if name != "lost"}
    if "tags" in values:
        values["tags"] = tuple(json.loads(values["tags"] or "[]"))
    return kind(**{name: id_text(value) if isinstance(value, bytes) else value for name, value in values.items()})


def list_flow_runs(
    projector: Projector, *, limit: int = 20, flow: str | None = None, state: str | None = None
) -> list[FlowRunView]:
    """Return the latest flow runs, newest first.

    Args:
        projector: the projections.
        limit: how many at the most.
        flow: only runs of the flow of that name.
        state: only runs in a state of that type or name, whatever its case.
    """
    query = select(flow_runs).order_by(flow_runs.c.id.desc()).limit(limit)
    if flow is not None:
        query = query.where(flow_runs.c.flow == flow)
    if state is not None:
        wanted = state.upper()
        query = query.where(or_(flow_runs.c.state_type == wanted, func.upper(flow_runs.c.state_name) == wanted))
    return [_flow_run(projector, row) for row in projector.rows(query)]


def list_open_runs(projector: Projector, limit: int = 1000) -> list[FlowRunView]:
    """Return flow runs that have begun and have not ended, oldest first."""
    states = ("RUNNING", "SCHEDULED", "CANCELLING", "PAUSED")
    query = select(flow_runs).where(flow_runs.c.state_type.in_(states)).order_by(flow_runs.c.id).limit(limit)
    return [_flow_run(projector, row) for row in projector.rows(query)]


def family(projector: Projector, wanted: str) -> set[str]:
    """Return the streams of a flow run and its subflows, at whatever remove, with their log lines."""
    found: set[str] = set()
    waiting = [parse_id(find_flow_run(projector, wanted).id)]
    while waiting:
        run = waiting.pop()
        found.update((flow_run_stream(id_text(run)), logs_stream(id_text(run))))
        children = select(flow_runs.c.id).where(flow_runs.c.parent_flow_run_id == run)
        waiting += [row.id for row in projector.rows(children)]
    return found


def process_of(run: FlowRunView) -> dict[str, Any]:
    """Return what tells the process of a run from every other one; see `flightlog.events.liveness.this_process`."""
    return {
        "host": run.host,
        "boot": run.boot,
        "namespace": run.namespace,
        "pid": run.pid,
        "started": run.process_started,
    }


def find_flow_run(projector: Projector, wanted: str) -> FlowRunView:
    """Return the flow run that somebody means: by id, prefix of the id, name, ``@last`` or ``@last-failed``.

    Raises:
        RunNotFound: there is none, or more than one; the message names what is near.
    """
    if wanted in ("@last", "@last-failed"):
        query = select(flow_runs).order_by(flow_runs.c.id.desc()).limit(1)
        query = query.where(flow_runs.c.parent_flow_run_id.is_(None))
        if wanted == "@last-failed":
            query = query.where(flow_runs.c.state_type.in_(("FAILED", "CRASHED")))
    else:
        query = select(flow_runs).order_by(flow_runs.c.id.desc()).limit(6).where(_meant(wanted))
    rows = projector.rows(query)
    if not rows and wanted == "@last-failed":
        raise RunNotFound("No flow run has failed or crashed.")
    if not rows and wanted == "@last":
        raise RunNotFound("There is no flow run yet.")
    if not rows:
        raise RunNotFound(_not_found(projector, wanted))
    if len(rows) > 1:
        some = ", ".join(f"{id_text(row.id)[:18]} ({row.flow})" for row in rows[:5])
        raise RunNotFound(f"{wanted!r} fits several runs: {some}. Use more of the id.")
    return _flow_run(projector, rows[0])


def _meant(wanted: str) -> Any:
    by_name = flow_runs.c.name == wanted
    digits = wanted.lower().replace("-", "")
    if len(digits) < _SHORTEST_PREFIX or len(digits) > 32 or not set(digits) <= set("0123456789abcdef"):
        return by_name
    low, high = bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))
    return or_(by_name, flow_runs.c.id.between(low, high))


def _not_found(projector: Projector, wanted: str) -> str:
    names = [row.name for row in projector.rows(select(flow_runs.c.name).order_by(flow_runs.c.id.desc()).limit(500))]
    hint = did_you_mean(wanted, names, else_say=" See `flightlog runs ls`.")
    then = " at that moment" if projector.until is not None else ""
    return f"There is no flow run {wanted!r}{then}.{hint}"


def list_names(projector: Projector) -> tuple[list[str], list[str]]:
    """Return the names of all flows, and of all states that flow runs are in: what one can ask for."""
    flows = [row.flow for row in projector.rows(select(flow_runs.c.flow).distinct()) if row.flow is not None]
    query = select(flow_runs.c.state_type, flow_runs.c.state_name).distinct()
    states = {name for row in projector.rows(query) for name in (row.state_type.lower(), row.state_name) if name}
    return flows, sorted(states)


def list_task_runs(projector: Projector, flow_run_id: str, states: Sequence[str] | None = None) -> list[TaskRunView]:
    """Return the task runs of a flow run, oldest first; all, or those in one of some state types."""
    query = select(task_runs).where(task_runs.c.flow_run_id == parse_id(flow_run_id)).order_by(task_runs.c.id)
    if states is not None:
        query = query.where(task_runs.c.state_type.in_(states))
    return [_view(TaskRunView, row) for row in projector.rows(query)]


def count_task_runs(projector: Projector, flow_run_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return how many task runs each flow run has, by state type."""
    counts: dict[str, dict[str, int]] = {run: {} for run in flow_run_ids}
    query = (
        select(task_runs.c.flow_run_id, task_runs.c.state_type, func.count())
        .where(task_runs.c.flow_run_id.in_([parse_id(run) for run in flow_run_ids]))
        .group_by(task_runs.c.flow_run_id, task_runs.c.state_type)
    )
    for run, state, count in projector.rows(query):
        counts[id_text(run)][state] = count
    return counts


def count_by_task(projector: Projector, flow_run_id: str) -> list[TaskCounts]:
    """Return how many task runs of each task are in each state, in the order in which the tasks first ran."""
    query = (
        select(
            task_runs.c.task,
            task_runs.c.state_type,
            func.count().label("runs"),
            func.sum(case((task_runs.c.run_count > 1, task_runs.c.run_count - 1), else_=0)).label("retried"),
            func.min(task_runs.c.id).label("first"),
        )
        .where(task_runs.c.flow_run_id == parse_id(flow_run_id))
        .group_by(task_runs.c.task, task_runs.c.state_type)
        .order_by("first")
    )
    found: dict[str, TaskCounts] = {}
    for row in projector.rows(query):
        before = found.get(row.task, TaskCounts(row.task, {}, 0))
        found[row.task] = TaskCounts(row.task, before.counts | {row.state_type: row.runs}, before.retried + row.retried)
    return list(found.values())


def list_attempts(projector: Projector, flow_run_id: str) -> list[AttemptView]:
    """Return all attempts of a flow run and its task runs, in the order of the runs' ids."""
    query = (
        select(attempts)
        .where(attempts.c.flow_run_id == parse_id(flow_run_id))
        .order_by(attempts.c.run_id, attempts.c.attempt)
    )
    return [_view(AttemptView, row) for row in projector.rows(query)]


def list_dependencies(projector: Projector, flow_run_id: str) -> list[DependencyView]:
    """Return which task runs of a flow run were given what others made."""
    query = select(dependencies).where(dependencies.c.flow_run_id == parse_id(flow_run_id))
    return [_view(DependencyView, row) for row in projector.rows(query.order_by(dependencies.c.task_run_id))]


def list_lines(
    projector: Projector, flow_run_id: str, *, level: int = 0, after: tuple[int, int, int] = (0, 0, -1)
) -> list[tuple[tuple[int, int, int], LineView]]:
    """Return the log lines of a flow run, oldest first, each with its place (to go on after).

    Args:
        projector: the projections.
        flow_run_id: the flow run.
        level: the lowest level.
        after: only lines after that place.
    """
    names = {run.id: run.name for run in list_task_runs(projector, flow_run_id)}
    lines = log_lines.c
    query = (
        select(log_lines)
        .where(
            lines.flow_run_id == parse_id(flow_run_id),
            lines.level >= level,
            or_(
                lines.at > after[0],
                (lines.at == after[0]) & (lines.position > after[1]),
                (lines.at == after[0]) & (lines.position == after[1]) & (lines.line > after[2]),
            ),
        )
        .order_by(lines.at, lines.position, lines.line)
    )
    return [
        (
            (row.at, row.position, row.line),
            LineView(
                row.at,
                row.level,
                None if row.task_run_id is None else names.get(id_text(row.task_run_id), "<unknown>"),
                row.message,
            ),
        )
        for row in projector.rows(query)
    ]


# --- metrics ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetricView:
    """How runs of a flow, or of a task in it, went in a stretch of time. Durations are in seconds.

    Attributes:
        flow: the flow's name.
        task: the task's name; empty for the flow's own runs.
        bucket: where the stretch begins, in microseconds since 1970 (UTC); None for all of it as one.
        completed, failed, crashed, cancelled: how many runs ended so.
        retried: how many attempts failed and were tried again.
        seconds: how long those that ended took, together.
        quantiles: durations by quantile, each right to within one percent; empty if none ended.
    """

    flow: str
    task: str
    bucket: int | None
    completed: int
    failed: int
    crashed: int
    cancelled: int
    retried: int
    seconds: float
    quantiles: dict[float, float]

    @property
    def ended(self) -> int:
        """How many runs ended."""
        return self.completed + self.failed + self.crashed + self.cancelled


QUANTILES = (0.5, 0.95, 0.99)


def list_metrics(
    projector: Projector,
    *,
    since: int = 0,
    until: int | None = None,
    flow: str | None = None,
    tasks: bool = True,
    every: int | None = None,
) -> list[MetricView]:
    """Return how runs went, by flow and task, and by stretches of time if that is asked for.

    Args:
        projector: the projections.
        since: the beginning, in microseconds since 1970 (UTC); it is rounded down to the hour.
        until: the end, which does not belong to it; None for now.
        flow: only that flow and its tasks.
        tasks: whether tasks are told apart from their flows; else only the flows' own runs.
        every: the width of the stretches, whole hours, in microseconds; None for one.
    """
    query = select(metrics).where(metrics.c.bucket >= since // BUCKET * BUCKET)
    if until is not None:
        query = query.where(metrics.c.bucket < until)
    if flow is not None:
        query = query.where(metrics.c.flow == flow)
    if not tasks:
        query = query.where(metrics.c.task == "")
    rows = projector.rows(query.order_by(metrics.c.flow, metrics.c.task, metrics.c.bucket))
    grouped = groupby(rows, lambda row: (row.flow, row.task, None if every is None else row.bucket // every * every))
    return [_added_up(*key, group) for key, group in grouped]


def _added_up(flow: str, task: str, stretch: int | None, rows: Iterable[Any]) -> MetricView:
    """Return rows of metrics as one."""
    counts, microseconds, bins = [0] * len(COUNTS), 0, Counter[str]()
    for row in rows:
        _, _, _, *more, took, found = row  # by their places: a day's history has thousands of rows
        counts = [count + (further or 0) for count, further in zip(counts, more, strict=True)]
        microseconds += took or 0
        bins.update(counted(found))
    completed, failed, crashed, cancelled, retried = counts
    seconds, quantiles = microseconds / 1e6, _quantiles(bins)
    return MetricView(flow, task, stretch, completed, failed, crashed, cancelled, retried, seconds, quantiles)


@lru_cache(4096)
def _seconds(bin_: str) -> float:
    return float(mapping().value(int(bin_)))


def _quantiles(bins: Mapping[str, int]) -> dict[float, float]:
    """Return quantiles of durations that are counted in bins, in seconds."""
    if not bins:
        return {}
    ordered = sorted(bins, key=int)
    passed = list(accumulate(map(bins.__getitem__, ordered)))
    last = passed[-1] - 1
    return {quantile: _seconds(ordered[bisect_right(passed, quantile * last)]) for quantile in QUANTILES}
