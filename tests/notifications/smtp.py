"""An SMTP server of our own: STARTTLS, TLS or neither, logging in, and every way to refuse a message."""

import asyncio
import email
import email.policy
from email.message import EmailMessage
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from types import TracebackType
from typing import Any, Literal, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from tests.postgres import free_port

from flightlog.testing.notifier_contract import Behaviour

USER, PASSWORD = "flightlog", "stand-in-password-17"


class Mails:
    """What comes in, and what is answered.

    Attributes:
        taken: the messages that were taken: recipients and content.
        attempts: how many messages were begun.
        refused: answers to recipients, such as ``{"b@example.com": ["550 5.1.1 No such user"]}``.
        answers: answers to the next messages after their content was read, such as ``452 4.3.1 Full``.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], bytes]] = []
        self.attempts = 0
        self.refused: dict[str, list[str]] = {}
        self.answers: list[str] = []
        self.sessions: list[Session] = []
        self.over = asyncio.Event()

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        """Count an attempt."""
        self.attempts += 1
        self.sessions.append(session)
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        """Take a recipient, or refuse it."""
        if self.refused.get(address):
            return self.refused[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take a message, refuse it, drop the connection, or say nothing."""
        answer = self.answers.pop(0) if self.answers else ""
        if answer == "drop":
            assert server.transport is not None
            server.transport.abort()  # type: ignore[attr-defined] # it is one that writes
            return "421 gone"
        if answer == "wait":
            await asyncio.wait_for(self.over.wait(), 20)
            return "421 gone"
        if answer:
            return answer
        assert isinstance(envelope.content, bytes)
        self.taken.append((envelope.rcpt_tos, envelope.content))
        return "250 2.0.0 Taken"

    async def handle_exception(self, error: Exception) -> str:
        """Say nothing about connections that are cut."""
        return "421 gone"


def _login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    is_ours = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_ours, handled=False)


class MailServer:
    """A server on a port of 127.0.0.1.

    Args:
        security: how connections are encrypted.
        certificate: a file with certificate and key; None for ``plain``.
        needs_login: whether one has to log in.
    """

    def __init__(
        self, security: Literal["starttls", "tls", "plain"], certificate: Path | None, *, needs_login: bool = False
    ) -> None:
        self.mails = Mails()
        self.port = free_port()
        options: dict[str, Any] = {"data_size_limit": 1_000_000}
        if certificate is not None:
            context = SSLContext(PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            options["ssl_context" if security == "tls" else "tls_context"] = context
            options["require_starttls"] = security == "starttls"
        if needs_login:
            options |= {"auth_required": True, "authenticator": _login, "auth_require_tls": security == "starttls"}
        self._controller = Controller(self.mails, hostname="127.0.0.1", port=self.port, **options)

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.leave()

    @property
    def attempts(self) -> int:
        """How many messages were begun."""
        return self.mails.attempts

    def messages(self) -> list[EmailMessage]:
        """Return the messages that were taken."""
        parse = email.message_from_bytes
        return [parse(content, policy=email.policy.default) for _, content in self.mails.taken]

    def received(self) -> list[str]:
        """Return subject and plain text of each message."""
        return [f"{one['Subject']}\n{text_of(one, 'plain')}" for one in self.messages()]

    def misbehave(self, how: Behaviour, *, retry_after: str | None = None) -> None:
        """Treat the next message that way."""
        answers = {"busy": "452 4.3.1 Too many", "broken": "451 4.3.0 Error", "refusing": "554 5.7.1 No",
                   "dropping": "drop", "slow": "wait"}  # fmt: skip
        self.mails.answers.append(answers[how])

    def leave(self) -> None:
        """Stop."""
        if self._controller.server is not None:
            self._controller.loop.call_soon_threadsafe(self.mails.over.set)
            self._controller.stop()


def text_of(message: EmailMessage, kind: str) -> str:
    """Return a message's text of a kind, ``plain`` or ``html``."""
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())
