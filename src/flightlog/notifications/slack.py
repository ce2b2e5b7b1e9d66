"""Slack: by incoming webhook, which posts into one channel; or as a bot, which keeps an incident in one message."""

import re
from collections.abc import Callable, Mapping
from http.client import HTTPException
from logging import CRITICAL, Logger
from typing import Any, ClassVar, TypeVar
from urllib.error import URLError
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from flightlog.notifications import slack_blocks
from flightlog.notifications.answers import in_thread, refusal
from flightlog.notifications.notifier import DeliveryError, Message, Notifier, Receipt, masked

T = TypeVar("T")
_RATE_LIMITED = frozenset({"ratelimited", "rate_limited"})
# https://docs.slack.dev/reference/methods/chat.postMessage: with these two "it's possible some aspect of the operation
# succeeded before the error was raised".
_UNCLEAR = frozenset({"fatal_error", "internal_error"})
_LATER = frozenset({"service_unavailable", "request_timeout", "team_added_to_org", "accesslimited", "update_failed"})
_GONE = frozenset({"message_not_found", "thread_not_found"})
_UNCHANGEABLE = frozenset({"cant_update_message", "edit_window_closed"})
_HINTS = {
    "account_inactive": "the bot's account was deactivated",
    "channel_not_found": "there is no such channel, or the bot may not see it",
    "invalid_auth": "the token is not valid",
    "is_archived": "the channel is archived",
    "missing_scope": "the bot needs the scope chat:write",
    "not_in_channel": "invite the bot to the channel",
    "token_expired": "the token has expired",
    "token_revoked": "the token was revoked",
    "no_service": "the webhook was deleted or is not valid",
    "channel_is_archived": "the channel is archived",
    "action_prohibited": "the workspace does not allow it",
}
# The library logs requests with URL and body, at a level that is decided elsewhere: a webhook's URL is a secret.
_SILENT = Logger("flightlog.slack", CRITICAL + 1)  # noqa: LOG001 - one that nobody can find and switch on
_QUIET = {"unfurl_links": False, "unfurl_media": False}


class SlackWebhook(Notifier):
    """Posts messages into one Slack channel through an incoming webhook. Each message is one of its own."""

    kind: ClassVar[str] = "slack-webhook"

    url: SecretStr = Field(
        description="The webhook's URL, `https://hooks.slack.com/services/...`. A secret: whoever has it can post."
    )

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: SecretStr) -> SecretStr:
        _checked(value.get_secret_value(), "The webhook's URL")
        return value

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Post a message."""

        def post() -> tuple[int, str, Mapping[str, str]]:
            from slack_sdk import WebhookClient

            client = WebhookClient(self.url.get_secret_value(), retry_handlers=[], logger=_SILENT)
            client.timeout = _within(timeout)  # type: ignore[assignment] # it takes fractions too
            answer = client.send_dict({**slack_blocks.payload(message), **_QUIET})
            return answer.status_code, answer.body, answer.headers

        status, text, headers = await _called(post, timeout, self.url)
        # Slack says "ok", others that take the same messages say other things; none of them says it in HTML.
        if status != 200 or text.lstrip().startswith("<"):
            raise _refused(status, _code(text), headers)
        return {"status": "200"}


class SlackBot(Notifier):
    """Posts messages as a bot. An incident is one message, which is kept up to date and answered in its thread."""

    kind: ClassVar[str] = "slack"
    threads: ClassVar[bool] = True

    token: SecretStr = Field(description="The bot's token, `xoxb-...`, with the scope `chat:write`.")
    channel: str = Field(
        description="The channel's id, such as `C0123456789`, or its name, such as `#alerts`; invite the bot to it.",
        pattern=r"^#?[^\s#@<>]+$",
        max_length=100,
    )
    api_url: str = Field(
        default="https://slack.com/api/", description="Slack's API; `https://slack-gov.com/api/` for GovSlack."
    )

    @field_validator("token")
    @classmethod
    def _is_a_token(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("The bot's token has characters that no token has, or is empty.")
        return value

    @field_validator("api_url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        _checked(value, "The API's URL")
        return value if value.endswith("/") else f"{value}/"

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Post the first message of an incident; for a later one, bring the first up to date and answer it."""
        return await _called(lambda: self._send(message, timeout), timeout, self.token)

    def _send(self, message: Message, timeout: float) -> Receipt:
        first = message.first
        if first is None or not first.get("ts"):
            return self._post(message, timeout)
        # The update comes first: repeated with the rest, it does no harm.
        updated = self._update(message, first, timeout)
        if updated in _GONE:
            return self._post(message, timeout)
        return self._answer(message, first, timeout, is_loud=updated != "" or message.kind == "escalated")

    def _post(self, message: Message, timeout: float) -> Receipt:
        answer = self._call(
            "chat.postMessage", timeout, channel=self.channel, **slack_blocks.payload(message), **_QUIET
        )
        return {"channel": str(answer.get("channel", self.channel)), "ts": str(answer.get("ts", ""))}

    def _update(self, message: Message, first: Receipt, timeout: float) -> str:
        """Bring an incident's first message up to date; return Slack's word for why that cannot be, or nothing."""
        try:
            self._call(
                "chat.update", timeout, channel=first["channel"], ts=first["ts"], **slack_blocks.payload(message)
            )
        except DeliveryError as error:
            if error.code in _GONE | _UNCHANGEABLE:
                return str(error.code)
            raise
        return ""

    def _answer(self, message: Message, first: Receipt, timeout: float, *, is_loud: bool) -> Receipt:
        """Answer in the thread; loudly: the channel sees it too."""
        channel = first.get("channel", self.channel)
        content = {**slack_blocks.reply(message), "thread_ts": first["ts"], "reply_broadcast": is_loud, **_QUIET}
        answer = self._call("chat.postMessage", timeout, channel=channel, **content)
        return {"channel": channel, "ts": first["ts"], "reply": str(answer.get("ts", ""))}

    def _call(self, method: str, timeout: float, **content: Any) -> Mapping[str, Any]:
        from slack_sdk import WebClient
        from slack_sdk.errors import SlackApiError

        client = WebClient(self.token.get_secret_value(), base_url=self.api_url, retry_handlers=[], logger=_SILENT)
        client.timeout = _within(timeout)  # type: ignore[assignment] # it takes fractions too
        try:
            answer = client.api_call(method, json=content)
        except SlackApiError as error:
            response = error.response
            data = response.data if isinstance(response.data, dict) else {}
            raise _refused(response.status_code, _code(str(data.get("error", ""))), response.headers) from None
        return answer.data if isinstance(answer.data, dict) else {}


