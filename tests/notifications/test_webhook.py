"""Webhooks: CloudEvents, signatures of Standard Webhooks, and addresses that they must not go to."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from tests.notifications import certificates
from tests.notifications.receivers import Answer, Receiver

from flightlog.notifications.notifier import DeliveryError, Message, Receipt
from flightlog.notifications.webhook import Webhook, event, is_outside, signature
from flightlog.testing import VirtualClock
from flightlog.testing.notifier_contract import hostile, sample

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A program that is posted to."""
    with Receiver() as server:
        yield server


def hook(receiver: Receiver, host: str = "127.0.0.1", path: str = "/hook?a=1", **settings: Any) -> Webhook:
    """Return a webhook to it."""
    given = {"url": f"http://{host}:{receiver.port}{path}", "allow_private": True, **settings}
    return Webhook.model_validate(given)


def send(notifier: Webhook, message: Message, timeout: float = 5) -> Receipt:
    """Send a message."""
    return asyncio.run(notifier.send(message, timeout=timeout))


def refused(notifier: Webhook, message: Message | None = None, timeout: float = 5) -> DeliveryError:
    """Send a message that is not taken."""
    with pytest.raises(DeliveryError) as caught:
        send(notifier, message or sample(), timeout)
    return caught.value


def answers(*addresses: str) -> tuple[Callable[..., list[Any]], list[str]]:
    """Return a resolver that gives these addresses for any name, and the names that it is asked for."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        kind = socket.SOCK_STREAM
        return [(socket.AF_INET6 if ":" in one else socket.AF_INET, kind, 6, "", (one, port)) for one in addresses]

    return resolve, asked


def test_a_message_is_a_cloud_event(receiver: Receiver) -> None:
    """The required attributes, and all facts as data."""
    assert send(hook(receiver, headers={"X-Team": "data"}), sample()) == {"status": "200"}
    (posted,) = receiver.kept
    assert posted.path == "/hook?a=1"
    assert posted.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert posted.headers["x-team"] == "data"
    assert posted.headers["host"] == f"127.0.0.1:{receiver.port}"
    told = json.loads(posted.body)
    data = told.pop("data")
    assert told == {
        "specversion": "1.0",
        "id": "0197f3a0-2222-7000-8000-000000000000",
        "source": "/flightlog/rules/prod%20failures",
        "type": "flightlog.notification.opened",
        "subject": "0197f3a0-3333-7000-8000-000000000000",
        "time": "2025-11-25T06:02:05.000Z",
        "datacontenttype": "application/json",
    }
    assert data["run"]["error"] == "ValueError: 5 rows violate not_null(customer_id)"
    assert data["run"]["tasks"] == {"COMPLETED": 13, "FAILED": 1, "SCHEDULED": 2, "CANCELLED": 2}
    assert data["subject"] == "Failed: daily-etl (validate: ValueError)"
    assert data["text"].startswith("✕ Failed: daily-etl / wise-otter\n")
    assert "first" not in data


def test_the_signature_is_the_one_of_the_standard() -> None:
    """A known one, from the reference implementations."""
    signed = signature(SecretStr(KEY), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_is_posted_is_signed(receiver: Receiver) -> None:
    """Id, time of the attempt and the very bytes; the id is the same at the next attempt, the time is not."""
    notifier, clock = hook(receiver, secret=KEY), VirtualClock(start=1_764_050_600_000_000)
    notifier._clock = clock
    receiver.misbehave("broken")
    refused(notifier)
    clock.advance(90)
    send(notifier, sample(repeat=True))
    first, second = receiver.posted
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == sample().key
    assert [one.headers["webhook-timestamp"] for one in (first, second)] == ["1764050600", "1764050690"]
    for one in (first, second):
        content = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
        digest = hmac.new(base64.b64decode(KEY.removeprefix("whsec_")), content, hashlib.sha256).digest()
        assert one.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    """And somebody is told so when the channel is made."""
    send(hook(receiver), sample())
    assert "webhook-signature" not in receiver.kept[0].headers
    assert "Without a secret" in str(Webhook.model_validate({"url": "https://a.example"}).check())
    assert Webhook.model_validate({"url": "https://a.example", "secret": KEY}).check() is None


def test_any_text_is_valid_json(receiver: Receiver) -> None:
    """Halves of surrogate pairs are replaced; the id is a token whatever the key is."""
    send(hook(receiver, secret=KEY), hostile())
    (posted,) = receiver.kept
    told = json.loads(posted.body.decode())
    assert told["id"] == posted.headers["webhook-id"]
    assert told["id"].isalnum()
    assert "\n" not in told["source"]
    assert event(hostile())["id"] == told["id"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0",
     "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
     "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "2001:0:7f00:1::f5ff:fffe"],
)  # fmt: skip
def test_addresses_inside(address: str, receiver: Receiver) -> None:
    """Private, loopback, link-local (a cloud's metadata), shared, multicast, and those that stand for one of these."""
    assert not is_outside(address)
    notifier = hook(receiver, "hook.example", allow_private=False)
    notifier._resolve, asked = answers(address)
    error = refused(notifier)
    assert (error.is_final, error.code) == (True, "private_address")
    assert asked == ["hook.example"]
    assert receiver.posted == []


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_outside(address: str) -> None:
    """Those of the open internet."""
    assert is_outside(address)


def test_one_address_inside_is_enough_to_refuse(receiver: Receiver) -> None:
    """A name that leads to both may lead there the next time."""
    notifier = hook(receiver, "hook.example", allow_private=False)
    notifier._resolve, _ = answers("8.8.8.8", "127.0.0.1")
    assert refused(notifier).code == "private_address"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]"])
