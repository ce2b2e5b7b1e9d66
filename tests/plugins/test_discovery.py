"""How plug-ins are found: by their metadata, without importing them; and which are used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.plugins.distributions import ROOT, Collection, Place

from flightlog.plugins import manifests
from flightlog.plugins.host import Host
from flightlog.settings import Settings

WATCHER = Collection(
    "watcher",
    """
    SEEN = []

    @hookimpl
    def on_events(events):
        SEEN.extend(event.type for event in events)

    @hookimpl
    def register_serializers():
        from flightlog.serializers import Serializer

        class Shout(Serializer):
            type = "shout"

            def dumps(self, value):
                return str(value).upper().encode()

            def loads(self, content):
                return content.decode()

        return {"shout": Shout}
    """,
    ("on_events", "register_serializers.shout"),
)
TOO_NEW = Collection("too-new", "raise SystemExit('imported')", ("on_events",), ("flightlog>=99",))
BROKEN = Collection("broken", "import there_is_no_such_module", ("on_events",))
STRANGE = Collection("strange", "", ("on_event",))
UNMARKED = Collection("unmarked", "def on_events(events): pass", ("on_events",))
ASYNC = Collection("async", "@hookimpl\nasync def on_events(events): pass", ("on_events",))
WRONG_NAME = Collection("wrong-name", "@hookimpl\ndef on_evens(events): pass\n@hookimpl\ndef on_events(): pass", ())
WRONG_ARGUMENT = Collection("wrong-argument", "@hookimpl\ndef on_events(event): pass", ("on_events",))
EXITS = Collection("exits", "raise SystemExit(3)", ("on_events",))
HANGS = Collection("hangs", "import threading; threading.Event().wait()", ("on_events",))
RUN = """
from flightlog import flow
from flightlog.engine.runtime import close_engine
print(flow(lambda: 1, name="one")())
close_engine()
"""


def test_a_manifest_is_read_from_metadata(place: Place) -> None:
    """Name, version, range and what it contributes are known without any import."""
    place.install(WATCHER, TOO_NEW)
    found = {one.name: one for one in manifests.installed([str(place.folder)])}
    assert sorted(found) == ["too-new", "watcher"]
    watcher = found["watcher"]
    assert (watcher.version, watcher.distribution) == ("1.2.3", "flightlog-watcher")
    assert sorted(watcher.made_for.split(",")) == ["<0.2", ">=0.1"]
    assert watcher.hooks == ("on_events", "register_serializers")
    assert watcher.names("register_serializers") == ["shout"]
    assert not [name for name in sys.modules if name.startswith(("flightlog_watcher", "flightlog_too_new"))]


def test_what_pip_installs_is_found(place: Place, tmp_path: Path) -> None:
    """A collection that pip builds and installs is found as any other, also if it speaks of Flightlog with a marker."""
    collection = Collection(
        "by-pip", "@hookimpl\ndef on_events(events): pass", ("on_events",), ('flightlog>=0.1; python_version>="3.0"',)
    )
    source = tmp_path / "source"
    source.mkdir()
    collection.write(source)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--target", str(place.folder), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    (found,) = manifests.installed([str(place.folder)])
    assert (found.name, found.made_for, found.hooks) == ("by-pip", ">=0.1", ("on_events",))


def test_the_first_of_two_places_counts(place: Place, tmp_path: Path) -> None:
    """Of one distribution in two folders the one counts that would be imported; names may be written in many ways."""
    place.install(WATCHER)
    other = tmp_path / "other"
    Collection("watcher", "", (), version="9").install(other)
    (other / "flightlog_watcher-9.dist-info").rename(other / "Flightlog.Watcher-9.dist-info")
    assert [one.version for one in manifests.installed([str(place.folder), str(other)])] == ["1.2.3"]
    assert [one.version for one in manifests.installed([str(other), str(place.folder)])] == ["9"]


def test_of_two_with_one_name_the_second_says_so(place: Place) -> None:
    """Two distributions may give their plug-ins the same name: the first is used, and the other one is no secret."""
    place.install(WATCHER)
    place.write("watcher", "@hookimpl\ndef on_events(events): pass")
    done = place.flightlog("plugins", "ls", "--json")
    assert [(one["from"], one["status"]) for one in json.loads(done.stdout)] == [
        ("flightlog-watcher", "ready"),
        (str(place.work / "flightlog_plugins" / "watcher.py"), "skipped"),
    ]
    assert "is skipped: flightlog-watcher has a plug-in of that name already." in done.stderr


def test_nothing_is_imported_before_its_first_use(place: Place) -> None:
    """Neither a flow that has nothing to do with it nor `--help`, `ls` or a look at the log imports a plug-in."""
    place.install(Collection("lazy", WATCHER.code, ("register_serializers.shout",)))
    program = """
        import sys
        from flightlog import flow
        from flightlog.plugins.host import current_host
        assert flow(lambda: 1, name="one")() == 1
        assert [plugin.status for plugin in current_host().plugins if plugin.name == "lazy"] == ["ready"]
        assert not [name for name in sys.modules if name.startswith("flightlog_lazy")]
        assert flow(lambda: "a", name="two", result_serializer="shout", persist_result=True)() == "a"
        assert "flightlog_lazy.plugin" in sys.modules
    """
    done = place.python(program)
    assert done.returncode == 0, done.stderr
    for arguments in (["--help"], ["plugins", "ls"], ["runs", "ls"]):
        program = f"""
            import sys
            from flightlog.cli.main import main
            try:
                main({arguments})
            except SystemExit as stop:
                assert not stop.code
            assert not [name for name in sys.modules if name.startswith("flightlog_lazy")]
        """
        assert place.python(program).returncode == 0, arguments


def test_observers_are_imported_beside_the_flow(place: Place) -> None:
    """A plug-in that takes its time to be imported holds no flow up: it is imported in its own thread."""
    place.install(Collection("heavy", "import threading\nthreading.Event().wait()\n", ("on_events",)))
    program = "from flightlog import flow; import os; print(flow(lambda: 1, name='one')()); os._exit(0)"
    assert "1\n" in place.python(program, FLIGHTLOG_PLUGINS_TIMEOUT_SECONDS="1000").stdout


@pytest.mark.parametrize(
    ("collection", "why"),
    [
        (TOO_NEW, "it is made for Flightlog >=99, and this is "),
        (BROKEN, "it cannot be imported: ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        (STRANGE, "its manifest names a hook 'on_event' that there is not. Did you mean 'on_events'?"),
        (UNMARKED, "it has no 'on_events' that is marked with @hookimpl (from flightlog.plugins import hookimpl)"),
        (ASYNC, "its hook 'on_events' is async or a generator; hooks are plain functions"),
        (WRONG_NAME, "it marks 'on_evens' as a hook, which there is not. Did you mean 'on_events'?"),
        (WRONG_ARGUMENT, "Argument(s) {'event'} are declared in the hookimpl but can not be found in the hookspec"),
        (EXITS, "it cannot be imported: SystemExit: 3"),
        (HANGS, "it cannot be imported: it did not come back within 0.5 seconds"),
    ],
    ids=lambda value: value.name if isinstance(value, Collection) else "",
)
def test_what_cannot_be_used_is_skipped_with_one_line(place: Place, collection: Collection, why: str) -> None:
    """The run is as it would be; one line says why, the log has it once, doctor says so, strict mode is an error."""
    place.install(collection)
    place.env["FLIGHTLOG_PLUGINS_TIMEOUT_SECONDS"] = "0.5"
    doctor = place.flightlog("doctor", "--quick")
    (line,) = [line for line in doctor.stdout.splitlines() if "plug-ins" in line]
    assert f"{collection.name}: " in line
    assert why in line
    assert doctor.returncode == 1
    for _ in range(2):
        done = place.python(RUN)
        assert (done.returncode, done.stdout) == (0, "1\n")
        if collection is WRONG_NAME:  # its manifest says that it does nothing, so nobody looks
            return
        (line,) = [line for line in done.stderr.splitlines() if "is skipped" in line]
        assert f"The plug-in {collection.name!r} 1.2.3 is skipped: " in line
        assert why in line
        assert "Traceback" not in done.stderr
    shown = json.loads(place.flightlog("plugins", "show", collection.name, "--json").stdout)
    assert [problem["what"] for problem in shown["problems"]] == ["skipped"]
    strict = place.python(RUN, FLIGHTLOG_PLUGINS_MODE="strict")
    assert strict.returncode == 1
    assert "1\n" not in strict.stdout
    assert f"PluginError: The plug-in {collection.name!r} 1.2.3 is skipped: " in strict.stderr


def test_strict_mode_is_one_line_on_the_command_line(place: Place) -> None:
    """In strict mode a command that needs plug-ins says what is wrong and exits with 1; help, ls and doctor work."""
    place.install(BROKEN).env["FLIGHTLOG_PLUGINS_MODE"] = "strict"
    assert place.flightlog("--help").returncode == 0
    assert place.flightlog("plugins", "ls").returncode == 0
    assert "broken: it cannot be imported" in place.flightlog("doctor").stdout
    (place.work / "f.py").write_text("from flightlog import flow\n@flow\ndef f(): return 1\n")
    done = place.flightlog("run", "f.py:f")
    assert done.returncode == 1
    assert "Error: The plug-in 'broken' 1.2.3 is skipped" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("env", "status", "why"),
    [
        ({"FLIGHTLOG_PLUGINS_MODE": "safe"}, "not wanted", "FLIGHTLOG_PLUGINS_MODE is safe"),
        ({"FLIGHTLOG_PLUGINS_DENY": "a, watcher"}, "not wanted", "FLIGHTLOG_PLUGINS_DENY names it"),
        ({"FLIGHTLOG_PLUGINS_ALLOW": "zzz"}, "not wanted", "FLIGHTLOG_PLUGINS_ALLOW does not name it"),
        ({"FLIGHTLOG_PLUGINS_ALLOW": "watcher,zzz"}, "ready", None),
    ],
)
def test_lists_and_safe_mode_say_which_are_used(
    place: Place, env: dict[str, str], status: str, why: str | None
) -> None:
    """One that is not wanted is never imported, whatever asks for it, and that is no problem of its own."""
    place.install(WATCHER)
    (listed,) = json.loads(place.flightlog("plugins", "ls", "--json", **env).stdout)
    assert (listed["status"], listed["reason"]) == (status, why)
    program = """
        import sys
        from flightlog.engine.serializers import serializer_of
        try:
            print(serializer_of("shout").spec)
        except ValueError as error:
            print(error)
            assert not [name for name in sys.modules if name.startswith("flightlog_watcher")]
    """
    done = place.python(program, **env)
    told = "There is no serializer 'shout'. The plug-in 'watcher' has it, which is not wanted: "
    assert done.stdout == (f"{told}{why}.\n" if why else "shout\n"), done.stderr
    assert place.flightlog("plugins", "doctor", **env).returncode == 0


def test_what_comes_with_flightlog_is_left_out_by_name_only() -> None:
    """Safe mode and a list of what is allowed keep it; a list that denies it by name does not."""
    own = manifests.Manifest("messages", "flightlog.version", distribution="flightlog")
    for chosen, status in (
        ({"plugins_mode": "safe"}, "ready"),
        ({"plugins_allow": ("another",)}, "ready"),
        ({"plugins_deny": ("messages",)}, "not wanted"),
    ):
        host = Host(Settings(home=Path(), log_url="memory://", **chosen), [own])
        assert [plugin.status for plugin in host.plugins] == [status]
        host.close()


def test_names_that_are_slips_of_the_pen_are_told(place: Place) -> None:
    """A list that names a plug-in which there is not, and one that is spelt nearly so: doctor says so."""
    place.install(WATCHER)
    done = place.flightlog("doctor", FLIGHTLOG_PLUGINS_DENY="watchr")
    assert "FLIGHTLOG_PLUGINS_DENY names 'watchr', which there is not. Did you mean 'watcher'?" in done.stdout


def test_a_mode_that_there_is_not_is_one_sentence(place: Place) -> None:
    """And help is there all the same."""
    done = place.flightlog("plugins", "ls", FLIGHTLOG_PLUGINS_MODE="loose")
    assert done.stderr.count("\n") == 1
    assert "say on, strict or safe" in done.stderr
    assert place.flightlog("--help", FLIGHTLOG_PLUGINS_MODE="loose").returncode == 0


# --- plug-ins of one file -------------------------------------------------------------------------

FILE = """
__version__ = "7"

