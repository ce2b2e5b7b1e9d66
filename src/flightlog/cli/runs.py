"""``flightlog runs``: list, show and watch flow runs, and read their logs."""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.comparing import diff
from flightlog.cli.main import OK, RUN_CANCELLED, RUN_CRASHED, RUN_FAILED
from flightlog.cli.printing import (
    as_of_option,
    clean,
    color_option,
    is_terminal,
    json_option,
    nearest,
    note,
    print_json,
    print_json_line,
    revealed,
    say,
    state_color,
    state_label,
    table,
)
from flightlog.cli.reading import projected
from flightlog.cli.replaying import to_test
from flightlog.cli.resuming import cancel, fork, restart, resume
from flightlog.cli.why import why
from flightlog.clock import SystemClock, duration, isoformat, to_datetime

if TYPE_CHECKING:
    from flightlog.projections.projector import Projector
    from flightlog.projections.queries import AttemptView, FlowRunView, TaskRunView

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_ENDS = {"COMPLETED": OK, "FAILED": RUN_FAILED, "CRASHED": RUN_CRASHED, "CANCELLED": RUN_CANCELLED}
_SHORT_ID = 18
_MOST_LINES = 12
_MOST_SHOWN = 30


@click.group(epilog="RUN is an id, the first 8 digits or more of one, a run's name, @last or @last-failed.")
def runs() -> None:
    """List, show, watch, explain and resume flow runs, and read their logs."""


@runs.command("ls")
@click.option(
    "--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 1_000_000), help="How many at the most."
)
@click.option("--flow", help="Only runs of that flow.")
@click.option("--state", help="Only runs in that state: failed, completed, running, TimedOut ...")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@as_of_option
@json_option
@color_option
def list_runs(limit: int, flow: str | None, state: str | None, quiet: bool, as_of: str | None, as_json: bool) -> None:
    """List the latest flow runs, newest first.

    \b
    Examples:
      flightlog runs ls
      flightlog runs ls --state failed --json
    """
    from flightlog.projections import queries

    with projected(as_of) as projector:
        found = queries.list_flow_runs(projector, limit=limit, flow=flow, state=state)
        if quiet:
            for run in found:
                say(run.id)
            return
        counts = queries.count_task_runs(projector, [run.id for run in found])
        now = projector.now()
        known = ([], []) if found else queries.list_names(projector)
        if as_json:
            print_json([_run_document(run) | {"task_runs": counts[run.id]} for run in found])
            return
    if not found:
        hints = nearest(flow, known[0], "--flow") + nearest(state, known[1], "--state")
        note("No runs yet." if flow is None and state is None else f"No runs fit.{hints}")
        return
    rows = [
        (
            _label(run),
            run.flow,
            run.name,
            _when(run.created),
            _took(run, now),
            _counts(counts[run.id]),
            run.id[:_SHORT_ID],
        )
        for run in found
    ]
    table(["STATE", "FLOW", "NAME", "CREATED", "TOOK", "TASKS", "ID"], rows, [state_color(r.state_type) for r in found])


@runs.command("show", short_help="Show a run, its task runs and failures.")
@click.argument("run", required=False)
@click.option(
    "--from",
    "bundle",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file that `flightlog audit export` has written, instead of the log; it is verified first.",
)
@as_of_option
@json_option
@color_option
def show_run(run: str | None, bundle: Path | None, as_of: str | None, as_json: bool) -> None:
    """Show a flow run: its state, its task runs with their attempts, and what went wrong.

    \b
    Examples:
      flightlog runs show @last
      flightlog runs show 01a2059f --json
      flightlog runs show @last --as-of 2026-01-31T06:00
      flightlog runs show --from run.zip
    """
    from flightlog.projections import queries

    with _source(run, bundle, as_of) as (projector, wanted):
        found = queries.find_flow_run(projector, wanted)
        tasks = queries.list_task_runs(projector, found.id)
        attempts = queries.list_attempts(projector, found.id)
        edges = queries.list_dependencies(projector, found.id)
        now = projector.now()
    if as_json:
        document = _run_document(found)
        document["task_runs"] = [_task_document(task, attempts, edges) for task in tasks]
        document["attempts"] = [_attempt_document(a) for a in attempts if a.run_id == found.id]
        print_json(document)
        return
    _show_head(found, now)
    _show_tasks(tasks, now)
    _show_remarks(tasks)
    _show_failures(found, tasks, attempts)


