"""E-mail: what it looks like on the wire, which thread it joins, and what each answer of a server means."""

import asyncio
import dataclasses
import email
import email.policy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.notifications import certificates, smtp
from tests.notifications.smtp import MailServer, text_of

from flightlog.notifications.email import Email
from flightlog.notifications.email_message import Addressed, mime
from flightlog.notifications.notifier import DeliveryError, Message, Receipt
from flightlog.testing.notifier_contract import hostile, sample

TO = ["data@example.com", "ops@example.com"]
Start = Callable[..., MailServer]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    """Certificates of our own."""
    return certificates.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def start(files: certificates.Certificates) -> Iterator[Start]:
    """Start mail servers of our own, which stop after the test."""
    with ExitStack() as stack:

        def one(security: Any = "plain", *, encrypted: bool = True, needs_login: bool = False) -> MailServer:
            certificate = files.server if security != "plain" and encrypted else None
            return stack.enter_context(MailServer(security, certificate, needs_login=needs_login))

        yield one


def mailer(server: MailServer, **changes: Any) -> Email:
    """Return what sends to a server."""
    given = {"host": "127.0.0.1", "port": server.port, "security": "plain", "sender": "alerts@example.com", "to": TO}
    return Email.model_validate({**given, **changes})


def send(notifier: Email, message: Message, timeout: float = 5) -> Receipt:
    """Send a message."""
    return asyncio.run(notifier.send(message, timeout=timeout))


def refused(notifier: Email, message: Message | None = None, timeout: float = 5) -> DeliveryError:
    """Send a message that is not taken."""
    with pytest.raises(DeliveryError) as caught:
        send(notifier, message or sample(), timeout)
    return caught.value


def test_what_a_mail_is(start: Start) -> None:
    """Text first, then HTML; headers that keep answering machines quiet and lists apart."""
    server = start()
    receipt = send(mailer(server, sender="Flightlog <alerts@example.com>", subject_prefix="[prod]"), sample())
    ((recipients, _),) = server.mails.taken
    (mail,) = server.messages()
    assert recipients == TO
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert mail["Subject"] == "[prod] Failed: daily-etl (validate: ValueError)"
    assert mail["From"] == "Flightlog <alerts@example.com>"
    assert mail["To"] == "data@example.com, ops@example.com"
    assert mail["Date"] == "Tue, 25 Nov 2025 06:02:05 +0000"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["List-Id"] == "Flightlog <prod-failures.flightlog.example.com>"
    assert mail["Message-ID"] == "<0197f3a0-2222-7000-8000-000000000000@flightlog.example.com>"
    assert receipt == {"message_id": mail["Message-ID"], "subject": mail["Subject"]}
    assert text_of(mail, "plain").splitlines() == [
        "✕ Failed: daily-etl / wise-otter",
        "",
        "validate, attempt 3 of 3, flows/etl.py:41",
        "ValueError: 5 rows violate not_null(customer_id)",
        "",
        "Ran:       4m 12s (usually 3m 50s)",
        "Tasks:     ✓ 13  ✕ 1  ↻ 2  ⊘ 2",
        "Last 7:    ✓✓✓✓✓✓✕",
        "Tags:      prod",
        "Trigger:   schedule nightly",
        "",
        "Open run: https://flightlog.example/runs/0197f3a0",
        "",
        "  flightlog runs logs wise-otter --failed",
        "  flightlog runs resume wise-otter",
        "",
        "rule prod failures · event #48213 · incident 0197f3a0",
    ]


class _Page(HTMLParser):
    """What a page of HTML loads, and whether its tags are in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link, and whatever is loaded."""
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "href":
                self.links.append(value or "")
            if name in ("src", "srcset", "background", "poster", "data") or "url(" in (value or ""):
                self.loads.append(value or "")
        if tag in ("img", "link", "script", "iframe", "form", "object", "video"):
            self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that it ends what began last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text.append(data)


@pytest.mark.parametrize(
    "message", [sample(), hostile(), sample(kind="resolved", count=3), sample(kind="digest", run=None)]
)
def test_the_page_loads_nothing_and_is_in_order(start: Start, message: Message) -> None:
    """No images, no scripts, no tracking; texts of users' code are text; links lead to the web alone."""
    server = start()
    send(mailer(server), message)
    page = text_of(server.messages()[0], "html")
    read = _Page(page)
    assert read.open == []
    assert read.loads == []
    assert all(link.startswith("https://flightlog.example/") for link in read.links)
    assert "max-width:600px" in page
    assert len(page) < 100_000  # more is cut off by Gmail


