"""Every notifier passes the same contract."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.notifications import certificates, slack, smtp
from tests.notifications.receivers import Receiver
from tests.notifications.slack import Slack
from tests.notifications.smtp import MailServer

from flightlog.notifications.email import Email
from flightlog.notifications.notifier import Notifier
from flightlog.notifications.slack import SlackBot, SlackWebhook
from flightlog.notifications.webhook import Webhook
from flightlog.testing import NotifierContract

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class TestSlackBot(NotifierContract):
    """As a bot."""

    secrets = (slack.TOKEN,)

    @pytest.fixture
    def stand_in(self) -> Iterator[Slack]:
        """A Slack of our own."""
        with Slack() as server:
            yield server

    @pytest.fixture
    def notifier(self, stand_in: Slack) -> Notifier:
        """A bot in it."""
        return SlackBot.model_validate({"token": slack.TOKEN, "channel": "#alerts", "api_url": stand_in.api_url})


class TestSlackWebhook(NotifierContract):
    """By webhook."""

    secrets = (slack.HOOK, "StandInSecretOfTheHook")

    @pytest.fixture
    def stand_in(self) -> Iterator[Slack]:
        """A Slack of our own."""
        with Slack() as server:
            yield server

    @pytest.fixture
    def notifier(self, stand_in: Slack) -> Notifier:
        """A webhook of it."""
        return SlackWebhook.model_validate({"url": stand_in.hook_url})


class TestEmail(NotifierContract):
    """By SMTP, encrypted and logged in."""

    secrets = (smtp.PASSWORD,)
    says_when = False

    @pytest.fixture
    def files(self, tmp_path: Path) -> certificates.Certificates:
        """Certificates of our own."""
        return certificates.make(tmp_path)

    @pytest.fixture
    def stand_in(self, files: certificates.Certificates) -> Iterator[MailServer]:
        """A mail server of our own."""
        with MailServer("starttls", files.server, needs_login=True) as server:
            yield server

    @pytest.fixture
    def notifier(self, stand_in: MailServer, files: certificates.Certificates) -> Notifier:
        """Mails to it."""
        return Email(
            host="localhost",
            port=stand_in.port,
            ca_file=files.ca,
            username=smtp.USER,
            password=SecretStr(smtp.PASSWORD),
            sender="Flightlog <alerts@example.com>",
            to=["data@example.com"],
            subject_prefix="[prod]",
        )


class _Hooked(Receiver):
    def received(self) -> list[str]:
        """Return the text in each event."""
        return [json.loads(posted.body)["data"]["text"] for posted in self.kept]


class TestWebhook(NotifierContract):
    """To a URL, signed."""

    secrets = (KEY, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "hook-path-secret", "Bearer stand-in")

    @pytest.fixture
    def stand_in(self) -> Iterator[_Hooked]:
        """A program that is posted to."""
        with _Hooked() as server:
            yield server

    @pytest.fixture
    def notifier(self, stand_in: _Hooked) -> Notifier:
        """Posts to it."""
        url = f"http://127.0.0.1:{stand_in.port}/hook-path-secret"
        headers = {"Authorization": "Bearer stand-in"}
        return Webhook.model_validate({"url": url, "secret": KEY, "headers": headers, "allow_private": True})
