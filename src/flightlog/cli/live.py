"""The picture of a running flow: one line for each task, what runs now, what failed."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flightlog.cli.printing import revealed, state_color, state_label
from flightlog.clock import duration
from flightlog.projections.queries import FlowRunView, TaskCounts, TaskRunView

_MOST_OPEN = 6


def picture(run: FlowRunView, tasks: list[TaskCounts], open_runs: list[TaskRunView], now: int) -> RenderableType:
    """Return a flow run as something that rich can draw.

    Args:
        run: the flow run.
        tasks: the counts of each task.
        open_runs: task runs that are running or have failed.
        now: the present, in microseconds since 1970.
    """
    took = duration((run.ended or now) - (run.started or run.created))
    style = _style(run.state_type)
    head = Text.assemble(
        (state_label(run.state_type, run.state_name), f"bold {style}"), f"  {run.flow} / {run.name}  ", (took, "dim")
    )
    return Group(head, _bars(tasks), *_running(open_runs, now), *_failed(open_runs))


def _bars(tasks: list[TaskCounts]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for task in tasks:
        total = sum(task.counts.values())
        done = total - task.counts.get("RUNNING", 0) - task.counts.get("PENDING", 0) - task.counts.get("SCHEDULED", 0)
        counts = Text("  ")
        for state, count in sorted(task.counts.items()):
            counts.append(f"{state_label(state, str(count))}  ", style=_style(state))
        if task.retried:
            counts.append(f"↻ {task.retried}", style="yellow")
        grid.add_row(Text(f"  {task.task}"), ProgressBar(total, done, width=24), Text(f"{done}/{total}"), counts)
    return grid


def _running(runs: list[TaskRunView], now: int) -> list[Text]:
    running = [run for run in runs if run.state_type == "RUNNING"]
    lines = [
        Text.assemble(("    ▶ ", "blue"), run.name, (f"  {duration(now - (run.started or now))}", "dim"))
        for run in running[:_MOST_OPEN]
    ]
    if len(running) > _MOST_OPEN:
        lines.append(Text(f"      and {len(running) - _MOST_OPEN} more", style="dim"))
    return lines


def _failed(runs: list[TaskRunView]) -> list[Text]:
    failed = [run for run in runs if run.state_type in ("FAILED", "CRASHED")]
    return [
        Text.assemble((f"    {state_label(run.state_type, run.name)}", "red"), f"  {revealed(run.message or '')[:100]}")
        for run in failed[-_MOST_OPEN:]
    ]


def _style(state_type: str) -> str:
    return state_color(state_type)
