"""Writes the pages of the reference that come from the program itself; a test says when one is out of step.

Run it with ``python docs/generate.py``.
"""

import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from flightlog.cli.main import EXIT_CODES, cli
from flightlog.events.types import SCHEMAS, STATES
from flightlog.events.vocabulary import json_schemas
from flightlog.notifications.durations import text as text_of_span
from flightlog.notifications.email import Email
from flightlog.notifications.expressions import NAMES
from flightlog.notifications.notifier import Entry, Message, RunFacts
from flightlog.notifications.rules import Channel, Flapping, Inhibit, Match, MuteTime, Route, Rule, Step, Threshold
from flightlog.notifications.slack import SlackBot, SlackWebhook
from flightlog.notifications.templates import FILTERS, OWN_FILTERS, VARIABLES
from flightlog.notifications.webhook import Webhook
from flightlog.plugins import hooks
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


def hooks_page() -> str:
    """Return the page of hooks: signature, what it is for, when it is called, and an example from a tested file."""
    examples = _examples()
    lines = [
        "# Hooks",
        "",
        "A plug-in is a module whose functions bear these names and are marked with `@hookimpl`. A function takes",
        "those of a hook's arguments that it wants, by name. Each call may take as long as",
        "`FLIGHTLOG_PLUGINS_TIMEOUT_SECONDS` says; whatever comes of it, runs go on. See",
        "[write a plug-in](../how-to/write-a-plug-in.md).",
        "",
        "The examples are parts of `examples/every_hook.py`.",
        "",
    ]
    for name, fired in hooks.FIRED.items():
        hook = getattr(hooks, name)
        lines += [f"## `{name}`", "", "```py", f"def {name}{_signature(hook)}", "```", "", *_prose(hook), ""]
        lines += [f"**When:** {fired}", "", "```py", examples[name], "```", ""]
    return _NOTE + "\n".join(lines)


def _signature(hook: Any) -> str:
    """Return a hook's signature with short names of types."""
    return re.sub(r"(?:\w+\.)+(\w+)", r"\1", str(inspect.signature(hook))).replace("'", "")


def _prose(hook: Any) -> list[str]:
    """Return a docstring as Markdown: its sections as lists."""
    text = inspect.cleandoc(hook.__doc__)
    body, _, arguments = text.partition("\n\nArgs:\n")
    body, _, returned = body.partition("\n\nReturns:\n")
    told = [f"- {line}" for line in _entries(arguments)]
    return [body, ""] + (told or [f"Returns: {inspect.cleandoc(returned)}" if returned else ""])


def _entries(arguments: str) -> list[str]:
    """Return the arguments of a docstring's section, each on one line."""
    joined = re.sub(r"\n {5,}", " ", arguments)
    return [re.sub(r"^(\w+):", r"`\1`:", line.strip()) for line in joined.splitlines() if line.strip()]


