"""``flightlog concurrency``: limits, who holds their slots, and who waits for them."""

from typing import Any

import click

from flightlog.cli.main import OK
from flightlog.cli.printing import color_option, json_option, not_found, note, print_json, say, table
from flightlog.cli.reading import actor, reading, writing
from flightlog.clock import duration, isoformat


@click.group()
def concurrency() -> None:
    """Limit how much runs at the same time, and see who holds slots and who waits.

    The limit of a tag is named tag:TAG; all task runs with that tag take a slot of it.
    """


@concurrency.command("ls")
@json_option
@color_option
def list_limits(as_json: bool) -> None:
    """List the limits, with how many slots are taken and how many wait.

    \b
    Examples:
      flightlog concurrency ls
    """
    limits, now = _limits()
    if as_json:
        print_json([_document(limit, now) for limit in limits.values()])
        return
    if not limits:
        note("No limits yet. To make one: flightlog concurrency set NAME --limit 5")
        return
    table(["NAME", "LIMIT", "TAKEN", "WAITING", "DECAY/S"], [_row(limit, now) for limit in limits.values()])


@concurrency.command("show", short_help="Show who holds slots of a limit, and who waits.")
@click.argument("name")
@json_option
@color_option
def show_limit(name: str, as_json: bool) -> int:
    """Show who holds slots of a limit, and who waits for them, since when.

    \b
    Examples:
      flightlog concurrency show tag:database
    """
    limits, now = _limits()
    if name not in limits:
        return not_found("concurrency limit", name, list(limits))
    limit = limits[name]
    if as_json:
        print_json(_document(limit, now))
        return OK
    say(f"{name}  {_row(limit, now)[2]} of {limit['limit']} taken", bold=True)
    rows = [
        (what, *(_id(who.get(part)) for part in ("flow_run_id", "task_run_id")), _process(who), str(who["slots"]),
         duration(max(0, now - who["since"])))
        for what, group in (("holds", limit["holders"]), ("waits", limit["waiters"]))
        for who in group.values()
    ]  # fmt: skip
    if rows:
        table(["", "FLOW RUN", "TASK RUN", "PROCESS", "SLOTS", "FOR"], rows)
    return OK


@concurrency.command("set", short_help="Make a limit, or change one.")
@click.argument("name")
@click.option("--limit", required=True, type=click.IntRange(0), help="How many slots there are; 0: nothing runs.")
@click.option(
    "--decay", type=click.FloatRange(0), default=0.0, help="Slots that free themselves in a second (rate limit)."
)
@color_option
def set_limit(name: str, limit: int, decay: float) -> None:
    """Make a limit, or change one. Whoever holds slots keeps them.

    \b
    Examples:
      flightlog concurrency set tag:database --limit 5
      flightlog concurrency set api --limit 10 --decay 2
    """
    from flightlog.engine import concurrency as engine

    try:
        with writing() as opened:
            engine.set_limit(name, limit, slot_decay_per_second=decay, actor=actor(), engine=opened)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from None
    note(f"{name}: {limit} slots.")


@concurrency.command("delete", short_help="Take a limit away.")
@click.argument("name")
@color_option
def delete_limit(name: str) -> int:
    """Take a limit away; whoever waits for its slots goes on.

    \b
    Examples:
      flightlog concurrency delete tag:database
    """
    from flightlog.engine import concurrency as engine

    limits, _ = _limits()
    if name not in limits:
        return not_found("concurrency limit", name, list(limits))
    with writing() as opened:
        engine.delete_limit(name, actor=actor(), engine=opened)
    note(f"{name} is gone.")
    return OK


def _limits() -> tuple[dict[str, dict[str, Any]], int]:
    """Return what every limit has come to, by name, and the log's time.

    Those whose process is gone are left out: whoever wants their slots gets them.
    """
    from flightlog.engine.recovery import is_dead
    from flightlog.projections.inline import inline_states

    with reading() as log:
        limits = {}
        for _, state in sorted(inline_states(log, "concurrency").items()):
            alive = {
                what: {key: who for key, who in state[what].items() if not is_dead(log, who["process"], who["since"])}
                for what in ("holders", "waiters")
            }
            limits[state["name"]] = state | alive
        return limits, log.store.now()


def _row(limit: dict[str, Any], now: int) -> tuple[str, ...]:
    from flightlog.projections.concurrency import taken

    return (
        limit["name"],
        str(limit["limit"]),
        f"{taken(limit, now):g}",
        str(len(limit["waiters"])),
        f"{limit['decay']:g}",
    )


def _document(limit: dict[str, Any], now: int) -> dict[str, Any]:
    from flightlog.projections.concurrency import taken

    people = {
        what: [
            {
                "flow_run_id": _id(who.get("flow_run_id")) or None,
                "task_run_id": _id(who.get("task_run_id")) or None,
                "slots": who["slots"],
                "since": isoformat(who["since"]),
                "host": who["process"].get("host"),
                "pid": who["process"].get("pid"),
            }
            for who in limit[what].values()
        ]
        for what in ("holders", "waiters")
    }
    known = {name: limit[name] for name in ("name", "limit", "decay")}
    return known | {"taken": taken(limit, now), **people}


def _id(identifier: bytes | None) -> str:
    from flightlog.ids import id_text

    return "" if identifier is None else id_text(identifier)


def _process(who: dict[str, Any]) -> str:
    return f"{who['process'].get('pid')} on {who['process'].get('host')}"
