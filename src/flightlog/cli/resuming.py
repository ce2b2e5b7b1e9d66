"""``flightlog runs resume|restart|fork``: going on with recorded runs."""

import asyncio
from typing import Any

import click

from flightlog.cli.main import FAILED, INTERRUPTED, RUN_CRASHED
from flightlog.cli.printing import color_option, json_option, note, print_json
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
@click.option("--input", "given", metavar="JSON", help="The input that a paused or suspended run waits for.")
@_param
@_on_change
@json_option
@color_option
def resume(run: str, given: str | None, params: tuple[str, ...], on_change: str, as_json: bool) -> int:
    """Go on with a run that crashed, failed, was cancelled or is suspended; calls that completed are not run again.

    A paused run, which its own process holds, is told to go on there. The flow's code is loaded from where it was.
    --param gives values that the log does not hold: secrets, and what cannot be pickled. The exit code says how the
    run ended: 0 Completed, 10 Failed, 11 Crashed, 12 Cancelled.

    \b
    Examples:
      flightlog runs resume
      flightlog runs resume brave-heron --on-change rerun
      flightlog runs resume brave-heron --input '{"approved": true}'
    """
    from flightlog.engine.resuming import resume_run

    run_input = None if given is None else _json(given)
    if _is_paused(run):
        return _tell_to_go_on(run, run_input)
    options = {"parameters": given_parameters(params), "on_change": on_change, "run_input": run_input}
    return _go_on(resume_run, run, as_json, **options)


def _json(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}.", param_hint="--input") from None


def _is_paused(run: str) -> bool:
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        found = find_flow_run(projector, run)
    return found.state_type == "PAUSED" and found.state_name != "Suspended"


def _tell_to_go_on(run: str, run_input: Any) -> int:
    """Answer a run that its own process holds."""
    from flightlog.engine.pausing import resume_flow_run
    from flightlog.engine.runtime import close_engine
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        found = find_flow_run(projector, run)
    try:
        resume_flow_run(found.id, run_input, actor=actor())
    finally:
        close_engine()
    note(f"{found.name} goes on in its own process: flightlog runs watch {found.id[:18]}")
    return 0


@click.command("cancel", short_help="Cancel a run.")
@click.argument("run", default="@last")
@click.option("--reason", help="Why, for those who look at the run later.")
@click.option(
    "--wait", "seconds", default=30.0, show_default=True, type=click.FloatRange(0), help="For how many seconds."
)
@json_option
@color_option
def cancel(run: str, reason: str | None, seconds: float, as_json: bool) -> int:
    """Ask the process that has a run to cancel it, and wait until it is.

    A run that no process has is cancelled at once. Tasks that have not begun do not begin; code that runs is stopped
    where it calls the next task, or waits.

    \b
    Examples:
      flightlog runs cancel @last --reason "wrong day"
    """
    import time

    from flightlog.engine.cancelling import cancel_run
    from flightlog.engine.runtime import close_engine
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        found = find_flow_run(projector, run)
    try:
        cancel_run(found.id, reason=reason, actor=actor())
    finally:
        close_engine()
    deadline = time.monotonic() + seconds
    while True:
        with projected() as projector:
            now = find_flow_run(projector, found.id)
        if now.is_final or time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    if as_json:
        print_json({"id": now.id, "name": now.name, "state": {"type": now.state_type, "name": now.state_name}})
    elif now.is_final:
        note(f"{now.name} is {now.state_name}.")
    else:
        note(f"{now.name} was asked to stop, and is {now.state_name}: its code has to come to a task, or to wait.")
    return 0 if now.is_final else FAILED


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
