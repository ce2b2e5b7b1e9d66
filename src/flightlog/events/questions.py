"""What a paused run asks, in words: the fields of its input, an example, and the command that answers it.

The shape of the answer is on record as JSON Schema, so whoever reads the log can tell, without the user's code.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from flightlog.clock import isoformat

VALUE = "value"
"""The one field of an input that is a plain type."""
_DEEPEST = 3
_ENCRYPTED, _UNKNOWN = "<personal:", "--input '...'"
_SHORT_ID = 18
_LONGEST = 2000
_CONSTRAINTS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "minLength": "shortest",
    "maxLength": "longest",
    "minItems": "fewest",
    "maxItems": "most",
    "pattern": "like",
}
_EXAMPLES: dict[str | None, Any] = {"boolean": True, "null": None, "array": []}
_TEXTS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T06:00:00Z",
    "time": "06:00:00Z",
    "duration": "PT1H",
    "uuid": "00000000-0000-0000-0000-000000000000",
}

Schema = Mapping[str, Any]


def is_plain(root: Schema) -> bool:
    """Tell whether the input is a plain type, which may be given as it is."""
    return list(root.get("properties", {})) == [VALUE] and "title" not in root


def kind_of(schema: Schema, root: Schema, depth: int = 0) -> str:
    """Return in words what a schema stands for: ``boolean``, ``list of string``, ``"slow" or "fast"``.

    Args:
        schema: the JSON Schema of a value.
        root: the whole that it is part of, where its references lead.
        depth: how many containers it is in.
    """
    schema = _followed(schema, root)
    if "const" in schema or "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(kind_of(choice, root, depth) for choice in choices))
    kind = schema.get("type")
    if kind == "array":
        return "list of " + kind_of(schema.get("items", {}), root, depth + 1) if depth < _DEEPEST else "list"
    if kind == "object" and schema.get("properties") and depth < _DEEPEST:
        return "{" + ", ".join(f"{name}: {told}" for name, told in _fields(schema, root, depth + 1)) + "}"
    told = [f"{words} {schema[name]}" for name, words in _CONSTRAINTS.items() if name in schema]
    text = str(schema.get("format") or kind or "anything")
    return f"{text} ({', '.join(told)})" if told else text


def _followed(schema: Schema, root: Schema) -> Schema:
    """Return a schema itself where it only names another one."""
    for _ in range(_DEEPEST):
        inner = schema["allOf"][0] if len(schema.get("allOf", ())) == 1 else schema
        if "$ref" not in inner:
            return inner
        schema = root.get("$defs", {}).get(inner["$ref"].rpartition("/")[2], {})
    return schema


def _fields(schema: Schema, root: Schema, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the fields of an object, each with its type, and its default if it may be left out."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        told = kind_of(field, root, depth)
        if "default" in field:
            told += f" = {json.dumps(field['default'], ensure_ascii=False)}"
        elif name not in required:
            told += ", may be left out"
        yield name, told


def fields_of(root: Schema) -> list[str]:
    """Return a line for each field of an input: its name, type, default and description."""
    schema = _followed(root, root)
    described = schema.get("properties", {})
    return [
        f"{name}: {told}" + (f"  ({described[name]['description']})" if "description" in described[name] else "")
        for name, told in _fields(schema, root)
    ]


def example_of(root: Schema) -> Any:
    """Return an input of that shape, with all that has to be given."""
    example = _example(root, root)
    return example[VALUE] if is_plain(root) else example


def _example(schema: Schema, root: Schema, depth: int = 0) -> Any:
    schema = _followed(schema, root)
    for name in ("default", "const"):
        if name in schema:
            return schema[name]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _example(choices[0], root, depth)
    kind = schema.get("type")
    if "enum" in schema:
        return schema["enum"][0]
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    if kind == "object":
        required = schema.get("required", ()) if depth <= _DEEPEST else ()
        return {name: _example(schema["properties"].get(name, {}), root, depth + 1) for name in required}
    return _EXAMPLES[kind] if kind in _EXAMPLES else _TEXTS.get(schema.get("format", ""), "...")


def shell_input(root: Schema) -> str:
    """Return the option that gives an input on the command line."""
    return f"--input {shlex.quote(json.dumps(example_of(root), ensure_ascii=False))}"


def shell_command(run: str, schema: str | None) -> str:
    """Return the command that answers a paused or suspended run.

    Args:
        run: the flow run's id.
        schema: the JSON Schema of the input, as JSON; None if there is nothing to say but that it may go on.
    """
    command = f"flightlog runs resume {run[:_SHORT_ID]}"
    if schema is None:
        return command
    return f"{command} {_UNKNOWN if schema.startswith(_ENCRYPTED) else shell_input(json.loads(schema))}"


def python_call(run: str, schema: str | None, *, suspended: bool) -> str:
    """Return the call that answers a paused or suspended run; see `shell_command`."""
    given = schema
    if schema is not None:
        given = "..." if schema.startswith(_ENCRYPTED) else repr(example_of(json.loads(schema)))
    if suspended:
        return f'flightlog.resume_run("{run}"{"" if given is None else f", run_input={given}"})'
    return f'flightlog.resume_flow_run("{run}"{"" if given is None else f", {given}"})'


def question_text(run: str, facts: Mapping[str, Any], *, suspended: bool) -> str:
    """Return what a pause says of itself: what it waits for, until when, and how it is answered.

    Args:
        run: the flow run's id.
        facts: the payload of the pause: ``input_schema``, ``shown`` and ``deadline``.
        suspended: whether no process has the run meanwhile.
    """
    schema, shown = facts.get("input_schema"), facts.get("shown")
    what = "somebody to resume it" if schema is None else "input"
    lines = [f"It waits for {what} until {isoformat(facts['deadline'])}."]
    if shown:
        lines += [f"  {line}" for line in str(shown).splitlines()]
    lines.append(f"To go on: {shell_command(run, schema)}")
    lines.append(f"In Python: {python_call(run, schema, suspended=suspended)}")
    if schema is not None and schema.startswith(_ENCRYPTED):
        lines.append(f"The input: {schema}")
    elif schema is not None:
        lines.append("The input:")
        lines += [f"  {line}" for line in fields_of(json.loads(schema))]
    text = "\n".join(lines)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


__all__ = [
    "VALUE",
    "example_of",
    "fields_of",
    "is_plain",
    "kind_of",
    "python_call",
    "question_text",
    "shell_command",
    "shell_input",
]