@contextmanager
def _source(run: str | None, bundle: Path | None, as_of: str | None) -> "Iterator[tuple[Projector, str]]":
    """Open what somebody wants to see: a run in the log, or the one in a bundle; with the word for the run."""
    if bundle is None:
        if run is None:
            raise click.UsageError("Name a run (an id, a name, @last), or a file: --from run.zip")
        with projected(as_of) as projector:
            yield projector, run
        return
    if as_of is not None:
        raise click.UsageError("--from shows a run as it was exported, without --as-of.")
    from flightlog.projections.bundles import check, reading_bundle

    checked = check(bundle.read_bytes(), str(bundle))
    with reading_bundle(checked) as projector:
        yield projector, run or checked.manifest["run"]["id"]


def _show_head(run: "FlowRunView", now: int) -> None:
    label = click.style(_label(run), fg=state_color(run.state_type), bold=True)
    say(f"{label}  {clean(run.flow)} / {clean(run.name)}")
    facts = [
        ("id", run.id),
        ("message", run.message),
        ("created", isoformat(run.created)),
        ("took", _took(run, now)),
        ("attempts", str(run.run_count) if run.run_count > 1 else None),
        ("tags", ", ".join(run.tags) or None),
        ("parameters", run.parameters if run.parameters != "{}" else None),
        ("code", run.entrypoint),
        ("parent", run.parent_flow_run_id),
        ("result", f"not recorded: {run.not_recorded}" if run.not_recorded else None),
    ]
    for name, value in facts:
        lines = revealed(value or "").splitlines()
        # What is asked has to be read in full.
        for number, line in enumerate(lines if run.state_type == "PAUSED" else lines[:_MOST_LINES]):
            say(f"  {name if number == 0 else '':<11} {clean(line)}")


def _show_tasks(tasks: "list[TaskRunView]", now: int) -> None:
    if not tasks:
        return
    say()
    kept = tasks
    if len(tasks) > _MOST_SHOWN:
        # Those that need looking at must not be lost in a long list.
        _show_counts(tasks)
        kept = [task for task in tasks if task.state_type != "COMPLETED"][:_MOST_SHOWN]
        if not kept:
            return
        say()
    rows = [
        (
            state_label(task.state_type, task.state_name),
            task.name,
            _took(task, now),
            str(task.run_count) if task.run_count != 1 else "",
            revealed(task.message).splitlines()[0][:80] if task.message else "",
            ", ".join(task.tags),
        )
        for task in kept
    ]
    names = ["STATE", "TASK RUN", "TOOK", "ATTEMPTS", "MESSAGE", "TAGS"]
    table(names, rows, [state_color(task.state_type) for task in kept])


def _show_remarks(tasks: "list[TaskRunView]") -> None:
    from flightlog.projections.reasons import remarks

    if lines := remarks(tasks):
        say()
        for line in lines:
            say(clean(line))