def test_however_an_address_inside_is_written(receiver: Receiver, host: str) -> None:
    """The address is looked at, not the text."""
    error = refused(hook(receiver, host, allow_private=False))
    assert error.code == "private_address"
    assert receiver.posted == []


def test_a_name_is_resolved_once(receiver: Receiver) -> None:
    """The address that was checked is the one that is used, whatever the name leads to a moment later."""
    notifier = hook(receiver, "rebinding.example")
    notifier._resolve, asked = answers("127.0.0.1")
    send(notifier, sample())
    assert asked == ["rebinding.example"]
    assert receiver.kept[0].headers["host"] == f"rebinding.example:{receiver.port}"


def test_the_next_address_is_tried(receiver: Receiver) -> None:
    """A host with several addresses, of which the first does not answer."""
    notifier = hook(receiver, "hook.example")
    notifier._resolve, _ = answers("127.0.0.2", "127.0.0.1")
    send(notifier, sample())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    """They could lead inside, with our headers."""
    receiver.answer_next(Answer(status, headers={"Location": f"http://127.0.0.1:{receiver.port}/inside"}))
    error = refused(hook(receiver))
    assert (error.is_final, error.code) == (True, str(status))
    assert "not followed" in str(error)
    assert receiver.attempts == 1


@pytest.mark.parametrize(
    ("status", "is_final", "is_unknown"),
    [(400, True, False), (401, True, False), (404, True, False), (410, True, False), (413, True, False),
     (408, False, False), (409, False, False), (425, False, False), (429, False, False), (500, False, True),
     (502, False, True), (503, False, False), (504, False, True), (599, False, False)],
)  # fmt: skip
def test_what_a_status_means(receiver: Receiver, status: int, is_final: bool, is_unknown: bool) -> None:
    """Final, for later, or unknown; its number is told."""
    receiver.answer_next(Answer(status, "secret inside page"))
    error = refused(hook(receiver))
    assert (error.is_final, error.is_unknown, error.code) == (is_final, is_unknown, str(status))
    assert "secret inside page" not in str(error)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_success_is_one(receiver: Receiver, status: int) -> None:
    """Its number is in the receipt."""
    receiver.answer_next(Answer(status, ""))
    assert send(hook(receiver), sample()) == {"status": str(status)}


