"""What a message looks like in Slack: Block Kit, within Slack's limits.

The header stands in the message's own blocks, all else in one attachment, which gives the coloured bar. With blocks
beside it, ``text`` is what it should be: read by screen readers and shown on telephones, and not shown twice.

Slack's limits: 50 blocks, a header of 150 characters, a section of 3,000, 10 fields, 75 on a button, and about 13,000
in all, which the limits here keep even with every part at its longest.
"""

import re
from collections.abc import Iterator
from typing import Any

from flightlog.notifications import wording
from flightlog.notifications.notifier import Message

Block = dict[str, Any]
_HEADER, _TEXT, _FIELD, _FIELDS, _BUTTON, _FALLBACK = 150, 2_300, 400, 10, 75, 500


def escape(text: str, most: int) -> str:
    """Return text as Slack's markup, so that nothing in it is a link or a mention; cut to a length.

    Slack asks for these three (https://docs.slack.dev/messaging/formatting-message-text); with ``<`` escaped,
    ``<!channel>`` is just a text.
    """
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= most:
        return escaped
    return re.sub(r"&[a-z]{0,3}$", "", escaped[: most - 1]).rstrip() + "…"


def code(text: str, most: int) -> str:
    """Return text as a block of code; backquotes in it do not end the block."""
    split = text.replace("```", "`\u200b`\u200b`")
    return f"```{escape(split, most - 6)}```"


def payload(message: Message) -> dict[str, Any]:
    """Return a message as Slack takes it, in ``chat.postMessage`` and by webhook alike."""
    text = fallback(message)
    header = {"type": "plain_text", "text": wording.cut(wording.headline(message), _HEADER), "emoji": False}
    return {
        "text": text,
        "blocks": [{"type": "header", "text": header}],
        "attachments": [{"color": wording.look(message).color, "fallback": text, "blocks": list(_blocks(message))}],
    }


def reply(message: Message) -> dict[str, Any]:
    """Return what a message adds to its incident, for the thread of the first message."""
    parts = [f"*{escape(wording.subject(message), 120)}*", _text(message), escape(wording.doubt(message), 100)]
    return {"text": fallback(message), "blocks": [_section("\n".join(part for part in parts if part))]}


def fallback(message: Message) -> str:
    """Return a message on one line of text, for where its blocks are not shown."""
    parts = [wording.headline(message).partition(" ")[2], wording.one_line(wording.error(message))]
    where = wording.lead(message.run) if parts[1] else ""
    text = ": ".join(part for part in parts if part) + (f" ({where})" if where else "")
    return escape(text, _FALLBACK)


def _blocks(message: Message) -> Iterator[Block]:
    if text := _text(message):
        yield _section(text)
    facts = wording.facts(message)[:_FIELDS]
    if facts:
        yield {"type": "section", "fields": [_mrkdwn(f"*{escape(label, 60)}*\n{escape(value, _FIELD)}")
                                             for label, value in facts]}  # fmt: skip
    if links := wording.links(message):
        buttons = [_button(label, url, is_first=number == 0) for number, (label, url) in enumerate(links)]
        yield {"type": "actions", "elements": buttons}
    elif message.commands:
        yield _section(code("\n".join(wording.one_line(command, 300) for command in message.commands), 1_500))
    yield _context(message)


def _text(message: Message) -> str:
    """Return the text of a message: that of its rule, or else who failed, where, and with what."""
    own = wording.own_body(message)
    if own is not None:
        return re.sub(r"https?://[^\s<>|]+", r"<\g<0>>", escape(own, _TEXT))
    parts = [escape(wording.situation(message), 200), _lead(message)]
    if error := wording.error(message):
        parts.append(code(error, 1_200))
    lines = list(wording.entry_lines(message))
    if lines and (message.count > 1 or message.kind in ("digest", "resolved")):
        parts.append(_last_lines(lines, 900))
    return "\n".join(part for part in parts if part)


def _last_lines(lines: list[str], most: int) -> str:
    """Return as many of the latest lines as fit, and how many are left out."""
    kept: list[str] = []
    for line in reversed(lines):
        escaped = escape(line, 250)
        if sum(map(len, kept)) + len(kept) + len(escaped) > most:
            break
        kept.insert(0, escaped)
    left_out = len(lines) - len(kept)
    return "\n".join([f"({left_out} more lines)", *kept] if left_out else kept)


def _lead(message: Message) -> str:
    run = message.run
    if run is None or message.kind in ("resolved", "digest"):
        return ""
    task = f"*{escape(wording.one_line(run.task or ''), 100)}*" if run.task else ""
    where = wording.one_line(run.where or "").replace("`", "")
    place = f"`{escape(where, 250)}`" if where else ""
    return " · ".join(part for part in (task, wording.attempt(run), place) if part)


def _context(message: Message) -> Block:
    rule, *rest = wording.origin(message)
    parts = [f"rule *{escape(rule.removeprefix('rule '), 100)}*", *(escape(part, 80) for part in rest)]
    if message.opened_at:
        parts.append(f"since {_date(message.opened_at)}")
    if message.first is not None or message.kind == "resolved":
        parts.append(f"as of {_date(message.at)}")
    if doubt := wording.doubt(message):
        parts.append(escape(doubt, 100))
    return {"type": "context", "elements": [_mrkdwn(" · ".join(parts))]}


def _date(microseconds: int) -> str:
    """Return a time that Slack shows in the reader's own time zone."""
    return f"<!date^{microseconds // 1_000_000}^{{date_short_pretty}} {{time}}|{wording.moment(microseconds)}>"


def _section(text: str) -> Block:
    return {"type": "section", "text": _mrkdwn(text)}


def _mrkdwn(text: str) -> Block:
    # Verbatim: names of channels and people in an error are no links, and call nobody.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _button(label: str, url: str, *, is_first: bool) -> Block:
    text = {"type": "plain_text", "text": wording.cut(label, _BUTTON), "emoji": False}
    button: Block = {"type": "button", "text": text, "url": url}
    return {**button, "style": "primary"} if is_first else button
