"""How the text of a setting becomes its value. What cannot be read is a ValueError that says what can."""

from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Final, Literal, cast

Durability = Literal["commit", "fsync"]
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_SPANS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class SealPolicy:
    """When a process that runs flows seals the log.

    Attributes:
        events: once so many events are not sealed; None for no such number.
        seconds: once so much time has passed since the last seal; None for no such time.
        at_exit: when it lets go of the log.
    """

    events: int | None = None
    seconds: float | None = None
    at_exit: bool = False


NOW_AND_THEN: Final = SealPolicy(events=10_000)


def boolean(value: str) -> bool:
    """Return true or false."""
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError("say true or false")


def level(value: str) -> int:
    """Return a level of logging, by its name or number."""
    levels = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
    if value.isascii() and value.isdigit() and int(value) <= 100:
        return int(value)
    if value.upper() not in levels:
        raise ValueError("say DEBUG, INFO, WARNING, ERROR, CRITICAL or a number")
    return levels[value.upper()]


def durability(value: str) -> Durability:
    """Return how durable commits are."""
    if value not in ("commit", "fsync"):
        raise ValueError("say commit or fsync")
    return cast("Durability", value)


def key(value: str) -> str:
    """Return the log's key as hexadecimal digits."""
    if len(value) != 64 or not set(value.lower()) <= set("0123456789abcdef"):
        raise ValueError("a key has 64 hexadecimal digits")
    return value.lower()


def fernet_keys(value: str) -> tuple[str, ...]:
    """Return the keys of blocks, the newest first."""
    keys = names(value)
    try:
        if all(len(key) == 44 and len(urlsafe_b64decode(key)) == 32 for key in keys):
            return keys
    except ValueError:
        pass
    raise ValueError("a key of blocks has 32 bytes, written as 44 characters of URL-safe base64")


def workers(value: str) -> int:
    """Return a number of workers."""
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 10_000):
        raise ValueError("say a whole number from 1 to 10000")
    return int(value)


def form(value: str) -> str:
    """Return the form of lines on the console."""
    if value not in ("text", "json"):
        raise ValueError("say text or json")
    return value


def mode(value: str) -> str:
    """Return how strict the host of plug-ins is."""
    if value not in ("on", "strict", "safe"):
        raise ValueError("say on, strict or safe")
    return value


def names(value: str) -> tuple[str, ...]:
    """Return names that stand between commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def number(value: str) -> int:
    """Return a whole number."""
    if not (value.isascii() and value.isdigit() and int(value) <= 1_000_000):
        raise ValueError("say a whole number from 0 to 1000000")
    return int(value)


def seconds(value: str) -> float:
    """Return a time in seconds."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise ValueError("say a number of seconds, such as 30 or 0.5")
    return seconds


def delays(value: str) -> tuple[float, ...]:
    """Return one time in seconds, or several with commas."""
    return tuple(seconds(part.strip()) for part in value.strip("[]").split(","))


def span(value: str) -> float:
    """Return a span of time in seconds: ``30d``, ``12h``, ``90m``, ``10s``."""
    number, unit = value[:-1], _SPANS.get(value[-1:])
    if unit is None or not (number.isascii() and number.isdigit()) or len(number) > 6:
        raise ValueError("say a span of time, such as 30d, 12h, 90m or 10s")
    return int(number) * unit


def seal_policy(value: str) -> SealPolicy:
    """Return when the log is sealed: ``never``, or some of ``exit``, a number of events and a time such as ``60s``."""
    events, seconds, at_exit = None, None, False
    for part in names(value):
        if part == "exit":
            at_exit = True
        elif part.isascii() and part.isdigit() and int(part) > 0:
            events = int(part)
        elif part.endswith("s") and _is_time(part[:-1]):
            seconds = float(part[:-1])
        elif value != "never":
            raise ValueError("say never, or some of exit, a number of events, and a time such as 60s, with commas")
    return SealPolicy(events, seconds, at_exit)


def _is_time(text: str) -> bool:
    try:
        return 1 <= float(text) < 1e9
    except ValueError:
        return False