def test_a_mail_keeps_to_the_lines_of_its_standard(start: Start) -> None:
    """No line has more than 998 characters, all is plain ASCII on the wire, and nothing is left of line breaks."""
    server = start()
    for kind in ("opened", "digest"):
        send(mailer(server, subject_prefix="[prod] ü"), hostile(kind=kind))
    for _, content in server.mails.taken:
        assert content.isascii()
        assert max(map(len, content.split(b"\r\n"))) <= 998
        assert b"\r" not in content.replace(b"\r\n", b"")
        assert b"\n" not in content.replace(b"\r\n", b"")
        assert b"\0" not in content


NASTY = st.text(max_size=300) | st.sampled_from([
    "a\r\nBcc: evil@example.com", "a\nX: y\n\nbody", "\0", "\ud83d", "🦦" * 500, "x" * 10_000,
    "=?utf-8?q?=0D=0ABcc:_a@example.com?=", "=??Q?=0ACC:?=", "=??Q?=AC?=",
    "a\u2028Bcc: b", "a\x85Bcc: b", "ä" * 400, " ", "\r\n.\r\n", "a\x0bBcc: x", "'\"<>,;:@",
])  # fmt: skip


@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])
@given(NASTY, NASTY, NASTY, NASTY)
def test_no_text_gets_into_the_headers(subject: str, flow: str, rule: str, key: str) -> None:
    """Whatever names hold, a mail has the headers that it has, each once, and reads back as one line."""
    run = sample().run
    assert run is not None
    run = dataclasses.replace(run, flow=flow, name=flow, error=subject, task=rule)
    message = sample(subject=subject, body=flow, rule=rule, key=key, incident=key or "i", run=run, kind="updated",
                     first={"message_id": subject, "subject": flow})  # fmt: skip
    for keep in (False, True):
        where = Addressed.of("Ä =??Q?=0ACC:?= <alerts@example.com>", TO, subject, keep_subject=keep)
        content = mime(message, where, now=0).as_bytes()
        read = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(read, EmailMessage)
        assert [name for name, _ in read.items()] == [
            "From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "List-Id", "Auto-Submitted",
            "X-Auto-Response-Suppress", "MIME-Version", "Content-Type",
        ]  # fmt: skip
        assert [address.addr_spec for address in read["To"].addresses] == TO
        assert read["From"].addresses[0].addr_spec == "alerts@example.com"
        assert all("\n" not in value and "\r" not in value for value in read.values())
        assert max(map(len, content.split(b"\r\n"))) <= 998
        assert text_of(read, "plain")


def test_mails_of_an_incident_are_one_thread(start: Start) -> None:
    """Later ones answer the first; if that is not known, they have a root in common all the same."""
    server = start()
    notifier = mailer(server)
    first = send(notifier, sample())
    send(notifier, sample(key="k2", kind="updated", count=2, first=first))
    send(notifier, sample(key="k3", kind="resolved", count=2, first=None))
    one, two, three = server.messages()
    root = "<incident.0197f3a0-3333-7000-8000-000000000000@flightlog.example.com>"
    assert one["In-Reply-To"] is None
    assert one["References"] == root
    assert two["In-Reply-To"] == one["Message-ID"]
    assert two["References"] == f"{root} {one['Message-ID']}"
    assert three["In-Reply-To"] == three["References"] == root
    assert two["Message-ID"] == "<k2@flightlog.example.com>"


def test_a_digest_is_in_no_thread(start: Start) -> None:
    """It is about many incidents."""
    server = start()
    send(mailer(server), sample(kind="digest", incident="", run=None))
    assert server.messages()[0]["References"] is None


def test_the_subject_of_the_first_can_be_kept(start: Start) -> None:
    """Gmail threads only mails with the same subject; the state is then told inside."""
    server = start()
    notifier = mailer(server, subject_prefix="[prod]", keep_subject=True)
    first = send(notifier, sample())
    send(notifier, sample(key="k2", kind="resolved", count=2, first=first))
    mail = server.messages()[1]
    assert mail["Subject"] == "Re: [prod] Failed: daily-etl (validate: ValueError)"
    assert text_of(mail, "plain").startswith("✓ Recovered: daily-etl")


