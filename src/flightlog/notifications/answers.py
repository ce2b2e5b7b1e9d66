"""What HTTP channels have in common: what an answer means for the message, and calls that cannot hang."""

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

from flightlog.notifications.notifier import DeliveryError

T = TypeVar("T")
_LONGEST_WAIT = 86_400.0  # a message that is held up for longer than a day is of no use to anybody
# Too early, too many, a conflict, a lock, a time-out: later it may work. https://www.rfc-editor.org/rfc/rfc9110#section-15.5
_LATER = frozenset({408, 409, 423, 425, 429})
# The answer of a gateway, or of a program that broke off: what lies behind it may have taken the message.
_UNCLEAR = frozenset({500, 502, 504})


def refusal(who: str, status: int, headers: Mapping[str, str], code: str = "", *, hint: str = "") -> DeliveryError:
    """Return what an HTTP answer that is not a success means.

    Args:
        who: who answered, such as ``Slack``.
        status: the status code.
        headers: the answer's headers.
        code: the answer's own word for it, such as ``no_service``; empty for none.
        hint: what that means; empty if it is clear.
    """
    try:
        meaning = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        meaning = str(status)
    is_final = 300 <= status < 500 and status not in _LATER
    return DeliveryError(
        f"{who} answered {meaning}{f' ({code})' if code else ''}{f': {hint}' if hint else ''}.",
        is_final=is_final,
        retry_after=None if is_final else retry_after(headers),
        is_unknown=status in _UNCLEAR,
        code=code or str(status),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds an answer asks to wait, a day at the most; None if it says nothing that makes sense.

    It may be a number or a date (RFC 9110, 10.2.3); a date counts from the answer's own one, since clocks differ.
    """
    found = {name.lower(): value.strip() for name, value in headers.items()}
    text = found.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - parsedate_to_datetime(found["date"])).total_seconds()
        except (ValueError, TypeError, KeyError):  # no date; or one with a time zone and one without
            return None
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else None


async def in_thread(work: Callable[[], T], *, timeout: float) -> T:
    """Do something that blocks in a thread of its own, for so long at the most.

    A thread of asyncio's pool would keep the process from exiting until it is done, and a server that sends a byte
    now and then can keep it for ever; this one is left behind.

    Raises:
        TimeoutError: it is not done.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(value: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type] # None is a value of T if there was no error

    def run() -> None:
        outcome: tuple[T | None, BaseException | None]
        try:
            outcome = work(), None
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome = None, error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any longer
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=run, daemon=True, name="flightlog-send").start()
    return await asyncio.wait_for(done, timeout)
