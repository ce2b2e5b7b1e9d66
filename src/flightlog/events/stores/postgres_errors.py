"""What PostgreSQL's errors mean to whoever has a log there."""

from sqlalchemy.exc import DBAPIError, OperationalError

from flightlog.errors import LogError, LogWriteError

_FULL = frozenset({"53100", "53200"})
_DENIED = frozenset({"42501", "25006"})


def state_of(error: DBAPIError) -> str:
    """Return an error's SQLSTATE (PostgreSQL's manual, appendix A); empty if no server said a word."""
    return getattr(error.orig, "sqlstate", None) or ""


def is_away(error: DBAPIError) -> bool:
    """Tell whether the server is gone, going or coming, rather than saying no."""
    state = state_of(error)
    if error.connection_invalidated or state[:2] in ("08", "57"):
        return True
    return not state and isinstance(error, OperationalError)  # refused, reset or timed out: no word from a server


def translate(error: DBAPIError, location: str, *, waited: float | None = None) -> LogError:
    """Return the driver's error as one of ours, saying what happened and what to do.

    Args:
        error: the driver's error.
        location: where the log is, in words.
        waited: for how many seconds the server was waited for; None if it was not.
    """
    words = str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
    state = state_of(error)
    if state in _FULL:
        return LogWriteError(f"The log at {location} could not be written: the server's disk is full.")
    if state in _DENIED:
        return LogWriteError(
            f"The log at {location} could not be written: this role may not ({words}). "
            "`flightlog log role` prints what to grant."
        )
    if is_away(error):
        how_long = "" if waited is None else f" for {waited:.0f} s"
        return LogWriteError(
            f"The database of the log at {location} did not answer{how_long} ({words}). "
            "What was recorded is intact; check the server and the network, and run again."
        )
    return LogWriteError(f"The log at {location} cannot be used just now: {words}.")