def test_an_attempt_is_the_same_as_the_one_before(start: Start) -> None:
    """So that whoever gets it twice can tell."""
    server = start()
    server.misbehave("busy")
    refused(mailer(server))
    send(mailer(server), sample())
    send(mailer(server), sample())
    one, two = server.messages()
    assert one["Message-ID"] == two["Message-ID"]
    assert one["Date"] == two["Date"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_encrypted_and_logged_in(start: Start, files: certificates.Certificates, security: str) -> None:
    """With STARTTLS or from the first byte; the certificate and the server's name are checked."""
    server = start(security, needs_login=security == "starttls")
    login = {"username": smtp.USER, "password": smtp.PASSWORD} if security == "starttls" else {}
    secure = {"security": security, "ca_file": files.ca, **login}
    send(mailer(server, host="localhost", **secure), sample())
    assert server.mails.sessions[0].ssl is not None or security == "tls"
    error = refused(mailer(server, host="localhost", **{**secure, "ca_file": None}))
    assert "certificate" in str(error).lower()
    assert (error.is_final, error.is_unknown) == (False, False)
    assert "mismatch" in str(refused(mailer(server, host="127.0.0.1", **secure)))
    assert len(server.mails.taken) == 1


def test_starttls_never_falls_back(start: Start, files: certificates.Certificates) -> None:
    """A server without it, or somebody in between who hides it, gets nothing: no password, no message."""
    server = start("plain")
    secure = {"security": "starttls", "ca_file": files.ca, "username": smtp.USER, "password": smtp.PASSWORD}
    error = refused(mailer(server, **secure))
    assert error.is_final
    assert "STARTTLS" in str(error)
    assert server.attempts == 0


def test_a_wrong_password(start: Start, files: certificates.Certificates) -> None:
    """The server's answer is told, without the password in any form."""
    server = start("starttls", needs_login=True)
    wrong = {"username": smtp.USER, "password": "wrong-password-99"}
    error = refused(mailer(server, host="localhost", security="starttls", ca_file=files.ca, **wrong))
    assert (error.is_final, error.code) == (True, "535")
    assert "logging in" in str(error)
    assert "wrong-password-99" not in str(error)


def test_a_server_that_wants_a_login(start: Start, files: certificates.Certificates) -> None:
    """And we have none."""
    server = start("starttls", needs_login=True)
    error = refused(mailer(server, host="localhost", security="starttls", ca_file=files.ca))
    assert (error.is_final, error.code) == (True, "530")


def test_a_login_that_the_server_does_not_have(start: Start) -> None:
    """It would not be used at all: said so, and nothing is sent."""
    error = refused(mailer(start(), username=smtp.USER, password=smtp.PASSWORD))
    assert error.is_final
    assert "AUTH" in str(error)


@pytest.mark.parametrize(
    ("answer", "is_final"),
    [("421 4.3.2 Shutting down", False), ("450 4.2.0 Greylisted", False), ("451 4.3.0 Error", False),
     ("452 4.3.1 Full", False), ("500 5.5.2 What", True), ("550 5.7.1 Spam", True), ("552 5.3.4 Too big", True),
     ("554 5.6.0 No", True)],
)  # fmt: skip
def test_what_an_answer_to_the_content_means(start: Start, answer: str, is_final: bool) -> None:
    """4xx is for later, 5xx final; either way it was not taken."""
    server = start()
    server.mails.answers.append(answer)
    error = refused(mailer(server))
    assert (error.is_final, error.is_unknown, error.code) == (is_final, False, answer[:3])
    assert answer[4:] in str(error)
    assert server.mails.taken == []


def test_greylisting_passes(start: Start) -> None:
    """451 at first, taken at the next attempt."""
    server = start()
    grey = "451 4.7.1 Greylisted, try again later"
    server.mails.refused = {one: [grey] for one in TO}
    error = refused(mailer(server))
    assert (error.is_final, error.is_unknown, error.code, error.reached) == (False, False, "451", None)
    assert grey[4:] in str(error)
    send(mailer(server), sample())
    assert len(server.mails.taken) == 1


def test_unknown_recipients_are_final(start: Start) -> None:
    """All of them: the mail goes to nobody."""
    server = start()
    server.mails.refused = {one: ["550 5.1.1 No such user"] for one in TO}
    error = refused(mailer(server))
    assert (error.is_final, error.code) == (True, "550")
    assert "data@example.com (550 5.1.1 No such user), ops@example.com" in str(error)


def test_some_unknown_recipients_are_told(start: Start) -> None:
    """The others have the mail, and the receipt says who has not."""
    server = start()
    server.mails.refused = {"ops@example.com": ["550 5.1.1 No such user"]}
    assert send(mailer(server), sample())["refused"] == "ops@example.com (550 5.1.1 No such user)"
    assert server.mails.taken[0][0] == ["data@example.com"]


def test_those_who_have_it_do_not_get_it_again(start: Start) -> None:
    """One mailbox is full for now: the next attempt is for that one alone."""
    server = start()
    server.mails.refused = {"ops@example.com": ["452 4.2.2 Mailbox full", "452 4.2.2 Mailbox full"]}
    error = refused(mailer(server))
    assert (error.is_final, error.code) == (False, "452")
    assert error.reached is not None
    again = refused(mailer(server), sample(reached=error.reached))
    assert again.reached == error.reached
    send(mailer(server), sample(reached=again.reached))
    assert [recipients for recipients, _ in server.mails.taken] == [["data@example.com"], ["ops@example.com"]]


def test_a_recipient_who_turns_out_not_to_be_costs_the_others_nothing(start: Start) -> None:
    """Greylisted first, unknown then: those who have the mail have it."""
    server = start()
    server.mails.refused = {"ops@example.com": ["451 4.7.1 Greylisted", "550 5.1.1 No such user"]}
    error = refused(mailer(server))
    receipt = send(mailer(server), sample(reached=error.reached))
    assert receipt["refused"] == "ops@example.com (550 5.1.1 No such user)"
    assert len(server.mails.taken) == 1


def test_a_connection_that_breaks_while_the_content_goes_out(start: Start) -> None:
    """Nobody can know whether it was taken."""
    server = start()
    server.misbehave("dropping")
    error = refused(mailer(server))
    assert (error.is_final, error.is_unknown) == (False, True)


def test_a_server_that_says_nothing_before_the_content(start: Start) -> None:
    """A time-out while connecting leaves nothing unknown."""
    with ExitStack() as stack:
        import socket

        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        notifier = mailer(start(), port=silent.getsockname()[1])
        error = refused(notifier, timeout=0.4)
    assert (error.is_final, error.is_unknown) == (False, False)
    assert "connecting" in str(error)


@pytest.mark.parametrize(
    "address",
    ["", "nobody", "@example.com", "a@", "a b@example.com", "a@exa mple.com", "a@b\r\nBcc: c@example.com",
     "a\n@example.com", "<a@example.com", "a@example.com\0", "ä@example.com", "a@-..com",
     "a@example.com>", "x" * 70 + "@example.com",
     "a@example.com, b@example.com", "a;b@example.com"],
)  # fmt: skip
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    """When the channel is made, not when the first message is to go out."""
    good = {"host": "mail.example", "sender": "a@example.com", "to": ["b@example.com"]}
    for wrong in ({"sender": address}, {"to": ["b@example.com", address]}):
        with pytest.raises(ValidationError):
            Email.model_validate({**good, **wrong})


@pytest.mark.parametrize("address", ["a@example.com", "Ops Team <a+b_c@mail.example.co.uk>", "o'neil@example.com",
                                     "Ü <a@exämple.com>", "root@localhost"])  # fmt: skip
def test_what_is_an_address(start: Start, address: str) -> None:
    """With names, other scripts in the domain, and on the machine itself."""
    server = start()
    send(mailer(server, to=[address]), sample())
    assert server.mails.taken[0][0][0].isascii()


def test_settings_that_do_not_fit_are_refused_at_once() -> None:
    """A password without a name, nobody to send to, a host that is none, a port that is none."""
    good = {"host": "mail.example", "sender": "a@example.com", "to": ["b@example.com"]}
    wrongs: list[dict[str, Any]] = [
        {"password": "x"}, {"username": "x"}, {"to": []}, {"host": "a b"}, {"host": "a\r\n"}, {"port": 0},
        {"port": 70_000}, {"security": "ssl"}, {"to": ["b@example.com"] * 51},
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            Email.model_validate({**good, **wrong})


def test_plain_comes_with_a_warning() -> None:
    """Except to this machine itself."""
    good = {"host": "mail.example", "sender": "a@example.com", "to": ["b@example.com"]}
    assert Email.model_validate(good).check() is None
    assert "unencrypted" in str(Email.model_validate({**good, "security": "plain"}).check())
    login = {"username": "u", "password": "p-secret"}
    warning = str(Email.model_validate({**good, "security": "plain", **login}).check())
    assert "password" in warning
    assert "p-secret" not in warning
    assert Email.model_validate({**good, "security": "plain", "host": "127.0.0.1"}).check() is None


def test_a_missing_file_of_certificates_is_said(start: Start, tmp_path: Path) -> None:
    """It will not appear by trying again."""
    error = refused(mailer(start(), security="starttls", ca_file=tmp_path / "none.pem"))
    assert (error.is_final, error.code) == (True, "ca_file")