def _examples() -> dict[str, str]:
    """Return the example of each hook, by its name."""
    text = (Path(__file__).parents[1] / "examples" / "every_hook.py").read_text()
    parts = re.split(r"^# --- (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: part.strip() for name, part in zip(parts[::2], parts[1::2], strict=True)}


def imports_page() -> str:
    """Return the page that says what of Prefect 2 is imported from where."""
    told = tomllib.loads((Path(__file__).parent / "prefect.toml").read_text())
    rows = [
        _import_row(path, names, told["imports-otherwise"].get(path, "")) for path, names in told["imports"].items()
    ]
    missing = [f"| `{path}` | {why} |" for path, why in told["imports-missing"].items()]
    lines = [
        "# Coming from Prefect 2",
        "",
        "Change `prefect` into `flightlog` in the imports, and these go on working. How things behave, item by item:",
        "[Prefect 2, item by item](prefect-compatibility.md).",
        "",
        "| in Prefect | names | here |",
        "|---|---|---|",
        *rows,
        "",
        "Submodules need no import of their own: after `import flightlog`, `flightlog.runtime.flow_run.id` will do.",
        "",
        "## What is not here",
        "",
        "| in Prefect | |",
        "|---|---|",
        *missing,
        "",
        "A name that `flightlog` does not have says so, and what is nearest: `from flightlog import deploy`.",
        "",
    ]
    return _NOTE + "\n".join(lines)


def _import_row(path: str, names: str, otherwise: str) -> str:
    here = path.replace("prefect", "flightlog", 1)
    listed = ", ".join(f"`{name}`" for name in names.split())
    return f"| `{path}` | {listed} | `{here}`: {otherwise or 'the same.'} |"


_PARTS: dict[type[BaseModel], str] = {
    Rule: "`[[rules]]`, `flightlog notify rules add`, or `flightlog.rules.Rule`.",
    Match: "`match` of a rule.",
    Threshold: "`threshold` of a rule.",
    Flapping: "`flapping` of a rule.",
    Inhibit: "`inhibit` of a rule.",
    MuteTime: "An item of `mute`.",
    Step: "An item of `escalate`.",
    Channel: "`[[channels]]`, `flightlog notify channels add`, or `flightlog.rules.Channel`.",
    Route: "`[[routes]]`, or an item of a route's `routes`.",
}


def rules_page() -> str:
    """Return the page of rules, channels and routes, from their models."""
    lines = [
        "# Rules, channels, routes",
        "",
        "What `notifications.toml` (or the table `notifications` of `flightlog.toml`), `flightlog notify` and",
        "`flightlog.rules` understand. A span is written `90s`, `10m`, `26h` or `1h30m`; where a list of names is",
        "asked for, one text will do. How to use it: [be told of failures](../how-to/notifications.md).",
        "",
    ]
    for model, where in _PARTS.items():
        schema = model.model_json_schema()
        schema = schema.get("$defs", {}).get(model.__name__, schema)  # one that contains itself is defined there
        lines += [f"## {model.__name__}", "", f"{inspect.cleandoc(model.__doc__ or '')} {where}", ""]
        lines += ["| key | | default | |", "|---|---|---|---|"]
        for key, facts in schema["properties"].items():
            default = "needed" if key in schema.get("required", []) else _default(facts)
            lines.append(f"| `{key}` | {_plain_type(facts)} | {default} | {_cell(_description(facts))} |")
        lines.append("")
    lines += ["## Expressions", "", "What `where` of a match can use, with the operators of Jinja:", ""]
    lines += ["| name | |", "|---|---|", *(f"| `{name}` | {_cell(told)} |" for name, told in NAMES.items()), ""]
    return _NOTE + "\n".join(lines)


def _plain_type(facts: dict[str, Any]) -> str:
    """Return a field's type as somebody writes it in TOML."""
    if "anyOf" in facts:
        return " or ".join(_plain_type(option) for option in facts["anyOf"] if option.get("type") != "null")
    if "$ref" in facts:
        return str(facts["$ref"].rpartition("/")[2])
    if "enum" in facts or "const" in facts:
        return ", ".join(f"`{value}`" for value in facts.get("enum", [facts.get("const")]))
    if facts.get("type") == "array":
        return f"list of {_plain_type(facts['items'])}"
    if "examples" in facts:
        return "span"
    names = {"string": "text", "integer": "number", "boolean": "yes or no", "object": "table"}
    return "time" if facts.get("format") == "time" else names.get(facts.get("type", ""), "any")


def _default(facts: dict[str, Any]) -> str:
    value = facts.get("default")
    if isinstance(value, int) and "span" in _plain_type(facts):
        return f"`{text_of_span(value)}`"
    if value in (None, [], {}, "") or isinstance(value, dict):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{', '.join(value) if isinstance(value, list) else value}`"


PAGES = {
    "rules.md": rules_page,
    "hooks.md": hooks_page,
    "settings.md": settings_page,
    "events.md": events_page,
    "cli.md": cli_page,
    "event-schemas.json": schemas_file,
    "prefect-compatibility.md": compatibility_page,
    "coming-from-prefect.md": imports_page,
}


def settings_table(model: type[BaseModel]) -> str:
    """Return the table of what a channel's configuration holds."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "needed" if field.is_required() else "none" if field.default in (None, {}) else f"`{field.default}`"
        lines.append(f"| `{name}` | {default.replace('`False`', 'no')} | {_cell(field.description or '')} |")
    return "\n".join(lines)


def variables_table() -> str:
    """Return the table of what message templates can name, from the docstrings."""
    lines = ["| variable | |", "|---|---|"]
    kinds = (("", Message, VARIABLES), ("run.", RunFacts, None), ("entry.", Entry, None))
    for prefix, kind, names in kinds:
        told = _attributes(kind)
        lines += [f"| `{prefix}{name}` | {_cell(told[name])} |" for name in names or told]
    return "\n".join(lines)


def filters_table() -> str:
    """Return the table of filters that message templates have."""
    lines = ["| filter | |", "|---|---|"]
    for name in FILTERS:
        own = OWN_FILTERS.get(name)
        lines.append(f"| `{name}` | {_cell((own.__doc__ or '').rstrip('.')) if own else 'as in Jinja'} |")
    return "\n".join(lines)


def _attributes(kind: type) -> dict[str, str]:
    """Return what a docstring says of each attribute."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", text, re.MULTILINE)
    return {name: " ".join(told.split()) for name, told in found}


def _cell(text: str) -> str:
    return re.sub(r"`+([^`]+)`+", r"`\1`", text).replace("|", "\\|")


TABLES = {
    "SlackBot": lambda: settings_table(SlackBot),
    "SlackWebhook": lambda: settings_table(SlackWebhook),
    "Email": lambda: settings_table(Email),
    "Webhook": lambda: settings_table(Webhook),
    "variables": variables_table,
    "filters": filters_table,
}
GUIDES = ("slack.md", "e-mail.md", "webhooks.md", "message-templates.md")


def guide(name: str) -> str:
    """Return a how-to page with its tables as the program has them."""
    text = (REFERENCE.parent / "how-to" / name).read_text()

    def fill(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n\n{TABLES[found[1]]()}\n\n<!-- end of table -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end of table -->", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())
    for name in GUIDES:
        (REFERENCE.parent / "how-to" / name).write_text(guide(name))
