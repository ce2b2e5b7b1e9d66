"""``flightlog audit export``: a run with its proof, or any range of events as lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.events import event_document
from flightlog.cli.printing import color_option, end_progress, note, print_json_line, progress, size
from flightlog.cli.reading import position_of, projected, reading
from flightlog.cli.sealing import sealed, signed
from flightlog.clock import to_datetime
from flightlog.errors import LogWriteError
from flightlog.events.sealing import origin_of

if TYPE_CHECKING:
    from flightlog.events.log import Log
    from flightlog.events.model import Event
    from flightlog.events.sealing import Seal


@click.command("export", short_help="Write a run, its proof and a verifier into one file.")
@click.argument("run", required=False)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file; run-NAME.zip by default.")
@click.option("--jsonl", is_flag=True, help="Instead: print events, one JSON document a line.")
@click.option("--cloudevents", is_flag=True, help="Instead: print events as CloudEvents 1.0, one a line.")
@click.option("--from", "start", metavar="MOMENT", help="With the two: from that position or time on.")
@click.option("--to", "end", metavar="MOMENT", help="With the two: up to that position or time.")
@color_option
def export(
    run: str | None, output: Path | None, jsonl: bool, cloudevents: bool, start: str | None, end: str | None
) -> None:
    """Write a flow run and its subflows into one file that anybody can verify without Flightlog.

    In it are all events as they are recorded, the proof that they are in the log, the checkpoint, digests of code and
    results, the installed packages, a report to read, and verify.py, which checks it all with Python alone. The log is
    sealed first. The values of results are not in it, parameters and log lines are.

    \b
    Examples:
      flightlog audit export @last -o run.zip
      flightlog runs show --from run.zip
      flightlog audit export --cloudevents --from 2026-01-31T06:00 --to 1200
    """
    if jsonl or cloudevents:
        if run is not None or output is not None or (jsonl and cloudevents):
            raise click.UsageError("A run in a file, --jsonl or --cloudevents: not both.")
        _print_range(start, end, as_cloudevents=cloudevents)
    elif run is None:
        raise click.UsageError("Name a run (an id, a name, @last), or ask for events: --jsonl, --cloudevents")
    else:
        _export_run(run, output)


def _export_run(run: str, output: Path | None) -> None:
    from flightlog.projections import bundles
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        found = find_flow_run(projector, run)
        seal = signed(projector.log, _seal_of(projector.log))
        checkpoint = seal.note(projector.log.log_id)
        content = bundles.export(projector, found.id, seal, checkpoint, progress("proving: event"))
        end_progress()
    path = output or Path(f"run-{found.name}.zip")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be written: {error.strerror}.", param_hint="--output") from None
    note(f"Written: {path} ({size(len(content))}). To verify it: unzip -p {path} verify.py | python - {path}")


def _seal_of(log: "Log") -> "Seal":
    """Seal the log, and return the last seal; of a log that can only be read, the last that there is."""
    from flightlog.events.sealing import latest_seal

    try:
        seal, _ = sealed(log)
    except LogWriteError:
        seal = latest_seal(log)
        if seal is None:
            raise
    assert seal is not None  # there is a run
    return seal


def _print_range(start: str | None, end: str | None, *, as_cloudevents: bool) -> None:
    with reading() as log:
        # A range has both its ends in it; a time stands between events.
        after = 0 if start is None else position_of(log, start) - (start.isascii() and start.isdigit())
        until = log.head().position if end is None else position_of(log, end)
        for event in _between(log, after, until):
            print_json_line(_cloudevent(log, event) if as_cloudevents else event_document(event), as_recorded=True)


def _between(log: "Log", after: int, until: int) -> "Iterator[Event]":
    for event in log.read_all(max(0, after)):
        if event.position > until:
            return
        yield event


def _cloudevent(log: "Log", event: "Event") -> dict[str, Any]:
    """Return an event in the JSON format of CloudEvents 1.0 (https://cloudevents.io)."""
    document = event_document(event)
    return {
        "specversion": "1.0",
        "id": document["id"],
        "source": f"/{origin_of(log.log_id)}",
        "type": event.type,
        "subject": event.stream,
        "time": to_datetime(event.occurred_at).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": document["data"],
        # Extensions, by their rules: lower-case letters and digits only.
        "position": event.position,
        "streamversion": event.version,
        "recordedat": document["recorded_at"],
        "actor": event.actor,
        "recordhash": document["hash"],
        **({} if document["follows"] is None else {"follows": document["follows"]}),
    }
