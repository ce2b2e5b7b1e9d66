"""Settings and profiles: where a value comes from, changing it, and names that there are not."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_recorder import document, flightlog, ok

from flightlog.errors import SettingsError
from flightlog.settings import load


@pytest.fixture
def home() -> Path:
    """Return the folder of all files."""
    return Path(os.environ["FLIGHTLOG_HOME"])


def values(**environment: str) -> dict[str, tuple[Any, str]]:
    """Return value and source of every setting."""
    return {one["name"]: (one["value"], one["source"]) for one in document("config", "view", **environment)}


def test_the_environment_counts_before_the_profile_and_that_before_the_default(home: Path) -> None:
    """`config view` says who says what."""
    name = "FLIGHTLOG_LOGGING_LEVEL"
    assert values()[name] == ("INFO", "default")
    ok("config", "set", f"{name}=DEBUG", "FLIGHTLOG_LOGGING_COLORS=false")
    assert values()[name] == ("DEBUG", "profile default")
    assert values(FLIGHTLOG_LOGGING_LEVEL="ERROR")[name] == ("ERROR", "environment")
    assert load().logging_level == 10
    assert not load().logging_colors
    ok("config", "unset", name)
    assert values()[name] == ("INFO", "default")
    again = flightlog("config", "unset", name)
    assert (again.returncode, again.stderr) == (3, f"Error: {name} is not set in the profile 'default'.\n")
    assert stat.S_IMODE((home / "profiles.toml").stat().st_mode) == 0o600


def test_profiles_are_made_used_and_deleted(home: Path) -> None:
    """One is in use; another one can be named for one command; what people wrote in the file besides stays."""
    ok("profile", "create", "team")
    ok("profile", "use", "team")
    ok("config", "set", "FLIGHTLOG_TASK_DEFAULT_RETRIES=3")
    file = home / "profiles.toml"
    file.write_text(file.read_text() + "# a note of mine\n")
    ok("profile", "create", "test", "--from", "team")
    assert load().task_default_retries == 3
    assert load({"FLIGHTLOG_HOME": str(home), "FLIGHTLOG_PROFILE": "default"}).task_default_retries == 0
    listed = {one["name"]: one["active"] for one in document("profile", "ls")}
    assert listed == {"default": False, "team": True, "test": False}
    assert document("profile", "show", "test") == {"FLIGHTLOG_TASK_DEFAULT_RETRIES": "3"}
    assert json.loads(ok("--profile", "default", "profile", "ls", "--json"))[0]["active"]
    assert flightlog("profile", "delete", "team").returncode == 3
    ok("profile", "rename", "test", "other")
    ok("profile", "delete", "other")
    assert "# a note of mine" in file.read_text()
    wrong = flightlog("profile", "use", "taem")
    assert wrong.returncode == 1
    assert "Did you mean 'team'?" in wrong.stderr


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("FLIGHTLOG_LOGING_LEVEL=DEBUG", "Did you mean 'FLIGHTLOG_LOGGING_LEVEL'?"),
        ("FLIGHTLOG_LOGGING_LEVEL=LOUD", "say DEBUG, INFO"),
        ("FLIGHTLOG_HOME=/tmp", "in the environment only"),
        ("FLIGHTLOG_LOGGING_LEVEL", "is not NAME=VALUE"),
        ("OTHER=1", "is no setting"),
    ],
)
def test_what_does_not_fit_is_said_and_changes_nothing(home: Path, assignment: str, said: str) -> None:
    """Unknown names with the nearest match, values that cannot be used."""
    done = flightlog("config", "set", "FLIGHTLOG_LOGGING_COLORS=false", assignment)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "profiles.toml").exists()


@pytest.mark.parametrize("text", ["no toml", "profiles = 3", "[profiles]\nx = 1", 'active = "gone"', "\x00"])
def test_a_file_that_is_no_file_of_profiles(home: Path, text: str) -> None:
    """One clear sentence that names the file."""
    home.mkdir(exist_ok=True)
    (home / "profiles.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"profiles\.toml"):
        load()


def test_an_unknown_setting_in_the_environment_is_an_error(tmp_path: Path) -> None:
    """With the nearest match; facts for tests and other programs' variables are none of our settings."""
    with pytest.raises(SettingsError, match=r"FLIGHTLOG_LOGGIN_LEVEL, in the environment.*FLIGHTLOG_LOGGING_LEVEL"):
        load({"FLIGHTLOG_HOME": str(tmp_path), "FLIGHTLOG_LOGGIN_LEVEL": "INFO"})
    assert load({"FLIGHTLOG_HOME": str(tmp_path), "FLIGHTLOG__RUNTIME__FLOW_RUN__NAME": "x"}).home == tmp_path


def test_secrets_are_not_shown() -> None:
    """Keys and passwords in URLs are masked."""
    url = "postgresql://ann:hunter22@host/db"
    shown = values(FLIGHTLOG_LOG_URL=url, FLIGHTLOG_LOG_KEY="ab" * 32)
    assert shown["FLIGHTLOG_LOG_URL"][0] == "postgresql://ann:********@host/db"
    assert shown["FLIGHTLOG_LOG_KEY"][0] == "********"
