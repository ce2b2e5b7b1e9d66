"""What a plug-in says of itself, read without importing it.

An installed one says it in its distribution's metadata: name and version; by a dependency on ``flightlog`` for which
versions it is made; by an entry point of the group ``flightlog`` which module it is; and by those of the group
``flightlog.contributes`` which hooks it implements: ``on_events``, or ``register_notifiers.teams`` for one that offers
something by name. A plug-in of one file in ``./flightlog_plugins`` is read as text: what functions it defines.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flightlog.plugins.hooks import HOOKS

if TYPE_CHECKING:
    import ast

GROUP: Final = "flightlog"
CONTRIBUTES: Final = "flightlog.contributes"
FOLDER: Final = "flightlog_plugins"
OWN: Final = "flightlog"
_MARK: Final = b"[flightlog"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a plug-in says of itself.

    Attributes:
        name: its name.
        module: the module that holds its hooks.
        version: its version; empty if it has none.
        distribution: the distribution that brought it; empty for a file.
        file: the file that it is; None for an installed one.
        made_for: which versions of Flightlog it is made for, as PEP 440 has it; empty if it does not say.
        contributes: what it implements: a hook, or a hook with the name of what is offered after a dot.
        problem: why it cannot be used; empty if nothing is known against it.
    """

    name: str
    module: str
    version: str = ""
    distribution: str = ""
    file: Path | None = None
    made_for: str = ""
    contributes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it comes with Flightlog itself."""
        return self.distribution == OWN

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that it implements, in our order."""
        named = {entry.partition(".")[0] for entry in self.contributes}
        return tuple(hook for hook in HOOKS if hook in named)

    def names(self, hook: str) -> list[str]:
        """Return the names under which it offers something by a hook."""
        found = (entry.partition(".") for entry in self.contributes)
        return [name for kind, _, name in found if kind == hook and name]


def installed(folders: Iterable[str] | None = None) -> list[Manifest]:
    """Return the manifests of installed plug-ins, by name.

    Only the entry points of distributions that speak of Flightlog are parsed: with all of them it would take a hundred
    times as long.

    Args:
        folders: where distributions are looked for; `sys.path` by default.
    """
    seen: set[str] = set()
    places = (place for folder in folders or sys.path for place in _metadata_folders(Path(folder or ".")))
    return sorted(
        (one for place in places for one in _of_distribution(place, seen)), key=lambda one: (one.name, not one.is_own)
    )


def told_apart(found: Sequence[Manifest]) -> list[Manifest]:
    """Return manifests so that of those with one name the first can be used, and the others say why not."""
    first: dict[str, Manifest] = {}
    for one in found:
        first.setdefault(one.name, one)
    return [one if first[one.name] is one else _taken(one, first[one.name]) for one in found]


def _taken(one: Manifest, other: Manifest) -> Manifest:
    return replace(one, problem=f"{other.distribution or other.file} has a plug-in of that name already")


def _metadata_folders(folder: Path) -> list[Path]:
    """Return the metadata folders in a folder whose entry points speak of Flightlog."""
    try:
        with os.scandir(folder) as entries:  # a path for each entry would take longer than all the rest
            names = sorted(entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
    except OSError:
        return []
    return [folder / name for name in names if _speaks_of_us(folder / name / "entry_points.txt")]


def _speaks_of_us(file: Path) -> bool:
    try:
        return _MARK in file.read_bytes()
    except OSError:
        return False


def _of_distribution(place: Path, seen: set[str]) -> Iterator[Manifest]:
    """Yield the manifests of a distribution, unless an earlier folder had it: that one is what is imported.

    The files are read here, and not by `importlib.metadata`: to import that alone takes longer.
    """
    # Its form is laid down: PyPA, "Recording installed projects" and "Package name normalization".
    name, version = (*place.stem.split("-"), "")[:2]
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return
    seen.add(name)
    points = _entry_points(place / "entry_points.txt")
    made_for = "" if name == OWN else _made_for(place)
    for point, module in points.get(GROUP, ()):
        contributes = tuple(sorted(entry for entry, where in points.get(CONTRIBUTES, ()) if where == module))
        problem = _unknown_hooks(contributes)
        yield Manifest(point, module, version, name, made_for=made_for, contributes=contributes, problem=problem)


def _entry_points(file: Path) -> dict[str, list[tuple[str, str]]]:
    """Return a distribution's entry points by group: name and module, as the file has them."""
    groups: dict[str, list[tuple[str, str]]] = {}
    group: list[tuple[str, str]] = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            group = groups.setdefault(text[1:-1].strip(), [])
        elif "=" in text and not text.startswith("#"):
            name, _, value = text.partition("=")
            group.append((name.strip(), value.partition(":")[0].partition("[")[0].strip()))
    return groups


def _made_for(place: Path) -> str:
    """Return what a distribution asks of Flightlog's version."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in _required(place):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        holds = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.name.lower() == OWN and holds:
            return str(requirement.specifier)
    return ""


def _required(place: Path) -> Iterator[str]:
    """Yield what a distribution requires, as its metadata has it."""
    for file in (place / "METADATA", place / "PKG-INFO"):
        if file.is_file():
            head = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
            fields = (line.partition(":") for line in head.splitlines())
            yield from (value.strip() for name, _, value in fields if name == "Requires-Dist")


def _unknown_hooks(contributes: Iterable[str]) -> str:
    from flightlog.names import did_you_mean

    for entry in contributes:
        hook = entry.partition(".")[0]
        if hook not in HOOKS:
            return f"its manifest names a hook {hook!r} that there is not.{did_you_mean(hook, HOOKS)}"
    return ""


def is_made_for(manifest: Manifest, version: str) -> bool:
    """Tell whether a plug-in is made for a version of Flightlog; one that does not say is."""
    if not manifest.made_for:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(manifest.made_for).contains(version, prereleases=True)


def in_folder(folder: Path) -> list[Manifest]:
    """Return the manifests of the plug-ins of one file in a folder, by name; none if there is no such folder."""
    try:
        files = sorted(folder.glob("*.py"))
    except OSError:
        return []
    return [of_file(file) for file in files if not file.name.startswith("_")]


def of_file(file: Path) -> Manifest:
    """Return the manifest of a plug-in of one file: the hooks are the functions that bear their names."""
    import ast

    name = file.stem.replace("_", "-")
    module = f"{FOLDER}.{file.stem}"
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return Manifest(name, module, file=file, problem=f"{file}{line} cannot be read: {error}")
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    hooks = tuple(hook for hook in HOOKS if hook in defined)
    odd = [name for name in defined if name.startswith(("on_", "register_")) and name not in HOOKS]
    return Manifest(name, module, _version(tree), file=file, contributes=hooks, problem=_unknown_hooks(odd))


def _version(tree: "ast.Module") -> str:
    """Return what a module's ``__version__`` is, if that is written down as a string."""
    import ast

    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=str(text))):
                return text
    return ""
