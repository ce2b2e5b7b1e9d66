"""What every plug-in must do: inherit from `PluginContract`, name the plug-in, and run it with pytest."""

import inspect
import json
import subprocess
import sys
import threading
from abc import ABC
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from flightlog.engine.flows import Flow
from flightlog.engine.tasks import task
from flightlog.plugins import manifests
from flightlog.plugins.examination import examine
from flightlog.plugins.hooks import HOOKS
from flightlog.plugins.host import Host, using_host
from flightlog.plugins.manifests import Manifest, is_made_for
from flightlog.settings import Settings
from flightlog.testing.harness import flightlog_test_harness
from flightlog.version import __version__

_QUICK_SECONDS = 5.0
_IMPORT = """
import json, os, sys, threading
from importlib import import_module
module, sys.path[:] = sys.argv[1], json.loads(sys.argv[2])
import flightlog.plugins.host, flightlog.events.stores.sqlite
watched = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.fork")
found = []

def watch(event, args):
    if event in watched:
        found.append(event)
    elif event == "open":
        path, mode, flags = args
        writes = set(mode) & set("wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and path != os.devnull:
            found.append(f"writing to {path}")

sys.addaudithook(watch)
before = threading.active_count()
import_module(module)
more = [thread.name for thread in threading.enumerate()[before:]]
print(json.dumps(found[:] + [f"the thread {name}" for name in more]))
"""


@task
def _one() -> int:
    """Return 1."""
    return 1


class PluginContract(ABC):
    """The contract of an installed plug-in, as tests. Say which one in `name`.

    Attributes:
        name: the plug-in's name.
        may_run: whether it may see a flow run here: what it does with that it does for real.
    """

    name: ClassVar[str]
    may_run = True

    @pytest.fixture
    def manifest(self) -> Manifest:
        """Return what the plug-in says of itself."""
        found = [one for one in manifests.installed() if one.name == self.name]
        assert found, f"no plug-in {self.name!r} is installed: pip install -e . first"
        return found[0]

    @pytest.fixture
    def host(self, manifest: Manifest) -> Iterator[Host]:
        """The process's host, with this plug-in alone."""
        settings = Settings(home=Path(), log_url="memory://", plugins_timeout_seconds=_QUICK_SECONDS)
        with using_host(Host(settings, [manifest])) as host:
            yield host

    def test_it_says_what_it_is(self, manifest: Manifest) -> None:
        """It has a version, and its manifest names hooks that there are."""
        assert manifest.version
        assert manifest.problem == ""
        assert manifest.hooks, "it contributes nothing: the group flightlog.contributes names hooks"

    def test_it_says_for_which_versions_it_is_made(self, manifest: Manifest) -> None:
        """Its distribution requires a range of versions of Flightlog, with an upper end; this one is in it."""
        assert "<" in manifest.made_for or "==" in manifest.made_for or "~=" in manifest.made_for, manifest.made_for
        assert is_made_for(manifest, __version__)

    def test_importing_it_has_no_side_effects(self, manifest: Manifest) -> None:
        """No thread, no network, no process, no file: a process that does not use it is to notice nothing."""
        command = [sys.executable, "-B", "-c", _IMPORT, manifest.module, json.dumps(sys.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - our own
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == []
        assert len(done.stdout.splitlines()) == 1, "it prints something"

    def test_manifest_and_module_agree(self, host: Host) -> None:
        """The module implements the hooks that the manifest names, and no others."""
        (plugin,) = host.plugins
        host.asked(plugin, "register_settings")
        assert plugin.is_usable, plugin.reason
        assert sorted(plugin.functions) == sorted(plugin.manifest.hooks)

    def test_its_hooks_are_plain_and_quick(self, host: Host) -> None:
        """Functions of a few documented lines; those that ask come back within five seconds, and leave no threads."""
        (plugin,) = host.plugins
        before = set(threading.enumerate())
        for hook in HOOKS:
            if hook in plugin.manifest.hooks and hook.startswith("register_"):
                assert host.asked(plugin, hook) is not None, (hook, [problem.text for problem in plugin.problems])
        left = [t.name for t in set(threading.enumerate()) - before if not t.name.startswith("flightlog-plugin-")]
        assert left == []
        for hook, (function, _) in plugin.functions.items():
            assert inspect.getdoc(function), f"{hook} has no docstring"

    def test_doctor_finds_nothing(self, host: Host) -> None:
        """What `flightlog plugins doctor` would say."""
        assert [finding.problem for finding in examine(host) if finding.problem is not None] == []

    def test_runs_are_as_they_would_be_without_it(self, manifest: Manifest) -> None:
        """A flow runs beside it, and nothing goes wrong on either side."""
        if not self.may_run:
            pytest.skip("what it does with events it would do for real")
        with flightlog_test_harness(plugins=[manifest.name]) as test:
            assert Flow(lambda: _one() + _one.submit().result(), name="contract")() == 2
        assert [event.data["problem"] for event in test.events() if event.type.startswith("plugin.")] == []
