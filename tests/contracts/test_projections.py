"""Every projection passes the same contract."""

from pathlib import Path

import pytest

from flightlog.plugins import manifests
from flightlog.plugins.host import Host, using_host
from flightlog.plugins.projections import brought_projections
from flightlog.projections.projection import Projection
from flightlog.projections.projector import built_in
from flightlog.settings import Settings
from flightlog.testing import ProjectionContract

EXAMPLE = Path(__file__).parents[2] / "examples" / "every_hook.py"


@pytest.mark.parametrize("number", range(len(built_in())), ids=[one.name for one in built_in()])
class TestBuiltIn(ProjectionContract):
    """Those that come with Flightlog."""

    may_be_empty = True

    @pytest.fixture
    def projection(self, number: int) -> Projection:
        """Return one of them."""
        return built_in()[number]


class TestPlugin(ProjectionContract):
    """The example of a plug-in."""

    @pytest.fixture
    def projection(self) -> Projection:
        """Return it."""
        with using_host(Host(Settings(home=Path(), log_url="memory://"), [manifests.of_file(EXAMPLE)])) as host:
            (found,) = brought_projections(host)
            return found
