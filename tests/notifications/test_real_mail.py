"""E-mail through a real mail server, and what a mail program finds in the mailbox."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from tests.notifications import postfix
from tests.notifications.postfix import RealMail
from tests.notifications.smtp import text_of

from flightlog import flow
from flightlog.clock import SystemClock
from flightlog.ids import RandomIds
from flightlog.notifications.configuring import Configurator
from flightlog.notifications.delivery import Delivery
from flightlog.notifications.email import Email
from flightlog.notifications.following import Follower
from flightlog.notifications.ledger import entries
from flightlog.notifications.notifier import DeliveryError, Message, Receipt
from flightlog.notifications.rules import Channel, Configuration, Rule
from flightlog.testing import memory_engine
from flightlog.testing.notifier_contract import hostile, sample

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@pytest.fixture(scope="module")
def server() -> Iterator[RealMail]:
    """Postfix, Dovecot and postgrey."""
    with postfix.running() as server:
        yield server


def send(server: RealMail, message: Message, **changes: Any) -> Receipt:
    """Send a message."""
    given = {"host": "localhost", "port": server.submission, "ca_file": server.ca, "to": [postfix.USER]}
    given |= {"sender": "Flightlog <alerts@test.local>", "username": postfix.USER, "password": postfix.PASSWORD}
    return asyncio.run(Email.model_validate({**given, **changes}).send(message, timeout=30))


def refused(server: RealMail, message: Message, **changes: Any) -> DeliveryError:
    """Send a message that is not taken."""
    with pytest.raises(DeliveryError) as caught:
        send(server, message, **changes)
    return caught.value


def test_mail_arrives_in_the_mailbox(server: RealMail) -> None:
    """By STARTTLS and by TLS, logged in: as one thread, with texts in any script, whatever names hold."""
    first = send(server, sample(), subject_prefix="[prod] 🦦")
    second = send(server, sample(key="k2", kind="resolved", first=first), port=server.smtps, security="tls")
    third = send(server, hostile())
    one, two, three = server.mails(*(receipt["message_id"] for receipt in (first, second, third)))
    assert one["Subject"] == "[prod] 🦦 Failed: daily-etl (validate: ValueError)"
    assert "ValueError: 5 rows violate not_null(customer_id)" in text_of(one, "plain")
    assert "✕" in text_of(one, "html")
    assert two["In-Reply-To"] == one["Message-ID"] == first["message_id"]
    assert "Recovered" in two["Subject"]
    assert three["To"] == postfix.USER
    assert "Bcc" not in three


def test_a_wrong_password(server: RealMail) -> None:
    """Postfix and Dovecot say 535: it is final."""
    error = refused(server, sample(), password="wrong-password-99")
    assert (error.is_final, error.code) == (True, "535")
    assert "wrong-password-99" not in str(error)


def test_mail_for_others_is_not_relayed(server: RealMail) -> None:
    """Without a login only mail for the server's own mailboxes is taken."""
    plain = {"port": server.inbound, "security": "plain", "username": None, "password": None}
    error = refused(server, sample(), to=["somebody@other.example"], **plain)
    assert (error.is_final, error.code) == (True, "554")
    assert "Relay access denied" in str(error)
    error = refused(server, sample(), to=["nobody@test.local"], **plain)
    assert (error.is_final, error.code) == (True, "550")


def test_a_port_that_wants_encryption_gets_it_or_nothing(server: RealMail) -> None:
    """Postfix refuses mail before STARTTLS, and the inbound port offers none."""
    error = refused(server, sample(), security="plain", username=None, password=None)
    assert (error.is_final, error.code) == (True, "530")
    error = refused(server, sample(), port=server.inbound, username=None, password=None)
    assert error.is_final
    assert "STARTTLS" in str(error)


def test_greylisting_passes(server: RealMail) -> None:
    """Postgrey says 450 to those whom it does not know, and takes it a little later."""
    plain = {"port": server.inbound, "security": "plain", "username": None, "password": None}
    error = refused(server, sample(key="grey"), **plain)
    assert (error.is_final, error.is_unknown, error.code) == (False, False, "450")
    assert "Greylisted" in str(error)
    until = time.monotonic() + 30
    while error.code == "450" and time.monotonic() < until:
        time.sleep(0.5)
        with suppress(DeliveryError):
            send(server, sample(key="grey"), **plain)
            break
    assert server.mails("<grey@flightlog.test.local>")


def test_a_message_that_is_too_large(server: RealMail) -> None:
    """The limits on texts keep every message far below what servers take."""
    send(server, sample(key="large", body="x" * 5_000_000))
    (mail,) = server.mails("<large@flightlog.test.local>")
    assert len(mail.as_bytes()) < 100_000


def test_from_a_flow_to_the_mailbox(server: RealMail, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure and its end are two mails of one thread; both are on record as delivered."""

    @flow
    def nightly(good: bool) -> None:
        if not good:
            raise ValueError("no rows")

    monkeypatch.setenv("MAIL_PASSWORD", postfix.PASSWORD)
    settings = {"host": "localhost", "port": server.submission, "ca_file": str(server.ca), "to": [postfix.USER],
                "sender": "Flightlog <alerts@test.local>", "username": postfix.USER,
                "password": "env:MAIL_PASSWORD"}  # fmt: skip
    wanted = Configuration(
        rules=(Rule(name="failures", channels=("mail",)),),
        channels=(Channel(name="mail", kind="email", settings=settings),),
    )
    clock, ids = SystemClock(), RandomIds()
    with memory_engine() as engine:
        Configurator(engine.log, clock, ids).synchronise(wanted, "here")
        delivery = Delivery(engine.log, clock, ids)
        with closing(Follower(engine.log)) as follower:
            for good in (False, True):
                nightly(good, return_state=True)
                engine.log.flush()
                while follower.step() or delivery.step():
                    pass
        found = entries(engine.log)
        assert [(entry.kind, entry.status) for entry in found] == [("opened", "delivered"), ("resolved", "delivered")]
        assert postfix.PASSWORD not in repr([event.data for event in engine.log.read_all()])
    first, second = server.mails(*(entry.receipt["message_id"] for entry in found))
    assert "ValueError: no rows" in text_of(first, "plain")
    assert second["In-Reply-To"] == first["Message-ID"]
    assert "Recovered" in second["Subject"]
