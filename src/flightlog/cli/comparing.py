"""``flightlog runs diff``: two runs side by side."""

import dataclasses
from typing import TYPE_CHECKING

import click

from flightlog.cli.printing import clean, color_option, json_option, print_json, revealed, say, state_color, table
from flightlog.cli.reading import projected
from flightlog.clock import duration

if TYPE_CHECKING:
    from flightlog.engine.comparing import Comparison, Difference, Side

_MOST_SHOWN = 30


@click.command("diff", short_help="Show how two runs differ, and where their ways part.")
@click.argument("a", metavar="RUN_A")
@click.argument("b", metavar="RUN_B", default="@last")
@json_option
@color_option
def diff(a: str, b: str, as_json: bool) -> None:
    """Show how two runs differ: inputs, code, environment, calls, outcomes, results and times.

    The first difference in what they did is where their ways part; its event is named. Calls are matched as `resume`
    does it: by the call that made them, the function and the arguments.

    \b
    Examples:
      flightlog runs diff brave-heron @last
      flightlog runs diff 01a2059f 01a206b1 --json
    """
    from flightlog.engine.comparing import compare
    from flightlog.ids import parse_id
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        one, other = find_flow_run(projector, a), find_flow_run(projector, b)
        found = compare(projector.log, parse_id(one.id), parse_id(other.id))
    if as_json:
        print_json(dataclasses.asdict(found) | {"first": found.first and dataclasses.asdict(found.first)})
        return
    _show(found)


def _show(found: "Comparison") -> None:
    for letter, side in (("A", found.a), ("B", found.b)):
        say(_headline(letter, side))
    say()
    say(_parting(found))
    if found.given:
        say()
        table(["GIVEN", "A", "B"], [_row(one) for one in found.given[:_MOST_SHOWN]])
        _say_more(found.given)
    if found.done:
        say()
        table(["CALL", "DIFFERS IN", "A", "B"], [(_call(one), *_row(one)) for one in found.done[:_MOST_SHOWN]])
        _say_more(found.done)
    if times := [row for row in found.times if None not in row[1:] and row[1] != row[2]]:
        say()
        rows = [(clean(name), duration(one or 0), duration(other or 0)) for name, one, other in times]
        table(["TIMES THAT DIFFER MOST", "A", "B"], rows)


def _headline(letter: str, side: "Side") -> str:
    state = click.style(side.state, fg=state_color(side.state_type), bold=True)
    took = "" if side.took is None else f", {duration(side.took)}"
    return f"{letter}  {state}  {clean(side.flow)} / {clean(side.name)}  {side.id} ({side.calls} calls{took})"


def _parting(found: "Comparison") -> str:
    first = found.first
    if first is None:
        return f"Both went the same way, with the same outcomes and results. Calls: {found.same}."
    places = [
        f"event {event[0]} of {letter} ({event[1]})"
        for letter, event in (("A", first.event_a), ("B", first.event_b))
        if event is not None
    ]
    return (
        f"Their ways part at {_call(first)}, {first.what}: {', '.join(places)}. The same in both: {found.same} calls."
    )


def _call(difference: "Difference") -> str:
    return "the flow run itself" if difference.call is None else clean(difference.call)


def _row(difference: "Difference") -> tuple[str, str, str]:
    return difference.what, _first_line(difference.a), _first_line(difference.b)


def _first_line(text: str | None) -> str:
    return clean(revealed(text)).split("\n")[0][:80] if text else "-"


def _say_more(differences: "list[Difference]") -> None:
    if len(differences) > _MOST_SHOWN:
        say(f"... and {len(differences) - _MOST_SHOWN} more: --json has them all.")