def test_a_date_says_when_to_come_back(receiver: Receiver) -> None:
    """It counts from the answer's own date; without one nothing follows from it."""
    when = "Wed, 21 Oct 2026 07:28:30 GMT"
    receiver.answer_next(
        Answer(503, headers={"Retry-After": when, "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        Answer(503, headers={"Retry-After": when}),
    )
    assert [refused(hook(receiver)).retry_after for _ in range(2)] == [30.0, None]


def test_over_tls_the_certificate_is_checked(tmp_path: Path) -> None:
    """Ours is trusted if we say so; else nothing is sent, and no secret with it."""
    files = certificates.make(tmp_path)
    with Receiver(files.server) as receiver:
        url = f"https://localhost:{receiver.port}/x"
        settings = {"url": url, "secret": KEY, "allow_private": True}
        send(Webhook.model_validate({**settings, "ca_file": files.ca}), sample())
        error = refused(Webhook.model_validate(settings))
        assert (error.is_final, error.is_unknown) == (False, False)
        assert "certificate" in str(error).lower()
        other = Webhook.model_validate(
            {**settings, "url": url.replace("localhost", "other.example"), "ca_file": files.ca}
        )
        other._resolve, _ = answers("127.0.0.1")
        assert "mismatch" in str(refused(other)).lower()
        assert len(receiver.posted) == 1


def test_a_missing_file_of_certificates_is_said(tmp_path: Path) -> None:
    """It will not appear by trying again."""
    with Receiver(certificates.make(tmp_path).server) as receiver:
        notifier = Webhook.model_validate(
            {"url": f"https://127.0.0.1:{receiver.port}", "allow_private": True, "ca_file": tmp_path / "none.pem"}
        )
        error = refused(notifier)
    assert (error.is_final, error.code) == (True, "ca_file")
    assert "none.pem" in str(error)


def test_a_server_that_sends_a_byte_now_and_then_is_left(tmp_path: Path) -> None:
    """The time limit is for all of it, not for each byte; the connection is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        notifier = Webhook.model_validate({"url": f"http://127.0.0.1:{server.getsockname()[1]}", "allow_private": True})

        async def drip() -> DeliveryError:
            loop = asyncio.get_running_loop()
            sending = asyncio.create_task(notifier.send(sample(), timeout=0.6))
            server.setblocking(False)
            connection, _ = await loop.sock_accept(server)
            connection.setblocking(False)
            with connection:
                for _ in range(1_000):
                    if sending.done():
                        break
                    try:
                        await loop.sock_sendall(connection, b"H")
                    except OSError:
                        break
                    await asyncio.sleep(0.05)
                with pytest.raises(DeliveryError) as caught:
                    await sending
            return caught.value

        error = asyncio.run(drip())
    assert error.is_unknown


@pytest.mark.parametrize(
    "url", ["", "example.com", "file:///etc/passwd", "ftp://a.example/", "https://", "https://user:SeCrEt@a.example/",
            "https://a.example/SeCrEt x", "https://a.example:0/", "https://a.example:99999/", "gopher://a.example/SeCrEt",
            "https://a.example/\r\nX: SeCrEt", "https://ä.example/"],
)  # fmt: skip
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    """With a sentence that does not quote it."""
    with pytest.raises(ValidationError) as caught:
        Webhook.model_validate({"url": url})
    assert "The URL" in str(caught.value)
    assert "SeCrEt" not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_!!!", "whsec_c2hvcnQ=", "ä" * 40])
def test_a_weak_key_is_refused_at_once(secret: str) -> None:
    """With how to make a good one."""
    with pytest.raises(ValidationError, match="openssl rand -base64 32"):
        Webhook.model_validate({"url": "https://a.example", "secret": secret})


@pytest.mark.parametrize(
    "headers", [{"Host": "x"}, {"content-length": "1"}, {"Webhook-Id": "x"}, {"X Y": "x"}, {"": "x"},
                {"X": "a\r\nY: b"}, {"X": "ä"}, {"X": "a\0"}],
)  # fmt: skip
def test_headers_that_cannot_be_are_refused_at_once(headers: dict[str, str]) -> None:
    """Those that we set ourselves, and those that would end the line."""
    with pytest.raises(ValidationError):
        Webhook.model_validate({"url": "https://a.example", "headers": headers})
