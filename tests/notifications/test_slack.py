"""Slack: what a message looks like there, an incident in one message, and what each answer means."""

import asyncio
import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.notifications import slack
from tests.notifications.receivers import Answer
from tests.notifications.slack import Slack, problem

from flightlog.notifications import slack_blocks
from flightlog.notifications.notifier import DeliveryError, Entry, Message, Receipt
from flightlog.notifications.slack import SlackBot, SlackWebhook
from flightlog.testing.notifier_contract import hostile, sample


@pytest.fixture
def workspace() -> Iterator[Slack]:
    """A Slack of our own."""
    with Slack() as server:
        yield server


def bot(workspace: Slack, channel: str = "#alerts", token: str = slack.TOKEN) -> SlackBot:
    """Return a bot in it."""
    return SlackBot.model_validate({"token": token, "channel": channel, "api_url": workspace.api_url})


def hook(workspace: Slack, url: str | None = None) -> SlackWebhook:
    """Return a webhook of it."""
    return SlackWebhook.model_validate({"url": url or workspace.hook_url})


def send(notifier: SlackBot | SlackWebhook, message: Message) -> Receipt:
    """Send a message."""
    return asyncio.run(notifier.send(message, timeout=5))


def refused(notifier: SlackBot | SlackWebhook, message: Message) -> DeliveryError:
    """Send a message that is not taken."""
    with pytest.raises(DeliveryError) as caught:
        send(notifier, message)
    return caught.value


def test_the_message_about_a_failed_run(workspace: Slack) -> None:
    """Header, error in a block of code, facts, one button for the one place to look at, and where it comes from."""
    send(bot(workspace), sample())
    (message,) = workspace.messages.values()
    assert message["text"] == (
        "Failed: daily-etl / wise-otter: ValueError: 5 rows violate not_null(customer_id) "
        "(validate, attempt 3 of 3, flows/etl.py:41)"
    )
    (header,) = message["blocks"]
    assert header["text"] == {"type": "plain_text", "text": "✕ Failed: daily-etl / wise-otter", "emoji": False}
    (bar,) = message["attachments"]
    assert bar["color"] == "#cf222e"
    assert bar["fallback"] == message["text"]
    text, facts, actions, context = bar["blocks"]
    assert text["text"]["text"] == (
        "*validate* · attempt 3 of 3 · `flows/etl.py:41`\n```ValueError: 5 rows violate not_null(customer_id)```"
    )
    assert [field["text"] for field in facts["fields"]] == [
        "*Ran*\n4m 12s (usually 3m 50s)", "*Tasks*\n✓ 13  ✕ 1  ↻ 2  ⊘ 2", "*Last 7*\n✓✓✓✓✓✓✕", "*Tags*\nprod",
        "*Trigger*\nschedule nightly",
    ]  # fmt: skip
    (button,) = actions["elements"]
    assert (button["text"]["text"], button["url"]) == ("Open run", "https://flightlog.example/runs/0197f3a0")
    assert context["elements"][0]["text"].startswith("rule *prod failures* · event #48213 · incident 0197f3a0")
    assert message["unfurl_links"] is False


def test_without_a_place_to_look_at_there_are_commands(workspace: Slack) -> None:
    """No URL, no buttons: what helps then is what one can type."""
    run = sample().run
    assert run is not None
    send(bot(workspace), sample(run=dataclasses.replace(run, url=None)))
    (message,) = workspace.messages.values()
    kinds = [block["type"] for block in message["attachments"][0]["blocks"]]
    assert kinds == ["section", "section", "section", "context"]
    assert "flightlog runs resume wise-otter" in message["attachments"][0]["blocks"][2]["text"]["text"]


