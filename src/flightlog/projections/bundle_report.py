"""A flow run as one page of HTML for readers: it loads nothing from anywhere, and prints well."""

from collections.abc import Iterator, Sequence
from html import escape

from flightlog.clock import duration, isoformat
from flightlog.events.narration import ICONS, NO_ICON
from flightlog.events.sealing import Seal
from flightlog.projections import queries
from flightlog.projections.projector import Projector
from flightlog.projections.queries import AttemptView, FlowRunView, TaskRunView

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --quiet: #59636e; --line: #d1d9e0; --back: #ffffff; --code: #f6f8fa;
  --good: #1a7f37; --bad: #cf222e; --odd: #8250df; --wait: #9a6700; --busy: #0969da; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9198a1; --line: #30363d; --back: #0d1117;
  --code: #161b22; --good: #3fb950; --bad: #f85149; --odd: #ab7df8; --wait: #d29922; --busy: #4493f8; } }
body { font: 15px/1.5 -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: var(--text);
  background: var(--back); max-width: 960px; margin: 0 auto; padding: 24px 16px; }
h1 { font-size: 24px; } h2 { font-size: 18px; margin-top: 32px; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; } th { color: var(--quiet); font-weight: 600; }
th, td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; }
dt { color: var(--quiet); } dd { margin: 0; }
pre, code { font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: var(--code); padding: 12px; white-space: pre-wrap; border-radius: 6px; }
.completed { color: var(--good); } .failed { color: var(--bad); } .crashed { color: var(--odd); }
.running { color: var(--busy); } .scheduled, .paused, .cancelled, .cancelling { color: var(--wait); }
@media print { body { max-width: none; } pre { border: 1px solid var(--line); } tr { break-inside: avoid; } }
"""
_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def report(projector: Projector, run: FlowRunView, seal: Seal, note: str) -> str:
    """Return the page of a flow run.

    Args:
        projector: the log, with its projections.
        run: the flow run.
        seal: the seal that covers it.
        note: the checkpoint.
    """
    tasks = queries.list_task_runs(projector, run.id)
    attempts = queries.list_attempts(projector, run.id)
    lines = [line for _, line in queries.list_lines(projector, run.id)]
    title = escape(f"{run.flow} / {run.name}")
    body = "\n".join([
        *_head(run), *_tasks(tasks), *_failures(run, tasks, attempts), *_lines(lines), *_proof(seal, note),
    ])  # fmt: skip
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _state(state_type: str, state_name: str) -> str:
    """Return a state as icon and word in its colour."""
    icon = ICONS.get(state_type, NO_ICON)
    return f'<span class="{escape(state_type.lower())}">{escape(icon)} {escape(state_name)}</span>'


def _head(run: FlowRunView) -> Iterator[str]:
    yield f"<h1>{_state(run.state_type, run.state_name)} {escape(run.flow)} / {escape(run.name)}</h1>"
    facts = {
        "id": run.id,
        "message": run.message,
        "created": isoformat(run.created),
        "took": _took(run.started, run.ended),
        "attempts": str(run.run_count),
        "tags": ", ".join(run.tags),
        "parameters": None if run.parameters == "{}" else run.parameters,
        "code": run.entrypoint,
        "version": run.version,
        "parent": run.parent_flow_run_id,
    }
    yield "<dl>"
    yield from (f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    yield "</dl>"


def _took(started: int | None, ended: int | None) -> str:
    return duration(ended - started) if started is not None and ended is not None else ""


def _tasks(tasks: Sequence[TaskRunView]) -> Iterator[str]:
    if not tasks:
        return
    yield f"<h2>{len(tasks)} task runs</h2>\n<table>"
    yield "<tr><th>State</th><th>Task run</th><th>Took</th><th>Attempts</th><th>Message</th></tr>"
    for task in tasks:
        message = (task.message or "").split("\n")[0][:200]
        cells = (escape(task.name), _took(task.started, task.ended), str(task.run_count), escape(message))
        yield f"<tr><td>{_state(task.state_type, task.state_name)}</td><td>{'</td><td>'.join(cells)}</td></tr>"
    yield "</table>"


def _failures(run: FlowRunView, tasks: Sequence[TaskRunView], attempts: Sequence[AttemptView]) -> Iterator[str]:
    names = {task.id: task.name for task in tasks} | {run.id: run.name}
    failed = [attempt for attempt in attempts if attempt.traceback]
    if failed:
        yield "<h2>What went wrong</h2>"
    for attempt in failed:
        title = f"{names.get(attempt.run_id, '')}, attempt {attempt.attempt} ({attempt.cause})"
        yield f"<h3>{escape(title)}</h3>"
        yield f"<pre>{escape(attempt.traceback or '')}</pre>"


def _lines(lines: Sequence[queries.LineView]) -> Iterator[str]:
    if not lines:
        return
    yield "<h2>Log lines</h2>\n<pre>"
    for line in lines:
        level = _LEVELS.get(line.level, str(line.level))
        yield escape(f"{isoformat(line.at)} {level:<8} {line.task_run or ''} {line.message}")
    yield "</pre>"


def _proof(seal: Seal, note: str) -> Iterator[str]:
    yield "<h2>Proof</h2>"
    yield (
        f"<p>This page is for reading. What counts are the events beside it: <code>python verify.py</code> shows that "
        f"they are in the log of {seal.last} events that this checkpoint stands for, byte for byte, and that none of "
        "them was left out. It does not show that what they say is true.</p>"
    )
    yield f"<pre>{escape(note)}</pre>"
