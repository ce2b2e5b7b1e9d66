"""``flightlog notify`` as somebody uses it: each command in a process of its own, messages to a real server."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.test_recorder import document, flightlog, ok
from tests.notifications.receivers import Answer, Receiver

FLOW = """
from flightlog import flow


@flow
def etl(good: bool):
    if not good:
        raise ValueError("no rows")
"""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Return a server that takes messages; the environment says where it is."""
    with Receiver() as server:
        monkeypatch.setenv("HOOK_URL", f"http://127.0.0.1:{server.port}/hook")
        yield server


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the flow that fails on demand."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows.py").write_text(FLOW)
    return "flows.py:etl"


def subjects(receiver: Receiver) -> list[str]:
    """Return what was sent."""
    return [json.loads(posted.body)["data"]["subject"] for posted in receiver.posted]


def configure() -> None:
    """Make a channel and a rule on the command line."""
    ok(
        "notify",
        "channels",
        "add",
        "hook",
        "--kind",
        "webhook",
        "--set",
        "url=env:HOOK_URL",
        "--set",
        "allow_private=true",
    )
    ok("notify", "rules", "add", "failures", "--flow", "etl", "--channel", "hook")


def test_a_failure_is_told_and_accounted_for(receiver: Receiver, script: str) -> None:
    """From the rule to the message, by the run's own process; ledger, incidents and why say the same."""
    configure()
    assert [rule["name"] for rule in document("notify", "rules", "ls")] == ["failures"]
    assert flightlog("run", script, "-p", "good=false").returncode == 10
    assert subjects(receiver) == ["Failed: etl (ValueError)"]
    (entry,) = document("notify", "ledger")
    assert (entry["status"], entry["channel"], entry["attempts"]) == ("delivered", "hook", 1)
    (incident,) = document("notify", "incidents", "--open")
    ok("notify", "ack", incident["id"][:8], "--comment", "looking")
    why = document("notify", "why", "@last")
    assert [one["decision"] for one in why["decisions"]] == ["incident opened", "message"]
    assert "Failed: etl" in ok("notify", "show", entry["key"][:8])
    assert "acknowledged" in ok("notify", "show", incident["id"][:8])
    ok("run", script, "-p", "good=true")
    assert [subject.partition(":")[0] for subject in subjects(receiver)] == ["Failed", "Recovered"]
    assert document("notify", "incidents", "--open") == []


def test_a_back_test_sends_nothing_and_says_what_would_have_been(receiver: Receiver, script: str) -> None:
    """Rules that are tried on the past; the same number as live, where they were live."""
    for _ in range(3):
        flightlog("run", script, "-p", "good=false")
    Path("notifications.toml").write_text(
        '[[channels]]\nname = "hook"\nkind = "webhook"\n[channels.settings]\nurl = "env:HOOK_URL"\n'
        '[[rules]]\nname = "often"\nthreshold = { failures = 2, within = "1h" }\nchannels = ["hook"]\n'
    )
    found = document("notify", "backtest", "--file", "notifications.toml")
    assert (found["events"], found["messages"]) == (3, {"hook": 1})
    assert found["withheld"] == {"counted": 1, "grouped": 0} or found["withheld"] == {"counted": 1}
    assert "3 events -> 1 message\n" in ok("notify", "backtest", "--file", "notifications.toml")
    assert receiver.posted == []


def test_what_is_wrong_in_a_file_is_said_with_its_line(script: str) -> None:
    """One line for each problem; nothing is changed by it."""
    Path("notifications.toml").write_text(
        '[[rules]]\nname = "first"\n\n[[rules]]\nname = "second"\nmatch = { flwo = "etl" }\nhold = "5 parsecs"\n'
    )
    done = flightlog("notify", "rules", "check")
    assert done.returncode == 1
    assert "notifications.toml:6: rules.1.match.flwo: there is no such key. Did you mean 'flow'?" in done.stderr
    assert "notifications.toml:7: rules.1.hold" in done.stderr
    assert "Traceback" not in done.stderr
    ended = flightlog("run", script, "-p", "good=true")
    assert ended.returncode == 0
    assert "The rules stay as they were." in ended.stderr


