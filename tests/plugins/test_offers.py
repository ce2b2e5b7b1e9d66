"""What plug-ins bring: runners, serializers, storages, event types, projections, commands and settings, by name."""

import json
import subprocess
from pathlib import Path

import pytest
from tests.plugins.distributions import Collection, Place

from flightlog.errors import SettingsError
from flightlog.plugins import manifests
from flightlog.plugins.host import Host
from flightlog.plugins.manifests import of_file
from flightlog.settings import Settings

BRINGS = Collection(
    "brings",
    """
    @hookimpl
    def register_task_runners():
        from flightlog.task_runners import ConcurrentTaskRunner

        class OneTaskRunner(ConcurrentTaskRunner):
            def __init__(self, max_workers=1):
                super().__init__(1)

        return {"one": OneTaskRunner, "odd": object}

    @hookimpl
    def register_serializers():
        from flightlog.serializers import Serializer

        class Upper(Serializer):
            type = "upper"

            def dumps(self, value):
                return value.upper().encode()

            def loads(self, content):
                return content.decode()

        class Liar(Upper):
            type = "another"

        return {"upper": Upper, "liar": Liar, "odd": object}

    @hookimpl
    def register_result_storages():
        from pathlib import Path

        class Box:
            def __init__(self, url):
                self.url = url
                self.folder = Path(url.partition("://")[2])

            def write_path(self, path, content):
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / path).write_bytes(content)

            def read_path(self, path):
                return (self.folder / path).read_bytes()

        return {"box": Box, "odd": lambda url: object()}
    """,
    (
        "register_task_runners.one",
        "register_task_runners.odd",
        "register_serializers.upper",
        "register_serializers.liar",
        "register_serializers.odd",
        "register_result_storages.box",
        "register_result_storages.odd",
    ),
)
MAKE = """
import sys
from flightlog import flow, task

@task(persist_result=True)
def make(text):
    return text

def run(**options):
    try:
        @flow(**options)
        def one(): return make.submit("a").result()
        return one()
    except (TypeError, ValueError) as error:
        return error

def kept(**options):
    try:
        @flow
        def one(): return make.with_options(**options)("a")
        return one()
    except (TypeError, ValueError) as error:
        return error
"""


def test_flows_name_what_plug_ins_bring(place: Place) -> None:
    """A runner, a serializer and a storage, without an import of the plug-in; a later process reads the values back."""
    place.install(BRINGS)
    program = MAKE + (
        "print(run(task_runner='one'))\nprint(kept(result_serializer='upper'))\n"
        "print(kept(result_storage='box://values'))\n"
    )
    assert place.python(program).stdout == "a\na\na\n"
    assert list((place.work / "values").rglob("*/*"))
    program = """
        from flightlog.engine.results import fetch
        from flightlog.engine.runtime import current_engine
        engine = current_engine()
        for event in engine.log.read_all(types=["task_run.completed"]):
            print(fetch(engine.key, event.data["result"], engine.log.blob, vault=engine.vault))
    """
    assert place.python(program).stdout == "a\nA\na\n"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            "run(task_runner='ones')",
            "There is no task runner 'ones'. Did you mean 'one'? A collection may bring it: pip",
        ),
        ("run(task_runner='odd')", "A task runner is a TaskRunner, not object."),
        ("kept(result_serializer='uper')", "There is no serializer 'uper'. Did you mean 'upper'?"),
        ("kept(result_serializer='odd')", "What a plug-in calls the serializer 'odd' is a object, and no Serializer."),
        ("kept(result_serializer='liar')", "that a plug-in calls 'liar' puts itself on record as 'another'."),
        ("kept(result_serializer='upper/more')", "The serializer 'upper' takes nothing more, not 'more'."),
        ("kept(result_storage='odd://x')", "What a plug-in makes of odd:// is no result storage."),
    ],
)
def test_what_is_not_right_is_one_sentence(place: Place, call: str, told: str) -> None:
    """A name that there is not, with the nearest; and a thing that is none."""
    place.install(BRINGS)
    assert told in place.python(f"{MAKE}print({call})").stdout


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("run(task_runner='one')", "There is no task runner 'one'."),
        ("kept(result_serializer='upper')", "There is no serializer 'upper'."),
        ("kept(result_storage='box://values')", "There is no result storage for box://."),
    ],
)
def test_what_a_broken_plug_in_has_says_so(place: Place, call: str, what: str) -> None:
    """And not that somebody should install it."""
    place.install(Collection("brings", "raise OSError('no licence')", BRINGS.contributes))
    told = f"{what} The plug-in 'brings' has it, which is skipped: it cannot be imported: OSError: no licence."
    assert told in place.python(f"{MAKE}print({call})").stdout


