"""Draws the pictures of messages that the documentation shows; needs Chromium.

Run it with ``python docs/pictures.py``, after a change of how messages look, and look at the pictures. They show what
our own code makes of a sample; Slack's blocks are drawn by the few lines of HTML here, much as Slack draws them.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from flightlog.notifications.email_page import page
from flightlog.notifications.notifier import Entry, Message
from flightlog.notifications.slack_blocks import payload, reply
from flightlog.testing.notifier_contract import sample

IMAGES = Path(__file__).parent / "images"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
          "--no-first-run", "--disable-background-networking", "--disable-component-update",
          "--disable-sync")  # fmt: skip
_AT = 1_764_050_525_000_000
_FONTS = "'Liberation Sans', 'DejaVu Sans', sans-serif"

_SLACK = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><style>
body { margin: 0; padding: 14px 18px; background: #fff; color: #1d1c1d; font: 15px/1.46 FONTS; }
.message { display: flex; gap: 9px; margin-bottom: 14px; max-width: 660px; }
.thread { margin-left: 46px; }
.avatar { flex: none; width: 36px; height: 36px; border-radius: 6px; background: #0969da; color: #fff;
  text-align: center; font: 700 17px/36px FONTS; }
.name { font-weight: 700; } .app { background: #e8e8e8; border-radius: 2px; color: #454447; font-size: 10px;
  font-weight: 700; padding: 1px 3px; vertical-align: 2px; } .quiet { color: #616061; font-size: 12px; }
h3 { font-size: 18px; line-height: 1.3; margin: 4px 0 8px; }
.bar { border-left: 4px solid; border-radius: 3px; padding: 2px 0 2px 12px; }
.fields { display: grid; grid-template-columns: 1fr 1fr; gap: 6px 12px; margin: 8px 0; white-space: pre-wrap; }
.section { white-space: pre-wrap; margin: 4px 0; overflow-wrap: anywhere; }
pre { background: #f8f8f8; border: 1px solid #ddd; border-radius: 4px; font: 12px/1.5 'Liberation Mono', monospace;
  margin: 4px 0; padding: 8px; white-space: pre-wrap; }
code { background: #f8f8f8; border: 1px solid #ddd; border-radius: 3px; color: #c01343;
  font: 12px 'Liberation Mono', monospace; padding: 1px 3px; }
.button { border: 1px solid #bbb; border-radius: 4px; display: inline-block; font: 700 13px/26px FONTS;
  margin: 4px 8px 4px 0; padding: 0 11px; } .primary { background: #007a5a; border-color: #007a5a; color: #fff; }
@media (prefers-color-scheme: dark) {
  body { background: #1a1d21; color: #d1d2d3; } pre, code { background: #222529; border-color: #35373b; }
  code { color: #e8912d; } .quiet { color: #ababad; } .app { background: #35373b; color: #d1d2d3; }
  .button { border-color: #7d7e81; } .primary { border-color: #007a5a; }
}
</style></head><body>""".replace("FONTS", _FONTS)


def mrkdwn(text: str) -> str:
    """Return Slack's markup as HTML."""
    text = re.sub(r"<!date\^\d+\^[^|>]*\|([^>]*)>", r"\1", text)  # the rest of it is escaped, as HTML is
    text = re.sub(r"```(.*?)```\n?", r"<pre>\1</pre>", text, flags=re.S)
    text = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*([^*\n]+)\*", r"<b>\1</b>", text).replace("\n<pre>", "<pre>")


def blocks(shown: list[dict[str, Any]]) -> Iterator[str]:
    """Yield Slack's blocks as HTML."""
    for block in shown:
        if block["type"] == "header":
            yield f"<h3>{escape(block['text']['text'])}</h3>"
        elif "fields" in block:
            fields = "".join(f"<div>{mrkdwn(one['text'])}</div>" for one in block["fields"])
            yield f"<div class=fields>{fields}</div>"
        elif block["type"] == "section":
            yield f"<div class=section>{mrkdwn(block['text']['text'])}</div>"
        elif block["type"] == "actions":
            yield "".join(map(button, block["elements"]))
        else:
            yield f"<div class=quiet>{mrkdwn(block['elements'][0]['text'])}</div>"


def button(element: dict[str, Any]) -> str:
    """Return a button of Slack's as HTML."""
    return f"<span class='button {element.get('style', '')}'>{escape(element['text']['text'])}</span>"


