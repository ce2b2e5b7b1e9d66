"""Writes the beginnings of a plug-in: a distribution that passes its own tests at once."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flightlog.errors import PluginError
from flightlog.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST: Final = 40
_PREFIX: Final = "flightlog-"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plug-in.

    Attributes:
        contributes: what its manifest says, with NAME for the plug-in's name.
        usage: what its users do with it, as Markdown, with NAME the same way.
        module: the module beside the hooks; empty for none.
    """

    contributes: tuple[str, ...]
    usage: str
    module: str = ""


KINDS: Final[Mapping[str, Kind]] = {
    "observer": Kind(
        ("on_flow_run_state", "register_settings"),
        "It logs each flow run that does not end well. `FLIGHTLOG_PLUGIN_ENV_LEVEL` says at which level.",
    ),
    "notifier": Kind(
        ("register_notifiers.NAME",),
        'Channels of the kind `NAME` post messages to a URL: `kind = "NAME"` and `url` in `notifications.toml`.',
        "notifier",
    ),
    "runner": Kind(
        ("register_settings", "register_task_runners.NAME"),
        'Tasks run on it in flows that name it: `@flow(task_runner="NAME")`.',
        "runner",
    ),
    "storage": Kind(
        ("register_result_storages.NAME",),
        'Values are kept there by flows and tasks that name it: `result_storage="NAME:///folder/values.db"`.',
        "storage",
    ),
    "serializer": Kind(
        ("register_serializers.NAME",),
        'Values are written with it by flows and tasks that name it: `result_serializer="NAME"`.',
        "serializer",
    ),
    "projection": Kind(
        ("register_projections",),
        "It is kept with the others: `flightlog projections ls`, `check` and `rebuild` know it.",
        "projection",
    ),
    "command": Kind(
        ("register_commands.NAME",),
        "`flightlog NAME` counts the events in the log by type.",
        "command",
    ),
}
_COMMON: Final[Mapping[str, str]] = {
    "common/pyproject.toml": "pyproject.toml",
    "common/README.md": "README.md",
    "common/LICENSE": "LICENSE",
    "common/gitignore": ".gitignore",
    "common/index.md": "docs/index.md",
    "common/ci.yml": ".github/workflows/ci.yml",
    "common/publish.yml": ".github/workflows/publish.yml",
    "common/init.py": "src/PACKAGE/__init__.py",
    "common/test_plugin.py": "tests/test_plugin.py",
}


def new_plugin(name: str, kind: str, folder: Path, taken: Iterable[str] = ()) -> Path:
    """Write the beginnings of a plug-in, and return the folder that it is in.

    Args:
        name: its name: small letters, digits and hyphens; ``flightlog-`` in front is left out.
        kind: one of `KINDS`.
        folder: where the folder is made; there must be none of that name.
        taken: names that it must not have, since Flightlog or another plug-in has them.

    Raises:
        PluginError: the name does not fit or is taken, or the folder is there already or cannot be written.
    """
    name = name.removeprefix(_PREFIX)
    _check(name, taken)
    target = folder / f"{_PREFIX}{name}"
    if target.exists():
        raise PluginError(f"{target} is there already: choose another name, or another --directory.")
    written = _rendered(name, kind)
    try:
        for path, text in written.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise PluginError(f"{target} cannot be written: {error.strerror}.") from None
    return target


def _check(name: str, taken: Iterable[str]) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:_LONGEST].rstrip("-")
        hint = f" How about {better!r}?" if _NAME.fullmatch(better) else ""
        raise PluginError(
            f"{name!r} cannot be the name of a plug-in: it has small letters, digits and hyphens, begins with a letter "
            f"and is {_LONGEST} characters long at the most.{hint}"
        )
    if name in set(taken):
        raise PluginError(f"The name {name!r} is taken, by Flightlog or an installed plug-in: choose another one.")


def _rendered(name: str, kind: str) -> dict[str, str]:
    """Return the files of a plug-in by their paths."""
    facts = _facts(name, kind)
    sources = dict(_COMMON)
    sources |= {f"{kind}/plugin.py": "src/PACKAGE/plugin.py", f"{kind}/test.py": f"tests/test_{kind}.py"}
    if KINDS[kind].module:
        sources[f"{kind}/module.py"] = f"src/PACKAGE/{KINDS[kind].module}.py"
    environment, templates = _environment(), files("flightlog.plugins") / "template"
    found = {"src/PACKAGE/py.typed": ""}
    for source, path in sources.items():
        text = (templates / f"{source}.jinja").read_text(encoding="utf-8")
        found[path] = environment.from_string(text).render(facts)
    return {path.replace("PACKAGE", str(facts["package"])): text for path, text in found.items()}


def _facts(name: str, kind: str) -> dict[str, Any]:
    snake, words = name.replace("-", "_"), name.split("-")
    filled = {"NAME": name, "ENV": snake.upper()}

    def fill(text: str) -> str:
        return re.sub(r"\bNAME\b|(?<=_)ENV(?=_)", lambda found: filled[found[0]], text)

    return {
        "name": name,
        "snake": snake,
        "NAME": snake.upper(),
        "Name": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
        "distribution": f"{_PREFIX}{name}",
        "package": f"flightlog_{snake}",
        "range": _range(),
        "contributes": [fill(entry) for entry in KINDS[kind].contributes],
        "usage": fill(KINDS[kind].usage),
    }


def _range() -> str:
    """Return the versions of Flightlog that a plug-in of today is made for: up to the next that may change hooks."""
    major, minor = (int(part) for part in __version__.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}" if major == 0 else f">={major}.{minor},<{major + 1}"


def _environment() -> "Environment":
    from jinja2 import Environment, StrictUndefined

    # Other marks than Jinja's own, which workflows of GitHub have too. What comes out is no HTML.
    return Environment(  # noqa: S701
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
