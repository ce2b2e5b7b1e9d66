"""What a message looks like as an e-mail: its headers, which thread it, its text, and its HTML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import Header
from email.headerregistry import Address, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy, Policy
from email.utils import format_datetime
from typing import Any

from flightlog.clock import to_datetime
from flightlog.notifications import wording
from flightlog.notifications.email_page import page
from flightlog.notifications.notifier import Message, token

# No blanks, no brackets, no line breaks: nothing that would end the address where it is told to a server.
_BARE = r"""(?P<local>[!#-'*+/-9=?A-Z^-~.-]{1,64})@(?P<host>[^\s<>@,;"]+)"""
_NAMED = re.compile(rf"""(?:"(?P<quoted>[^"\\]*)"|(?P<name>[^<>@"\\]*)) ?<{_BARE}>""")
_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


@dataclass(frozen=True, slots=True)
class Addressed:
    """Whom messages are from and for.

    Attributes:
        sender: the sender.
        to: the recipients.
        prefix: what subjects begin with; empty for nothing.
        keep_subject: whether later messages have the subject of the first one.
    """

    sender: Address
    to: tuple[Address, ...]
    prefix: str
    keep_subject: bool

    @classmethod
    def of(cls, sender: str, to: Sequence[str], prefix: str | None, *, keep_subject: bool) -> "Addressed":
        """Return whom messages are from and for."""
        start = wording.one_line(prefix or "", 40)
        return cls(parsed(sender), tuple(map(parsed, to)), f"{start} " if start else "", keep_subject)


def parsed(text: str) -> Address:
    """Return an address, with a name or without.

    Raises:
        ValueError: it is none, or one that not every server takes.
    """
    found = (_NAMED.fullmatch(text) or re.fullmatch(_BARE, text)) if text.isprintable() else None
    try:
        host = found["host"].encode("idna").decode() if found else ""
        if found and _HOST.fullmatch(host):
            names = found.groupdict()
            name = wording.one_line(names.get("quoted") or names.get("name") or "", 100).replace("=?", "= ?")
            return Address(name, addr_spec=f"{found['local']}@{host}")
    except (ValueError, IndexError):  # of an address that is odd the standard library makes either
        pass
    raise ValueError(f"{text[:100]!r} is no e-mail address that every server takes.")


class _Ids(UnstructuredHeader):
    """A header of message ids: each on a line of its own, and the first beside the header's name, however long."""

    max_count = 1
    name: str

    def fold(self, *, policy: Policy) -> str:
        """Return the header's lines."""
        return f"{self.name}: {f'{policy.linesep} '.join(str(self).split())}{policy.linesep}"


class _Line(UnstructuredHeader):
    """A header of text that is just text.

    The standard library reads what it is given: it would decode ``=?utf-8?q?=0ABcc:...?=`` in the name of a flow, and
    write the line break that comes out of it as one (until Python 3.12.5).
    """

    max_count = 1
    name: str

    @classmethod
    def parse(cls, value: str, kwds: dict[str, Any]) -> None:
        """Take the text as it is."""
        kwds["parse_tree"], kwds["decoded"] = None, value

    def fold(self, *, policy: Policy) -> str:
        """Return the header's lines."""
        text = str(self)
        charset = None if text.isascii() and "=?" not in text else "utf-8"
        coded = Header(text, charset, header_name=self.name, maxlinelen=76).encode(linesep=policy.linesep)
        return f"{self.name}: {coded}{policy.linesep}"


def _policy() -> "EmailPolicy[EmailMessage]":
    registry = HeaderRegistry()
    for name in ("message-id", "in-reply-to", "references"):
        registry.map_to_type(name, _Ids)  # type: ignore[arg-type] # it is made one with `BaseHeader` there
    registry.map_to_type("subject", _Line)  # type: ignore[arg-type] # the same
    return SMTP.clone(header_factory=registry)


_POLICY = _policy()


def mime(message: Message, where: Addressed, *, now: int) -> EmailMessage:
    """Return a message as an e-mail: the same at every attempt.

    Args:
        message: the message.
        where: whom it is from and for.
        now: the present, for a message without a time of its own.
    """
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = where.sender
    mail["To"] = where.to
    mail["Subject"] = _subject(message, where)
    mail["Date"] = format_datetime(to_datetime(message.at or now))
    _thread(mail, message, where.sender.domain)
    mail["List-Id"] = f"Flightlog <{_label(message.rule)}.flightlog.{where.sender.domain}>"
    # RFC 3834; and the same for Exchange. Nobody is to be told that somebody is on holiday.
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    # Both are encoded: lines may be long, and no server on the way is to break or strip them.
    mail.set_content(wording.plain_text(message), cte="quoted-printable")
    mail.add_alternative(page(message), subtype="html", cte="quoted-printable")
    return mail


def _subject(message: Message, where: Addressed) -> str:
    first = (message.first or {}).get("subject") if where.keep_subject else None
    return wording.one_line(f"Re: {first}" if first else where.prefix + wording.subject(message), 200)


def _thread(mail: EmailMessage, message: Message, domain: str) -> None:
    """Name the message and what it follows. All of an incident refer to a root that need not exist."""
    mail["Message-ID"] = f"<{token(message.key)}@flightlog.{domain}>"
    if not message.incident:
        return
    root = f"<incident.{token(message.incident)}@flightlog.{domain}>"
    first = (message.first or {}).get("message_id", "")
    is_id = first.startswith("<") and first.endswith(">") and first.isascii() and " " not in first
    if message.kind not in ("opened", "drill") or is_id:
        mail["In-Reply-To"] = first if is_id else root
    mail["References"] = f"{root} {first}" if is_id else root


def _label(rule: str) -> str:
    """Return a rule's name as a label of a host name, which a list's id is made of (RFC 2919)."""
    letters = "".join(one if one.isascii() and one.isalnum() else "-" for one in rule.lower())
    return letters.strip("-")[:60].strip("-") or "rule"
