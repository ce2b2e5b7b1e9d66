"""`flightlog plugins new`: what it writes can be installed, and passes its own tests at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.plugins.distributions import Place

from flightlog.errors import PluginError
from flightlog.plugins.manifests import installed
from flightlog.plugins.scaffold import KINDS, new_plugin


def install(place: Place, source: Path) -> None:
    """Install a source folder with pip, offline."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--target", str(place.folder), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    place.names.append(source.name.removeprefix("flightlog-"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_passes_its_own_tests_at_once(place: Place, kind: str) -> None:
    """Generated, installed, its own tests green, listed, nothing for doctor, and the fitting suites green."""
    name = f"my-{kind}"
    done = place.flightlog("plugins", "new", name, "--kind", kind)
    assert done.returncode == 0, done.stderr
    source = place.work / f"flightlog-{name}"
    assert done.stdout.strip() == source.name
    install(place, source)
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"],
        cwd=source, env=place.environment(), capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout
    (listed,) = json.loads(place.flightlog("plugins", "ls", "--json").stdout)
    assert (listed["name"], listed["version"], listed["status"]) == (name, "0.1.0", "ready")
    assert listed["made_for"] in (">=0.1,<0.2", "<0.2,>=0.1")
    doctor = place.flightlog("plugins", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    suites = place.flightlog("plugins", "test", name)
    assert suites.returncode == 0, suites.stdout
    assert " passed" in suites.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_well_written(tmp_path: Path, kind: str) -> None:
    """Ruff finds nothing, the manifest and the docs name the plug-in, workflows have their own expressions."""
    target = new_plugin("acme-table", kind, tmp_path)
    for command in (["check"], ["format", "--check"]):
        arguments = ["--isolated", "--no-cache", "--line-length", "120", "."]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *arguments],
            cwd=target, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
    texts = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert "${{ matrix.python }}" in texts[".github/workflows/ci.yml"]
    assert "id-token: write" in texts[".github/workflows/publish.yml"]
    assert {"LICENSE", ".gitignore", "docs/index.md", "src/flightlog_acme_table/py.typed"} <= texts.keys()
    for path, text in texts.items():
        assert "<<" not in text, path
        assert "<%" not in text, path
        assert "NAME" not in text, path
        assert "ENV" not in text, path


def test_nothing_is_overwritten(place: Place) -> None:
    """A folder that is there stays as it is."""
    target = place.work / "flightlog-mine"
    target.mkdir()
    done = place.flightlog("plugins", "new", "mine")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: flightlog-mine is there already: choose another name, or another --directory.\n"
    )  # fmt: skip
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("My_Plugin", " How about 'my-plugin'?"),
        ("../up", " How about 'up'?"),
        ("9lives", " How about 'lives'?"),
        ("-", ""),
        ("", ""),
        ("a--b", " How about 'a-b'?"),
        ("x" * 41, f" How about {'x' * 40!r}?"),
        ("größe", " How about 'gr-e'?"),
    ],
)
def test_bad_names_are_one_sentence(tmp_path: Path, name: str, hint: str) -> None:
    """What a name may have, and one that would do."""
    with pytest.raises(PluginError) as caught:
        new_plugin(name, "observer", tmp_path)
    assert str(caught.value).endswith(f"is 40 characters long at the most.{hint}")
    assert list(tmp_path.iterdir()) == []


def test_the_prefix_may_be_written_or_not(tmp_path: Path) -> None:
    """Distributions are named flightlog-NAME either way."""
    assert new_plugin("flightlog-mine", "observer", tmp_path).name == "flightlog-mine"


@pytest.mark.parametrize("name", ["runs", "json", "pickle", "threads", "plugins"])
def test_names_that_are_taken_are_refused(place: Place, name: str) -> None:
    """By commands, serializers and runners of our own."""
    done = place.flightlog("plugins", "new", name, "--kind", "command")
    told = f"The name {name!r} is taken, by Flightlog or an installed plug-in: choose another one."
    assert done.stderr == f"Error: {told}\n"


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """With the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(PluginError, match=r"cannot be written: Not a directory\."):
        new_plugin("mine", "observer", tmp_path / "file")


def test_the_suites_need_pytest(place: Place) -> None:
    """Without it the command says what to install."""
    place.write("mine", "@hookimpl\ndef on_events(events): pass")
    program = """
        import importlib.util, sys
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: None if name == "pytest" else found(name, *more)
        from flightlog.cli.main import main
        main(sys.argv[1:])
    """
    done = place.python(program, "plugins", "test", "mine")
    assert done.returncode == 1
    assert done.stderr.endswith("which is not installed: pip install 'flightlog[test]'.\n")
    assert place.flightlog("plugins", "test", "nobody").returncode == 3


def test_a_plug_in_that_breaks_the_contract_fails_the_suites(place: Place) -> None:
    """A thread at import, a hook that the manifest does not name, no docstring."""
    code = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()

    @hookimpl
    def register_settings():
        return []

    @hookimpl
    def register_serializers():
        return {}
    """
    from tests.plugins.distributions import Collection

    place.install(Collection("naughty", code, ("register_settings",)))
    assert [one.name for one in installed([str(place.folder)])] == ["naughty"]
    done = place.flightlog("plugins", "test", "naughty")
    assert done.returncode == 1
    for failed in ("has_no_side_effects", "manifest_and_module_agree", "plain_and_quick", "doctor_finds_nothing"):
        assert f"{failed}" in done.stdout, done.stdout
    assert "4 failed" in done.stdout
