"""Opening the log for commands that only read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flightlog.errors import LogUnavailable, LogWriteError
from flightlog.events.log import Log
from flightlog.events.opening import open_log, path_of
from flightlog.settings import load

if TYPE_CHECKING:
    from flightlog.projections.projector import Projector


@contextmanager
def reading() -> Iterator[Log]:
    """Open the log that the settings name, as it is; on a disk that cannot be written too.

    Raises:
        LogUnavailable: there is none yet, or it cannot be opened.
    """
    chosen = load()
    if path_of(chosen.log_url) is None:
        raise LogUnavailable("A log in memory is gone with its process. Name a file in FLIGHTLOG_LOG_URL.")
    try:
        log = open_log(chosen.log_url, create=False)
    except (LogWriteError, LogUnavailable) as error:
        path = path_of(chosen.log_url)
        if path is None or not path.is_file() or isinstance(error, LogUnavailable):
            raise
        log = open_log(chosen.log_url, read_only=True)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def projected() -> Iterator["Projector"]:
    """Open the log and its projections."""
    from flightlog.projections.projector import Projector, projections_path

    with reading() as log:
        path = path_of(load().log_url)
        projector = Projector(log, None if path is None else projections_path(path))
        try:
            yield projector
        finally:
            projector.close()