def test_our_own_names_stay_ours(tmp_path: Path) -> None:
    """A serializer of somebody else's that calls itself `json` does not take the place of ours."""
    from flightlog.engine.serializers import serializer_of
    from flightlog.serializers import JSONSerializer

    class Mine(JSONSerializer):
        """Inherits the type."""

    assert type(serializer_of("json")) is JSONSerializer
    assert Mine().spec == "json"


# --- event types ----------------------------------------------------------------------------------

TYPED = Collection(
    "acme",
    """
    from pydantic import BaseModel
    from flightlog.plugins import EventType

    class Loaded(BaseModel):
        table: str
        rows: int

    def lift(data):
        if data.get("count") == 13:
            raise ValueError("unlucky")
        return {"table": data["table"], "rows": data["count"]}

    @hookimpl
    def register_event_types():
        return [EventType("acme.loaded", 2, Loaded, {1: lift})]
    """,
    ("register_event_types",),
)
APPEND = """
from flightlog.events.model import NewEvent
from flightlog.events.opening import open_log
from flightlog.ids import RandomIds
from flightlog.settings import load
with open_log(load().log_url) as log:
    for schema, data in (
        (1, {"table": "a", "count": 5}), (2, {"table": "b", "rows": 6}), (1, {"table": "c", "count": 13}),
        (3, {"table": "d", "lines": 7}),
    ):
        log.append("tables", [NewEvent(RandomIds().new(), "acme.loaded", data, 0, schema=schema)])
"""


def test_I9_events_of_a_plug_in_are_lifted_and_carried_without_it(place: Place) -> None:
    """Old schemas are lifted; newer ones, those that cannot be lifted, and all without the plug-in stay as they are."""
    assert place.python(APPEND).returncode == 0
    plain = [{"table": "a", "count": 5}, {"table": "b", "rows": 6}, {"table": "c", "count": 13}]
    plain.append({"table": "d", "lines": 7})
    listed = ("events", "ls", "--jsonl")

    def data() -> list[dict[str, object]]:
        done = place.flightlog(*listed)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["data"] for line in done.stdout.splitlines()]

    assert data() == plain
    place.install(TYPED)
    assert data() == [{"table": "a", "rows": 5}, *plain[1:]]
    place.names.clear()
    assert data() == plain


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("[EventType('flow_run.loaded', 1, Loaded)]", "does not begin with the plug-in's name, 'acme'"),
        ("[EventType('acmes.loaded', 1, Loaded)]", "does not begin with the plug-in's name, 'acme'"),
        ("[object()]", "AttributeError"),
        ("None", "it returned a NoneType, and no sequence"),
    ],
)
def test_event_types_that_are_none_are_told(place: Place, returned: str, told: str) -> None:
    """The log is read all the same; doctor and `plugins doctor` say what is wrong, if it is the plug-in's answer."""
    assert place.python(APPEND).returncode == 0
    code = TYPED.code.replace('[EventType("acme.loaded", 2, Loaded, {1: lift})]', returned)
    place.install(Collection("acme", code, ("register_event_types",)))
    assert len(place.flightlog("events", "ls", "--jsonl").stdout.splitlines()) == 4
    assert told in place.flightlog("plugins", "doctor").stdout


# --- projections ----------------------------------------------------------------------------------

