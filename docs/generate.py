"""Writes the pages of the reference that come from the program itself; a test says when one is out of step.

Run it with ``python docs/generate.py``.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click

from flightlog.cli.main import EXIT_CODES, cli
from flightlog.events.types import SCHEMAS, STATES
from flightlog.events.vocabulary import json_schemas
from flightlog.settings import SETTINGS

REFERENCE = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by docs/generate.py: change it there, or in the program. -->\n\n"


def settings_page() -> str:
    """Return the page of settings."""
    read = "from the environment, else from the profile in use, else the default counts"
    lines = ["# Settings", "", f"Settings are read once, when the first flow runs: {read}.", ""]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else "none"
        lines += [f"## `{setting.name}`", "", setting.help, "", f"Default: {default}.", ""]
    return _NOTE + "\n".join(lines)


def events_page() -> str:
    """Return the catalogue of event types."""
    lines = [
        "# Events",
        "",
        "Every event type, with the state that it leads to and the fields of its payload. The stream `flow-run/<id>`",
        "holds a flow run with all its task runs, `logs/<flow run id>` its log lines. Ids and digests are bytes.",
        "For programs: {download}`the JSON Schema of every payload <event-schemas.json>`.",
        "",
    ]
    for name, schema in json_schemas().items():
        lines += [f"## `{name}`", "", f"Schema version {SCHEMAS[name]}. {schema.get('description', '')}", ""]
        if (suffix := name.partition(".")[2]) in STATES:
            lines += [
                f"Leads to state type `{STATES[suffix][0]}`, named `{STATES[suffix][1]}` unless it says otherwise.",
                "",
            ]
        lines += ["| field | type | |", "|---|---|---|"]
        required = schema.get("required", [])
        for field, facts in schema["properties"].items():
            mark = "" if field in required else " (optional)"
            lines.append(f"| `{field}`{mark} | {_type(facts)} | {_description(facts)} |")
        lines.append("")
    return _NOTE + "\n".join(lines)


def _type(facts: dict[str, Any]) -> str:
    if "anyOf" in facts:
        return " or ".join(_type(option) for option in facts["anyOf"] if option.get("type") != "null")
    if "$ref" in facts:
        return str(facts["$ref"].rpartition("/")[2])
    if "enum" in facts:
        return ", ".join(f"`{value}`" for value in facts["enum"])
    kind = facts.get("type", "any")
    if kind == "array":
        return f"list of {_type(facts.get('items', {}))}"
    return "bytes" if facts.get("format") in ("binary", "base64url") else str(kind)


def _description(facts: dict[str, Any]) -> str:
    if "description" in facts:
        return str(facts["description"])
    return next((str(o["description"]) for o in facts.get("anyOf", []) if "description" in o), "")


def cli_page() -> str:
    """Return the page of commands."""
    lines = ["# Command line", ""]

    def walk(command: Any, path: list[str]) -> None:
        context = click.Context(command, info_name=" ".join(path), max_content_width=100)
        if path[1:]:
            lines.extend([f"## `{' '.join(path)}`", "", "```text", command.get_help(context).strip(), "```", ""])
        for name in getattr(command, "list_commands", lambda _: [])(context):
            walk(command.get_command(context, name), [*path, name])

    walk(cli, ["flightlog"])
    codes = [line.rstrip() for line in EXIT_CODES.replace("\b\n", "").splitlines()[1:] if line.strip()]
    lines += ["## Exit codes", "", "```text", *codes, "```", ""]
    return _NOTE + "\n".join(lines)


def schemas_file() -> str:
    """Return the JSON Schema of every event type's payload, as one document."""
    return json.dumps(json_schemas(), indent=1, sort_keys=True) + "\n"


def compatibility_page() -> str:
    """Return the page that says what of Prefect 2 is as it is there, from the names of the tests."""
    told = tomllib.loads((Path(__file__).parent / "prefect.toml").read_text())
    tests: dict[str, int] = {}
    root = Path(__file__).parents[1]
    for path in sorted([*(root / "tests").rglob("test_*.py"), *root.glob("integrations/*/tests/test_*.py")]):
        for name in re.findall(r"def test_((?:E\d+_)+)", path.read_text()):
            for item in name.strip("_").split("_"):
                tests[item] = tests.get(item, 0) + 1
    counts = {"as there": 0, "otherwise": 0, "not yet": 0}
    rows = []
    for item, title in told["items"].items():
        why = told["otherwise"].get(item)
        state = "otherwise" if why else "as there" if item in tests else "not yet"
        counts[state] += 1
        rows.append(f"| {item} | {title} | {state} | {tests.get(item, 0) or ''} | {why or ''} |")
    lines = [
        "# Prefect 2, item by item",
        "",
        "What somebody who knows Prefect 2 expects, and what Flightlog does: as there, or otherwise, and why. It is",
        "made from the names of the tests: `test_E63_...` tests item E63.",
        "",
        f"{counts['as there']} items are as there, {counts['otherwise']} otherwise, {counts['not yet']} not yet.",
        "",
        "| item | what | | tests | |",
        "|---|---|---|---:|---|",
        *rows,
        "",
    ]
    return _NOTE + "\n".join(lines)


PAGES = {
    "settings.md": settings_page,
    "events.md": events_page,
    "cli.md": cli_page,
    "event-schemas.json": schemas_file,
    "prefect-compatibility.md": compatibility_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())
