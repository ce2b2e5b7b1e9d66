"""``flightlog audit``: seal the log, publish checkpoints, verify."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flightlog.cli.erasing import erase_subject
from flightlog.cli.exporting import export
from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import (
    color_option,
    complain,
    end_progress,
    json_option,
    note,
    print_json,
    progress,
    say,
)
from flightlog.cli.reading import reading
from flightlog.cli.sealing import sealed, signed
from flightlog.errors import LogError, LogKeyError, LogRewound
from flightlog.settings import load

if TYPE_CHECKING:
    from flightlog.events.checkpoints import SeenCheckpoint
    from flightlog.events.log import Log
    from flightlog.events.notes import Checkpoint, PublicKey
    from flightlog.events.problems import Verification
    from flightlog.events.sealing import Seal


@click.group()
def audit() -> None:
    """Seal the log, publish checkpoints, and verify that nothing was changed."""


@audit.command("keygen", short_help="Make the key that signs seals.")
@color_option
def make_key() -> int:
    """Make the key that signs the log's seals, and print the verifier key that others check them with.

    The key is kept in a file of mode 0600 beside the log's own (or give it in FLIGHTLOG_AUDIT_KEY). One that is there
    is never replaced.

    \b
    Examples:
      flightlog audit keygen > flightlog.vkey
    """
    from flightlog.events.keys import load_signing_key, signing_key_file, write_key
    from flightlog.events.notes import new_key
    from flightlog.events.sealing import origin_of

    chosen = load()
    with reading() as log:
        path = signing_key_file(log, chosen)
        present = load_signing_key(log, chosen)
        if present is not None or path is None:
            where = "in FLIGHTLOG_AUDIT_KEY" if chosen.audit_key or path is None else f"in {path}"
            complain(
                f"There is a signing key {where} already, and it is not replaced. "
                f"To change it, move it away first; others need its verifier key still: {present and present.public}"
            )
            return FAILED
        key = new_key(origin_of(log.log_id))
        try:
            write_key(path, f"{key.text()}\n".encode())
        except OSError as error:
            complain(f"The signing key cannot be written to {path}: {error.strerror}.")
            return FAILED
        written = load_signing_key(log, chosen)  # another process may have been first
    note(f"Written: {path} (keep it safe, and out of backups of the log). Give others this verifier key:")
    say(str((written or key).public))
    return OK


@audit.command("seal", short_help="Seal what no seal covers yet.")
@json_option
@color_option
def seal_log(as_json: bool) -> None:
    """Seal what no seal covers yet, so that nothing up to here can be changed unnoticed; sync it to the disk.

    \b
    Examples:
      flightlog audit seal
    """
    with reading() as log:
        seal, is_new = sealed(log)
    if as_json:
        print_json(None if seal is None else _document(seal, is_new))
    elif seal is None:
        note("There is nothing to seal yet.")
    elif is_new:
        by = "not signed" if seal.signer is None else f"signed by {seal.signer.name}"
        note(f"Sealed: events {seal.first} to {seal.last}, {by}.")
    else:
        note(f"There was nothing to seal: a seal covers all {seal.last} events.")


def _document(seal: "Seal", is_new: bool) -> dict[str, Any]:
    return {
        "first": seal.first,
        "last": seal.last,
        "root": seal.root.hex(),
        "position": seal.position,
        "signer": None if seal.signer is None else str(seal.signer),
        "new": is_new,
    }


@audit.command("checkpoint", short_help="Seal the log, and print its checkpoint.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file; printed by default.")
@color_option
def print_checkpoint(output: Path | None) -> int:
    """Seal the log and print its checkpoint: a signed note (C2SP) of its size and Merkle tree head.

    Keep it where whoever can change the log cannot: with an auditor, in another system, on paper. A log that does not
    grow out of it was tampered with: flightlog audit verify --checkpoint FILE.

    \b
    Examples:
      flightlog audit checkpoint
      flightlog audit checkpoint -o checkpoint.txt
    """
    with reading() as log:
        seal, _ = sealed(log)
        if seal is None:
            complain("There is nothing to seal yet: a checkpoint is of a log with at least one event.")
            return FAILED
        seal = signed(log, seal)
        text = seal.note(log.log_id)
    if output is None:
        say(text.rstrip("\n") + ("" if seal.signer else "\n"))
    else:
        output.write_text(text)
        note(f"Written: {output} ({seal.last} events)")
    if seal.signer is None:
        note("It is not signed: flightlog audit keygen makes a key.")
    return OK


@audit.command("verify", short_help="Verify the whole log.")
@click.option("--key", "keys", multiple=True, metavar="VKEY", help="Who has to have signed; repeatable after a change.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A checkpoint that the log has to have grown out of; repeatable.",
)
@json_option
@color_option
def verify_log(keys: Sequence[str], checkpoints: Sequence[Path], as_json: bool) -> int:
    """Read the whole log and verify records, chains, columns, blobs, seals, and the checkpoint that was seen before.

    Names the first event that is not as it was, and says how many no seal proves anything about. Exits with 1 if
    anything is wrong.

    \b
    Examples:
      flightlog audit verify
      flightlog audit verify --checkpoint checkpoint.txt --key "$(cat flightlog.vkey)"
    """
    from flightlog.events.checkpoints import SeenCheckpoint
    from flightlog.events.integrity import verify
    from flightlog.events.sealing import seal_at
    from flightlog.events.store import PARTIAL

    chosen = load()
    with reading(rewound=True) as log:
        seen = SeenCheckpoint(chosen.home, log)
        remembered = seen.read()
        trusted = _trusted(log, keys)
        known = [_checkpoint(log, path, trusted) for path in checkpoints]
        if remembered is not None:
            known.append(remembered)
        found = verify(log.store, progress("verifying: event"), known=known, keys=trusted)
        end_progress()
        partial = PARTIAL in log.store.facts()
        last = seal_at(log, found.sealed) if found.sound and found.sealed else None
        if last is not None:
            _remember(seen, last)
    if as_json:
        print_json(dataclasses.asdict(found) | {"sound": found.sound, "unproved": found.unproved})
    else:
        _show(found, partial)
    return OK if found.sound else FAILED


def _remember(seen: "SeenCheckpoint", seal: "Seal") -> None:
    try:
        seen.keep(seal)
    except LogRewound:
        raise
    except LogError as error:  # an auditor's home may be read-only; what was verified is verified all the same
        note(str(error))


def _checkpoint(log: "Log", path: Path, trusted: "Sequence[PublicKey]") -> "Checkpoint":
    """Return the checkpoint in a file; a signature in the name of somebody whose signatures count has to be theirs."""
    from flightlog.events.notes import NoteError, read_note
    from flightlog.events.sealing import origin_of

    try:
        found, signatures = read_note(path.read_text())
    except (OSError, UnicodeDecodeError, NoteError) as error:
        raise click.BadParameter(f"{path} is no checkpoint: {error}.", param_hint="--checkpoint") from None
    if found.origin != origin_of(log.log_id):
        raise click.BadParameter(f"{path} is a checkpoint of another log, {found.origin}.", param_hint="--checkpoint")
    for name, key_hash, value in signatures:
        for key in trusted:
            if (key.name, key.hash) == (name, key_hash) and not key.accepts(found.text(), value):
                raise click.BadParameter(f"{path} is not signed by {name}: it was changed.", param_hint="--checkpoint")
    return found


def _trusted(log: "Log", keys: Sequence[str]) -> "list[PublicKey]":
    """Return whose signatures count: who is named, else whoever signs here."""
    from flightlog.events.keys import load_signing_key
    from flightlog.events.notes import public_key

    try:
        named = [public_key(text) for text in keys]
    except LogKeyError as error:
        raise click.BadParameter(str(error), param_hint="--key") from None
    if named:
        return named
    own = load_signing_key(log, load())
    return [] if own is None else [own.public]


def _show(found: "Verification", partial: bool) -> None:
    for problem in found.problems:
        say(f"{click.style('✕', fg='red')} {problem}")
    if found.sound:
        _good(f"{found.events} events in {found.streams} streams, {found.blobs} blobs: every record, chain and column")
    if found.segments:
        _good(f"{found.segments} of the archives' segments are what is on record of them")
    if found.sealed:
        count = "1 seal" if found.seals == 1 else f"{found.seals} seals"
        _good(f"{count}: nothing up to position {found.sealed} was changed since it was sealed")
    if found.signed:
        _good(f"signed up to position {found.signed} by {', '.join(found.signers)}")
    if found.known:
        _good(f"the checkpoint of {found.known} events that was seen before: the log grew out of it")
    if partial:
        say(f"{click.style('·', fg='yellow')} some of another log's streams only: seals cannot be verified here")
    elif found.unproved:
        which = (
            f"{found.unproved} events behind position {found.sealed}" if found.sealed else f"all {found.events} events"
        )
        text = f"{which} are unproved: no seal covers them"
        say(f"{click.style('·', fg='yellow')} {text}")


def _good(text: str) -> None:
    say(f"{click.style('✓', fg='green')} {text}")


@audit.command("forget", short_help="Forget the checkpoint that was seen before.")
@color_option
def forget_checkpoint() -> None:
    """Forget the checkpoint that was seen before, so that an older copy of the log is taken as it is.

    \b
    Examples:
      flightlog audit forget
    """
    from flightlog.events.checkpoints import SeenCheckpoint

    with reading(rewound=True) as log:
        seen = SeenCheckpoint(load().home, log)
        note("Forgotten." if seen.forget() else "None was seen.")


audit.add_command(export)
audit.add_command(erase_subject)
