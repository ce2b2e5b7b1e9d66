"""A webhook: messages as CloudEvents, signed, and never to an address inside unless that is allowed."""

import base64
import binascii
import hmac
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import SplitResult, quote, urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from flightlog.clock import isoformat
from flightlog.notifications import wording
from flightlog.notifications.answers import in_thread, refusal
from flightlog.notifications.notifier import DeliveryError, Message, Notifier, Receipt, masked, token
from flightlog.notifications.trust import tls_context

_OURS = frozenset({"host", "content-type", "content-length", "transfer-encoding", "connection", "expect"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_SIGNING_KEY_HINT = "make one with: echo whsec_$(openssl rand -base64 32)"
# Addresses of version 6 that stand for one of version 4 behind a gateway: RFC 6052.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
Resolver = Callable[..., list[tuple[Any, ...]]]


class Webhook(Notifier):
    """Posts each message to a URL: a CloudEvent as JSON, signed as Standard Webhooks says."""

    kind: ClassVar[str] = "webhook"

    url: SecretStr = Field(description="Where messages are posted: `https://...`, or `http://...`. Kept secret.")
    secret: SecretStr | None = Field(
        default=None, description=f"The key that messages are signed with, `whsec_...`; {_SIGNING_KEY_HINT}."
    )
    headers: dict[str, SecretStr] = Field(
        default={}, description="Further headers, such as `Authorization`; their values are kept secret."
    )
    allow_private: bool = Field(
        default=False, description="Whether the URL may lead to an address inside: private, loopback, link-local."
    )
    ca_file: Path | None = Field(
        default=None, description="A file of certificates to trust instead of the system's, for an authority of yours."
    )

    _resolve: Resolver = PrivateAttr(default_factory=lambda: socket.getaddrinfo)

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: SecretStr) -> SecretStr:
        _split(value.get_secret_value())
        return value

    @field_validator("secret")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _key(value)
        return value

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, content in value.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name[:100]!r} is not the name of a header.")
            if name.lower() in _OURS or name.lower().startswith("webhook-"):
                raise ValueError(f"The header {name} is set by Flightlog: leave it out.")
            if not re.fullmatch(r"[\t -~]*", content.get_secret_value()):
                raise ValueError(f"The header {name} has characters that a header cannot have.")
        return value

    def check(self) -> str | None:
        """Say what somebody ought to know: that it is not encrypted, or not signed."""
        if urlsplit(self.url.get_secret_value()).scheme == "http":
            return "The URL begins with http://, so messages and headers go unencrypted."
        return None if self.secret else "Without a secret nobody can tell whether a message is yours."

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Post a message."""
        body = json.dumps(event(message), ensure_ascii=False, default=str).encode("utf-8", "replace")
        posting = _Posting(_split(self.url.get_secret_value()), self._headers(message, body), body, timeout)

        def post() -> tuple[int, Mapping[str, str]]:
            # The very addresses that are checked are used: asked once more, the name may lead elsewhere.
            return posting.post(self._addresses(posting.host, posting.port), self.ca_file)

        try:
            status, headers = await in_thread(post, timeout=timeout)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the request ended
            posting.stop()
            raise self._failed(error, posting, timeout) from None
        if not 200 <= status < 300:
            hint = "it sends elsewhere, which is not followed: give the URL where it leads" if status < 400 else ""
            raise refusal(posting.host, status, headers, hint=hint)
        return {"status": str(status)}

    def _addresses(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """Return where a host is; none of its addresses may be inside, unless that is allowed."""
        found = self._resolve(host, port, type=socket.SOCK_STREAM)
        if not self.allow_private and not all(is_outside(str(address[4][0])) for address in found):
            raise DeliveryError(
                f"{host} leads to an address inside, where webhooks must not go: set allow_private to allow it.",
                is_final=True,
                code="private_address",
            )
        return found[:4]

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        seconds = self._clock.now() // 1_000_000
        headers = {
            "User-Agent": "Flightlog",
            **{name: value.get_secret_value() for name, value in self.headers.items()},
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": token(message.key),
            "webhook-timestamp": str(seconds),
        }
        if self.secret is not None:
            headers["webhook-signature"] = signature(self.secret, token(message.key), seconds, body)
        return headers

    def _failed(self, error: Exception, posting: "_Posting", timeout: float) -> DeliveryError:
        """Return what went wrong on the way."""
        if isinstance(error, DeliveryError):
            return error
        is_unknown = posting.is_sent
        if isinstance(error, TimeoutError):
            what = "did not answer" if is_unknown else "could not be reached"
            return DeliveryError(f"{posting.host} {what} within {timeout:g} s.", is_unknown=is_unknown)
        secrets = (self.url, self.secret, *self.headers.values(), posting.target if len(posting.target) > 3 else "")
        text = masked(str(error) or type(error).__name__, *secrets)
        if isinstance(error, (OSError, HTTPException)):
            what = "The connection was lost to" if is_unknown else "There is no connection to"
            return DeliveryError(f"{what} {posting.host}: {text}.", is_unknown=is_unknown)
        return DeliveryError(
            f"Posting to {posting.host} failed: {type(error).__name__}: {text}.", is_unknown=is_unknown
        )


def event(message: Message) -> dict[str, Any]:
    """Return a message as a CloudEvent 1.0 in structured mode (https://cloudevents.io)."""
    data = {name: value for name, value in asdict(message).items() if name not in ("first", "reached")}
    data["subject"] = wording.subject(message)
    data["body"] = wording.own_body(message) or wording.default_body(message)
    data["text"] = wording.plain_text(message)
    subject = {"subject": message.incident} if message.incident else {}
    return {
        "specversion": "1.0",
        "id": token(message.key),
        "source": f"/flightlog/rules/{quote(message.rule.encode('utf-8', 'replace'), safe='')}",
        "type": f"flightlog.notification.{message.kind}",
        **subject,
        "time": isoformat(message.at),
        "datacontenttype": "application/json",
        "data": data,
    }


def signature(secret: SecretStr, key: str, seconds: int, body: bytes) -> str:
    """Return the signature of a message as https://www.standardwebhooks.com says.

    Args:
        secret: the key that both sides have.
        key: what ``webhook-id`` says.
        seconds: what ``webhook-timestamp`` says.
        body: the bytes that are posted.
    """
    signed = f"{key}.{seconds}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()


def _key(secret: SecretStr) -> bytes:
    try:
        key = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError(f"The secret has to be 24 to 64 bytes in base64: {_SIGNING_KEY_HINT}.")
    return key


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_fine = False
    if not is_fine or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("The URL has to begin with https:// (or http://) and a host, and be plain ASCII.")
    if "@" in parts.netloc:
        raise ValueError("The URL must not hold a name and password: set the header Authorization instead.")
    return parts


def is_outside(address: str) -> bool:
    """Tell whether an address is one of the open internet: what a user from outside may make us talk to.

    Args:
        address: an address of version 4 or 6, perhaps with a zone.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return _is_global(found)
    if found in _NAT64:
        return _is_global(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
    if found.ipv4_mapped is not None:
        return _is_global(found.ipv4_mapped)
    # The others that hold an address of version 4 have to be fine themselves as well.
    held = [one for one in (found.sixtofour, *(found.teredo or ())) if one is not None]
    return _is_global(found) and all(map(_is_global, held))


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved)


@dataclass
class _Posting:
    """One request, which another thread can stop.

    Attributes:
        parts: the URL.
        headers: what goes above the body.
        body: what is posted.
        timeout: how many seconds each step may take.
        is_sent: whether the request has begun to leave.
    """

    parts: SplitResult
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float
    is_sent: bool = False
    _socket: socket.socket | None = None
    _stopped: bool = False

    @property
    def host(self) -> str:
        """The host's name."""
        return self.parts.hostname or ""

    @property
    def target(self) -> str:
        """Path and query."""
        return (self.parts.path or "/") + (f"?{self.parts.query}" if self.parts.query else "")

    @property
    def port(self) -> int:
        """The port, given or not."""
        return self.parts.port or self._default_port

    @property
    def _default_port(self) -> int:
        return 443 if self.parts.scheme == "https" else 80

    def post(self, addresses: list[tuple[Any, ...]], ca_file: Path | None) -> tuple[int, Mapping[str, str]]:
        """Send the request and return status and headers of the answer; blocks.

        Args:
            addresses: where to, as `socket.getaddrinfo` tells.
            ca_file: whose certificates to trust.
        """
        connection = HTTPConnection(self.host, self.port, timeout=self.timeout)
        connection.default_port = self._default_port
        self._socket = self._connect(addresses)
        try:
            if self.parts.scheme == "https":
                self._socket = tls_context(ca_file).wrap_socket(self._socket, server_hostname=self.host)
            connection.sock = self._socket
            if self._stopped:
                raise TimeoutError
            self.is_sent = True
            connection.request("POST", self.target, self.body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.headers.items())
        finally:
            connection.close()
            self._socket.close()

    def _connect(self, addresses: list[tuple[Any, ...]]) -> socket.socket:
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            connected = socket.socket(family, kind, protocol)
            try:
                connected.settimeout(self.timeout / len(addresses))
                connected.connect(address)
            except OSError:
                connected.close()
                if number == len(addresses) - 1:
                    raise
            else:
                connected.settimeout(self.timeout)
                return connected
        raise OSError("the host has no address")

    def stop(self) -> None:
        """End the request, so that its thread does not wait for an answer that comes byte by byte."""
        self._stopped = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
