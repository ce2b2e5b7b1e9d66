"""What the tests of plug-ins share."""

from pathlib import Path

import pytest
from tests.plugins.distributions import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a place without plug-ins."""
    folders = [tmp_path / name for name in ("site", "home", "work")]
    for folder in folders:
        folder.mkdir()
    site, home, work = folders
    return Place(site, home, work)
