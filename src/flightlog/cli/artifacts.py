"""``flightlog artifacts`` and ``flightlog variables``: what runs left to look at, and what they share by name."""

import dataclasses
import json
from typing import Any

import click

from flightlog.cli.main import OK
from flightlog.cli.printing import clean, color_option, json_option, not_found, note, print_json, say, table
from flightlog.cli.reading import actor, projected, reading, writing
from flightlog.clock import isoformat


@click.group()
def artifacts() -> None:
    """See what runs left to look at: links, Markdown, tables, progress, images."""


@artifacts.command("ls")
@click.option("--run", help="Only what that flow run left.")
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 100_000), help="How many at most.")
@json_option
@color_option
def list_all(run: str | None, limit: int, as_json: bool) -> None:
    """List the latest artifacts, newest first.

    \b
    Examples:
      flightlog artifacts ls --run @last
    """
    from flightlog.projections.artifact_queries import list_artifacts
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        flow_run = None if run is None else find_flow_run(projector, run).id
        found = list_artifacts(projector, flow_run=flow_run, limit=limit)
    if as_json:
        print_json([_document(view) for view in found])
        return
    if not found:
        note("No artifacts yet.")
        return
    rows = [
        (
            view.key or "",
            view.type,
            isoformat(view.created)[:19],
            view.description or "",
            _first_line(view.data),
            view.id,
        )
        for view in found
    ]
    table(["KEY", "TYPE", "WHEN", "DESCRIPTION", "CONTENT", "ID"], rows)


@artifacts.command("show", short_help="Print an artifact.")
@click.argument("key")
@json_option
@color_option
def show_artifact(key: str, as_json: bool) -> int:
    """Print the newest artifact with a key, or the one with an id.

    \b
    Examples:
      flightlog artifacts show daily-report
    """
    from flightlog.projections.artifact_queries import find_artifact, list_artifacts

    with projected() as projector:
        view = find_artifact(projector, key)
        known = [one.key for one in list_artifacts(projector, limit=1000) if one.key] if view is None else []
    if view is None:
        return not_found("artifact", key, known)
    if as_json:
        print_json(_document(view))
        return OK
    if view.description:
        note(view.description)
    say(clean(view.data + ("%" if view.type == "progress" else "")))
    return OK


def _document(view: Any) -> dict[str, Any]:
    document = dataclasses.asdict(view)
    return document | {name: isoformat(document[name]) for name in ("created", "updated")}


def _first_line(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= 60 else line[:60] + "…"


@click.group()
def variables() -> None:
    """See and set variables: small values that flows and people share by name. Not for secrets."""


@variables.command("ls")
@json_option
@color_option
def list_variables(as_json: bool) -> None:
    """List all variables with their values.

    \b
    Examples:
      flightlog variables ls
    """
    found = _variables()
    if as_json:
        print_json([state | {"value": json.loads(state["value"])} for state in found.values()])
        return
    if not found:
        note("No variables yet. To make one: flightlog variables set NAME VALUE")
        return
    table(["NAME", "VALUE", "TAGS"], [(s["name"], s["value"], " ".join(s["tags"])) for s in found.values()])


@variables.command("get", short_help="Print a variable's value.")
@click.argument("name")
@color_option
def get_variable(name: str) -> int:
    """Print a variable's value as JSON.

    \b
    Examples:
      flightlog variables get threshold
    """
    found = _variables()
    if name not in found:
        return not_found("variable", name, list(found))
    say(found[name]["value"])
    return OK


@variables.command("set", short_help="Give a variable a value.")
@click.argument("name")
@click.argument("value")
@click.option("--overwrite", is_flag=True, help="Also if it has a value already.")
@click.option("--tag", "tags", multiple=True, help="A label.")
@color_option
def set_variable(name: str, value: str, overwrite: bool, tags: tuple[str, ...]) -> None:
    """Give a variable a value: JSON, or a plain word.

    \b
    Examples:
      flightlog variables set threshold 0.5
      flightlog variables set tables '["a", "b"]' --overwrite
    """
    from flightlog.engine.variables import Variable

    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    try:
        with writing() as engine:
            Variable.set(name, parsed, tags, overwrite, actor=actor(), engine=engine)
    except ValueError as error:
        raise click.UsageError(str(error).replace("overwrite=True", "--overwrite")) from None
    note(f"{name} = {json.dumps(parsed)}")


@variables.command("unset", short_help="Take a variable away.")
@click.argument("name")
@color_option
def unset_variable(name: str) -> int:
    """Take a variable away.

    \b
    Examples:
      flightlog variables unset threshold
    """
    from flightlog.engine.variables import Variable

    found = _variables()
    if name not in found:
        return not_found("variable", name, list(found))
    with writing() as engine:
        Variable.unset(name, actor=actor(), engine=engine)
    note(f"{name} is gone.")
    return OK


def _variables() -> dict[str, dict[str, Any]]:
    from flightlog.projections.inline import inline_states

    with reading() as log:
        states = inline_states(log, "variables")
    return {state["name"]: state for _, state in sorted(states.items())}
