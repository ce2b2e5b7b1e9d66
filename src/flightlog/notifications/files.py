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
from flightlog.notifications.rules import Configuration

OWN_FILE: Final = "notifications.toml"
SHARED_FILE: Final = "flightlog.toml"
TABLE: Final = "notifications"


def find_file(directory: Path, home: Path) -> Path | None:
    """Return the file that configures notifications: in a directory, else in the home folder; None if there is none.

    Args:
        directory: the working directory.
        home: the folder of all files that Flightlog keeps.
    """
    for folder in (directory, home):
        if (own := folder / OWN_FILE).is_file():
            return own
        shared = folder / SHARED_FILE
        if shared.is_file() and _has_table(shared):
            return shared
    return None


def _has_table(file: Path) -> bool:
    try:
        return re.search(rf"^\s*\[+{TABLE}\b", file.read_text(encoding="utf-8"), re.MULTILINE) is not None
    except (OSError, UnicodeDecodeError):
        return False


def read_file(file: Path) -> Configuration:
    """Return what a file configures.

    Raises:
        SettingsError: it cannot be read, or something in it does not fit; the text has a line for each problem.
    """
    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.") from None
    try:
        content = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is no TOML: {error}.") from None
    prefix = () if file.name != SHARED_FILE else (TABLE,)
    for name in prefix:
        content = content.get(name, {})
    try:
        return Configuration.model_validate(content)
    except ValidationError as error:
        problems = [_problem(one, source, prefix, file) for one in error.errors(include_url=False)]
        raise SettingsError("\n".join(problems)) from None


def _problem(error: Any, source: str, prefix: Sequence[str], file: Path) -> str:
    """Return one line that says where in a file what is wrong."""
    place = [part for part in error["loc"] if isinstance(part, int) or not part.startswith(("function-", "literal["))]
    path = ".".join(str(part) for part in place)
    what = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        what = f"there is no such key.{did_you_mean(str(place[-1]), _keys(place[:-1]), else_say='')}"
    return f"{file}:{line_of(source, [*prefix, *place])}: {f'{path}: ' if path else ''}{what}"


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


def line_of(source: str, place: Sequence[Any]) -> int:
    """Return the line of a TOML document that a place is at: the nearest one that can be found.

    Args:
        source: the document.
        place: keys and indexes, outermost first.
    """
    lines = source.splitlines()
    start, end, header = 0, len(lines), ""
    for number, part in enumerate(place):
        if isinstance(part, int):
            starts = [i for i, line in enumerate(lines) if re.match(rf"\s*\[\[\s*{re.escape(header)}\s*\]\]", line)]
            if part < len(starts):
                start = starts[part]
                end = starts[part + 1] if part + 1 < len(starts) else len(lines)
            continue
        header = f"{header}.{part}".strip(".")
        if number + 1 < len(place) and isinstance(place[number + 1], int):
            continue
        key = re.escape(str(part))
        forms = rf"\[\s*{re.escape(header)}\s*\]", rf"[\"']?{key}[\"']?\s*=", rf".*[{{,]\s*{key}\s*="
        pattern = re.compile(rf"\s*(?:{'|'.join(forms)})")
        found = next((i for i in range(start, end) if pattern.match(lines[i])), None)
        if found is not None:
            start = found
    return start + 1