def test_an_incident_is_one_message(workspace: Slack) -> None:
    """Later messages bring the first one up to date, and say in its thread what is new."""
    notifier = bot(workspace)
    first = send(notifier, sample())
    assert first["channel"] == "C1"
    again = sample(key="k2", kind="updated", count=2, first=first)
    second = send(notifier, again)
    third = send(notifier, sample(key="k3", kind="resolved", count=2, first=first, at=sample().at + 7_500_000_000))
    assert [message.get("thread_ts") for message in workspace.messages.values()] == [None, first["ts"], first["ts"]]
    top, update, end = workspace.messages.values()
    assert top["blocks"][0]["text"]["text"] == "✓ Recovered: daily-etl after 2h 05m"
    assert top["attachments"][0]["color"] == "#1a7f37"
    assert "Failed again: daily-etl (validate: ValueError), 2 events" in update["blocks"][0]["text"]["text"]
    assert "Recovered: daily-etl after 2h 05m" in end["blocks"][0]["text"]["text"]
    assert second["ts"] == third["ts"] == first["ts"]
    assert second["reply"] != third["reply"]
    assert not update["reply_broadcast"]


def test_an_escalation_is_seen_in_the_channel(workspace: Slack) -> None:
    """An update in place tells nobody, and a thread only those in it: an escalation is shown to all."""
    notifier = bot(workspace)
    first = send(notifier, sample())
    send(notifier, sample(key="k2", kind="escalated", first=first))
    assert list(workspace.messages.values())[-1]["reply_broadcast"] is True


def test_a_first_message_that_is_gone_is_made_anew(workspace: Slack) -> None:
    """Somebody deleted it: the next message is a new first one."""
    notifier = bot(workspace)
    first = send(notifier, sample())
    del workspace.messages[first["ts"]]
    receipt = send(notifier, sample(key="k2", kind="updated", count=2, first=first))
    assert receipt["ts"] in workspace.messages
    assert "thread_ts" not in workspace.messages[receipt["ts"]]


@pytest.mark.parametrize("word", ["cant_update_message", "edit_window_closed"])
def test_a_first_message_that_cannot_be_changed_is_answered_loudly(workspace: Slack, word: str) -> None:
    """The workspace does not let messages be edited: the thread's answer is shown in the channel too."""
    notifier = bot(workspace)
    first = send(notifier, sample())
    workspace.fail_next("chat.update", word)
    send(notifier, sample(key="k2", kind="resolved", count=2, first=first))
    assert list(workspace.messages.values())[-1]["reply_broadcast"] is True


def test_an_update_that_fails_says_nothing_in_the_thread(workspace: Slack) -> None:
    """The update goes first, since it can be repeated: then a later attempt does not answer twice."""
    notifier = bot(workspace)
    first = send(notifier, sample())
    workspace.fail_next("chat.update", "ratelimited")
    assert not refused(notifier, sample(key="k2", kind="updated", count=2, first=first)).is_final
    assert len(workspace.messages) == 1


FINAL = ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "channel_not_found",
         "not_in_channel", "is_archived", "missing_scope", "no_text", "msg_too_long", "invalid_blocks",
         "restricted_action", "never_heard_of")  # fmt: skip


@pytest.mark.parametrize("word", FINAL)
def test_final_errors_come_with_status_200(workspace: Slack, word: str) -> None:
    """Slack says no in the answer's text: trying again is of no use."""
    workspace.fail_next("chat.postMessage", word)
    error = refused(bot(workspace), sample())
    assert (error.is_final, error.is_unknown, error.code) == (True, False, word)
    assert word in str(error)


@pytest.mark.parametrize(
    ("word", "is_unknown"),
    [("ratelimited", False), ("rate_limited", False), ("service_unavailable", False), ("request_timeout", False),
     ("fatal_error", True), ("internal_error", True)],
)  # fmt: skip
def test_errors_that_pass(workspace: Slack, word: str, is_unknown: bool) -> None:
    """Slack has trouble; with some of it the message may have been posted all the same."""
    workspace.fail_next("chat.postMessage", word)
    error = refused(bot(workspace), sample())
    assert (error.is_final, error.is_unknown) == (False, is_unknown)


