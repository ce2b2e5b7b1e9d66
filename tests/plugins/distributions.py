"""Real distributions for tests: built with hatchling as anybody's, and put into a folder of their own."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "flightlog-{name}"
version = "{version}"
dependencies = {requires}

[project.entry-points.flightlog]
{name} = "{module}"

[project.entry-points."flightlog.contributes"]
{contributes}

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""
IMPORTS = "from flightlog.plugins import hookimpl\n"


@dataclass(frozen=True)
class Collection:
    """A plug-in as its author has written it.

    Attributes:
        name: its name.
        code: its module, after the import of `hookimpl`.
        contributes: what its manifest says that it implements.
        requires: what its distribution requires.
        version: its version.
    """

    name: str
    code: str
    contributes: tuple[str, ...] = ()
    requires: tuple[str, ...] = ("flightlog>=0.1,<0.2",)
    version: str = "1.2.3"

    @property
    def package(self) -> str:
        """The name of its package."""
        return "flightlog_" + self.name.replace("-", "_")

    def install(self, folder: Path) -> None:
        """Put it into a folder, as an installer does with a wheel."""
        with zipfile.ZipFile(wheel(self)) as archive:
            archive.extractall(folder)

    def write(self, folder: Path) -> None:
        """Write its source."""
        module = f"{self.package}.plugin"
        contributes = "\n".join(f'"{entry}" = "{module}"' for entry in self.contributes)
        (folder / "pyproject.toml").write_text(
            PYPROJECT.format(
                name=self.name, version=self.version, module=module, package=self.package, contributes=contributes,
                requires=json.dumps(self.requires),
            )
        )  # fmt: skip
        package = folder / self.package
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(IMPORTS + dedent(self.code))


@cache
def wheel(collection: Collection) -> Path:
    """Return its wheel; built once."""
    folder = Path(mkdtemp(prefix="flightlog-collection-"))
    collection.write(folder)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=folder, check=True, capture_output=True
    )
    return next((folder / "dist").glob("*.whl"))


@dataclass
class Place:
    """A folder with installed collections, and a home: where programs of tests run.

    Attributes:
        folder: the folder on `sys.path`.
        home: FLIGHTLOG_HOME.
        work: the working directory.
        env: more of the environment.
        names: the plug-ins that are there.
    """

    folder: Path
    home: Path
    work: Path
    env: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What comes with Flightlog itself is left out, as if it were not installed: the first of two places counts.
        own = self.folder / "flightlog-0.dist-info"
        own.mkdir()
        (own / "entry_points.txt").write_text("[flightlog]\n")

    def install(self, *collections: Collection) -> "Place":
        """Install collections."""
        for collection in collections:
            collection.install(self.folder)
            self.names.append(collection.name)
        return self

    def write(self, name: str, code: str) -> "Place":
        """Write a plug-in of one file, and have such be taken."""
        folder = self.work / "flightlog_plugins"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(IMPORTS + dedent(code))
        self.names.append(name.replace("_", "-"))
        self.env["FLIGHTLOG_PLUGINS_FOLDER"] = "true"
        return self

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a program."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLIGHTLOG_")}
        path = os.pathsep.join([str(self.folder), str(ROOT / "src")])
        own = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "FLIGHTLOG_HOME": str(self.home)}
        own["FLIGHTLOG_PLUGINS_ALLOW"] = ",".join(self.names) or "none"  # whatever else is installed on this machine
        return {**kept, **own, **self.env, **(more or {})}

    def start(self, program: str, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        """Start a program of Python."""
        return subprocess.Popen(
            [sys.executable, "-c", dedent(program), *arguments], cwd=self.work, env=self.environment(env),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def python(self, program: str, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of Python."""
        return self._run("-c", dedent(program), *arguments, env=env)

    def flightlog(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run the command line."""
        return self._run("-m", "flightlog", *arguments, env=env)

    def _run(self, *arguments: str, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.work, env=self.environment(env), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