PROJECTED = """
from sqlalchemy import Column, Integer, MetaData, Table, Text
from flightlog.projections.projection import Put

class Types:
    name = "acme_types"
    version = 1
    types = None
    tables = (Table("acme_types", MetaData(), Column("type", Text, primary_key=True), Column("count", Integer)),)

    def apply(self, event, look):
        row = look("acme_types", (event.type,))
        return [Put("acme_types", (event.type,), {"count": (row["count"] if row else 0) + 1})]

class Odd(Types):
    name = "runs"

@hookimpl
def register_projections():
    return RETURNED
"""
RUN = "from flightlog import flow\nprint(flow(lambda: 1, name='one')())"


def test_projections_of_a_plug_in_are_kept_with_ours(place: Place) -> None:
    """`projections ls`, `status`, `check` and `rebuild` know them; what is wrong is found and mended."""
    place.install(Collection("acme", PROJECTED.replace("RETURNED", "[Types()]"), ("register_projections",)))
    assert place.python(RUN).returncode == 0
    listed = json.loads(place.flightlog("projections", "ls", "--json").stdout)
    assert {"name": "acme_types", "version": 1, "kept": "apart", "tables": ["acme_types"]} in listed
    assert place.flightlog("projections", "check").returncode == 0
    assert place.flightlog("projections", "rebuild", "acme_types").returncode == 0
    program = (
        "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as c: c.execute('UPDATE acme_types SET count = 9')"
    )
    assert place.python(program, str(place.home / "flightlog.db.projections")).returncode == 0
    assert "acme_types" in place.flightlog("projections", "check").stdout
    assert place.flightlog("projections", "check", "acme_types", "--repair").returncode in (0, 1)
    assert place.flightlog("projections", "check").returncode == 0


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("[Odd()]", "the name 'runs' does not begin with the plug-in's, 'acme'"),
        ("[Types(), Types()]", "there is a projection 'acme_types' already"),
        ("[object()]", "is no projection: AttributeError"),
        ("7", "it returned a int, and no sequence"),
    ],
)
def test_projections_that_are_none_are_left_out(place: Place, returned: str, told: str) -> None:
    """Runs are listed all the same, and doctor says what is wrong."""
    place.install(Collection("acme", PROJECTED.replace("RETURNED", returned), ("register_projections",)))
    assert place.python(RUN).returncode == 0
    done = place.flightlog("runs", "ls")
    assert done.returncode == 0, done.stderr
    assert "Completed" in done.stdout
    assert told in place.flightlog("plugins", "doctor").stdout


# --- commands -------------------------------------------------------------------------------------

COMMANDS = Collection(
    "acme",
    """
    import click

    @click.command()
    def shout():
        "Shout."
        click.echo("HEY")

    @hookimpl
    def register_commands():
        return {"shout": shout, "runs": shout, "odd": 5}
    """,
    ("register_commands.shout", "register_commands.runs", "register_commands.odd"),
)


def test_commands_of_plug_ins_are_listed_and_called(place: Place) -> None:
    """With the plug-in that brings each; a slip of the pen finds them; our own names stay ours."""
    place.install(COMMANDS)
    shown = place.flightlog("--help").stdout
    assert "Commands of plug-ins:" in shown
    assert "shout" in shown.partition("Commands of plug-ins:")[2]
    assert "Brought by acme." in shown
    assert place.flightlog("shout").stdout == "HEY\n"
    assert "Did you mean flightlog shout?" in place.flightlog("shuot").stderr
    assert place.flightlog("runs", "ls").stdout != "HEY\n"
    done = place.flightlog("odd")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_command_of_a_broken_plug_in_says_so(place: Place) -> None:
    """One line, and the code for a command line that is wrong."""
    place.install(Collection("acme", "raise OSError('no licence')", COMMANDS.contributes))
    done = place.flightlog("shout")
    assert done.returncode == 2
    assert "OSError: no licence" in done.stderr
    assert "Traceback" not in done.stderr


# --- settings -------------------------------------------------------------------------------------

SET = """
from flightlog.plugins import PluginSetting, hookimpl

@hookimpl
def register_settings():
    return [PluginSetting("TOKEN", "", "What lets it in."), PluginSetting("LEVEL", "3", "How much.", int)]
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with two plug-ins whose names begin alike."""
    found = []
    for name in ("acme", "acme_table"):
        path = tmp_path / f"{name}.py"
        path.write_text(SET)
        found.append(of_file(path))
    return Host(Settings(home=tmp_path, log_url="memory://"), found)


