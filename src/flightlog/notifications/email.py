"""E-mail by SMTP: encrypted unless that is switched off, as text and as HTML, threaded by incident."""

import asyncio
import base64
import re
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from flightlog.notifications.answers import in_thread
from flightlog.notifications.email_message import Addressed, mime, parsed
from flightlog.notifications.notifier import DeliveryError, Message, Notifier, Receipt, masked
from flightlog.notifications.trust import tls_context
from flightlog.notifications.wording import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiosmtplib import SMTP

_PORTS = {"starttls": 587, "tls": 465, "plain": 25}
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")


class Email(Notifier):
    """Sends messages by e-mail through an SMTP server."""

    kind: ClassVar[str] = "email"

    host: str = Field(description="The SMTP server's name.", pattern=r"^[A-Za-z0-9._:-]+$", max_length=253)
    port: int | None = Field(
        default=None, gt=0, lt=65536, description="Its port; by default 587, 465 or 25, depending on `security`."
    )
    security: Literal["starttls", "tls", "plain"] = Field(
        default="starttls",
        description="`starttls`: encrypted by STARTTLS, or nothing is sent. `tls`: encrypted from the first byte. "
        "`plain`: not encrypted; for a server on the same machine.",
    )
    username: str | None = Field(default=None, description="The name to log in with.")
    password: SecretStr | None = Field(default=None, description="The password to log in with.")
    sender: str = Field(description="The address that messages come from: `alerts@example.com`, or with a name.")
    to: list[str] = Field(description="The addresses that messages go to.", min_length=1, max_length=50)
    subject_prefix: str | None = Field(
        default=None, max_length=40, description="What subjects begin with, such as `[prod]`."
    )
    keep_subject: bool = Field(
        default=False,
        description="Whether later messages of an incident have the first one's subject: Gmail threads only those.",
    )
    ca_file: Path | None = Field(
        default=None, description="A file of certificates to trust instead of the system's, for an authority of yours."
    )

    @field_validator("sender")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parsed(value)
        return value

    @field_validator("to")
    @classmethod
    def _are_addresses(cls, value: list[str]) -> list[str]:
        for one in value:
            parsed(one)
        return value

    @model_validator(mode="after")
    def _logs_in_with_both(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("To log in the server needs both, username and password.")
        return self

    def check(self) -> str | None:
        """Say what somebody ought to know: that messages, and a password, go unencrypted."""
        if self.security != "plain" or _LOOPBACK.fullmatch(self.host):
            return None
        what = "messages and the password" if self.password else "messages"
        return f"With security = plain {what} go to {self.host} unencrypted, and anybody can pretend to be it."

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Send a message to all recipients that do not have it yet."""
        where = Addressed.of(self.sender, self.to, self.subject_prefix, keep_subject=self.keep_subject)
        mail = mime(message, where, now=self._clock.now())
        receipt = {"message_id": str(mail["Message-ID"]), "subject": str(mail["Subject"])}
        sending = _Sending(self, frozenset((message.reached or {}).get("accepted", "").split()))
        try:
            async with asyncio.timeout(timeout), self._connected(sending, timeout) as client:
                await sending.mail(client, mail.as_bytes(), where)
        except Exception as error:  # noqa: BLE001 - whatever the library raises, it is told
            if not sending.is_taken:  # else it was the farewell that failed
                raise sending.failed(error, timeout) from None
        return sending.receipt(receipt)

    @asynccontextmanager
    async def _connected(self, sending: "_Sending", timeout: float) -> "AsyncIterator[SMTP]":
        from aiosmtplib import SMTP

        context = None if self.security == "plain" else tls_context(self.ca_file)
        client = SMTP(
            hostname=self.host,
            sock=await self._socket(timeout),
            use_tls=self.security == "tls",
            start_tls=self.security == "starttls",  # True is "or fail", None would be "if there is any"
            tls_context=context,
            local_hostname=_own_name(),
            timeout=None,
        )
        transport = None
        try:
            await client.connect()
            transport = client.transport
            if self.password is not None:
                sending.step = "logging in"
                await client.login(self.username or "", self.password.get_secret_value())
            yield client
        finally:
            client.close()
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()  # no farewell in TLS: the server may be the one that hangs
            for _ in range(3):  # sockets are closed in the loop's next rounds, and it may end now
                await asyncio.sleep(0)

    async def _socket(self, timeout: float) -> socket.socket:
        """Return a connection to the server: to the first of its addresses that answers."""
        port = self.port or _PORTS[self.security]
        # asyncio would look the name up in its pool of threads, and hold the exit up until that is done.
        find = partial(socket.getaddrinfo, self.host, port, type=socket.SOCK_STREAM)
        addresses = await in_thread(find, timeout=timeout)
        problem = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, address in addresses:
            found = socket.socket(family, kind, protocol)
            try:
                found.setblocking(False)
                async with asyncio.timeout(timeout / len(addresses)):
                    await asyncio.get_running_loop().sock_connect(found, address)
            except OSError as error:
                problem = error
                found.close()
            except BaseException:
                found.close()
                raise
            else:
                return found
        raise problem


class _Sending:
    """One attempt: how far it got, and what the server said.

    Args:
        notifier: the configuration.
        reached: the recipients that have the message from an earlier attempt.
    """

    def __init__(self, notifier: Email, reached: frozenset[str]) -> None:
        self.notifier = notifier
        self.reached = reached
        self.step = "connecting"
        self.refused: dict[str, tuple[int, str]] = {}
        self.is_taken = False

    async def mail(self, client: "SMTP", content: bytes, where: Addressed) -> None:
        """Hand a message over, to all that do not have it yet."""
        self.step = "naming the sender"
        await client.mail(where.sender.addr_spec)
        self.step = "naming the recipients"
        before = len(self.reached)
        for recipient in dict.fromkeys(one.addr_spec for one in where.to if one.addr_spec not in self.reached):
            await self._name(client, recipient)
        if len(self.reached) == before:
            return
        self.step = "handing over the message"
        await client.data(content)
        self.is_taken = True
        with suppress(Exception):  # it has the message, whatever comes of the farewell
            await client.quit(timeout=2)

    async def _name(self, client: "SMTP", recipient: str) -> None:
        from aiosmtplib import SMTPRecipientRefused

        try:
            await client.rcpt(recipient)
        except SMTPRecipientRefused as error:
            self.refused[recipient] = (error.code, self._said(error.message))
        else:
            self.reached |= {recipient}

    def receipt(self, receipt: dict[str, str]) -> Receipt:
        """Return the receipt; or raise if no recipient has the message, or some can be reached later."""
        later = {one: answer for one, answer in self.refused.items() if answer[0] < 500}
        host = self.notifier.host
        if self.refused and not self.reached and not later:
            code = str(next(iter(self.refused.values()))[0])
            raise DeliveryError(f"{host} refused {_told(self.refused)}.", is_final=True, code=code)
        if later:
            reached = {**receipt, "accepted": " ".join(sorted(self.reached))} if self.reached else None
            raise DeliveryError(
                f"{host} does not take the message for now for {_told(later)}.",
                code=str(next(iter(later.values()))[0]),
                reached=reached,
            )
        return {**receipt, "refused": _told(self.refused)} if self.refused else receipt

    def failed(self, error: Exception, timeout: float) -> DeliveryError:
        """Return what went wrong."""
        from aiosmtplib import SMTPException, SMTPNotSupported, SMTPResponseException

        if isinstance(error, DeliveryError):
            return error
        host, is_unknown = self.notifier.host, self.step == "handing over the message"
        if isinstance(error, SMTPResponseException) and error.code > 0:
            said = self._said(error.message)
            is_final = error.code >= 500
            text = f"{host} answered {error.code} while {self.step}: {said}."
            return DeliveryError(text, is_final=is_final, code=str(error.code))
        if isinstance(error, TimeoutError):
            text = f"{host} did not answer within {timeout:g} s, while {self.step}."
            return DeliveryError(text, is_unknown=is_unknown)
        if _lacks(error):
            text = f"{host} cannot do what is needed: {self._said(str(error))}. Nothing was sent."
            return DeliveryError(text, is_final=True, code="not_supported")
        is_final = isinstance(error, SMTPNotSupported)
        known = isinstance(error, (OSError, SMTPException))
        # The library's own words for this name a port that it does not know, since we connect.
        source = error.__cause__ if isinstance(error.__cause__, OSError) else error
        said = self._said(str(source) if known else f"{type(error).__name__}: {error}")
        return DeliveryError(f"{host}: {said}, while {self.step}.", is_final=is_final, is_unknown=is_unknown)

    def _said(self, text: str) -> str:
        """Return what a server said as one line, without our secrets, which it may say in base64."""
        name, secret = self.notifier.username or "", self.notifier.password
        password = secret.get_secret_value() if secret else ""
        coded = [base64.b64encode(one.encode()).decode() for one in (password, f"\0{name}\0{password}") if password]
        return one_line(masked(text, password, *coded), 300).rstrip(".")


def _lacks(error: Exception) -> bool:
    """Tell whether the server cannot do STARTTLS or log us in, which the library says in words alone."""
    from aiosmtplib import SMTPException

    return type(error) is SMTPException and ("not supported" in str(error) or "No suitable auth" in str(error))


def _told(refused: dict[str, tuple[int, str]]) -> str:
    """Return recipients and what the server said of each."""
    return ", ".join(f"{recipient} ({code} {text})" for recipient, (code, text) in refused.items())


def _own_name() -> str:
    """Return what we say that we are: a full name, or else an address, which no server minds (RFC 5321, 4.1.3)."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", name) else "[127.0.0.1]"