def _within(timeout: float) -> float:
    """Return how long the socket may wait: a little less, so that it is the one to say what it waited for."""
    return timeout - min(1.0, timeout / 10)


def _checked(url: str, what: str) -> None:
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_fine = False
    if not is_fine or not re.fullmatch(r"[!-~]+", url):
        raise ValueError(f"{what} is not one: it has to begin with https:// and a host, without blanks.")


def _code(text: str) -> str:
    """Return Slack's word for an error; empty if an answer is none of Slack's, such as a proxy's page."""
    return text.strip() if re.fullmatch(r"\s*[a-z][a-z0-9_]{1,60}\s*", text) else ""


def _refused(status: int, code: str, headers: Mapping[str, str]) -> DeliveryError:
    """Return what an answer other than success means."""
    if status != 200 or code in _RATE_LIMITED:
        return refusal("Slack", 429 if code in _RATE_LIMITED else status, headers, code, hint=_HINTS.get(code, ""))
    if not code:
        return DeliveryError("The answer was none of Slack's: is a proxy in between?", is_unknown=True, code="200")
    hint = f": {_HINTS[code]}" if code in _HINTS else ""
    return DeliveryError(
        f"Slack refused the message ({code}){hint}.",
        is_final=code not in _LATER | _UNCLEAR,
        is_unknown=code in _UNCLEAR,
        code=code,
    )


async def _called(call: Callable[[], T], timeout: float, secret: SecretStr) -> T:
    """Call Slack, and tell what went wrong on the way."""
    try:
        return await in_thread(call, timeout=timeout)
    except DeliveryError:
        raise
    except URLError as error:
        # urllib wraps what happens until the request is sent, and nothing after that.
        raise DeliveryError(f"Slack cannot be reached: {masked(str(error.reason), secret)}.") from None
    except TimeoutError:
        raise DeliveryError(f"Slack did not answer within {timeout:g} s.", is_unknown=True) from None
    except (OSError, HTTPException) as error:
        text = masked(str(error) or type(error).__name__, secret)
        raise DeliveryError(f"The connection to Slack was lost: {text}.", is_unknown=True) from None
    except Exception as error:  # noqa: BLE001 - whatever the library makes of an answer that it does not understand
        text = f"{type(error).__name__}: {masked(str(error), secret)}"[:300]
        raise DeliveryError(f"Slack's answer cannot be read: {text}.", is_unknown=True) from None
