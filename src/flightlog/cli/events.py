"""``flightlog events``: read the log."""

import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.printing import (
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
    table,
)
from flightlog.cli.reading import position_of, projected, reading
from flightlog.clock import isoformat
from flightlog.errors import RunNotFound
from flightlog.events.types import flow_run_stream, logs_stream
from flightlog.ids import id_text, parse_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flightlog.events.log import Log
    from flightlog.events.model import Event

_DETAIL = 70


@click.group()
def events() -> None:
    """Read the log: what happened, in order."""


@events.command("ls")
@click.option("--run", "run", help="Only events of that flow run: an id, 8 digits of one, a name, @last.")
@click.option("--type", "types", multiple=True, help="Only events of that type, such as task_run.failed; repeatable.")
@click.option("--actor", help="Only what that actor brought about: engine, cli:ann ...; a prefix will do.")
@click.option("--since", metavar="MOMENT", help="Only events recorded after that position or time.")
@click.option("--until", "--as-of", "until", metavar="MOMENT", help="Only events up to that position or time.")
@click.option("--follows", metavar="EVENT", help="Only what followed from that event, at whatever remove.")
@click.option("--after", default=0, type=click.IntRange(0, 2**62), help="Only events after that position.")
@click.option("--limit", "-n", type=click.IntRange(1, 1_000_000_000), help="How many at the most; 100 on a terminal.")
@click.option("--jsonl", is_flag=True, help="Print one JSON document a line.")
@json_option
@color_option
def list_events(  # noqa: PLR0913 - the options of a command line
    run: str | None,
    types: tuple[str, ...],
    actor: str | None,
    since: str | None,
    until: str | None,
    follows: str | None,
    after: int,
    limit: int | None,
    jsonl: bool,
    as_json: bool,
) -> None:
    """List events, oldest first.

    \b
    Examples:
      flightlog events ls --run @last
      flightlog events ls --type task_run.failed --type task_run.crashed --jsonl
      flightlog events ls --actor cli --since 2026-01-31T06:00
    """
    if limit is None and is_terminal() and not (as_json or jsonl):
        limit = 100
    run_id = _run_id(run)
    with reading() as log:
        wanted = _Wanted(
            types,
            max(after, 0 if since is None else position_of(log, since)),
            None if until is None else position_of(log, until),
            actor,
            None if follows is None else _find(log, follows).id,
        )
        found = islice(wanted.among(_all(log, run_id, wanted)), limit)
        if jsonl:
            for event in found:
                print_json_line(event_document(event))
            return
        if as_json:
            print_json([event_document(event) for event in found])
            return
        rows = [(event.type, _row(event)) for event in found]
    if not rows:
        from flightlog.events.types import SCHEMAS

        note("No events fit." + "".join(nearest(type_, list(SCHEMAS), "--type") for type_ in types))
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
        wanted = _Wanted(types, until=head)
        old = deque(wanted.among(_all(log, run_id, wanted)), maxlen=last)
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


@dataclass(slots=True)
class _Wanted:
    """Which events somebody wants to see."""

    types: tuple[str, ...] = ()
    after: int = 0
    until: int | None = None
    actor: str | None = None
    follows: bytes | None = None

    def among(self, events: "Iterable[Event]") -> "Iterator[Event]":
        """Yield those of some events that are wanted."""
        chain = set() if self.follows is None else {self.follows}
        for event in events:
            if self.until is not None and event.position > self.until:
                return
            if self.follows is not None:
                if event.follows not in chain:
                    continue
                chain.add(event.id)
            if (
                event.position > self.after
                and (not self.types or event.type in self.types)
                and (self.actor is None or event.actor.startswith(self.actor))
            ):
                yield event


def _all(log: "Log", run_id: str | None, wanted: _Wanted) -> "Iterator[Event]":
    """Yield the events among which those that are wanted are, oldest first."""
    if run_id is None:
        # What follows from an event is found by way of those between, of whatever type.
        narrow = wanted.follows is None
        yield from log.read_all(wanted.after if narrow else 0, list(wanted.types) or None if narrow else None)
        return
    yield from merge(log.read(flow_run_stream(run_id)), log.read(logs_stream(run_id)), key=lambda e: e.position)


def _find(log: "Log", wanted: str) -> "Event":
    """Return the event that is meant by a position or an id."""
    event = None
    if wanted.isascii() and wanted.isdigit():
        event = next(log.read_all(int(wanted) - 1, limit=1), None) if int(wanted) else None
        event = event if event is not None and event.position == int(wanted) else None
    else:
        with suppress(ValueError):
            event = log.event(parse_id(wanted))
    if event is None:
        raise RunNotFound(f"There is no event {wanted!r}. Events have a position, such as 1204, and an id.")
    return event


@events.command("why", short_help="Walk the causes of an event back.")
@click.argument("event")
@json_option
@color_option
def why_event(event: str, as_json: bool) -> None:
    """Walk an event's causes back: what it followed from, and what that followed from, to the first.

    EVENT is a position or an id.

    \b
    Examples:
      flightlog events why 1204
      flightlog events why 01a20655-538b-72cb-91a9-1d206bdb0ae3 --json
    """
    chain = []
    with reading() as log:
        found: Event | None = _find(log, event)
        while found is not None:
            chain.append(found)
            found = None if found.follows is None else log.event(found.follows)
        if as_json:
            print_json([event_document(one) for one in chain])
            return
        rows = [_row(one) for one in chain]
    table(["POSITION", "WHEN", "TYPE", "STREAM", "WHAT"], rows, [_color(one.type) for one in chain])


def event_document(event: "Event") -> dict[str, Any]:
    """Return an event as JSON has it."""
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
    detail = data.get("message") or data.get("name") or data.get("event") or ""
    if "lines" in data:
        detail = f"{len(data['lines'])} lines"
    elif not detail and (run := data.get("task_run_id")) is not None:
        detail = id_text(run)
    first = revealed(str(detail)).splitlines()[0][:_DETAIL] if detail else ""
    return str(event.position), isoformat(event.occurred_at), event.type, event.stream, first


def _print(event: "Event", jsonl: bool) -> None:
    if jsonl:
        print_json_line(event_document(event))
    else:
        cells = _row(event)
        say("\t".join(cells) if not is_terminal() else f"{cells[0]:>8}  {cells[1]}  {cells[2]:<24} {clean(cells[4])}")
    sys.stdout.flush()


def _color(type_: str) -> str | None:
    from flightlog.events.types import STATES

    suffix = type_.partition(".")[2]
    return state_color(STATES[suffix][0]) if suffix in STATES else None