@hookimpl
def on_flow_run_state(change):
    with open("seen", "a") as file:
        print(change.subject, change.state_name, file=file)
"""


def test_files_are_plug_ins_if_the_setting_says_so(place: Place) -> None:
    """A file in ./flightlog_plugins is read as text, and imported at its first use; by default it is not looked at."""
    place.write("own_thing", FILE)
    (listed,) = json.loads(place.flightlog("plugins", "ls", "--json").stdout)
    assert (listed["name"], listed["version"], listed["hooks"]) == ("own-thing", "7", ["on_flow_run_state"])
    assert place.python(RUN).returncode == 0
    assert (place.work / "seen").read_text().splitlines()[-1] == "one Completed"
    (place.work / "seen").unlink()
    assert place.python(RUN, FLIGHTLOG_PLUGINS_FOLDER="false").returncode == 0
    assert not (place.work / "seen").exists()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def on_events(:", "own_thing.py, line 3 cannot be read: "),
        ("\n@hookimpl\ndef on_flow_state(change): pass", "there is not. Did you mean 'on_flow_run_state'?"),
        ("\nimport nothing_there\n@hookimpl\ndef on_events(events): pass", "ModuleNotFoundError"),
    ],
)
def test_a_file_that_cannot_be_used_is_skipped(place: Place, code: str, why: str) -> None:
    """With the file and the line, where it is no Python."""
    place.write("own_thing", "\n" + code)
    done = place.python(RUN)
    assert (done.returncode, done.stdout) == (0, "1\n")
    (line,) = [line for line in done.stderr.splitlines() if "is skipped" in line]
    assert why in line


def test_files_that_begin_with_an_underscore_are_none(place: Place) -> None:
    """They may hold what plug-ins share."""
    place.write("_shared", "raise SystemExit")
    assert json.loads(place.flightlog("plugins", "ls", "--json").stdout) == []


def test_the_folder_is_not_there(place: Place) -> None:
    """The setting asks for it, and there is none: then there are none."""
    assert place.flightlog("plugins", "ls", FLIGHTLOG_PLUGINS_FOLDER="1").stdout == ""
    assert manifests.in_folder(ROOT / "no such folder") == []
