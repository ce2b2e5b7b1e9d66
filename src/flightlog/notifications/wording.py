"""How a message is told: the same words, signs and colours in every channel.

A channel shows a message's subject and body. Where these are the default ones it may show the same facts in a form of
its own, such as an error in a box: `own_body` and `own_subject` tell.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from flightlog.clock import duration, to_datetime
from flightlog.events.narration import ICONS, NO_ICON
from flightlog.notifications.notifier import Entry, Message, RunFacts

GREEN, RED, PURPLE, AMBER, BLUE, GREY = "#1a7f37", "#cf222e", "#8250df", "#9a6700", "#0969da", "#59636e"
"""Dark enough to be read on white, and to carry white text."""
_COLORS = {
    "COMPLETED": GREEN,
    "FAILED": RED,
    "CRASHED": PURPLE,
    "CANCELLED": AMBER,
    "CANCELLING": AMBER,
    "RUNNING": BLUE,
    "SCHEDULED": AMBER,
    "PAUSED": AMBER,
}
_SEVERITIES = {"info": ("·", GREY), "warning": ("!", AMBER), "error": ("✕", RED), "critical": ("!", RED)}
# Half a surrogate pair cannot be encoded; the others are invisible and would turn the text around.
_UNSENDABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")
_MOST_ENTRIES = 30


@dataclass(frozen=True, slots=True)
class Look:
    """How a state or a kind of message is shown: never by colour alone.

    Attributes:
        icon: its sign.
        word: its name.
        color: its colour, such as ``#cf222e``.
    """

    icon: str
    word: str
    color: str


def clean(text: str, most: int = 20_000) -> str:
    """Return text that every channel can carry: no control characters but line breaks and tabs, and not too long."""
    text = text[: 2 * most].replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return cut(_UNSENDABLE.sub("\ufffd", text), most)


def cleaned(value: Any) -> Any:
    """Return a message, or a part of one, with all its texts clean: it can be encoded, so recorded and sent."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {cleaned(key): cleaned(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(cleaned, value))
    if isinstance(value, Message | RunFacts | Entry):
        return replace(value, **{one.name: cleaned(getattr(value, one.name)) for one in fields(value)})
    return value


def one_line(text: str, most: int = 200) -> str:
    """Return clean text on one line, white space run together."""
    return cut(" ".join(clean(text[: 10 * most]).split()), most)


