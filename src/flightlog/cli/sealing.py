"""Sealing, as commands do it: synced to the disk, and remembered."""

from typing import TYPE_CHECKING

import click

from flightlog.cli.printing import end_progress, progress
from flightlog.cli.reading import actor
from flightlog.settings import load

if TYPE_CHECKING:
    from flightlog.events.log import Log
    from flightlog.events.sealing import Seal


def sealed(log: "Log") -> "tuple[Seal | None, bool]":
    """Seal what no seal covers, see to it that it stays, and remember it; return the last seal, and if it is new."""
    from flightlog.events.checkpoints import SeenCheckpoint
    from flightlog.events.keys import load_signing_key
    from flightlog.events.sealing import latest_seal, seal
    from flightlog.events.store import PARTIAL, REPLAY

    chosen = load()
    if {REPLAY, PARTIAL} & log.store.facts().keys():
        raise click.UsageError(f"The log at {log.store.location} is a replay of another one's past: it is not sealed.")
    made = seal(log, load_signing_key(log, chosen), actor=actor(), progress=progress("sealing: event"))
    end_progress()
    last = made or latest_seal(log)
    log.store.sync()  # a checkpoint that somebody has seen must not be lost with the power
    if last is not None:
        SeenCheckpoint(chosen.home, log).keep(last)
    return last, made is not None


def signed(log: "Log", seal: "Seal") -> "Seal":
    """Return a seal, signed now if it was made before there was a key."""
    from flightlog.events.keys import load_signing_key

    key = load_signing_key(log, load())
    if key is None or seal.signer is not None:
        return seal
    return seal._replace(signer=key.public, signature=key.sign(seal.checkpoint(log.log_id).text()))
