"""``flightlog audit erase``: make the personal data of somebody unreadable for good."""

from typing import TYPE_CHECKING

import click

from flightlog.cli.main import NOT_FOUND, OK
from flightlog.cli.printing import color_option, complain, json_option, note, print_json, table
from flightlog.cli.reading import actor, reading
from flightlog.clock import isoformat
from flightlog.settings import load

if TYPE_CHECKING:
    from flightlog.events.model import Event


@click.command("erase", short_help="Make the personal data of somebody unreadable for good.")
@click.argument("subject")
@click.option("--dry-run", is_flag=True, help="Only list the events; destroy nothing.")
@json_option
@color_option
def erase_subject(subject: str, dry_run: bool, as_json: bool) -> int:
    """Destroy the key of a subject, and list every event that holds something of it.

    SUBJECT is the value that names it where parameters or fields are marked with flightlog.privacy.Personal, exactly as
    the flow was given it. What its key encrypted reads as <erased> from then on; no event changes, so the log still
    verifies. Copies of the key that you have made (backups of its file) have to be destroyed too.

    \b
    Examples:
      flightlog audit erase ann@example.org --dry-run
      flightlog audit erase ann@example.org
    """
    from flightlog.events.erasing import Erasure, erase, touched
    from flightlog.events.keys import key_file, load_key
    from flightlog.events.subjects import vault_of

    chosen = load()
    with reading(read_only=dry_run) as log:
        vault = vault_of(log, chosen, load_key(log, key_file(log, chosen), chosen.log_key))
        digest = vault.subject(subject)
        if dry_run:
            done = Erasure(list(touched(log, vault, digest)), vault.has(digest), before=False)
        else:
            done = erase(log, vault, digest, actor())
        rows = [_row(event) for event in done.events]
    if not done.events and not done.destroyed and not done.before:
        complain(f"Nothing in this log belongs to {subject!r}. It has to be written exactly as the flow was given it.")
        return NOT_FOUND
    if as_json:
        document = [dict(zip(("position", "occurred_at", "type", "stream"), row, strict=True)) for row in rows]
        print_json({"subject": digest.hex(), "key_destroyed": done.destroyed and not dry_run, "events": document})
        return OK
    table(["POSITION", "WHEN", "TYPE", "STREAM"], rows)
    count = f"{len(rows)} events hold something of this subject"
    if dry_run:
        note(f"{count}. {'Its key is there.' if done.destroyed else 'Its key is gone already.'}")
    elif done.destroyed:
        note(f"{count}. Its key is destroyed: they read as <erased> now. Destroy copies of the key too.")
    else:
        note(f"{count}. Its key was gone already.")
    return OK


def _row(event: "Event") -> tuple[str, str, str, str]:
    return str(event.position), isoformat(event.occurred_at), event.type, event.stream
