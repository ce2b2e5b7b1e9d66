"""Every result storage passes the same contract."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from flightlog.filesystems import LocalFileSystem, RemoteFileSystem
from flightlog.plugins import manifests
from flightlog.plugins.host import Host, using_host
from flightlog.settings import Settings
from flightlog.testing import StorageContract

EXAMPLE = Path(__file__).parents[2] / "examples" / "every_hook.py"


class TestFolder(StorageContract):
    """A folder."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> LocalFileSystem:
        """Return a folder that is not made yet."""
        return LocalFileSystem(tmp_path / "values")


class TestFsspec(StorageContract):
    """What fsspec reaches."""

    secrets = ("secret-key",)

    @pytest.fixture
    def storage(self) -> RemoteFileSystem:
        """Return a place in memory."""
        return RemoteFileSystem(f"memory://{uuid4().hex}", settings={"token": "secret-key"})


class TestPlugin(StorageContract):
    """The example of a plug-in, by its URL."""

    @pytest.fixture
    def storage(self) -> Iterator[object]:
        """Return a shelf."""
        with using_host(Host(Settings(home=Path(), log_url="memory://"), [manifests.of_file(EXAMPLE)])) as host:
            yield host.find("register_result_storages", "shelf")(f"shelf://{uuid4().hex}")