def test_settings_have_defaults_and_types(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each plug-in has its own, also where one's name begins with the other's."""
    monkeypatch.setenv("FLIGHTLOG_PLUGIN_ACME_TABLE_LEVEL", "5")
    assert host.settings_of("acme") == {"TOKEN": "", "LEVEL": 3}
    assert host.settings_of("acme-table") == {"TOKEN": "", "LEVEL": 5}
    host.close()


def test_a_setting_that_there_is_not_names_the_nearest(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, as ours are; so is a value that cannot be read."""
    monkeypatch.setenv("FLIGHTLOG_PLUGIN_ACME_LEVLE", "5")
    with pytest.raises(SettingsError) as caught:
        host.settings_of("acme")
    assert str(caught.value) == (
        "FLIGHTLOG_PLUGIN_ACME_LEVLE is no setting of the plug-in 'acme'. Did you mean FLIGHTLOG_PLUGIN_ACME_LEVEL?"
    )
    monkeypatch.delenv("FLIGHTLOG_PLUGIN_ACME_LEVLE")
    monkeypatch.setenv("FLIGHTLOG_PLUGIN_ACME_LEVEL", "much")
    with pytest.raises(SettingsError, match="The setting FLIGHTLOG_PLUGIN_ACME_LEVEL cannot be 'much'"):
        host.settings_of("acme")
    host.close()


def test_settings_are_in_profiles_and_shown(place: Place) -> None:
    """`config set` takes them, `plugins show` lists them without their values, which may be secret."""
    place.install(Collection("acme", SET, ("register_settings",)))
    done = place.flightlog("config", "set", "FLIGHTLOG_PLUGIN_ACME_TOKEN=hidden")
    assert done.returncode == 0, done.stderr
    shown = place.flightlog("plugins", "show", "acme").stdout
    assert "FLIGHTLOG_PLUGIN_ACME_TOKEN (set): What lets it in." in shown
    assert "FLIGHTLOG_PLUGIN_ACME_LEVEL (default: '3'): How much." in shown
    assert "hidden" not in shown
    program = "from flightlog.plugins import settings_of; print(settings_of('acme')['TOKEN'])"
    assert place.python(program).stdout == "hidden\n"
    assert place.python(program, FLIGHTLOG_PLUGIN_ACME_TOKEN="other").stdout == "other\n"


def test_a_setting_of_no_plug_in_is_told_by_doctor(place: Place) -> None:
    """With the plug-in that is meant, perhaps; flows run all the same."""
    place.install(Collection("acme", SET, ("register_settings",)))
    done = place.flightlog("doctor", FLIGHTLOG_PLUGIN_ACNE_TOKEN="x")
    assert "FLIGHTLOG_PLUGIN_ACNE_TOKEN is set, and there is no such plug-in. Did you mean 'acme'?" in done.stdout
    assert place.python(RUN, FLIGHTLOG_PLUGIN_ACNE_TOKEN="x").stdout == "1\n"


# --- the commands about plug-ins ------------------------------------------------------------------

OBSERVER = Collection(
    "watcher",
    """
    @hookimpl
    def on_events(events):
        if any(event.type == "flow_run.failed" for event in events):
            raise ValueError("a failure")

    @hookimpl
    def on_flow_run_state(change):
        pass
    """,
    ("on_events", "on_flow_run_state"),
)


def test_trace_shows_each_call(place: Place) -> None:
    """Hook, what it was told of, how long it took, what went wrong; nothing is put on record."""
    assert place.python(RUN).returncode == 0
    place.install(OBSERVER)
    done = place.flightlog("plugins", "trace", "watcher", "--run", "@last")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["watcher", "on_events"]] + [["watcher", "on_flow_run_state"]] * 3
    assert rows[-1][2].endswith("Completed")
    failing = "from flightlog import flow\nflow(lambda: 1 / 0, name='bad')(return_state=True)"
    assert place.python(failing, FLIGHTLOG_PLUGINS_MODE="safe").returncode == 0
    done = place.flightlog("plugins", "trace")
    assert done.returncode == 1
    assert "ValueError: a failure" in done.stdout
    assert json.loads(place.flightlog("plugins", "show", "watcher", "--json").stdout)["problems"] == []


