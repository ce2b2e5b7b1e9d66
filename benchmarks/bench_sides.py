"""The sides of the comparison: their environments, their settings and where their data is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench_children import ChildError, run

HERE = Path(__file__).resolve().parent
SIDES = HERE / "sides"
ENVIRONMENTS = HERE / ".envs"

Mode = Literal["default", "commit", "fsync"]
"""What is asked of each side: its own default, WAL + NORMAL, or WAL + FULL."""

_INSTALL_SECONDS = 900.0
_LEVELS: dict[Mode, str] = {"default": "", "commit": "NORMAL", "fsync": "FULL"}
_FACTS = """
import json, platform, sqlite3
from importlib.metadata import version
facts = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
for name in NAMES:
    facts[name] = version(name)
print(json.dumps(facts))
"""


class NotInstallableError(Exception):
    """A side cannot take part; the message is one line that says why."""


@dataclass
class Side:
    """One column of the table.

    Attributes:
        name: ``flightlog``, ``prefect``, ``dbos`` or ``raw``.
        title: the column's head.
        python: the interpreter of its environment.
        imports: statements for the two import rows.
        packages: whose versions are reported.
        notes: what a reader must know about its environment.
        facts: versions, as the environment itself tells them.
    """

    name: str
    title: str
    python: Path
    imports: tuple[str, str]
    packages: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def script(self) -> Path:
        """The script that runs its cases."""
        return SIDES / f"{self.name}_side.py"

    @property
    def cold_script(self) -> Path:
        """The smallest program in its language."""
        return SIDES / f"{self.name}_cold.py"

    def database(self, home: Path) -> Path:
        """Return where it keeps its data in a folder."""
        return home / {"flightlog": "flightlog.db", "prefect": "prefect.db"}.get(self.name, "bench.db")

    def env(self, home: Path, mode: Mode = "default") -> dict[str, str]:
        """Return the environment of its processes: nothing of the caller's but what programs need."""
        home.mkdir(parents=True, exist_ok=True)
        kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        env |= {"HOME": str(home), "NO_PROXY": "127.0.0.1", "DO_NOT_TRACK": "1"}
        database = str(self.database(home))
        level = {"BENCH_SYNCHRONOUS": _LEVELS[mode]}
        settings: dict[str, dict[str, str]] = {
            "flightlog": {
                "FLIGHTLOG_HOME": str(home),
                "FLIGHTLOG_LOG_DURABILITY": "fsync" if mode == "fsync" else "commit",
            },
            "prefect": {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
            "dbos": {"DBOS_BENCH_FILE": database, **level},
            "raw": {"RAW_BENCH_FILE": database, **level},
        }
        return env | settings[self.name]


@dataclass(frozen=True)
class Foreign:
    """A package that gets an environment of its own.

    Attributes:
        name: the package, and its folder under ``.envs``.
        version: the one that is compared.
        lifted: requirements of the package whose version may be what the index has, where the index does not
            have the one that it asks for, each with the reason why that does not touch what is measured.
    """

    name: str
    version: str
    lifted: Mapping[str, str] = field(default_factory=dict)


_CERTIFICATES = "a list of certificates, and the server is reached by plain HTTP on 127.0.0.1"
PREFECT = Foreign("prefect", "3.9.1", {"certifi": _CERTIFICATES})
DBOS = Foreign("dbos", "3.4.0")


def make(package: Foreign) -> Path:
    """Return the interpreter of the package's environment, which is made at the first use.

    Raises:
        NotInstallableError: it cannot be made.
    """
    folder = ENVIRONMENTS / package.name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if _installed(python, package.name) == package.version:
        return python
    print(f"making the environment of {package.name} {package.version} ...", file=sys.stderr)
    try:
        _command([sys.executable, "-m", "venv", "--clear", str(folder)])
        try:
            _pip(python, f"{package.name}=={package.version}")
        except subprocess.CalledProcessError as error:
            _install_lifted(python, package, str(error.stderr))
    except (subprocess.SubprocessError, OSError) as error:
        raise NotInstallableError(f"skipped: {package.name} {_why(error)}") from None
    return python


def _install_lifted(python: Path, package: Foreign, complaint: str) -> None:
    """Install the same version of the package, with the requirements lifted that pip could not meet.

    `checked` afterwards reports what differs, in pip's own words.
    """
    missing = set(re.findall(r"No matching distribution found for ([A-Za-z0-9._-]+?)(?=[<>=!~ ]|$)", complaint))
    if not missing or not missing <= set(package.lifted):
        raise subprocess.CalledProcessError(1, "pip", stderr=complaint)
    _pip(python, "--no-deps", f"{package.name}=={package.version}")
    code = f"import json, importlib.metadata as m; print(json.dumps(m.requires({package.name!r})))"
    stated: list[str] = json.loads(_command([str(python), "-c", code]))
    needed = [one for one in stated if "extra ==" not in one]
    _pip(python, *[_project(one) if _project(one) in missing else one for one in needed])


def _project(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _pip(python: Path, *arguments: str) -> None:
    _command([str(python), "-m", "pip", "install", "-q", *arguments])


def _command(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    return done.stdout


def _why(error: BaseException) -> str:
    said = str(getattr(error, "stderr", None) or error)
    lines = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines()
    return f"cannot be installed here ({lines[-1].removeprefix('ERROR: ').strip() if lines else 'no reason given'})"


def _installed(python: Path, name: str) -> str | None:
    if not python.exists():
        return None
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([str(python), "-c", code], check=False, capture_output=True, text=True, timeout=60)
    # A broken half of an installation has no importable package; make it anew.
    usable = subprocess.run([str(python), "-c", f"import {name}"], check=False, capture_output=True, timeout=120)
    return done.stdout.strip() if done.returncode == usable.returncode == 0 else None


def checked(python: Path) -> list[str]:
    """Return what pip finds inconsistent in an environment, in its own words."""
    command = [str(python), "-m", "pip", "check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    return [] if done.returncode == 0 else done.stdout.strip().splitlines()


def _notes(python: Path, package: Foreign) -> list[str]:
    """Return what differs in an environment from what the package asks for, with the reason where it was meant."""
    reasons = [
        f"{name} was lifted on purpose, since the package index had none that fits: it is {reason}"
        for name, reason in package.lifted.items()
        if any(name in line for line in checked(python))
    ]
    return [*(f"`pip check` says: {line}" for line in checked(python)), *reasons]


def facts(side: Side, home: Path) -> dict[str, str]:
    """Return the versions in a side's environment."""
    code = _FACTS.replace("NAMES", repr(side.packages))
    try:
        found: dict[str, str] = json.loads(run([side.python, "-c", code], side.env(home), 60).output)
    except (ChildError, ValueError):
        return {}
    return found


def flightlog_python() -> Path:
    """Return an interpreter that can import Flightlog: this one, or that of the project's environment.

    Raises:
        NotInstallableError: there is none.
    """
    for python in (Path(sys.executable), HERE.parent / ".venv" / "bin" / "python"):
        command = [str(python), "-c", "import flightlog"]
        if python.exists() and not subprocess.run(command, check=False, capture_output=True).returncode:
            return python
    raise NotInstallableError("skipped: flightlog is not installed (pip install -e .)")


def all_sides() -> tuple[list[Side], list[str]]:
    """Return the sides that can take part here, and one line for each that cannot."""
    sides, skipped = [], []
    front_doors: dict[str, tuple[str, str]] = {
        "flightlog": ("import flightlog", "from flightlog import flow, task"),
        "prefect": ("import prefect", "from prefect import flow, task"),
        "dbos": ("import dbos", "from dbos import DBOS"),
    }
    wanted = (
        ("flightlog", "Flightlog", ("flightlog", "sqlalchemy", "msgpack", "pydantic")),
        ("prefect", f"Prefect {PREFECT.version}", ("prefect", "sqlalchemy", "pydantic")),
        ("dbos", f"DBOS {DBOS.version}", ("dbos", "sqlalchemy")),
    )
    foreign = {"prefect": PREFECT, "dbos": DBOS}
    for name, title, packages in wanted:
        try:
            python = make(foreign[name]) if name in foreign else flightlog_python()
        except NotInstallableError as error:
            skipped.append(str(error))
            continue
        side = Side(name, title, python, front_doors[name], packages)
        side.notes = _notes(python, foreign[name]) if name in foreign else []
        sides.append(side)
    sides.append(Side("raw", "raw limit", Path(sys.executable), ("pass", "pass")))
    return sides, skipped
