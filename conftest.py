"""Runs the code blocks of README and docs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

# What sets things up is run by the tests of the package and by continuous integration itself.
_SET_UP = ("pip install", "git clone", "make ")


def run_shell(example: Example) -> None:
    """Run a block of shell commands; each has to succeed."""
    for line in str(example.parsed).splitlines():
        if line.strip() and not line.startswith(_SET_UP):
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            subprocess.run(line, shell=True, check=True, env={**os.environ, "PATH": path}, timeout=60)


_MAIN = sys.modules["__main__"]


class _Script:
    """Stands for the main module, so that the blocks of a page are one script, as its readers have them."""

    def __init__(self, names: dict[str, Any]) -> None:
        names.update(__name__="__main__", __spec__=None)
        self.__dict__ = names


def begin_script(names: dict[str, Any]) -> None:
    """Make the names of a page's blocks those of the main module."""
    sys.modules["__main__"] = cast("ModuleType", _Script(names))


def end_script(_: dict[str, Any]) -> None:
    """Put the main module back."""
    sys.modules["__main__"] = _MAIN


@pytest.fixture(scope="module")
def documented_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the examples of each page a home folder of their own."""
    from flightlog.engine.bridge import stop_background_loop
    from flightlog.engine.runtime import close_engine

    before = os.environ.get("FLIGHTLOG_HOME")
    os.environ["FLIGHTLOG_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    close_engine()
    stop_background_loop()
    if before is None:
        del os.environ["FLIGHTLOG_HOME"]
    else:
        os.environ["FLIGHTLOG_HOME"] = before


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser(language="bash", evaluator=run_shell)],
    patterns=["README.md", "docs/**/*.md", "integrations/flightlog-dask/README.md"],
    fixtures=["documented_home"],
    setup=begin_script,
    teardown=end_script,
).pytest()
