"""What tests of personal values share: a log in a file, a flow with such values, and a scan for them."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest

from flightlog import flow, get_run_logger, task
from flightlog.engine.bridge import stop_background_loop
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.events.erasing import erase
from flightlog.events.subjects import groups_in
from flightlog.events.vocabulary import payload
from flightlog.privacy import Personal

ANN, BOB = "ann.personal@example.org", "bob.personal@example.org"
Email = Annotated[str, Personal()]
ran: list[str] = []
broken = [True]


@pytest.fixture(autouse=True)
def engine(own_home: Path) -> Iterator[None]:
    """Give each test a world and a log of its own, in a file, so that what is scanned is what is on the disk.

    What was written fits the vocabulary.
    """
    ran.clear()
    broken[0] = True
    yield
    log = current_engine().log
    log.flush()
    assert all(payload(event) is not None for event in log.read_all())
    close_engine()
    stop_background_loop()


def traces(*texts: str) -> list[str]:
    """Return which files of the log hold some text, in which form."""
    engine = current_engine()
    engine.log.flush()
    home = engine.settings.home
    found = []
    for path in (path for path in home.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for text in texts:
            plain = text.encode()
            forms = {
                "plain": plain,
                "utf-16": text.encode("utf-16-le"),
                "reversed": plain[::-1],
                "hex": plain.hex().encode(),
            }
            for shift in range(3):  # in the middle of something longer, base64 has three forms
                encoded = base64.b64encode(b"x" * shift + plain)
                forms[f"base64 {shift}"] = encoded[4 if shift else 0 : -4]
            found += [f"{text} in {path.name}: {form}" for form, raw in forms.items() if raw in content]
    return found


def subjects_of(event_type: str) -> list[int]:
    """Return how many subjects each event of a type belongs to."""
    vault = current_engine().vault
    current_engine().log.flush()
    return [
        len(frozenset[bytes]().union(*(vault.members(group) for group in groups_in(event.data))))
        for event in current_engine().log.read_all(types=[event_type])
    ]


def forget(name: str) -> int:
    """Erase a subject, and return how many events held something of it."""
    engine = current_engine()
    engine.log.flush()
    return len(erase(engine.log, engine.vault, engine.vault.subject(name), "test").events)


@task
def load(email: Email) -> dict[str, str]:
    """Return what is known of somebody."""
    ran.append("load")
    get_run_logger().info("Loading %s.", email)
    return {"email": email, "name": f"Dear {email}"}


@task
def letter(profile: dict[str, str]) -> str:
    """Make something of it that no longer is the value."""
    ran.append("letter")
    return profile["name"].upper()


@task
def send(text: str) -> None:
    """Fail with a value, while the world is broken."""
    ran.append("send")
    if broken[0]:
        raise ConnectionError(f"nobody takes {text}")


@flow
def order(email: Email, number: int = 7) -> str:
    """Make something of a value in two steps, and send it."""
    text = letter.submit(load.submit(email)).result()
    send(text)
    return text
