"""Subscriptions: named, durable, one at work and the others standing by."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.opening import open_log
from flightlog.events.subscriptions import Subscription
from flightlog.testing import VirtualClock
from flightlog.testing.log_contract import new_event


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """Yield a log of each kind."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/log.db"}
    url = urls.get(request.param) or str(request.getfixturevalue("postgres_url"))
    with open_log(url) as opened:
        yield opened


def numbers(events: list[Event]) -> list[int]:
    """Return what the events carry."""
    return [event.data["n"] for event in events]


def fill(log: Log, first: int, last: int) -> None:
    """Append events that carry numbers."""
    log.append("s", [new_event("thing.done" if n % 2 else "thing.begun", n=n) for n in range(first, last)])


def test_a_subscription_goes_on_where_it_was(log: Log) -> None:
    """Its cursor is kept under its name, whoever asks for it."""
    seen: list[int] = []
    fill(log, 0, 5)
    first = Subscription(log, "mail", lambda events: seen.extend(numbers(events)))
    assert first.step() == 5
    assert first.step() == 0
    first.close()
    fill(log, 5, 8)
    second = Subscription(log, "mail", lambda events: seen.extend(numbers(events)))
    assert second.step() == 3
    assert seen == list(range(8))
    second.close()
    (cursor,) = log.store.cursors()
    assert (cursor.name, cursor.position, cursor.owner) == ("mail", 8, "")
    assert log.store.forget_cursor("mail") is True
    assert log.store.forget_cursor("mail") is False


def test_what_the_handler_refuses_comes_again(log: Log) -> None:
    """At least once: the cursor moves only after the handler has returned."""
    calls: list[list[int]] = []

    def handler(events: list[Event]) -> None:
        calls.append(numbers(events))
        if len(calls) == 1:
            raise OSError("not now")

    fill(log, 0, 3)
    subscription = Subscription(log, "mail", handler)
    with pytest.raises(OSError, match="not now"):
        subscription.step()
    assert subscription.step() == 3
    assert calls == [[0, 1, 2]] * 2
    subscription.close()


def test_types_and_start_are_chosen(log: Log) -> None:
    """Only some types, and only what comes from now on; the cursor moves past the others too."""
    seen: list[int] = []
    fill(log, 0, 4)
    subscription = Subscription(
        log, "late", lambda events: seen.extend(numbers(events)), types=["thing.done"], start=None
    )
    assert subscription.step() == 0
    fill(log, 4, 8)
    assert subscription.step() == 2
    assert seen == [5, 7]
    fill(log, 8, 9)
    assert subscription.step() == 0
    assert subscription.position == 9
    subscription.close()


def test_one_works_and_the_other_stands_by(log: Log) -> None:
    """The second takes over when the first lets go, or when its lease is over; then the first moves nothing."""
    clock = VirtualClock()
    seen: list[str] = []

    def named(name: str) -> Any:
        return Subscription(log, "mail", lambda events: seen.extend([name] * len(events)), clock=clock)

    fill(log, 0, 2)
    first, second = named("first"), named("second")
    assert first.step() == 2
    fill(log, 2, 3)
    assert second.step() is None
    clock.sleep(11)
    assert second.step() == 1
    fill(log, 3, 4)
    assert first.step() is None
    assert second.step() == 1
    assert seen == ["first", "first", "second", "second"]
    second.close()
    assert first.step() == 0
    first.close()


def test_I6_rows_and_cursor_move_together(tmp_path: Path, postgres_url: str) -> None:
    """Rows in the log's own database are written in the transaction that moves the cursor: exactly once."""
    for url in (f"sqlite:///{tmp_path}/rows.db", postgres_url):
        with open_log(url) as log:
            table = sqlalchemy.Table("mine", sqlalchemy.MetaData(), sqlalchemy.Column("n", sqlalchemy.Integer))
            with log.store.writing() as connection:
                table.create(connection)
            fail = [True]

            def handler(
                events: list[Event], connection: Any, table: sqlalchemy.Table = table, fail: list[bool] = fail
            ) -> None:
                connection.execute(table.insert(), [{"n": n} for n in numbers(events)])
                if fail[0]:
                    raise OSError("after the rows")

            fill(log, 0, 3)
            subscription = Subscription(log, "rows", handler, rows=True)
            with pytest.raises(OSError, match="after the rows"):
                subscription.step()
            fail[0] = False
            assert subscription.step() == 3
            subscription.close()
            with log.store.writing() as connection:
                assert [row.n for row in connection.execute(sqlalchemy.select(table))] == [0, 1, 2]


def test_a_subscriber_is_woken_soon(log: Log) -> None:
    """What is appended while it waits arrives without delay; stopping it gives the cursor back."""
    arrived, stop = threading.Event(), threading.Event()
    subscription = Subscription(log, "prompt", lambda events: arrived.set())
    thread = threading.Thread(target=subscription.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 10
    while not log.store.cursors() and time.monotonic() < deadline:
        time.sleep(0.01)
    fill(log, 0, 1)
    assert arrived.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert log.store.cursors()[0].owner == ""
