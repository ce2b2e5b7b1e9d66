"""``flightlog runs resume|restart|fork``: going on with recorded runs."""

import asyncio
from typing import Any

import click

from flightlog.cli.main import FAILED, INTERRUPTED, RUN_CRASHED
from flightlog.cli.printing import color_option, json_option, note
from flightlog.cli.reading import actor, projected
from flightlog.cli.run import ENDS, given_parameters, report

_param = click.option(
    "--param", "-p", "params", multiple=True, metavar="NAME=JSON", help="A parameter; a plain word is a string."
)
_on_change = click.option(
    "--on-change",
    type=click.Choice(["stop", "rerun"]),
    default="stop",
    show_default=True,
    help="Where the code makes other calls than are recorded: stop there, or run such calls.",
)


@click.command("resume", short_help="Go on with a run that crashed or failed.")
@click.argument("run", default="@last-failed")
@_param
@_on_change
@json_option
@color_option
def resume(run: str, params: tuple[str, ...], on_change: str, as_json: bool) -> int:
    """Go on with a run that crashed, failed or was cancelled; calls that completed are not run again.

    The flow's code is loaded from where it was. --param gives values that the log does not hold: secrets, and
    what cannot be pickled. The exit code says how the run ended: 0 Completed, 10 Failed, 11 Crashed, 12 Cancelled.

    \b
    Examples:
      flightlog runs resume
      flightlog runs resume brave-heron --on-change rerun
    """
    from flightlog.engine.resuming import resume_run

    return _go_on(resume_run, run, as_json, parameters=given_parameters(params), on_change=on_change)


@click.command("restart", short_help="Run a flow run again from a task on.")
@click.argument("run", default="@last")
@click.option("--from", "from_task", required=True, metavar="TASK", help="A task's name, or a task run's name or id.")
@_param
@_on_change
@json_option
@color_option
def restart(run: str, from_task: str, params: tuple[str, ...], on_change: str, as_json: bool) -> int:
    """Run a flow run again from a task on: its first call, and all calls that were made after it.

    \b
    Examples:
      flightlog runs restart @last --from load
      flightlog runs restart brave-heron --from load-2ca9fbe1-3
    """
    from flightlog.engine.resuming import restart_run

    parameters = given_parameters(params)
    return _go_on(restart_run, run, as_json, from_task=from_task, parameters=parameters, on_change=on_change)


@click.command("fork", short_help="Make a new run of a moment in a run's past.")
@click.argument("run", default="@last")
@click.option("--at", metavar="EVENT", help="The last event that counts: its position or id; the latest by default.")
@_param
@_on_change
@json_option
@color_option
def fork(run: str, at: str | None, params: tuple[str, ...], on_change: str, as_json: bool) -> int:
    """Make a new run that goes on from a moment in a run's past, perhaps with other parameters.

    The run that it comes from stays as it is. Events and their positions: flightlog events ls --run RUN.

    \b
    Examples:
      flightlog runs fork @last --at 1204
      flightlog runs fork brave-heron --param day='"2026-01-31"'
    """
    from flightlog.engine.resuming import fork_run

    return _go_on(fork_run, run, as_json, at=at, parameters=given_parameters(params), on_change=on_change)


def _go_on(function: Any, run: str, as_json: bool, **options: Any) -> int:
    from flightlog.errors import CallsDiffer
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        found = find_flow_run(projector, run)
    try:
        state = function(found.id, return_state=True, actor=actor(), **options)
        if asyncio.iscoroutine(state):
            state = asyncio.run(state)
    except CallsDiffer as difference:
        note(f"{click.style('Error:', fg='red')} {difference}")
        return FAILED
    except KeyboardInterrupt:
        note("Interrupted: the run is recorded as Crashed.")
        return INTERRUPTED
    except (SystemExit, asyncio.CancelledError) as error:
        note(f"The run ended by {type(error).__name__}, and is recorded as Crashed. See: flightlog runs show @last")
        return RUN_CRASHED
    if isinstance(state.data, CallsDiffer):
        note(f"{click.style('Error:', fg='red')} {state.data}")
        return FAILED
    report(state, as_json)
    return ENDS[state.type.value]