def cut(text: str, most: int) -> str:
    """Return a text of a length; what is cut off is told by an ellipsis."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def moment(microseconds: int) -> str:
    """Return a time as people read it: ``2026-11-25 06:02 UTC``."""
    return to_datetime(microseconds).strftime("%Y-%m-%d %H:%M UTC")


def look_of_state(state_type: str, name: str | None = None) -> Look:
    """Return how a state is shown."""
    word = name or state_type.capitalize()
    return Look(ICONS.get(state_type, NO_ICON), one_line(word, 40), _COLORS.get(state_type, GREY))


def look(message: Message) -> Look:
    """Return how a message is shown as a whole."""
    if message.kind == "resolved":
        return Look(ICONS["COMPLETED"], "Recovered", GREEN)
    if message.kind == "digest":
        return Look("≡", "Digest", BLUE)
    if message.run is not None:
        return look_of_state(message.run.state_type, message.run.state_name)
    icon, color = _SEVERITIES[message.severity]
    return Look(icon, "Drill" if is_drill(message) else message.severity.capitalize(), color)


def is_drill(message: Message) -> bool:
    """Tell whether a message is a test."""
    return message.is_drill or message.kind == "drill"


def topic(message: Message) -> str:
    """Return what a message is about: a flow, a group, or else its rule."""
    return one_line(message.run.flow if message.run else message.group or message.rule, 80)


def cause(run: RunFacts | None) -> str:
    """Return the shortest reason, in brackets with a blank in front: ``" (validate: ValueError)"``."""
    if run is None:
        return ""
    error = one_line((run.error or "").partition(":")[0], 60)
    parts = [part for part in (one_line(run.task or "", 60), error) if part]
    return f" ({': '.join(parts)})" if parts else ""


def open_for(message: Message) -> str:
    """Return how long an incident has been open."""
    return duration(max(0, message.at - message.opened_at))


def events(count: int) -> str:
    """Return a number of events in words."""
    return "1 event" if count == 1 else f"{count:,} events"


def default_subject(message: Message) -> str:
    """Return the subject that a message has unless its rule says otherwise, such as
    ``Failed: daily-etl (validate: ValueError)``.
    """
    text = _SUBJECTS[message.kind](message)
    return text if text.startswith("Drill") or not message.is_drill else f"Drill: {text}"


def _opened(message: Message) -> str:
    times = f" {message.count:,} times" if message.count > 1 else ""
    return f"{look(message).word}{times}: {topic(message)}{cause(message.run)}"


def _updated(message: Message) -> str:
    return f"{look(message).word} again: {topic(message)}{cause(message.run)}, {events(message.count)}"


def _escalated(message: Message) -> str:
    return f"Escalated: {topic(message)}{cause(message.run)}, open for {open_for(message)}"


def _resolved(message: Message) -> str:
    return f"Recovered: {topic(message)} after {open_for(message)}"


def _digest(message: Message) -> str:
    count = len(message.entries) + message.left_out
    return f"Digest: {'1 incident' if count == 1 else f'{count:,} incidents'}, {one_line(message.rule, 80)}"


def _drill(message: Message) -> str:
    if message.run is None:
        return f"Drill: {one_line(message.rule, 80)}"
    return f"Drill: {_opened(message)}"


_SUBJECTS = {
    "opened": _opened,
    "updated": _updated,
    "escalated": _escalated,
    "resolved": _resolved,
    "digest": _digest,
    "drill": _drill,
}


def headline(message: Message) -> str:
    """Return the subject for a channel that shows it large: with the icon, and the run's name."""
    own = own_subject(message)
    if own is not None:
        return f"{look(message).icon} {own}"
    run = message.run
    text = default_subject(message)
    if run is not None and message.kind in ("opened", "drill"):
        text = text.removesuffix(cause(run)) + f" / {one_line(run.name, 80)}"
    return f"{look(message).icon} {text}"


def own_subject(message: Message) -> str | None:
    """Return a message's subject if its rule has one of its own, else None."""
    subject = one_line(message.subject)
    if not subject or subject == one_line(default_subject(message)):
        return None
    if is_drill(message) and not subject.lower().startswith("drill"):
        subject = f"Drill: {subject}"
    return subject


def subject(message: Message) -> str:
    """Return the subject to show: one line, and a drill is marked as one."""
    return own_subject(message) or one_line(default_subject(message))


def own_body(message: Message) -> str | None:
    """Return a message's body if its rule has one of its own, else None."""
    body = clean(message.body).strip()
    return None if not body or body == default_body(message) else body


def default_body(message: Message) -> str:
    """Return the body that a message has unless its rule says otherwise: plain lines."""
    parts = [situation(message), lead(message.run) if message.kind != "digest" else "", error(message)]
    if message.count > 1 or message.kind in ("digest", "resolved"):
        parts.append("\n".join(entry_lines(message)))
    return clean("\n".join(part for part in parts if part)).strip()


def situation(message: Message) -> str:
    """Return how an incident stands, as a sentence; empty where that is nothing new."""
    if is_drill(message):
        return "This is a drill: nothing is wrong."
    if message.kind == "resolved":
        run = message.run
        well = f": {one_line(run.name, 80)} completed" if run is not None and run.state_type == "COMPLETED" else ""
        return f"Open for {open_for(message)}, {events(message.count)}. It is over{well}."
    if message.kind == "escalated":
        return f"Open for {open_for(message)}, {events(message.count)}. It is not over."
    if message.kind != "digest" and message.count > 1:
        return f"{events(message.count)} since {moment(message.opened_at)}."
    return ""


