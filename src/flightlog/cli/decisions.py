"""How messages, and what was decided on incidents and runs, are printed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flightlog.cli.printing import clean, print_json, say, table
from flightlog.clock import isoformat

if TYPE_CHECKING:
    from flightlog.events.model import Event
    from flightlog.notifications.ledger import Entry


def message_document(entry: "Entry") -> dict[str, Any]:
    """Return what became of a message, for programs."""
    from flightlog.ids import id_text

    return {
        "key": entry.key,
        "status": entry.status,
        "rule": entry.rule,
        "channel": entry.channel,
        "kind": entry.kind,
        "incident": entry.incident or None,
        "due": isoformat(entry.due),
        "attempts": entry.attempts,
        "problem": entry.problem,
        "next_attempt": None if entry.next_attempt is None else isoformat(entry.next_attempt),
        "delivered_at": None if entry.delivered_at is None else isoformat(entry.delivered_at),
        "receipt": entry.receipt,
        "flow_run_id": None if entry.run is None else id_text(entry.run),
        "subject": entry.message.subject,
    }


def show_message(entry: "Entry", *, as_json: bool) -> None:
    """Print a message, and each thing that happened to it."""
    if as_json:
        print_json({**message_document(entry), "body": entry.message.body})
        return
    say(clean(entry.message.subject), bold=True)
    say(f"{entry.status}, {entry.kind}, through {entry.channel}, rule {entry.rule}, message {entry.key[:8]}")
    say()
    say(clean(entry.message.body))
    say()
    for event in entry.events:
        data = event.data
        more = data.get("problem") or ", ".join(f"{key} {value}" for key, value in data.get("receipt", {}).items())
        attempt = f" {data['attempt']}" if "attempt" in data else ""
        say(f"{isoformat(event.recorded_at)}  {event.type.partition('.')[2]}{attempt}  {clean(more or '')}".rstrip())


def show_decisions(events: Iterable["Event"], *, as_json: bool) -> None:
    """Print decisions, one a line."""
    rows, documents = [], []
    for event in events:
        told = decision_document(event)
        documents.append(told)
        rows.append((told["at"], told["decision"], told["rule"], told["text"]))
    if as_json:
        print_json(documents)
    else:
        table(["WHEN", "DECISION", "RULE", "WHY"], rows)


def decision_document(event: "Event") -> dict[str, Any]:
    """Return a decision, for programs."""
    data, what = event.data, event.type.partition(".")[2]
    if what == "queued":
        what, why = "message", f"{data['kind']} through {data['channel']} ({data['notification'][:8]})"
    elif what == "withheld":
        what, why = f"no message: {data['why']}", f"{data['text']}: {data['reason']}"
    elif what == "acknowledged":
        what, why = "acknowledged", f"by {event.actor} {data.get('comment', '')}".rstrip()
    else:
        what, why = f"incident {what}", f"{data['text']}: {data['reason']}"
    return {
        "at": isoformat(event.occurred_at),
        "decision": what,
        "rule": data.get("rule", ""),
        "text": why,
        "incident": data.get("incident"),
        "position": data.get("position"),
    }