def slack_message(body: dict[str, Any], *, time: str, is_reply: bool = False) -> str:
    """Return a message of Slack's as HTML."""
    inside = "".join(blocks(body["blocks"]))
    for part in body.get("attachments", []):
        inside += f"<div class=bar style='border-color:{part['color']}'>{''.join(blocks(part['blocks']))}</div>"
    return (
        f"<div class='message{' thread' if is_reply else ''}'><div class=avatar>F</div><div>"
        f"<span class=name>Flightlog</span> <span class=app>APP</span> <span class=quiet>{time}</span>"
        f"{inside}</div></div>"
    )


def messages() -> dict[str, Message]:
    """Return what is shown."""
    happened = (
        ("ReadTimeout: no answer within 10 s", "FAILED"),
        ("ReadTimeout: no answer within 10 s", "FAILED"),
        ("ConnectionError: name not known", "FAILED"),
        ("the worker process died", "CRASHED"),
        ("ReadTimeout: no answer within 10 s", "FAILED"),
    )
    entries = tuple(
        Entry(_AT - (4 - n) * 24_000_000, text, f"ping-{n + 8}", state) for n, (text, state) in enumerate(happened)
    )
    failed = sample(links=(("Logs", "https://flightlog.example/runs/0197f3a0/logs"),))
    run = failed.run
    assert run is not None
    ping = replace(run, flow="ping", name="ping-12", task=None, attempts=0, where="flows/ping.py:17", took=10_040_000,
                   error=happened[-1][0], usual=310_000, tasks={},
                   earlier=("COMPLETED", "COMPLETED", *["FAILED"] * 5))  # fmt: skip
    well = replace(run, name="calm-heron", state_type="COMPLETED", state_name="Completed", error=None, took=228_000_000,
                   tasks={"COMPLETED": 18}, earlier=("COMPLETED",) * 4 + ("FAILED", "FAILED", "COMPLETED"))  # fmt: skip
    was = Entry(_AT, "ValueError: 5 rows violate not_null(customer_id)", run.name)
    later = replace(was, at=_AT + 3_600_000_000, run="brave-lynx")
    return {
        "failed": failed,
        "group": replace(failed, run=ping, count=12, entries=entries, left_out=7, opened_at=_AT - 290_000_000),
        "recovered": replace(failed, kind="resolved", run=well, count=2, at=_AT + 7_500_000_000, entries=(was, later),
                             commands=()),
    }  # fmt: skip


def pages() -> dict[str, str]:
    """Return the pages to draw, by the picture's name."""
    shown = messages()
    first = slack_message(payload(shown["failed"]), time="6:02 AM")
    after = slack_message(payload(shown["recovered"]), time="6:02 AM (edited)")
    answer = slack_message(reply(shown["recovered"]), time="8:07 AM", is_reply=True)
    return {
        "slack-failed": f"{_SLACK}{first}</body></html>",
        "slack-recovered": f"{_SLACK}{after}{answer}</body></html>",
        "email-failed": page(shown["failed"]),
        "email-group": page(shown["group"]),
    }


def draw(browser: str, html: str, picture: Path) -> None:
    """Draw a page, as high as it is."""
    with tempfile.TemporaryDirectory(prefix="flightlog-pictures-") as folder:
        path = Path(folder, "page.html")
        measure = "<script>document.title = document.body.scrollHeight</script>"
        path.write_text(html.replace("</body>", f"{measure}</body>"))
        # A folder of its own: nothing of the user's browser is touched.
        command = [browser, *_FLAGS, f"--user-data-dir={folder}/profile", "--window-size=700,200"]
        found = re.search(r"<title>(\d+)</title>", _run([*command, "--dump-dom", path.as_uri()]))
        assert found is not None, "the page has no height"
        path.write_text(html)
        command[-1] = f"--window-size=700,{found[1]}"
        _run([*command, f"--screenshot={picture}", path.as_uri()])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - our own pages
    return done.stdout


def main() -> None:
    """Draw all pictures, in light and dark."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        sys.exit(f"No browser: install one of {', '.join(_BROWSERS)}.")
    IMAGES.mkdir(exist_ok=True)
    for name, html in pages().items():
        draw(browser, html, IMAGES / f"{name}.png")
        draw(browser, html.replace("(prefers-color-scheme: dark)", "all"), IMAGES / f"{name}-dark.png")


if __name__ == "__main__":
    main()