def _show_counts(tasks: "list[TaskRunView]") -> None:
    """Print a line for each task: how many runs of it there are in each state."""
    by_task: dict[str, list[TaskRunView]] = {}
    for task in tasks:
        by_task.setdefault(task.task, []).append(task)
    rows = []
    for name, runs in by_task.items():
        counts = Counter(run.state_type for run in runs)
        times = sorted(run.ended - run.started for run in runs if run.started and run.ended)
        median = duration(times[len(times) // 2]) if times else ""
        retried = sum(max(run.run_count - 1, 0) for run in runs)
        rows.append((name, str(len(runs)), _counts(dict(counts)), f"↻ {retried}" if retried else "", median))
    table(["TASK", "RUNS", "STATES", "RETRIES", "MEDIAN"], rows)
    note(f"{len(tasks)} task runs; each of them with --json.")


def _show_failures(run: "FlowRunView", tasks: "list[TaskRunView]", attempts: "list[AttemptView]") -> None:
    names = {task.id: task.name for task in tasks} | {run.id: run.name}
    failed = {task.id for task in tasks if task.state_type in ("FAILED", "CRASHED")} or {run.id}
    shown = [a for a in attempts if a.run_id in failed and a.traceback and run.state_type in ("FAILED", "CRASHED")]
    for attempt in shown[-3:]:
        say()
        say(f"{names[attempt.run_id]}, attempt {attempt.attempt} ({attempt.cause}):", bold=True)
        say(clean((attempt.traceback or "").rstrip()))


@runs.command("logs")
@click.argument("run")
@click.option("--level", type=click.Choice(list(_LEVELS)), default="debug", help="The lowest level to show.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@click.option("--jsonl", is_flag=True, help="Print one JSON document a line.")
@as_of_option
@json_option
@color_option
def show_logs(run: str, level: str, follow: bool, jsonl: bool, as_of: str | None, as_json: bool) -> None:
    """Print what a flow run and its task runs logged, oldest first.

    \b
    Examples:
      flightlog runs logs @last
      flightlog runs logs @last-failed --level error
    """
    from flightlog.projections import queries

    if as_json and follow:
        raise click.UsageError("--json prints one document, which --follow never ends; use --jsonl.")
    if as_of is not None and follow:
        raise click.UsageError("--as-of shows the past, which --follow cannot go on from.")
    with projected(as_of) as projector:
        found = queries.find_flow_run(projector, run)
        place = (0, 0, -1)
        documents: list[dict[str, Any]] = []
        while True:
            now = queries.find_flow_run(projector, found.id)
            ended = now.is_final or now.lost
            lines = queries.list_lines(projector, found.id, level=_LEVELS[level], after=place)
            place = lines[-1][0] if lines else place
            for _, line in lines:
                document = dataclasses.asdict(line) | {"at": isoformat(line.at)}
                documents.append(document) if as_json else _print_line(found, line, document, jsonl)
            if not follow or ended:
                break
            time.sleep(0.2)
    if as_json:
        print_json(documents)


def _print_line(run: "FlowRunView", line: Any, document: dict[str, Any], jsonl: bool) -> None:
    if jsonl:
        print_json_line(document)
        return
    name = next((name for name, number in _LEVELS.items() if number == line.level), str(line.level)).upper()
    speaker = f"Flow run {run.name!r}" if line.task_run is None else f"Task run {line.task_run!r}"
    time_ = to_datetime(line.at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    color = {30: "yellow", 40: "red", 50: "red"}.get(line.level)
    level = click.style(f"{name:<7}", fg=color) if color else f"{name:<7}"
    say(f"{time_} | {level} | {speaker} - {clean(line.message)}")


@runs.command("watch", short_help="Watch a run until it ends.")
@click.argument("run", default="@last")
@click.option("--jsonl", "--json", "jsonl", is_flag=True, help="Print one JSON document for each change.")
@color_option
def watch_run(run: str, jsonl: bool) -> int:
    """Watch a flow run until it ends: one line for each task on a terminal, one for each change elsewhere.

    The exit code says how it ended: 0 Completed, 10 Failed, 11 Crashed, 12 Cancelled.

    \b
    Examples:
      flightlog runs watch
      flightlog runs watch brave-heron
    """
    from flightlog.projections import queries

    with projected() as projector:
        found = queries.find_flow_run(projector, run)
        live = is_terminal() and not jsonl
        ended = _watch_live(projector, found) if live else _watch_lines(projector, found, jsonl)
        if ended is None:
            note("Its process is gone, and left no end in the log: the run crashed.")
            return RUN_CRASHED
    return _ENDS.get(ended.state_type, RUN_FAILED)


def _watch_lines(projector: "Projector", run: "FlowRunView", jsonl: bool) -> "FlowRunView | None":
    """Print one line for each state change."""
    from flightlog.events.narration import state_of
    from flightlog.events.types import flow_run_stream
    from flightlog.projections import queries

    version = 0
    names: dict[bytes | None, str] = {}
    while True:
        now = queries.find_flow_run(projector, run.id)
        for event in projector.log.read(flow_run_stream(run.id), version):
            version = event.version
            task_run = event.data.get("task_run_id")
            if "name" in event.data and event.type.endswith(".created"):
                names[task_run] = event.data["name"]
            state, name = state_of(event.type, event.data)
            at, who = isoformat(event.occurred_at), names.get(task_run, run.name)
            if jsonl:
                print_json_line(
                    {"at": at, "run": who, "type": state, "name": name, "message": event.data.get("message")}
                )
            else:
                say(f"{at} {state_label(state, name)} {clean(who)}")
        if now.is_final or now.lost:
            return now if now.is_final else None
        time.sleep(0.2)


def _watch_live(projector: "Projector", run: "FlowRunView") -> "FlowRunView | None":
    """Draw a line for each task, again and again."""
    from rich.console import Console
    from rich.live import Live

    from flightlog.cli.live import picture
    from flightlog.projections import queries

    console = Console(no_color=bool(os.environ.get("NO_COLOR")) or None)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            now = queries.find_flow_run(projector, run.id)
            tasks = queries.count_by_task(projector, run.id)
            open_runs = queries.list_task_runs(projector, run.id, states=("RUNNING", "FAILED", "CRASHED"))
            live.update(picture(now, tasks, open_runs, SystemClock().now()), refresh=True)
            if now.is_final or now.lost:
                return now if now.is_final else None
            time.sleep(0.125)


# --- what is shown of a run ---------------------------------------------------------------------------


def _label(run: "FlowRunView") -> str:
    label = state_label(run.state_type, run.state_name)
    return f"{label} (its process is gone)" if run.lost else label


def _took(run: Any, now: int) -> str:
    """Return how long a run took from its first start, or has been going for; nothing if that cannot be told."""
    if run.started is None or (run.ended is None and getattr(run, "lost", False)):
        return ""
    return duration((run.ended or now) - run.started)


def _when(moment: int) -> str:
    return to_datetime(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _counts(counts: dict[str, int]) -> str:
    return "  ".join(f"{state_label(state, str(count))}" for state, count in sorted(counts.items()))


def _times(view: Any) -> dict[str, Any]:
    return {
        name: None if getattr(view, name) is None else isoformat(getattr(view, name))
        for name in ("created", "started", "ended")
    }


def _run_document(run: "FlowRunView") -> dict[str, Any]:
    import json

    document = dataclasses.asdict(run) | _times(run)
    document["parameters"] = json.loads(run.parameters or "{}")
    return document


def _attempt_document(attempt: "AttemptView") -> dict[str, Any]:
    times = {"started": attempt.started, "ended": attempt.ended}
    told = {name: None if moment is None else isoformat(moment) for name, moment in times.items()}
    return dataclasses.asdict(attempt) | told


def _task_document(task: "TaskRunView", attempts: "list[AttemptView]", edges: Any) -> dict[str, Any]:
    document = dataclasses.asdict(task) | _times(task)
    own = [attempt for attempt in attempts if attempt.run_id == task.id]
    document["attempts"] = [_attempt_document(attempt) for attempt in own]
    document["inputs"] = [
        {"parameter": edge.parameter, "upstream": edge.upstream} for edge in edges if edge.task_run_id == task.id
    ]
    return document


@runs.command("graph", short_help="Draw what rested on what in a run.")
@click.argument("run", default="@last")
@click.option(
    "--format", "form", type=click.Choice(["mermaid", "dot", "svg", "png"]), default="mermaid", show_default=True
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file; needed for images.")
@as_of_option
@color_option
def graph_run(run: str, form: str, output: Path | None, as_of: str | None) -> None:
    """Draw what rested on what in a run: as text for pages that draw it, or as an image (with Graphviz).

    \b
    Examples:
      flightlog runs graph @last
      flightlog runs graph @last --format svg -o run.svg
    """
    from flightlog.engine.graphs import graph_of_run
    from flightlog.projections import queries

    with projected(as_of) as projector:
        found = queries.find_flow_run(projector, run)
        graph = graph_of_run(projector, found.id, found.name)
    if output is None and form in ("svg", "png"):
        raise click.UsageError(f"An image goes into a file: --output run.{form}")
    if output is None:
        say((graph.dot() if form == "dot" else graph.mermaid()).rstrip("\n"))
        return
    suffix = {"mermaid": ".mmd"}.get(form, f".{form}")
    note(f"Drawn: {graph.render(output if output.suffix else output.with_suffix(suffix))}")


for _command in (resume, restart, fork, cancel, why, diff, to_test):
    runs.add_command(_command)
