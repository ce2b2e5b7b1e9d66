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


@pytest.mark.parametrize("name", generator().PAGES)
def test_the_reference_is_in_step(name: str) -> None:
    """What `python docs/generate.py` would write is what is there."""
    assert (DOCS / "reference" / name).read_text() == generator().PAGES[name](), "run: python docs/generate.py"


@pytest.mark.parametrize("name", ["slack.md", "e-mail.md", "webhooks.md", "message-templates.md"])
def test_the_tables_of_guides_are_in_step(name: str) -> None:
    """Settings of channels, variables and filters of templates: each is in its table, and nothing else."""
    made = generator()
    assert name in made.GUIDES
    assert (DOCS / "how-to" / name).read_text() == made.guide(name), "run: python docs/generate.py"
    assert "<!-- table: " in made.guide(name)


def test_every_variable_and_setting_is_documented() -> None:
    """The tables are made from docstrings and descriptions, so none may lack one."""
    from flightlog.notifications.email import Email
    from flightlog.notifications.templates import FILTERS, VARIABLES
    from flightlog.notifications.webhook import Webhook

    tables = {name: make() for name, make in generator().TABLES.items()}
    for name in (*VARIABLES, "run.error", "run.usual", "entry.text"):
        assert f"| `{name}` | " in tables["variables"]
    for name in FILTERS:
        assert f"| `{name}` | " in tables["filters"]
    for model in (Email, Webhook):
        assert all(f"| `{name}` | " in tables[model.__name__] for name in model.model_fields)
    assert not any(line.endswith("|  |") for text in tables.values() for line in text.splitlines())


def test_the_configurations_in_guides_can_be_used(tmp_path: Path) -> None:
    """Each block of TOML is a configuration, and its channels have the settings that their kinds ask for."""
    import re

    from flightlog.notifications.channels import kinds
    from flightlog.notifications.files import read_file

    count = 0
    for name in generator().GUIDES:
        for block in re.findall(r"```toml\n(.*?)```", (DOCS / "how-to" / name).read_text(), re.DOTALL):
            file = tmp_path / "notifications.toml"
            file.write_text(block)
            for channel in read_file(file).channels:
                assert channel.kind in kinds()
                example = {"url": "https://a.example", "secret": "whsec_" + "a" * 32}
                given = {key: example.get(key, value) for key, value in channel.settings.items()}
                kinds()[channel.kind].model_validate(given)
            count += 1
    assert count >= 5


def test_the_pictures_are_those_that_are_drawn() -> None:
    """Each picture in a guide can be drawn again, and none is left over."""
    import re

    spec = spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = module_from_spec(spec)
    spec.loader.exec_module(pictures)
    drawn = {f"{name}{shade}.png" for name in pictures.pages() for shade in ("", "-dark")}
    shown = {one for page in DOCS.rglob("*.md") for one in re.findall(r"images/([\w-]+\.png)", page.read_text())}
    assert shown == drawn == {path.name for path in (DOCS / "images").iterdir()}
    assert all("wise-otter" in page or "ping" in page for page in pictures.pages().values())


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
