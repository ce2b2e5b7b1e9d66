"""Every hook: it is documented, there is an example of it, and a test."""

import inspect
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flightlog import flow, task
from flightlog.events.model import NewEvent
from flightlog.events.vocabulary import payload
from flightlog.ids import RandomIds
from flightlog.plugins import hooks, manifests
from flightlog.plugins.event_types import learn_event_types
from flightlog.plugins.hooks import BY_NAME, DURABLE, FIRED, HOOKS, OBSERVERS, SERVICES
from flightlog.plugins.host import Host, using_host
from flightlog.plugins.projections import brought_projections
from flightlog.projections.projector import Projector
from flightlog.settings import Settings
from flightlog.testing import FlowTest, flightlog_test_harness

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "every_hook.py"


@task(retries=1)
def shaky(fails: bool) -> int:
    """Fail, if it is to."""
    if fails:
        raise ValueError("it is to fail")
    return 1


@flow
def errand(fails: bool = False, **options: Any) -> int:
    """Run a task."""
    return shaky.with_options(**options)(fails)


@pytest.fixture
def host() -> Iterator[Host]:
    """The process's host, with the example alone."""
    with using_host(Host(Settings(home=Path(), log_url="memory://"), [manifests.of_file(EXAMPLE)])) as host:
        yield host


@pytest.fixture
def example(host: Host) -> ModuleType:
    """The example as a module, imported as the plug-in that it is."""
    import sys

    host.asked(host.plugins[0], "register_settings")
    return sys.modules[host.plugins[0].manifest.module]


def run_beside(*arguments: bool) -> FlowTest:
    """Run flows with the example beside them, and return what was recorded."""
    with flightlog_test_harness(plugins=[EXAMPLE]) as test:
        for fails in arguments:
            errand(fails, return_state=True)
    return test


def made(host: Host, hook: str, name: str) -> Any:
    """Return what the example offers under a name."""
    offered = host.find(hook, name)
    assert offered is not None
    return offered


# --- what is said of each -------------------------------------------------------------------------


def declared() -> dict[str, Any]:
    """Return the hooks that are declared, by name."""
    return {name: value for name, value in vars(hooks).items() if hasattr(value, "flightlog_spec")}


def test_every_hook_says_when_it_is_called() -> None:
    """Each hook has a docstring with its arguments or what it returns, and says when, in which process and thread."""
    assert list(declared()) == list(HOOKS)
    assert set(OBSERVERS) | {DURABLE, SERVICES} | BY_NAME <= set(HOOKS)
    for name, hook in declared().items():
        assert re.search(r"\n\n +(Args|Returns):\n", hook.__doc__), name
        assert "process" in FIRED[name], name
        assert "thread" in FIRED[name], name


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_in_the_reference(hook: str) -> None:
    """With its signature, and its example."""
    page = (ROOT / "docs" / "reference" / "hooks.md").read_text()
    section = page.partition(f"## `{hook}`\n")[2].partition("\n## ")[0]
    arguments = ", ".join(inspect.signature(declared()[hook]).parameters)
    assert f"def {hook}({arguments}" in section
    assert FIRED[hook] in section
    assert "@hookimpl" in section


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_an_example_and_a_test(hook: str) -> None:
    """The example implements all, and here is a test for each that bears its name."""
    assert f"# --- {hook}\n" in EXAMPLE.read_text()
    assert hook in manifests.of_file(EXAMPLE).hooks
    assert callable(globals().get(f"test_hook_{hook}"))


def test_hooks_that_ask_return_what_the_host_expects() -> None:
    """Those that offer by name return mappings, the others sequences."""
    for name, hook in declared().items():
        returned = str(inspect.signature(hook).return_annotation)
        if name.startswith("register_"):
            assert ("Mapping" in returned) == (name in BY_NAME), name
            assert ("Sequence" in returned) == (name not in BY_NAME), name
        else:
            assert returned == "None"


# --- what each does -------------------------------------------------------------------------------


def test_hook_on_events(example: ModuleType) -> None:
    """It is told of every event that was committed, once."""
    example.COUNTS.clear()
    recorded = [event.type for event in run_beside(False).engine.log.read_all()]
    assert dict(example.COUNTS) == {type_: recorded.count(type_) for type_ in recorded}


