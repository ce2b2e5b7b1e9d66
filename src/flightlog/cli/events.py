"""``flightlog events``: read the log."""

import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.printing import (
    clean,
    color_option,
    is_terminal,
    json_option,
    note,
    print_json,
    print_json_line,
    say,
    state_color,
    table,
)
from flightlog.cli.reading import projected, reading
from flightlog.clock import isoformat
from flightlog.ids import id_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flightlog.events.log import Log
    from flightlog.events.model import Event

_DETAIL = 70


@click.group()
def events() -> None:
    """Read the log: what happened, in order."""


@events.command("ls")
@click.option("--run", "run", help="Only events of that flow run: an id, 8 digits of one, a name, @last.")
@click.option("--type", "types", multiple=True, help="Only events of that type, such as task_run.failed; repeatable.")
@click.option("--after", default=0, type=click.IntRange(0, 2**62), help="Only events after that position.")
@click.option("--limit", "-n", type=click.IntRange(1, 1_000_000_000), help="How many at the most; 100 on a terminal.")
@click.option("--jsonl", is_flag=True, help="Print one JSON document a line.")
@json_option
@color_option
def list_events(
    run: str | None, types: tuple[str, ...], after: int, limit: int | None, jsonl: bool, as_json: bool
) -> None:
    """List events, oldest first.

    \b
    Examples:
      flightlog events ls --run @last
      flightlog events ls --type task_run.failed --type task_run.crashed --jsonl
    """
    if limit is None and is_terminal() and not (as_json or jsonl):
        limit = 100
    run_id = _run_id(run)
    with reading() as log:
        found = _select(log, run_id, types, after, limit)
        if jsonl:
            for event in found:
                print_json_line(_document(event))
            return
        if as_json:
            print_json([_document(event) for event in found])
            return
        rows = [(event.type, _row(event)) for event in found]
    if not rows:
        note("No events fit.")
    headers = ["POSITION", "WHEN", "TYPE", "STREAM", "WHAT"]
    table(headers, [row for _, row in rows], [_color(type_) for type_, _ in rows])
    if limit is not None and len(rows) == limit and is_terminal():
        note(f"... more with --after {rows[-1][1][0]}")


@events.command("tail")
@click.option("--run", "run", help="Only events of that flow run.")
@click.option("--type", "types", multiple=True, help="Only events of that type; repeatable.")
@click.option(
    "--last",
    "-n",
    default=10,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Begin with so many.",
)
@click.option("--jsonl", "--json", "jsonl", is_flag=True, help="Print one JSON document a line.")
@click.option("--no-follow", is_flag=True, help="Stop after the old ones.")
@color_option
def tail_events(run: str | None, types: tuple[str, ...], last: int, jsonl: bool, no_follow: bool) -> None:
    """Print the latest events, and new ones as they come, until Ctrl-C.

    \b
    Examples:
      flightlog events tail
      flightlog events tail --type flow_run.failed --jsonl
    """
    from collections import deque

    run_id = _run_id(run)
    with reading() as log:
        head = log.head().position
        old = deque((event for event in _select(log, run_id, types, 0, None) if event.position <= head), maxlen=last)
        for event in old:
            _print(event, jsonl)
        if no_follow:
            return
        stop = threading.Event()
        for event in log.subscribe(head, list(types) or None, stop):
            if run_id is None or event.stream.endswith(run_id):
                _print(event, jsonl)


def _run_id(run: str | None) -> str | None:
    if run is None:
        return None
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        return find_flow_run(projector, run).id


def _select(log: "Log", run_id: str | None, types: tuple[str, ...], after: int, limit: int | None) -> "Iterator[Event]":
    """Yield the events that were asked for, oldest first."""
    from heapq import merge
    from itertools import islice

    from flightlog.events.types import flow_run_stream, logs_stream

    if run_id is None:
        yield from log.read_all(after, list(types) or None, limit)
        return
    both = merge(log.read(flow_run_stream(run_id)), log.read(logs_stream(run_id)), key=lambda event: event.position)
    wanted = (e for e in both if e.position > after and (not types or e.type in types))
    yield from islice(wanted, limit)


def _document(event: "Event") -> dict[str, Any]:
    return {
        "position": event.position,
        "recorded_at": isoformat(event.recorded_at),
        "stream": event.stream,
        "version": event.version,
        "id": id_text(event.id),
        "type": event.type,
        "schema": event.envelope.schema,
        "occurred_at": isoformat(event.occurred_at),
        "actor": event.actor,
        "follows": None if event.follows is None else id_text(event.follows),
        "epoch": event.epoch,
        "hash": event.hash.hex(),
        "previous": event.envelope.previous.hex(),
        "data": _readable(event.data),
    }


def _readable(value: Any) -> Any:
    """Return a payload with ids and digests as text."""
    if isinstance(value, bytes):
        return id_text(value) if len(value) == 16 else value.hex()
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    return value


def _row(event: "Event") -> tuple[str, ...]:
    data = event.data
    detail = data.get("message") or data.get("name") or ""
    if "lines" in data:
        detail = f"{len(data['lines'])} lines"
    elif not detail and (run := data.get("task_run_id")) is not None:
        detail = id_text(run)
    first = str(detail).splitlines()[0][:_DETAIL] if detail else ""
    return str(event.position), isoformat(event.occurred_at), event.type, event.stream, first


def _print(event: "Event", jsonl: bool) -> None:
    if jsonl:
        print_json_line(_document(event))
    else:
        cells = _row(event)
        say("\t".join(cells) if not is_terminal() else f"{cells[0]:>8}  {cells[1]}  {cells[2]:<24} {clean(cells[4])}")
    sys.stdout.flush()


def _color(type_: str) -> str | None:
    from flightlog.events.types import STATES

    suffix = type_.partition(".")[2]
    return state_color(STATES[suffix][0]) if suffix in STATES else None
