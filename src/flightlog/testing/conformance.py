"""The contract suites that fit what an installed plug-in offers, for `flightlog plugins test`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from flightlog.plugins.host import Host, current_host
from flightlog.plugins.plugin import Plugin
from flightlog.testing.plugin_contract import PluginContract
from flightlog.testing.projection_contract import ProjectionContract
from flightlog.testing.runner_contract import RunnerContract
from flightlog.testing.serializer_contract import SerializerContract
from flightlog.testing.storage_contract import StorageContract

Suites = dict[str, type[Any]]
_BY_ITSELF: Final = ("on_events", "on_log_events", "on_flow_run_state", "on_task_run_state", "register_services")


_FILE: Final = """\
from flightlog.testing.conformance import suites

globals().update(suites({name!r}, {storages!r}))
"""


def run(name: str, storages: Sequence[str] = (), *, is_verbose: bool = False) -> bool:
    """Run the suites that fit a plug-in with pytest; tell if all tests have passed.

    Args:
        name: the plug-in's name.
        storages: URLs of places where result storages may be tried out.
        is_verbose: whether each test is shown.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"test_{name.replace('-', '_')}.py"
        file.write_text(_FILE.format(name=name, storages=list(storages)))
        # Nothing of the working directory counts: neither its pytest.ini nor its conftest.py.
        options = ["-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider", "--import-mode=importlib"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # this program has loaded Flightlog already
        return pytest.main([*options, "-v" if is_verbose else "-q", str(file)]) == pytest.ExitCode.OK


def suites(name: str, storages: Sequence[str] = ()) -> Suites:
    """Return test classes for a plug-in, by the names that pytest shows.

    Args:
        name: the plug-in's name.
        storages: URLs of places where result storages may be tried out; they are written to.
    """
    host = current_host(insist=False)
    plugin = host.plugin(name)
    found: Suites = {"TestPlugin": _class(PluginContract, name=name, may_run=False)}
    if plugin is None or not plugin.is_usable:
        return found
    found["TestPlugin"].may_run = not set(_BY_ITSELF) & set(plugin.manifest.hooks)
    for more in (_runners, _serializers, _projections):
        found |= more(host, plugin)
    return found | _storages(host, plugin, storages)


def left_out(plugin: Plugin, storages: Sequence[str] = ()) -> list[str]:
    """Return a sentence for each kind of thing that a plug-in offers, and that cannot be tested from outside.

    Args:
        plugin: the plug-in.
        storages: URLs of places where result storages may be tried out.
    """
    hooks, sentences = plugin.manifest.hooks, []
    if "register_result_storages" in hooks and not storages:
        sentences.append("Result storages need a place to write to: --storage SCHEME://PLACE.")
    if "register_notifiers" in hooks:
        sentences.append("Notifiers need a stand-in of their channel; the plug-in's own tests have one.")
    if set(_BY_ITSELF) & set(hooks):
        sentences.append("It is told of no run here: what it does with events it would do for real.")
    return sentences


def _class(contract: type[Any], **attributes: Any) -> type[Any]:
    return type(f"{contract.__name__}Of", (contract,), attributes)


def _giving(make: Callable[[], Any]) -> Any:
    """Return a fixture that returns what is made."""

    def give(self: Any) -> Any:
        return make()

    return give


def _same(value: Any) -> Any:
    return value


def _named(host: Host, plugin: Plugin, hook: str) -> Mapping[str, Callable[..., Any]]:
    return host.asked(plugin, hook) or {}


def _title(kind: str, name: str) -> str:
    return f"Test{kind}_{''.join(c if c.isalnum() else '_' for c in name)}"


def _runners(host: Host, plugin: Plugin) -> Suites:
    return {
        _title("Runner", name): _class(RunnerContract, runner=pytest.fixture(_giving(make)))
        for name, make in _named(host, plugin, "register_task_runners").items()
    }


def _serializers(host: Host, plugin: Plugin) -> Suites:
    found = {}
    for name, make in _named(host, plugin, "register_serializers").items():
        taken = list(_taken(make()))  # what it does not take it may refuse: it knows its own values
        found[_title("Serializer", name)] = _class(
            SerializerContract, serializer=pytest.fixture(_giving(make)), values=taken
        )
    return found


def _taken(serializer: Any) -> Iterator[Any]:
    for value in SerializerContract.values:
        try:
            serializer.dumps(value)
        except Exception:  # noqa: BLE001, S112 - whatever it raises, it refuses
            continue
        yield value


def _projections(host: Host, plugin: Plugin) -> Suites:
    return {
        _title("Projection", one.name): _class(
            ProjectionContract, projection=pytest.fixture(_giving(partial(_same, one))), may_be_empty=True
        )
        for one in host.asked(plugin, "register_projections") or ()
    }


def _storages(host: Host, plugin: Plugin, urls: Sequence[str]) -> Suites:
    found = {}
    for scheme, make in _named(host, plugin, "register_result_storages").items():
        for number, url in enumerate(url for url in urls if url.partition("://")[0] == scheme):
            fixture = pytest.fixture(_giving(partial(make, url)))
            found[_title("Storage", f"{scheme}_{number}")] = _class(StorageContract, storage=fixture)
    return found
