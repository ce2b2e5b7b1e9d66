"""Configurations in files: ``notifications.toml``, or the table ``[notifications]`` of ``flightlog.toml``.

What is wrong in one is said with its line.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from flightlog.errors import SettingsError
from flightlog.names import did_you_mean
from flightlog.notifications.finding import ENCODING, SHARED_FILE, TABLE
from flightlog.notifications.rules import Configuration
from flightlog.notifications.toml_lines import Place, line_of

_KINDS: Final = ("function-", "literal[")
_WORDS: Final = {
    "missing": "this key is missing",
    "tuple_type": "a list belongs here, such as [[rules]]",
    "model_type": "a table belongs here",
}


def read_file(file: Path) -> Configuration:
    """Return what a file configures.

    Raises:
        SettingsError: it cannot be read, or something in it does not fit; the text has a line for each problem.
    """
    source = _text(file)
    try:
        content = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_no_toml(str(error), source, file)) from None
    prefix = () if file.name != SHARED_FILE else (TABLE,)
    for name in prefix:
        content = content.get(name, {})
    try:
        return Configuration.model_validate(content)
    except ValidationError as error:
        problems: dict[Place, list[Any]] = {}
        for one in error.errors(include_url=False):
            problems.setdefault(_place(one), []).append(one)
        lines = sorted((line_of(source, [*prefix, *place]), _problem(place, ones)) for place, ones in problems.items())
        raise SettingsError("\n".join(f"{file}:{line}: {problem}" for line, problem in lines)) from None


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None
    try:
        return content.decode(ENCODING)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}:{line}: this is not UTF-8, as TOML has to be. Save the file as UTF-8.") from None


def _no_toml(problem: str, source: str, file: Path) -> str:
    """Return one line that says where a file is no TOML."""
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", problem)
    line = source.count("\n") + 1 if found is None or found[1] is None else int(found[1])
    return f"{file}:{line}: this is no TOML: {problem[: found.start()] if found else problem}."


def _place(error: Any) -> Place:
    """Return where in a configuration something is wrong: without the names of the kinds that a value could have."""
    place = error.get("ctx", {}).get("place", error["loc"])
    return tuple(part for part in place if isinstance(part, int) or not part.startswith(_KINDS))


def _problem(place: Place, errors: Sequence[Any]) -> str:
    """Return what is wrong at a place of a configuration."""
    path = ".".join(str(part) for part in place)
    what = "; or: ".join(_WORDS.get(error["type"], str(error["msg"]).removeprefix("Value error, ")) for error in errors)
    if errors[0]["type"] == "extra_forbidden":
        what = f"there is no such key.{did_you_mean(str(place[-1]), _keys(place[:-1]), else_say='')}"
    return f"{path}: {what}" if path else what


def _keys(place: Sequence[Any]) -> list[str]:
    """Return the keys that there are at a place of a configuration."""
    model: Any = Configuration
    for part in place:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) or next(
            (field for field in model.model_fields.values() if field.alias == part), None
        )
        found = [] if field is None else _models(field.annotation)
        if not found:
            return []
        model = found[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> list[Any]:
    """Return the models that an annotation is made of."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]