def lead(run: RunFacts | None) -> str:
    """Return who failed and where: ``validate, attempt 3 of 3, flows/etl.py:41``."""
    if run is None:
        return ""
    parts = (run.task or "", attempt(run), run.where or "")
    return ", ".join(one_line(part, 200) for part in parts if part)


def attempt(run: RunFacts) -> str:
    """Return which attempt failed; empty where there is only one."""
    return f"attempt {run.attempt} of {max(run.attempt, run.attempts)}" if run.attempt and run.attempts > 1 else ""


def error(message: Message) -> str:
    """Return what went wrong: the exception, or else what the state says of itself; empty once it is over."""
    run = message.run
    if run is None or message.kind in ("resolved", "digest"):
        return ""
    return clean(run.error or run.message or "", 2500).strip()


def entry_lines(message: Message) -> Iterator[str]:
    """Yield the lines of a message about several things, and how many more there are."""
    shown = message.entries[-_MOST_ENTRIES:]
    left_out = message.left_out + len(message.entries) - len(shown)
    if left_out:
        yield f"({left_out:,} more)"
    yield from map(entry_line, shown)


def entry_line(entry: Entry) -> str:
    """Return what happened, as a line: ``2026-11-25 06:02 UTC ✕ wise-otter: ValueError``."""
    run = f"{one_line(entry.run, 80)}: " if entry.run else ""
    return f"{moment(entry.at)} {look_of_state(entry.state_type).icon} {run}{one_line(entry.text)}"


def facts(message: Message) -> list[tuple[str, str]]:
    """Return the facts that go beside the text, as label and value."""
    found = list(_run_facts(message.run)) if message.run else []
    found += [(one_line(label, 40), clean(value, 300)) for label, value in message.facts]
    return [(label, value) for label, value in found if label and value]


def _run_facts(run: RunFacts) -> Iterator[tuple[str, str]]:
    if run.took is not None:
        usual = f" (usually {duration(run.usual)})" if run.usual is not None else ""
        yield "Ran", duration(run.took) + usual
    if run.tasks:
        yield "Tasks", "  ".join(f"{look_of_state(state).icon} {count:,}" for state, count in run.tasks.items())
    if len(run.earlier) > 1:
        yield f"Last {len(run.earlier)}", "".join(look_of_state(state).icon for state in run.earlier)
    if run.tags:
        yield "Tags", one_line(", ".join(run.tags), 200)


def links(message: Message) -> list[tuple[str, str]]:
    """Return the places to look at, as label and URL: web addresses only, four at the most."""
    first = [("Open run", message.run.url)] if message.run and message.run.url else []
    found = [(one_line(label, 75), url) for label, url in (*first, *message.links)]
    return [(label, url) for label, url in found if label and re.fullmatch(r"https?://[!-~]{1,800}", url)][:4]


def origin(message: Message) -> list[str]:
    """Return where a message comes from: its rule, the event, the incident."""
    parts = [f"rule {one_line(message.rule, 80)}"]
    if message.position:
        parts.append(f"event #{message.position}")
    if message.incident:
        # Of a long number the first digits, with which the command line finds it.
        is_number = re.fullmatch(r"[0-9a-f-]{32,36}", message.incident)
        parts.append(f"incident {message.incident[:8] if is_number else one_line(message.incident, 40)}")
    return parts


def doubt(message: Message) -> str:
    """Return what there is to say of a repeated message; empty for another one."""
    return "An earlier attempt to send this may have arrived as well." if message.repeat else ""


def plain_text(message: Message) -> str:
    """Return all of a message as plain text: for channels without formatting, and beside formatted ones."""
    labels = [f"{label + ':':<10} {value}" for label, value in facts(message)]
    places = [f"{label}: {url}" for label, url in links(message)]
    commands = [f"  {one_line(command, 500)}" for command in message.commands]
    blocks = [
        own_body(message) or default_body(message),
        "\n".join(labels),
        "\n".join(places),
        "\n".join(commands),
        " · ".join(origin(message)),
        doubt(message),
    ]
    return "\n\n".join(block for block in (headline(message), *blocks) if block) + "\n"