def test_channels_that_do_not_take_it(workspace: Slack) -> None:
    """Each says what to do about it."""
    texts = {
        channel: str(refused(bot(workspace, channel), sample())).removeprefix("Slack refused the message ")
        for channel in ("#nowhere", "C2", "C3")
    }
    assert texts == {
        "#nowhere": "(channel_not_found): there is no such channel, or the bot may not see it.",
        "C2": "(is_archived): the channel is archived.",
        "C3": "(not_in_channel): invite the bot to the channel.",
    }
    assert refused(bot(workspace, token="xoxb-other"), sample()).code == "invalid_auth"


@pytest.mark.parametrize(
    ("status", "body", "is_final", "code"),
    [
        (400, "invalid_payload", True, "invalid_payload"),
        (403, "action_prohibited", True, "action_prohibited"),
        (404, "no_service", True, "no_service"),
        (410, "channel_is_archived", True, "channel_is_archived"),
        (404, "<html>not here</html>", True, "404"),
        (429, "rate_limited", False, "rate_limited"),
        (500, "rollup_error", False, "rollup_error"),
        (502, "<html>Bad Gateway</html>", False, "502"),
    ],
)
def test_a_webhook_says_no_by_status(workspace: Slack, status: int, body: str, is_final: bool, code: str) -> None:
    """With a word of Slack's, or a page of something in between."""
    workspace.answer_next(Answer(status, body, "text/html", {"Retry-After": "3"}))
    error = refused(hook(workspace), sample())
    assert (error.is_final, error.code) == (is_final, code)
    assert error.retry_after == (None if is_final else 3.0)


@pytest.mark.parametrize(
    "body", ["<!DOCTYPE html><p>Log in to the hotel", "[]", "7", "null", '{"ok": "?"', "", "\ufeff{}"]
)
def test_an_answer_that_is_none_of_slacks_leaves_it_unknown(workspace: Slack, body: str) -> None:
    """Status 200 from something in between: perhaps it was passed on, perhaps not."""
    workspace.answer_next(Answer(200, body, "application/json"))
    error = refused(bot(workspace), sample())
    assert (error.is_final, error.is_unknown) == (False, True)


def test_an_answer_in_an_encoding_that_nobody_knows(workspace: Slack) -> None:
    """What the library makes of it is told as one sentence."""
    workspace.answer_next(Answer(200, "{}", "application/json; charset=klingon"))
    assert refused(bot(workspace), sample()).is_unknown


