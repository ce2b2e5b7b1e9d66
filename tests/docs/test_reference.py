"""The pages of the reference that come from the program are in step with it, and the documentation builds."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def generator() -> Any:
    """Return docs/generate.py as a module."""
    spec = spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["settings.md", "events.md", "cli.md", "event-schemas.json", "prefect-compatibility.md"]
)
def test_the_reference_is_in_step(name: str) -> None:
    """What `python docs/generate.py` would write is what is there."""
    assert (DOCS / "reference" / name).read_text() == generator().PAGES[name](), "run: python docs/generate.py"


def test_every_event_type_is_documented() -> None:
    """Every event type has a section in the catalogue."""
    from flightlog.events.types import SCHEMAS

    page = (DOCS / "reference" / "events.md").read_text()
    for name in SCHEMAS:
        assert f"## `{name}`" in page


@pytest.mark.timeout(120)
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    """Sphinx finds every page and every reference."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", str(DOCS), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_invariant_has_tests_that_exist() -> None:
    """The page of invariants names tests that are there, and each invariant's name stands in one of them."""
    import re

    root = DOCS.parent
    for line in (DOCS / "explanation" / "invariants.md").read_text().splitlines():
        found = re.match(r"\| (I\d+) ", line)
        if found is None:
            continue
        paths = re.findall(r"`(tests/[^`]+)`", line)
        texts = [root / "src/flightlog/testing/log_contract.py"] if "LogContract" in line else []
        for path in paths:
            assert (root / path).exists(), path
            texts += [root / path] if path.endswith(".py") else sorted((root / path).glob("test_*.py"))
        together = "".join(text.read_text() for text in texts)
        assert re.search(rf"def test_\w*({found[1]}|{found[1].lower()})_", together), found[1]
