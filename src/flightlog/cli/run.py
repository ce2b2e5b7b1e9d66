"""``flightlog run``: run a flow that is in a file or module."""

import asyncio
import json
import sys
from typing import Any

import click

from flightlog.cli.main import INTERRUPTED, OK, RUN_CANCELLED, RUN_CRASHED, RUN_FAILED
from flightlog.cli.printing import color_option, json_option, note, print_json, say, state_color, state_label
from flightlog.names import did_you_mean

ENDS = {
    "COMPLETED": OK,
    "CRASHED": RUN_CRASHED,
    "CANCELLED": RUN_CANCELLED,
    "PAUSED": OK,
    **dict.fromkeys(("FAILED", "PENDING", "SCHEDULED", "RUNNING", "CANCELLING"), RUN_FAILED),
}


@click.command()
@click.argument("target", metavar="FILE.py[:FLOW]")
@click.option(
    "--param", "-p", "params", multiple=True, metavar="NAME=JSON", help="A parameter; a plain word is a string."
)
@json_option
@color_option
def run(target: str, params: tuple[str, ...], as_json: bool) -> int:
    """Run a flow and wait for its end.

    FILE.py[:FLOW] names a file and a flow in it (which may be left out if there is but one), or MODULE:FLOW.
    The exit code says how the run ended: 0 Completed (or Suspended), 10 Failed, 11 Crashed, 12 Cancelled.

    \b
    Examples:
      flightlog run pipeline.py:etl --param rows=100 --param 'tables=["a", "b"]'
      flightlog run mypackage.flows:nightly --json
    """
    parameters = given_parameters(params)
    from flightlog.engine.loading import load_flow
    from flightlog.errors import FlightlogError, ParameterBindError

    flow = load_flow(target)
    try:
        state = flow(**parameters, return_state=True)
        if flow.isasync:
            state = asyncio.run(state)
    except ParameterBindError as error:
        raise click.UsageError(_unfit(flow, parameters) or str(error)) from None
    except FlightlogError:
        raise
    except KeyboardInterrupt:
        note("Interrupted: the run is recorded as Crashed.")
        return INTERRUPTED
    except (SystemExit, asyncio.CancelledError) as error:
        note(f"The run ended by {type(error).__name__}, and is recorded as Crashed. See: flightlog runs show @last")
        return RUN_CRASHED
    report(state, as_json)
    return ENDS[state.type.value]


def _unfit(flow: Any, given: dict[str, Any]) -> str:
    """Return what is wrong with the names of the given parameters; empty if nothing is."""
    names = flow.signature.names
    if flow.signature.keywords is not None:
        return ""
    if unknown := [name for name in given if name not in names]:
        hint = did_you_mean(unknown[0], names) if names else " It takes none."
        return f"The flow {flow.name!r} has no parameter {unknown[0]!r}.{hint}"
    if lacking := [name for name in names if name not in given and name not in flow.signature.defaults]:
        return f"The flow {flow.name!r} needs " + " ".join(f"--param {name}=..." for name in lacking) + "."
    return ""


def given_parameters(params: tuple[str, ...]) -> dict[str, Any]:
    """Return the parameters by name; what is no JSON is a string."""
    parameters: dict[str, Any] = {}
    for param in params:
        name, equals, value = param.partition("=")
        if name in ("return_state", "wait_for"):
            raise click.BadParameter(f"{name!r} is no parameter of a flow.", param_hint="--param")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{param!r} is not NAME=JSON, such as rows=100.", param_hint="--param")
        try:
            parameters[name] = json.loads(value)
        except (ValueError, RecursionError) as error:
            if value[:1] in ("[", "{", '"'):
                raise click.BadParameter(f"{name} is no JSON: {error}.", param_hint="--param") from None
            parameters[name] = value
    return parameters


def report(state: Any, as_json: bool) -> None:
    """Print how a run ended: its value, and what to do next."""
    run_id = state.state_details.flow_run_id
    value = state.result() if state.is_completed() else None
    if as_json:
        state_facts = {"type": state.type.value, "name": state.name, "message": state.message}
        print_json({"flow_run_id": run_id, "state": state_facts, "result": _plain(value)})
        return
    if value is not None:
        say(_text(value))
    if state.is_paused():
        note(f"{state.name}. {state.message or ''}")
    if not sys.stderr.isatty():
        return
    label = click.style(state_label(state.type.value, state.name), fg=state_color(state.type.value))
    note(f"{label}  {run_id}")
    if state.is_final() and not state.is_completed():
        note(f"  go on       flightlog runs resume {run_id[:18]}")
        note(f"  see why     flightlog runs show {run_id[:18]}")
        note(f"  read logs   flightlog runs logs {run_id[:18]} --level error")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; its repr if it has none."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return _text(value)
    return value


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - the user's own __str__
        return f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"
