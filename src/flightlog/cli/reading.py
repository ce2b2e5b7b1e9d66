"""Opening the log for commands that only read; finding what has crashed on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from flightlog.cli.printing import reveal_with
from flightlog.errors import LogUnavailable, LogWriteError
from flightlog.events.log import Log
from flightlog.events.opening import is_memory, open_log, path_of
from flightlog.settings import credentials, load

if TYPE_CHECKING:
    from flightlog.engine.history import History
    from flightlog.engine.runtime import Engine
    from flightlog.projections.places import Place
    from flightlog.projections.projection import Projection
    from flightlog.projections.projector import Projector

_NOTIFICATIONS = "notifications"
"""The plug-in that folds rules and sends."""


@contextmanager
def reading(*, read_only: bool = False, rewound: bool = False) -> Iterator[Log]:
    """Open the log that the settings name, as it is; on a disk that cannot be written too.

    Args:
        read_only: whether nothing is to be written in any case.
        rewound: open it even if it is not the one of which a checkpoint was seen before.

    Raises:
        LogUnavailable: there is none yet, or it cannot be opened.
        LogRewound: it is not the log that was seen before.
    """
    chosen = load()
    if is_memory(chosen.log_url):
        raise LogUnavailable("A log in memory is gone with its process. Name a file in FLIGHTLOG_LOG_URL.")
    try:
        log = open_log(chosen.log_url, durability=chosen.log_durability, create=False, read_only=read_only)
    except (LogWriteError, LogUnavailable) as error:
        path = path_of(chosen.log_url)
        if path is None or not path.is_file() or isinstance(error, LogUnavailable):
            raise
        log = open_log(chosen.log_url, read_only=True)
        read_only = True
    from flightlog.events.checkpoints import SeenCheckpoint
    from flightlog.events.subjects import vault_of
    from flightlog.plugins.event_types import learn_event_types

    try:
        if not rewound:
            SeenCheckpoint(chosen.home, log).check()
        learn_event_types()
        reveal_with(vault_of(log, chosen))
        yield log
        if not read_only:
            _send_left(log)
    finally:
        log.close()


@contextmanager
def writing() -> "Iterator[Engine]":
    """Open the log that the settings name, to put something on record; it is made if there is none yet."""
    from flightlog.engine.runtime import open_engine

    engine = open_engine(load())
    try:
        yield engine
        _send_left(engine.log)
    finally:
        engine.close()


def _send_left(log: Log) -> None:
    """Send messages that processes have left: with the next command, whichever it is, they go out.

    What needs a key, or a variable of the environment, that is not here is left to others.
    """
    from flightlog.clock import SystemClock
    from flightlog.events.store import REPLAY
    from flightlog.ids import RandomIds
    from flightlog.masking import MASKER
    from flightlog.notifications.service import FACT, NotificationService

    facts = log.store.facts()
    if FACT not in facts or REPLAY in facts:
        return
    from flightlog.events.subjects import outward
    from flightlog.plugins.companions import EXIT_SECONDS
    from flightlog.plugins.hooks import SERVICES
    from flightlog.plugins.host import current_host
    from flightlog.plugins.offers import Surroundings

    if any(plugin.name == _NOTIFICATIONS for plugin in current_host(insist=False).usable(SERVICES)):
        for secret in credentials():
            MASKER.learn(secret)
        surroundings = Surroundings(log, b"", load(), SystemClock(), RandomIds(), outward)
        NotificationService().send_left(surroundings, EXIT_SECONDS)


@contextmanager
def projected(as_of: str | None = None) -> Iterator["Projector"]:
    """Open the log and its projections, as they are or as of a moment.

    Args:
        as_of: a position, or a time; None for now. Now, runs whose process is gone are put on record first.
    """
    from flightlog.projections.projector import Projector

    with reading() as log:
        if as_of is not None:
            position, at = moment_of(log, as_of)
            projector = Projector(log, None, kept_projections(), until=position, at=at)
        else:
            projector = Projector(log, place(), kept_projections())
        try:
            if as_of is None:
                mark_lost_runs(log, projector)
            yield projector
        finally:
            projector.close()


def kept_projections() -> "list[Projection]":
    """Return what is kept: what comes with Flightlog, and what plug-ins bring under names of their own."""
    from flightlog.plugins.host import current_host
    from flightlog.plugins.projections import brought_projections
    from flightlog.projections.projector import built_in

    own = built_in()
    return [*own, *brought_projections(current_host(), [projection.name for projection in own])]


def place() -> "Place":
    """Return where the projections of the log are kept."""
    from flightlog.projections.places import place_of

    return place_of(load().log_url)


def mark_lost_runs(log: Log, projector: "Projector") -> "list[History]":
    """Put on record that runs crashed whose process is gone; return them."""
    from flightlog.engine.recovery import mark_lost
    from flightlog.events.liveness import PATIENCE_SECONDS, is_gone, key_of
    from flightlog.events.store import REPLAY
    from flightlog.ids import parse_id
    from flightlog.projections import queries

    if REPLAY in log.store.facts():
        return []  # what ran there then is not to be judged by what runs here now
    suspects = []
    for run in queries.list_open_runs(projector):
        if run.state_name == "Suspended":
            suspects.append(parse_id(run.id))  # nobody has it, but its time may be over
            continue
        process = queries.process_of(run)
        gone = is_gone(process)
        if gone is None:
            # It runs elsewhere. The history, which may be long, is read only if it has not been heard of lately.
            gone = log.store.now() - log.store.beats().get(key_of(process), 0) > PATIENCE_SECONDS * 1e6
        if gone:
            suspects.append(parse_id(run.id))
    return mark_lost(log, suspects, actor=actor()) if suspects else []


def actor() -> str:
    """Return who is at the command line, as events name them: ``cli:ann``."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError, ImportError):
        return "cli"


def moment_of(log: Log, moment: str) -> tuple[int, int]:
    """Return the position and the time, in microseconds since 1970 (UTC), that are meant by one of the two.

    Args:
        log: the log.
        moment: a position, or a time in ISO 8601 (local, unless it says otherwise).

    Raises:
        click.BadParameter: it is neither, or lies in the future.
    """
    from datetime import UTC, datetime

    head = log.head()
    if moment.isascii() and moment.isdigit():
        if int(moment) > head.position:
            raise click.BadParameter(f"The log ends at position {head.position}; {moment} is still to come.")
        event = next(log.read_all(int(moment) - 1, limit=1)) if int(moment) else None
        return int(moment), 0 if event is None else event.recorded_at
    try:
        when = datetime.fromisoformat(moment)
    except ValueError:
        raise click.BadParameter(
            f"{moment!r} is neither a position (such as 1200) nor a time (such as 2026-01-31T06:00 or "
            "2026-01-31T06:00:00Z)."
        ) from None
    when = when.astimezone(UTC)
    if when > datetime.now(UTC):
        raise click.BadParameter(f"{moment} is still to come.")
    microseconds = round(when.timestamp() * 1e6)
    # What we print is cut to milliseconds: all of the one that is named belongs to it.
    microseconds += 999 if microseconds % 1000 == 0 else 0
    return log.position_at(microseconds), microseconds


def position_of(log: Log, moment: str) -> int:
    """Return the position that is meant; see `moment_of`."""
    return moment_of(log, moment)[0]