def test_hook_on_log_events(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of every event of the log, in order."""
    monkeypatch.setenv("FLIGHTLOG_PLUGIN_EVERY_HOOK_COPY_TO", str(tmp_path / "copy"))
    test = run_beside(False, True)
    copied = [json.loads(line) for line in (tmp_path / "copy").read_text().splitlines()]
    assert copied == [[event.position, event.type] for event in test.engine.log.read_all()]


def test_hook_on_flow_run_state(example: ModuleType) -> None:
    """It is told of every state that a flow run enters, with the flow's name."""
    example.ENDED.clear()
    run_beside(False, True)
    assert example.ENDED == ["errand Completed", "errand Failed"]


def test_hook_on_task_run_state(example: ModuleType) -> None:
    """It is told of every state that a task run enters, with the task's name."""
    example.RETRIED.clear()
    run_beside(True)
    assert example.RETRIED == ["shaky"]


def test_hook_register_task_runners(host: Host) -> None:
    """A flow can name the runner."""
    with flightlog_test_harness():
        assert errand.with_options(task_runner="one-at-a-time")() == 1
        assert made(host, "register_task_runners", "one-at-a-time")().duplicate()


def test_hook_register_result_storages(example: ModuleType) -> None:
    """A flow can name the storage by its URL, and its values are kept there."""
    with flightlog_test_harness() as test:
        assert errand(False, result_storage="shelf://upper") == 1
        (reference,) = [data["result"] for data in test.data("task_run.completed")]
    assert reference["storage"] == "shelf://upper"
    assert list(example.Shelf.shelves["shelf://upper"]) == [reference["path"]]


def test_hook_register_serializers(host: Host) -> None:
    """A task can name the serializer, and its values are written with it."""
    with flightlog_test_harness() as test:
        assert errand(False, result_serializer="literal") == 1
        (reference,) = [data["result"] for data in test.data("task_run.completed")]
        assert reference["serializer"] == "literal"
        assert test.engine.log.blob(reference["digest"]) == b"1"


def test_hook_register_notifiers(host: Host, tmp_path: Path) -> None:
    """The kind of channel is known by its name, and sends."""
    import asyncio

    from flightlog.notifications.notifier import Message

    notifier = made(host, "register_notifiers", "file")(path=tmp_path / "out")
    message = Message("k", "i", "opened", "rule", "error", "It failed", "body")
    assert asyncio.run(notifier.send(message, timeout=1)) == {"line": "k"}
    assert (tmp_path / "out").read_text() == "It failed\n"


def test_hook_register_blocks(host: Host) -> None:
    """The type is known by its slug."""
    from flightlog.plugins.blocks import block_type

    assert block_type("warehouse").__name__ == "Warehouse"


def test_hook_register_projections(host: Host) -> None:
    """The projection is kept beside ours, and says what it should."""
    with flightlog_test_harness() as test:
        for fails in (True, False, True):
            errand(fails, return_state=True)
        test.engine.log.flush()
        (projection,) = brought_projections(host)
        projector = Projector(test.engine.log, None, [projection])
        rows = projector.rows(projection.tables[1].select())
        assert [tuple(row) for row in rows] == [("errand", 2)]
        assert projector.check(projection.name) is None
        projector.close()


def test_hook_register_event_types(host: Host) -> None:
    """Events of its own have a model, and old ones are lifted."""
    learn_event_types(host)
    with flightlog_test_harness() as test:
        for schema, data in ((1, {"table": "t", "count": 5}), (2, {"table": "t", "rows": 6})):
            event = NewEvent(RandomIds().new(), "every_hook.loaded", data, 0, schema=schema)
            test.engine.log.append("tables/t", [event])
        events = test.events("every_hook.loaded")
        assert [event.data for event in events] == [{"table": "t", "rows": 5}, {"table": "t", "rows": 6}]
        assert [getattr(payload(event), "rows", None) for event in events] == [5, 6]


def test_hook_register_commands(host: Host) -> None:
    """The command line has the command."""
    from click.testing import CliRunner

    from flightlog.cli.main import cli

    done = CliRunner().invoke(cli, ["greet", "Ann"])
    assert (done.exit_code, done.output) == (0, "Hello, Ann.\n")


def test_hook_register_settings(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are read from the environment, each as its type."""
    assert host.settings_of("every-hook")["LEVEL"] == 3
    monkeypatch.setenv("FLIGHTLOG_PLUGIN_EVERY_HOOK_LEVEL", "7")
    assert host.settings_of("every-hook")["LEVEL"] == 7


def test_hook_register_services(example: ModuleType) -> None:
    """The service begins with the first flow run, knows the log, and has ended when the process lets go of that."""
    example.Bell.rings.clear()
    test = run_beside(False)
    assert example.Bell.rings == {test.engine.log.store.location: 1}
    assert not [thread for thread in threading.enumerate() if "_ring" in thread.name]