def test_a_dead_message_is_sent_again(receiver: Receiver, script: str) -> None:
    """A channel that refuses for good; once it takes messages again, `retry` sends it."""
    configure()
    receiver.answer_next(Answer(410))
    flightlog("run", script, "-p", "good=false")
    (entry,) = document("notify", "ledger", "--status", "dead")
    assert flightlog("notify", "retry").returncode == 2
    ok("notify", "retry", entry["key"][:8])
    assert [one["status"] for one in document("notify", "ledger")] == ["delivered"]


def test_a_drill_goes_through_the_real_channel(receiver: Receiver, script: str) -> None:
    """It says that it is one, and whether it arrived."""
    configure()
    assert "delivered" in ok("notify", "drill", "failures")
    assert "drill" in subjects(receiver)[0].lower()
    missing = flightlog("notify", "drill", "--channel", "hok")
    assert missing.returncode == 3
    assert "Did you mean 'hook'?" in missing.stderr


def test_names_that_there_are_not(script: str) -> None:
    """The nearest is named, with the exit code for what is not there; a mistake in a rule is one sentence."""
    flightlog("run", script, "-p", "good=true")
    assert flightlog("notify", "rules", "rm", "nothing").returncode == 3
    assert flightlog("notify", "show", "00000000").returncode == 3
    wrong = flightlog("notify", "rules", "add", "x", "--where", "staet == 'Failed'")
    assert wrong.returncode == 1
    assert "Did you mean 'state'?" in wrong.stderr
    secret = flightlog(
        "notify", "channels", "add", "ops", "--kind", "slack-webhook", "--set", "url=https://a.example/b"
    )
    assert secret.returncode == 1
    assert "env:NAME" in secret.stderr
    assert "a.example" not in secret.stderr


def test_silence_and_its_end(receiver: Receiver, script: str) -> None:
    """Nobody is told meanwhile; what still goes on is told afterwards."""
    configure()
    ok("notify", "silence", "2h", "--flow", "etl")
    flightlog("run", script, "-p", "good=false")
    assert receiver.posted == []
    ok("notify", "silence", "end")
    ok("notify", "run")
    assert [subject.partition(":")[0] for subject in subjects(receiver)] == ["Failed"]


def test_the_next_command_sends_what_was_left(receiver: Receiver, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is; one that cannot use the channel from where it stands leaves the message to others."""
    configure()
    monkeypatch.setenv("FLIGHTLOG_PLUGINS_DENY", "notifications")
    assert flightlog("run", script, "-p", "good=false").returncode == 10
    ok("runs", "ls")
    assert receiver.posted == []
    monkeypatch.delenv("FLIGHTLOG_PLUGINS_DENY")
    with monkeypatch.context() as elsewhere:
        elsewhere.delenv("HOOK_URL")
        ok("runs", "ls")
    (entry,) = document("notify", "ledger")
    assert (entry["status"], entry["attempts"]) == ("queued", 0)
    assert len(receiver.posted) == 1  # by the command that has just shown it as queued, at its end
    ok("events", "ls")
    assert subjects(receiver) == ["Failed: etl (ValueError)"]


def test_a_command_ends_though_a_channel_hangs(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what it was asked for; the message stays claimed, and is another one's to find out about."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HOOK_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/hook")
        configure()
        with monkeypatch.context() as quiet:
            quiet.setenv("FLIGHTLOG_PLUGINS_DENY", "notifications")
            assert flightlog("run", script, "-p", "good=false").returncode == 10
        assert "etl" in ok("runs", "ls")
        (entry,) = document("notify", "ledger")
    assert (entry["status"], entry["attempts"]) == ("sending", 1)
