"""A message as HTML for mail programs: one column of 600 pixels, tables, styles where they apply, no images.

Mail programs know little of CSS: what matters stands in ``style`` attributes. The style sheet only adds dark colours
for those that know of them. Nothing is loaded from anywhere, and no link does anything by being opened.
"""

from collections.abc import Iterator
from html import escape

from flightlog.notifications import wording
from flightlog.notifications.notifier import Entry, Message

_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
_TABLE = 'role="presentation" cellpadding="0" cellspacing="0" border="0"'
_QUIET = "#59636e"
_DARK = """
:root { color-scheme: light dark; supported-color-schemes: light dark; }
@media (prefers-color-scheme: dark) {
  .page { background: #0d1117 !important; }
  .card { background: #161b22 !important; border-color: #30363d !important; }
  .text, .text td, .text a { color: #e6edf3 !important; }
  .text .quiet { color: #9198a1 !important; }
  .code { background: #0d1117 !important; color: #e6edf3 !important; }
  .line { border-color: #30363d !important; }
}
"""


def page(message: Message) -> str:
    """Return a message as a whole page of HTML."""
    look = wording.look(message)
    title = escape(wording.subject(message))
    body = "".join(_rows(message))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>{title}</title>
<style>{_DARK}</style>
</head>
<body class="page" style="margin:0;padding:0;background:#f6f8fa">
<div style="display:none;max-height:0;overflow:hidden">{escape(_preview(message))}</div>
<table {_TABLE} width="100%" class="page" style="background:#f6f8fa"><tr><td align="center" style="padding:24px 12px">
<table {_TABLE} width="600" class="card text" style="width:100%;max-width:600px;background:#ffffff;\
border:1px solid #d1d9e0;border-radius:6px;border-collapse:separate;color:#1f2328;\
{_FONT};font-size:14px;line-height:21px">
<tr><td style="background:{look.color};border-radius:5px 5px 0 0;padding:9px 24px">\
<table {_TABLE} width="100%"><tr>\
<td style="color:#ffffff;font-weight:600">{look.icon} {escape(look.word)}</td>\
<td align="right" style="color:#ffffff;font-size:12px">{escape(_corner(message))}</td></tr></table></td></tr>
{body}</table>
</td></tr></table>
</body>
</html>
"""


def _rows(message: Message) -> Iterator[str]:
    yield _row(
        f'<h1 style="margin:0;font-size:20px;line-height:26px;font-weight:600">{escape(_title(message))}</h1>', 18
    )
    own = wording.own_body(message)
    if own is not None:
        yield _row(f'<div style="white-space:pre-wrap;word-break:break-word">{escape(own)}</div>')
    else:
        yield from _told(message)
    if facts := wording.facts(message):
        yield _row(
            f'<table {_TABLE} width="100%">{"".join(_fact(message, label, value) for label, value in facts)}</table>'
        )
    if entries := message.entries[-20:] if own is None and (len(message.entries) > 1 or not message.run) else ():
        yield _row(_entries(message, entries))
    if links := wording.links(message):
        yield _row(_buttons(links), 18)
    if message.commands:
        commands = "\n".join(wording.one_line(command, 500) for command in message.commands)
        yield _row(_code(commands, ""), 14)
    yield _footer(message)


def _row(content: str, top: int = 10) -> str:
    return f'<tr><td style="padding:{top}px 24px 0">{content}</td></tr>\n'


def _title(message: Message) -> str:
    """Return what it is about: the status bar above says what happened."""
    own = wording.own_subject(message)
    if own is not None:
        return own
    if message.run is None or message.kind == "digest":
        return wording.default_subject(message)
    run = wording.one_line(message.run.name, 80)
    return f"{wording.topic(message)} / {run}" if message.count == 1 else wording.default_subject(message)


def _told(message: Message) -> Iterator[str]:
    """Yield how it stands, who failed and where, and the error in a box."""
    if situation := wording.situation(message):
        yield _row(escape(situation))
    if message.kind not in ("resolved", "digest") and (lead := wording.lead(message.run)):
        yield _row(f'<span class="quiet" style="color:{_QUIET}">{escape(lead)}</span>', 6)
    if error := wording.error(message):
        yield _row(_code(error, f"border-left:4px solid {wording.look(message).color};"), 12)


def _code(text: str, extra: str) -> str:
    return (
        f'<div class="code" style="{extra}background:#f6f8fa;border-radius:4px;padding:10px 14px;{_MONO};'
        f'font-size:13px;line-height:19px;white-space:pre-wrap;word-break:break-word">{escape(text)}</div>'
    )


def _fact(message: Message, label: str, value: str) -> str:
    shown = escape(value)
    if message.run is not None and label.startswith("Last ") and value == _strip_text(message):
        shown = _strip(message.run.earlier)
    return (
        f'<tr><td class="quiet" valign="top" width="110" style="color:{_QUIET};padding:3px 12px 3px 0;width:110px">'
        f'{escape(label)}</td><td style="padding:3px 0;white-space:pre-wrap;word-break:break-word">{shown}</td></tr>'
    )


def _strip_text(message: Message) -> str:
    return "".join(wording.look_of_state(state).icon for state in message.run.earlier) if message.run else ""


def _strip(states: tuple[str, ...]) -> str:
    """Return how the latest runs ended, as a row of signs in their colours, the latest at the right."""
    cells = [
        f'<td align="center" width="22" height="20" title="{escape(look.word)}" style="background:{look.color};'
        f'color:#ffffff;border-radius:3px;font-size:12px;line-height:20px;width:22px">{look.icon}</td>'
        for look in map(wording.look_of_state, states)
    ]
    return f"<table {_TABLE}><tr>{'<td width=3></td>'.join(cells)}</tr></table>"


def _entries(message: Message, entries: tuple[Entry, ...]) -> str:
    left_out = message.left_out + len(message.entries) - len(entries)
    more = f'<tr><td class="quiet" colspan="2" style="color:{_QUIET};padding:4px 0">and {left_out:,} more</td></tr>'
    rows = "".join(_entry(entry) for entry in reversed(entries))
    return f'<table {_TABLE} width="100%">{rows}{more if left_out else ""}</table>'


def _entry(entry: Entry) -> str:
    look = wording.look_of_state(entry.state_type)
    run = f"<b>{escape(wording.one_line(entry.run, 80))}</b> " if entry.run else ""
    return (
        f'<tr><td class="quiet line" valign="top" width="130" style="border-top:1px solid #d1d9e0;color:{_QUIET};'
        f'padding:6px 12px 6px 0;font-size:12px;width:130px;white-space:nowrap">{wording.moment(entry.at)}</td>'
        f'<td class="line" style="border-top:1px solid #d1d9e0;padding:6px 0;word-break:break-word">'
        f'<span style="background:{look.color};color:#ffffff;display:inline-block;width:20px;'
        f'text-align:center;border-radius:3px;font-size:12px;line-height:18px">'
        f"{look.icon}</span> {run}{escape(wording.one_line(entry.text))}</td></tr>"
    )


def _buttons(links: list[tuple[str, str]]) -> str:
    """Return one button, and the other places as plain links."""
    (label, url), *others = links
    rest = "".join(
        f' &nbsp; <a href="{escape(other)}" style="color:#0969da">{escape(name)}</a>' for name, other in others
    )
    return (
        f'<table {_TABLE}><tr><td style="background:#0969da;border-radius:6px"><a href="{escape(url)}" '
        f'style="display:inline-block;padding:8px 18px;color:#ffffff !important;text-decoration:none;font-weight:600">'
        f"{escape(label)}</a></td><td>{rest}</td></tr></table>"
    )


def _footer(message: Message) -> str:
    lines = [" · ".join(wording.origin(message))]
    if doubt := wording.doubt(message):
        lines.append(doubt)
    text = "<br>".join(map(escape, lines))
    return (
        '<tr><td style="padding:18px 24px 16px"><div class="quiet line" style="border-top:1px solid #d1d9e0;'
        f'padding-top:10px;color:{_QUIET};font-size:12px;line-height:18px">{text}</div></td></tr>\n'
    )


def _corner(message: Message) -> str:
    return wording.moment(message.at) if message.at else wording.one_line(message.rule, 60)


def _preview(message: Message) -> str:
    """Return what mail programs show beside the subject."""
    parts = (wording.own_body(message), wording.error(message), wording.situation(message), wording.lead(message.run))
    return wording.one_line(next((part for part in parts if part), ""), 150)