def test_a_date_says_when_to_come_back(workspace: Slack) -> None:
    """It counts from the answer's own date, whatever the clock here says."""
    when = {"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    workspace.answer_next(Answer(429, "rate_limited", headers=when))
    assert refused(hook(workspace), sample()).retry_after == 30.0


def test_nobody_is_called_by_the_text_of_an_error(workspace: Slack) -> None:
    """Mentions and links in what users' code says are text; the backquotes of code cannot be left."""
    run = sample().run
    assert run is not None
    error = "KeyError: <!channel> <@U123> <https://evil.example|here> ```*bold*``` & @here"
    send(bot(workspace), sample(run=dataclasses.replace(run, error=error)))
    (message,) = workspace.messages.values()
    raw = json.dumps(message)
    for bad in ("<!channel", "<@U", "<https://evil", "<!here"):
        assert bad not in raw
    text = message["attachments"][0]["blocks"][0]["text"]["text"]
    assert text.count("```") == 2
    assert "&lt;!channel&gt;" in text
    assert "&amp; @here" in text


def test_links_in_a_body_of_ones_own_are_links(workspace: Slack) -> None:
    """Only web addresses, which stand there for all to see."""
    send(hook(workspace), sample(body="See https://wiki.example/x?a=1&b=2 <https://evil.example|this>"))
    (message,) = workspace.messages.values()
    text = message["attachments"][0]["blocks"][0]["text"]["text"]
    assert "<https://wiki.example/x?a=1&amp;b=2>" in text
    assert "&lt;<https://evil.example>|this&gt;" in text


def test_a_group_of_failures_lists_the_latest(workspace: Slack) -> None:
    """A message about many events says how many, since when, and which were the last."""
    entries = tuple(
        Entry(at=1_764_050_520_000_000 + n * 60_000_000, text="ReadTimeout", run=f"ping-{n}") for n in range(12)
    )
    send(bot(workspace), sample(count=12, entries=entries))
    (message,) = workspace.messages.values()
    assert message["blocks"][0]["text"]["text"] == "✕ Failed 12 times: daily-etl / wise-otter"
    text = message["attachments"][0]["blocks"][0]["text"]["text"]
    assert "12 events since 2025-11-25 06:02 UTC." in text
    assert "ping-11: ReadTimeout" in text


texts = st.text(max_size=6_000) | st.sampled_from(["&" * 5_000, "`" * 5_000, "https://a " * 600, "<" * 4_000])


@settings(max_examples=60, deadline=None)
@given(
    texts, texts, texts, st.sampled_from(["opened", "updated", "escalated", "resolved", "digest", "drill"]),
    st.integers(0, 40), st.booleans(),
)  # fmt: skip
def test_every_message_keeps_to_slacks_limits(a: str, b: str, c: str, kind: Any, many: int, own: bool) -> None:
    """Whatever the texts, Slack would take the message, and its answer in the thread."""
    run = sample().run
    assert run is not None
    run = dataclasses.replace(run, error=a, where=b, task=c, name=a, flow=b, message=c, tags=(a, b))
    entries = tuple(Entry(at=n, text=b, run=c) for n in range(many))
    links = (("x" * 100, "https://flightlog.example/" + "y" * 700),) * 5
    message = sample(kind=kind, run=run, entries=entries, count=many or 1, facts=((b, c),) * many, commands=(a,) * 9,
                     subject=a if own else "", body=b if own else "", rule=c, incident=a, links=links)  # fmt: skip
    assert problem(slack_blocks.payload(message)) == ""
    assert problem(slack_blocks.reply(message)) == ""


def test_the_worst_message_keeps_to_slacks_limits() -> None:
    """Ten thousand bad characters in every field."""
    assert problem(slack_blocks.payload(hostile())) == ""


def test_the_library_logs_no_secret(workspace: Slack, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at the lowest level: it would log the webhook's URL."""
    with caplog.at_level(logging.DEBUG):
        send(hook(workspace), sample())
        workspace.leave()
        refused(hook(workspace), sample())
        refused(bot(workspace), sample())
    assert "StandInSecret" not in caplog.text
    assert slack.TOKEN not in caplog.text


def test_libraries_are_loaded_at_first_use() -> None:
    """Whoever only looks at configurations does not wait for them."""
    code = (
        "import sys; from flightlog.notifications.plugin import register_notifiers; register_notifiers(); "
        "found = [m for m in ('slack_sdk', 'aiosmtplib', 'jinja2') if m in sys.modules]; assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "url", ["", "hooks.slack.com/services/SeCrEt", "ftp://hooks.slack.com/SeCrEt", "https:///SeCrEt",
            "https://h/SeCrEt x", "https://h:99999/SeCrEt", "https://h/SeCrEt\n"],
)  # fmt: skip
def test_a_webhook_that_cannot_be_one_is_refused_at_once(url: str) -> None:
    """With a sentence that does not quote the secret."""
    with pytest.raises(ValidationError) as caught:
        SlackWebhook.model_validate({"url": url})
    assert "has to begin with https://" in str(caught.value)
    assert "SeCrEt" not in str(caught.value)


def test_a_bot_that_cannot_be_one_is_refused_at_once() -> None:
    """A token with a line break, a channel that is a mention, an API that is no URL."""
    for wrong in ({"token": "xoxb-1\n"}, {"token": ""}, {"channel": "<!here>"}, {"channel": ""}, {"api_url": "slack"}):
        with pytest.raises(ValidationError):
            SlackBot.model_validate({"token": "xoxb-1", "channel": "#a", **wrong})
