"""``flightlog runs why``: the one thing that a run waits for, or why it ended as it did."""

import dataclasses

import click

from flightlog.cli.printing import (
    as_of_option,
    clean,
    color_option,
    json_option,
    print_json,
    say,
    state_color,
    state_label,
)
from flightlog.cli.reading import projected
from flightlog.clock import isoformat


@click.command("why", short_help="Say why a run is in its state.")
@click.argument("run", default="@last")
@as_of_option
@json_option
@color_option
def why(run: str, as_of: str | None, as_json: bool) -> None:
    """Say why a run, or a task run in it, is in the state that it is in: since when, and by which event.

    RUN is a flow run, or a flow run and a task run's name: brave-heron/load-2ca9fbe1-0.

    \b
    Examples:
      flightlog runs why @last-failed
      flightlog runs why @last/load-2ca9fbe1-0 --json
      flightlog runs why @last --as-of 2026-01-31T06:00
    """
    from flightlog.clock import duration
    from flightlog.projections import reasons
    from flightlog.projections.queries import find_flow_run

    name, _, task = run.partition("/")
    with projected(as_of) as projector:
        reason = reasons.explain(projector, find_flow_run(projector, name), task or None)
        passed = projector.now() - reason.since
    if as_json:
        print_json(dataclasses.asdict(reason) | {"since": isoformat(reason.since)})
        return
    label = click.style(state_label(reason.state_type, reason.state_name), fg=state_color(reason.state_type), bold=True)
    say(f"{label}  {clean(reason.run)}")
    for line in reason.text.splitlines() or [""]:
        say(f"  {clean(line)}")
    say(f"  since       {isoformat(reason.since)} ({duration(passed)})")
    say(f"  event       {reason.position} {reason.event_type}  {reason.event_id}")
    if reason.hint:
        say(f"  next        {reason.hint}")