def test_trace_says_why_there_is_nothing(place: Place) -> None:
    """No such plug-in, one that is skipped, one that does not observe."""
    assert place.python(RUN).returncode == 0
    assert "No plug-in observes events." in place.flightlog("plugins", "trace").stderr
    place.install(BRINGS, Collection("too-new", "", ("on_events",), ("flightlog>=99",)))
    done = place.flightlog("plugins", "trace", "watchr")
    assert done.returncode == 3
    done = place.flightlog("plugins", "trace", "too-new")
    assert done.returncode == 1
    assert "too-new is skipped: it is made for Flightlog >=99" in done.stderr
    assert "brings observes no events." in place.flightlog("plugins", "trace", "brings").stderr


def test_run_says_that_there_is_nothing_to_do(place: Place) -> None:
    """No plug-in has asked for all events."""
    assert place.python(RUN).returncode == 0
    done = place.flightlog("plugins", "run")
    assert (done.returncode, done.stderr) == (0, "No plug-in has asked for all events (on_log_events).\n")


def test_show_and_ls(place: Place) -> None:
    """What a plug-in says of itself, for people and for programs."""
    place.install(OBSERVER)
    assert place.flightlog("plugins", "ls").stdout.rstrip("\n").split("\t") == [
        "watcher", "1.2.3", "ready", "flightlog-watcher", "on_events, on_flow_run_state",
    ]  # fmt: skip
    shown = place.flightlog("plugins", "show", "watcher").stdout
    for line in ("watcher 1.2.3", "status    loaded", "from      flightlog-watcher", "offers    on_events"):
        assert line in shown
    done = place.flightlog("plugins", "show", "watchr")
    assert done.returncode == 3
    assert "Did you mean 'watcher'?" in done.stderr


def test_doctor_compares_manifest_and_module(place: Place) -> None:
    """Names that are not offered, offers and hooks that are not named."""
    contributes = ("register_serializers.uper",)
    place.install(Collection("brings", BRINGS.code, contributes))
    shown = place.flightlog("plugins", "doctor").stdout
    assert "its manifest names register_serializers.uper, which it does not offer" in shown
    assert "it offers 'upper' by register_serializers, which its manifest does not name" in shown
    assert "it has the hook 'register_task_runners', which its manifest does not name: it is never called" in shown


def test_the_scan_reads_only_what_speaks_of_flightlog(tmp_path: Path) -> None:
    """Entry points of others are not parsed: one that is damaged does no harm."""
    other = tmp_path / "other-1.dist-info"
    other.mkdir()
    (other / "entry_points.txt").write_bytes(b"\xff[console_scripts\nx = ")
    assert manifests.installed([str(tmp_path), str(tmp_path / "missing")]) == []
    damaged = tmp_path / "damaged-1.dist-info"
    damaged.mkdir()
    (damaged / "entry_points.txt").write_bytes(b"\xff\n[flightlog]\n\xfe = \nx\n = y\nok = mod:attr [extra]\n")
    required = b"Requires-Dist: flightlog ~= nonsense\nRequires-Dist: Flightlog ; extra == 'x'\n"
    (damaged / "METADATA").write_bytes(required)
    names = {one.name: one for one in manifests.installed([str(tmp_path)])}
    assert names["ok"].module == "mod"
    assert names["ok"].made_for == ""


def test_a_place_has_no_plug_ins_by_itself(place: Place) -> None:
    """The tests' own places see nothing of what is installed on this machine."""
    done: subprocess.CompletedProcess[str] = place.flightlog("plugins", "ls", "--json")
    assert json.loads(done.stdout) == []
    assert place.flightlog("plugins", "ls").stderr == "No plug-ins. To begin one: flightlog plugins new NAME\n"
