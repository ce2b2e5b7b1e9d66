"""A Slack of our own: `chat.postMessage`, `chat.update` and incoming webhooks, with Slack's answers, errors and limits.

The errors of the Web API come with status 200, those of webhooks as plain text with another status. Messages are held
to Slack's limits, and to our own promise that nobody is called by the text of an error.
"""

import itertools
import json
import re
from typing import Any

from tests.notifications.receivers import Answer, Posted, Receiver

from flightlog.testing.notifier_contract import Behaviour

TOKEN = "xoxb-1234567890-stand-in-token"
HOOK = "/services/T00000001/B00000001/StandInSecretOfTheHook"


class Slack(Receiver):
    """A workspace with the channel ``#alerts`` (C1), an archived one (C2), and one without the bot (C3)."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[str, dict[str, Any]] = {}
        self.errors: list[tuple[str, str]] = []
        self._numbers = itertools.count(1)

    @property
    def api_url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}/api/"

    @property
    def hook_url(self) -> str:
        """Where its webhook is."""
        return f"http://127.0.0.1:{self.port}{HOOK}"

    def fail_next(self, method: str, error: str) -> None:
        """Answer the next call of a method with an error."""
        self.errors.append((method, error))

    def received(self) -> list[str]:
        """Return all texts of each message, as somebody reads them."""
        return [as_read(message) for message in self.messages.values()]

    def bad(self, how: Behaviour, retry_after: str | None) -> Answer | None:
        """Say it as Slack does."""
        if how == "busy":
            wait = {"Retry-After": retry_after} if retry_after is not None else {}
            if self.posted[-1].path.startswith("/services/"):
                return Answer(429, "rate_limited", "text/html", wait)
            return _json({"ok": False, "error": "ratelimited"}, 429, wait)
        if how == "refusing":
            if self.posted[-1].path.startswith("/services/"):
                return Answer(404, "no_service", "text/html")
            return _json({"ok": False, "error": "invalid_auth"})
        return super().bad(how, retry_after)

    def answer(self, posted: Posted) -> Answer:
        """Answer as Slack does."""
        try:
            body = json.loads(posted.body)
        except ValueError:
            return Answer(400, "invalid_payload", "text/html")
        if posted.path.startswith("/services/"):
            return self._hook(posted, body)
        if posted.headers.get("authorization") != f"Bearer {TOKEN}":
            return _json({"ok": False, "error": "invalid_auth" if "authorization" in posted.headers else "not_authed"})
        return self._method(posted.path.removeprefix("/api/"), body)

    def _hook(self, posted: Posted, body: dict[str, Any]) -> Answer:
        if posted.path != HOOK:
            return Answer(
                404, "no_service" if posted.path.startswith("/services/T00000001/") else "no_team", "text/html"
            )
        if error := problem(body):
            return Answer(400, error, "text/html")
        self._keep(body)
        return Answer(200, "ok", "text/html")

    def _method(self, method: str, body: dict[str, Any]) -> Answer:
        if self.errors and self.errors[0][0] == method:
            return _json({"ok": False, "error": self.errors.pop(0)[1]})
        channel = {"#alerts": "C1", "alerts": "C1"}.get(body.get("channel", ""), body.get("channel", ""))
        refused = {"C1": "", "C2": "is_archived", "C3": "not_in_channel"}.get(channel, "channel_not_found")
        if error := refused or problem(body):
            return _json({"ok": False, "error": error})
        if method == "chat.postMessage":
            if "thread_ts" in body and body["thread_ts"] not in self.messages:
                return _json({"ok": False, "error": "thread_not_found"})
            ts = self._keep(body)
            return _json({"ok": True, "channel": channel, "ts": ts, "message": {"type": "message", "ts": ts}})
        if method == "chat.update":
            return self._update(channel, body)
        return _json({"ok": False, "error": "unknown_method", "req_method": method})

    def _update(self, channel: str, body: dict[str, Any]) -> Answer:
        if not body["channel"].startswith("C"):  # unlike chat.postMessage, it takes no names
            return _json({"ok": False, "error": "channel_not_found"})
        if body["ts"] not in self.messages:
            return _json({"ok": False, "error": "message_not_found"})
        self.messages[body["ts"]] = body
        return _json({"ok": True, "channel": channel, "ts": body["ts"], "text": body["text"]})

    def _keep(self, body: dict[str, Any]) -> str:
        ts = f"1764050520.{next(self._numbers):06d}"
        self.messages[ts] = body
        return ts


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(content), "application/json; charset=utf-8", headers or {})


def problem(body: dict[str, Any]) -> str:
    """Return Slack's word for what is wrong with a message; empty for nothing."""
    blocks = body.get("blocks", []) + [one for part in body.get("attachments", []) for one in part["blocks"]]
    if not (body.get("text") or blocks):
        return "no_text"
    if len(blocks) > 50 or len(body.get("attachments", [])) > 1 or not all(map(_is_block, blocks)):
        return "invalid_blocks"
    texts = [body.get("text", ""), *_texts(body.get("blocks", [])), *_texts(body.get("attachments", []))]
    return "msg_too_long" if sum(map(len, texts)) > 13_000 or len(json.dumps(body)) > 40_000 else ""


def _is_block(block: dict[str, Any]) -> bool:
    kind = block["type"]
    if kind == "header":
        return block["text"]["type"] == "plain_text" and 0 < len(block["text"]["text"]) <= 150
    if kind == "section":
        fields = block.get("fields", [])
        texts = [block["text"]] if "text" in block else []
        return (
            bool(texts or fields)
            and len(fields) <= 10
            and all(0 < len(text["text"]) <= 3_000 and _is_mrkdwn(text) for text in texts)
            and all(0 < len(text["text"]) <= 2_000 and _is_mrkdwn(text) for text in fields)
        )
    if kind == "actions":
        return 0 < len(block["elements"]) <= 25 and all(map(_is_button, block["elements"]))
    return kind == "context" and 0 < len(block["elements"]) <= 10 and all(map(_is_mrkdwn, block["elements"]))


def _is_button(element: dict[str, Any]) -> bool:
    url = element["url"]
    return len(element["text"]["text"]) <= 75 and len(url) <= 3_000 and url.startswith(("http://", "https://"))


def _is_mrkdwn(text: dict[str, Any]) -> bool:
    """Tell whether a text is one: whatever stands in angle brackets is a date or a link of ours, never a mention."""
    inside = re.findall(r"<(.*?)>", text["text"])
    lone = re.sub(r"<[^<>]*>|&(amp|lt|gt);", "", text["text"])
    return (
        text["type"] == "mrkdwn"
        and text["verbatim"] is True
        and all(re.match(r"!date\^|https?://", one) for one in inside)
        and not re.search(r"[<>&]", lone)
    )


def _texts(part: Any) -> list[str]:
    """Return all strings that are shown, wherever they are."""
    if isinstance(part, list):
        return [text for one in part for text in _texts(one)]
    if isinstance(part, dict):
        shown = [
            value for name, value in part.items() if name in ("text", "fallback", "url") and isinstance(value, str)
        ]
        return shown + [text for value in part.values() if isinstance(value, (dict, list)) for text in _texts(value)]
    return []


def as_read(message: dict[str, Any]) -> str:
    """Return a message's texts as people read them."""
    texts = [message.get("text", ""), *_texts(message.get("blocks", [])), *_texts(message.get("attachments", []))]
    text = re.sub(r"<!date\^\d+\^[^|>]*\|([^>]*)>", r"\1", "\n".join(texts))
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
