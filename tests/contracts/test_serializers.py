"""Every serializer passes the same contract."""

import ast
import datetime as dt
from pathlib import Path

import pytest

from flightlog.plugins import manifests
from flightlog.plugins.host import Host, using_host
from flightlog.serializers import CompressedSerializer, JSONSerializer, PickleSerializer, Serializer
from flightlog.settings import Settings
from flightlog.testing import SerializerContract

EXAMPLE = Path(__file__).parents[2] / "examples" / "every_hook.py"
RICH = (*SerializerContract.values, dt.date(2026, 1, 31), {1, 2}, ValueError)


class TestPickle(SerializerContract):
    """Pickles."""

    values = (*RICH, (1, 2), b"bytes")

    @pytest.fixture
    def serializer(self) -> Serializer:
        """Return one."""
        return PickleSerializer()


class TestCloudpickle(TestPickle):
    """Pickles by another library."""

    @pytest.fixture
    def serializer(self) -> Serializer:
        """Return one."""
        return PickleSerializer("cloudpickle")


class TestJson(SerializerContract):
    """JSON."""

    values = RICH[:-1]

    @pytest.fixture
    def serializer(self) -> Serializer:
        """Return one."""
        return JSONSerializer()


class TestCompressed(SerializerContract):
    """JSON, compressed."""

    values = RICH[:-1]

    @pytest.fixture
    def serializer(self) -> Serializer:
        """Return one."""
        return CompressedSerializer("json", "bz2")


class TestPlugin(SerializerContract):
    """The example of a plug-in."""

    values = (*SerializerContract.values, (1, 2), b"bytes", ast.literal_eval("{1: None}"))

    @pytest.fixture
    def serializer(self) -> Serializer:
        """Return one."""
        with using_host(Host(Settings(home=Path(), log_url="memory://"), [manifests.of_file(EXAMPLE)])) as host:
            made: Serializer = host.find("register_serializers", "literal")()
            return made
