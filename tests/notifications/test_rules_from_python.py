"""Rules, channels and silences set in Python: `flightlog.rules`, with a real server at the other end."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.notifications.receivers import Receiver

from flightlog import flow
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.errors import SettingsError
from flightlog.notifications.channels import ChannelError
from flightlog.notifications.ledger import incidents
from flightlog.rules import (
    Channel,
    Match,
    Route,
    Rule,
    Silence,
    Threshold,
    acknowledge,
    add_silence,
    configured,
    end_silences,
    remove_channel,
    remove_rule,
    set_channel,
    set_routes,
    set_rule,
)

HOOK = Channel(name="hook", kind="webhook", settings={"url": "env:HOOK_URL", "allow_private": True})
FAILURES = Rule(name="failures", match=Match(flow=("etl",)), channels=("hook",))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a log of its own, in this process, with the plug-ins that come with Flightlog."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLIGHTLOG_HOME", str(tmp_path / "home"))
    close_engine()
    yield
    close_engine()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Return a server that takes messages; the environment says where it is."""
    with Receiver() as server:
        monkeypatch.setenv("HOOK_URL", f"http://127.0.0.1:{server.port}/hook")
        yield server


@flow
def etl() -> None:
    """Fail."""
    raise ValueError("no rows")


def subjects(receiver: Receiver) -> list[str]:
    """Return what was sent; the end of the engine is the end of a process."""
    close_engine()
    return [json.loads(posted.body)["data"]["subject"] for posted in receiver.posted]


def test_a_rule_counts_from_the_next_run_on(receiver: Receiver) -> None:
    """Also when flows have run in this process before there was any rule."""
    etl(return_state=True)
    set_channel(HOOK)
    set_rule(FAILURES)
    etl(return_state=True)
    assert subjects(receiver) == ["Failed: etl (ValueError)"]


def test_what_was_set_is_what_counts(receiver: Receiver) -> None:
    """Models come back as they were set; what is taken away is gone."""
    set_channel(HOOK)
    set_rule(FAILURES)
    set_rule(FAILURES.model_copy(update={"threshold": Threshold(consecutive=2)}))
    set_routes([Route(tags=("prod",), channels=("hook",))])
    now = configured()
    assert now.rules["failures"].threshold == Threshold(consecutive=2)
    assert now.channels["hook"].settings["url"] == "env:HOOK_URL"
    assert now.routes == (Route(tags=("prod",), channels=("hook",)),)
    remove_rule("failures")
    remove_channel("hook")
    assert (configured().rules, configured().channels) == ({}, {})


def test_a_silence_holds_messages_back(receiver: Receiver) -> None:
    """Until it is over."""
    set_channel(HOOK)
    set_rule(FAILURES)
    add_silence("2h", Silence(flow=("etl",)))
    etl(return_state=True)
    assert subjects(receiver) == []
    assert end_silences() == 1
    assert end_silences() == 0


def test_somebody_looks_after_an_incident(receiver: Receiver) -> None:
    """By the beginning of its id; it is on record who."""
    set_channel(HOOK)
    set_rule(FAILURES)
    etl(return_state=True)
    close_engine()
    (incident,) = incidents(current_engine().log)
    acknowledge(incident.id[:8], "restoring")
    (incident,) = incidents(current_engine().log)
    assert incident.acknowledged_by == "python"
    with pytest.raises(SettingsError, match="0 open incidents have an id that begins with 'zz'"):
        acknowledge("zz")


def test_mistakes_are_said_and_change_nothing(tmp_path: Path, receiver: Receiver) -> None:
    """Names that there are not, secrets, and what stands in a file."""
    with pytest.raises(SettingsError, match="names a channel 'hook' that there is not"):
        set_rule(FAILURES)
    with pytest.raises(ChannelError, match="is a secret"):
        set_channel(Channel(name="ops", kind="slack-webhook", settings={"url": "https://hooks.example/x"}))
    with pytest.raises(SettingsError, match="There is no rule 'failures'"):
        remove_rule("failures")
    with pytest.raises(SettingsError, match="There is no channel 'hok'"):
        remove_channel("hok")
    with pytest.raises(ValueError, match="parsecs"):
        add_silence("5 parsecs")
    file = tmp_path / "notifications.toml"
    file.write_text(
        '[[channels]]\nname = "hook"\nkind = "webhook"\n[channels.settings]\nurl = "env:HOOK_URL"\n'
        'allow_private = true\n[[rules]]\nname = "failures"\nchannels = ["hook"]\n'
    )
    etl(return_state=True)
    with pytest.raises(SettingsError, match=r"'failures' stands in .*notifications\.toml: change it there"):
        set_rule(FAILURES)
    file.unlink()
    set_rule(FAILURES)  # nothing else says what it is any more
    assert configured().rules["failures"] == FAILURES
