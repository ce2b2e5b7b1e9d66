"""The house stays as it is laid out."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import flightlog
from flightlog import errors
from flightlog.settings import SETTINGS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "flightlog"
LINKED = ("events", "projections", "plugins", "notifications")


def test_links_and_rooms_are_in_step() -> None:
    """Each of the four links beside pyproject.toml leads to its room, relatively, and git tracks it as a link."""
    for name in LINKED:
        link = ROOT / name
        assert link.is_symlink()
        assert str(link.readlink()) == f"src/flightlog/{name}"
        assert (link / "__init__.py").is_file()
    listed = subprocess.run(["git", "ls-files", "-s", *LINKED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["120000"] * len(LINKED)


def test_nothing_inside_imports_from_the_front_door() -> None:
    """Modules import names from the module that defines them, never from bare ``flightlog``."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "flightlog", path
            elif isinstance(node, ast.Import):
                assert "flightlog" not in [alias.name for alias in node.names], path


def test_the_front_door_exports_what_it_says() -> None:
    """Every public name can be had, and the list is sorted."""
    assert flightlog.__all__ == sorted(flightlog.__all__)
    for name in flightlog.__all__:
        assert getattr(flightlog, name) is not None
    assert set(dir(flightlog)) == set(flightlog.__all__)


def test_importing_is_light() -> None:
    """Importing the package loads no library but the standard one; its functions, neither SQLAlchemy nor the CLI's."""
    for line, heavy in (
        ("import flightlog", ("sqlalchemy", "pydantic", "click", "rich", "msgpack", "asyncio")),
        ("from flightlog import flow, task", ("sqlalchemy", "pydantic", "click", "rich")),
    ):
        code = f"import sys; {line}; found = [m for m in {heavy!r} if m in sys.modules]; assert not found, found"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_tree_of_errors_is_drawn() -> None:
    """Every error is in the drawing of its module, and says in its docstring what it means."""
    drawing = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, BaseException):
            assert name in drawing, name
            assert value.__doc__, name


def test_settings_are_documented() -> None:
    """Every setting has a line in the reference."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    for setting in SETTINGS:
        assert f"`{setting.name}`" in page
        assert setting.help in page


def test_only_settings_read_the_environment() -> None:
    """Nobody else looks into the environment, but for the terminal's own conventions in the command line."""
    for path in SOURCE.rglob("*.py"):
        if path.name == "settings.py" or path.parent.name == "cli":
            continue
        assert "os.environ" not in path.read_text(), path
        assert "getenv" not in path.read_text(), path


def test_nobody_draws_from_the_random_numbers_of_users() -> None:
    """Whoever seeds `random` gets the same numbers again, with flows or without."""
    for path in SOURCE.rglob("*.py"):
        assert not re.search(r"^\s*import random\b|\brandom\.seed\(", path.read_text(), re.MULTILINE), path


def test_every_module_can_be_imported_alone() -> None:
    """No module needs another one to have been imported before."""
    modules = [
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in SOURCE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    code = "import sys, importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code, *sorted(modules, reverse=True)], check=True)
    for name in modules:
        assert importlib.import_module(name).__doc__, name
