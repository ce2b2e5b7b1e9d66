"""What every notifier must do: inherit from `NotifierContract`, give it notifier and stand-in, and run it with pytest.

A stand-in is a server of your own on this machine that speaks the channel's protocol and can be told to misbehave.
"""

import asyncio
import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import pytest

from flightlog.notifications.notifier import DeliveryError, Entry, Message, Notifier, Receipt, RunFacts

Behaviour = Literal["busy", "broken", "refusing", "dropping", "slow"]
"""How a stand-in can treat a message: ``busy`` (too many at present), ``broken`` (an error of its own), ``refusing``
(it will never take it), ``dropping`` (it reads it and hangs up), ``slow`` (it reads it and does not answer)."""


class StandIn(Protocol):
    """A channel's server that can be told to misbehave."""

    @property
    def attempts(self) -> int:
        """How often somebody tried to send something, whatever came of it."""
        ...

    def received(self) -> Sequence[str]:
        """Return what arrived, each as plain text: what somebody sees who sees no formatting."""
        ...

    def misbehave(self, how: Behaviour, *, retry_after: str | None = None) -> None:
        """Treat the next message that way, and those after it well again.

        Args:
            how: the way.
            retry_after: when it says to come back, where the protocol can say that; anything, also nonsense.
        """
        ...

    def leave(self) -> None:
        """Stop: from now on nobody listens there."""
        ...


def sample(**changes: Any) -> Message:
    """Return a message about a failed run, with some fields changed."""
    run = RunFacts(
        id="0197f3a0-1111-7000-8000-000000000000",
        name="wise-otter",
        flow="daily-etl",
        state_type="FAILED",
        state_name="Failed",
        message="1 of 18 task runs failed",
        error="ValueError: 5 rows violate not_null(customer_id)",
        where="flows/etl.py:41",
        task="validate",
        attempt=3,
        attempts=3,
        took=252_000_000,
        usual=230_000_000,
        tasks={"COMPLETED": 13, "FAILED": 1, "SCHEDULED": 2, "CANCELLED": 2},
        earlier=("COMPLETED",) * 6 + ("FAILED",),
        tags=("prod",),
        url="https://flightlog.example/runs/0197f3a0",
    )
    message = Message(
        key="0197f3a0-2222-7000-8000-000000000000",
        incident="0197f3a0-3333-7000-8000-000000000000",
        kind="opened",
        rule="prod failures",
        severity="error",
        subject="",
        body="",
        opened_at=1_764_050_520_000_000,
        at=1_764_050_525_000_000,
        run=run,
        facts=(("Trigger", "schedule nightly"),),
        commands=("flightlog runs logs wise-otter --failed", "flightlog runs resume wise-otter"),
        group="flow=daily-etl",
        position=48_213,
    )
    return dataclasses.replace(message, **changes)


def hostile(**changes: Any) -> Message:
    """Return a message whose texts are as bad as texts can be: they come from users' code."""
    nasty = (
        "<!channel> <@U1> *x* `y` ```z``` <b>&amp;</b> {{ 7*7 }}\r\nBcc: a@example.com\r\n\r\n.\r\nQUIT\x00\x1b[31m"
        "\ud83d \udc00 \u202egnp.exe \U0001f9a6 " + "x" * 10_000
    )
    run = RunFacts(
        id=nasty, name=nasty, flow=nasty, state_type="FAILED", state_name=nasty, message=nasty, error=nasty,
        where=nasty, task=nasty, attempt=1, attempts=2, tags=(nasty,) * 20, url="javascript:alert(1)",
        tasks={nasty: 1}, earlier=(nasty, "FAILED"),
    )  # fmt: skip
    entries = tuple(Entry(at=1_764_050_520_000_000 + n, text=nasty, run=nasty) for n in range(200))
    return sample(
        key=nasty, incident=nasty, rule=nasty, subject=nasty, body=nasty, run=run, entries=entries, count=200,
        group=nasty, facts=((nasty, nasty),) * 30, commands=(nasty,) * 10, links=((nasty, nasty),) * 10, **changes,
    )  # fmt: skip


class NotifierContract(ABC):
    """The contract of a notifier, as tests. Override the fixtures `stand_in` and `notifier`.

    Attributes:
        secrets: what the notifier that the fixture makes must never show.
        says_when: whether the channel's protocol can say when to come back.
        timeout: how many seconds a message may take here.
    """

    secrets: Sequence[str] = ()
    says_when = True
    timeout = 5.0

    @pytest.fixture
    @abstractmethod
    def stand_in(self) -> Any:
        """Return a stand-in that listens; stop it after the test."""

    @pytest.fixture
    @abstractmethod
    def notifier(self, stand_in: Any) -> Notifier:
        """Return a notifier that sends to the stand-in."""

    def _send(self, notifier: Notifier, message: Message, timeout: float | None = None) -> Receipt:
        """Send in an event loop of its own, as deliveries may."""
        return asyncio.run(notifier.send(message, timeout=timeout or self.timeout))

    def _fails(self, notifier: Notifier, message: Message, timeout: float | None = None) -> DeliveryError:
        """Send what cannot go out, and return the error: it keeps secrets, as does what it has in tow."""
        with pytest.raises(DeliveryError) as caught:
            self._send(notifier, message, timeout)
        error = caught.value
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None
        self._keeps_secrets(f"{error} {error!r} {error.code} {error.reached}")
        assert str(error).endswith((".", "?"))
        return error

    def _keeps_secrets(self, text: str) -> None:
        assert self.secrets, "say which secrets the notifier has"
        for secret in self.secrets:
            assert secret not in text

    def _receipt(self, receipt: Receipt) -> None:
        assert isinstance(receipt, Mapping)
        assert all(isinstance(part, str) for item in receipt.items() for part in item)
        assert len(json.dumps(dict(receipt))) < 4_000
        self._keeps_secrets(str(receipt))

    def test_a_message_goes_out_once_with_a_receipt(self, notifier: Notifier, stand_in: StandIn) -> None:
        """It arrives as one message that says in plain text what happened; the receipt can be recorded."""
        self._receipt(self._send(notifier, sample()))
        (text,) = stand_in.received()
        for part in ("Failed", "daily-etl", "validate", "ValueError: 5 rows violate not_null(customer_id)"):
            assert part in text

    def test_texts_of_its_rule_are_used(self, notifier: Notifier, stand_in: StandIn) -> None:
        """A subject and a body that are not the default ones are what arrives."""
        self._send(notifier, sample(subject="The nightly load broke", body="Call the data team."))
        (text,) = stand_in.received()
        assert "The nightly load broke" in text
        assert "Call the data team." in text

    def test_being_busy_is_for_later(self, notifier: Notifier, stand_in: StandIn) -> None:
        """A channel that has too much to do asks us to come back: nothing is repeated here, and it says when."""
        stand_in.misbehave("busy", retry_after="7")
        error = self._fails(notifier, sample())
        assert not error.is_final
        assert not error.is_unknown
        assert error.code
        assert error.retry_after == (7.0 if self.says_when else None)
        assert stand_in.attempts == 1
        self._send(notifier, sample())

    @pytest.mark.parametrize("nonsense", ["0.5", "soon", "-3", "nan", "inf", "", "9" * 400, "Wed, 21 Oct 2026"])
    def test_nonsense_about_when_is_no_harm(self, notifier: Notifier, stand_in: StandIn, nonsense: str) -> None:
        """Whatever the channel says, it is a sensible number of seconds, or none."""
        stand_in.misbehave("busy", retry_after=nonsense)
        error = self._fails(notifier, sample())
        assert not error.is_final
        assert error.retry_after is None or 0 <= error.retry_after <= 86_400
        assert not self.says_when or nonsense != "0.5" or error.retry_after == 0.5

    def test_an_error_of_the_channel_is_for_later(self, notifier: Notifier, stand_in: StandIn) -> None:
        """It is not our fault, so it may work later; nothing is repeated here."""
        stand_in.misbehave("broken")
        error = self._fails(notifier, sample())
        assert not error.is_final
        assert error.code
        assert stand_in.attempts == 1
        self._send(notifier, sample())

    def test_a_refusal_is_final(self, notifier: Notifier, stand_in: StandIn) -> None:
        """What the channel will never take need not be tried again, and did not arrive."""
        stand_in.misbehave("refusing")
        error = self._fails(notifier, sample())
        assert error.is_final
        assert not error.is_unknown
        assert error.code
        assert stand_in.received() == []

    def test_a_lost_connection_leaves_it_unknown(self, notifier: Notifier, stand_in: StandIn) -> None:
        """The message was handed over and nobody answered: it may have arrived, so nothing is repeated here."""
        stand_in.misbehave("dropping")
        error = self._fails(notifier, sample())
        assert error.is_unknown
        assert not error.is_final
        assert stand_in.attempts == 1

    def test_no_answer_in_time_leaves_it_unknown(self, notifier: Notifier, stand_in: StandIn) -> None:
        """The time limit holds, and the message may have arrived."""
        stand_in.misbehave("slow")
        error = self._fails(notifier, sample(), timeout=0.7)
        assert error.is_unknown
        assert not error.is_final

    def test_nobody_there_is_for_later(self, notifier: Notifier, stand_in: StandIn) -> None:
        """Without a connection the message did not arrive for sure, and may do so later."""
        stand_in.leave()
        error = self._fails(notifier, sample())
        assert not error.is_unknown
        assert not error.is_final

    def test_an_incident_is_followed_to_its_end(self, notifier: Notifier, stand_in: StandIn) -> None:
        """Later messages get the receipt of the first, and the last one says that it is over."""
        first = self._send(notifier, sample())
        for kind in ("updated", "escalated", "resolved"):
            message = sample(key=f"key-{kind}", kind=kind, count=3, at=1_764_058_000_000_000, first=first)
            self._receipt(self._send(notifier, message))
        assert any("Recovered" in text for text in stand_in.received())

    def test_a_digest_goes_out(self, notifier: Notifier, stand_in: StandIn) -> None:
        """A message about no run, which sums up several things."""
        entries = (Entry(at=1_764_050_520_000_000, text="ValueError: 5 rows", run="wise-otter"),)
        self._send(notifier, sample(kind="digest", incident="", run=None, entries=entries, left_out=2))
        (text,) = stand_in.received()
        assert "3 incidents" in text
        assert "ValueError: 5 rows" in text

    def test_a_drill_is_marked(self, notifier: Notifier, stand_in: StandIn) -> None:
        """Nobody takes a test for the real thing, whatever texts its rule has."""
        self._send(notifier, sample(kind="drill", is_drill=True, subject="It broke", body="Run!"))
        assert "Drill" in stand_in.received()[0]

    def test_a_repetition_is_marked(self, notifier: Notifier, stand_in: StandIn) -> None:
        """A message that may have arrived before says so."""
        self._send(notifier, sample(repeat=True))
        assert "may have arrived" in stand_in.received()[0]

    @pytest.mark.parametrize("kind", ["opened", "updated", "escalated", "resolved", "digest", "drill"])
    def test_any_text_goes_out(self, notifier: Notifier, stand_in: StandIn, kind: Any) -> None:
        """Control characters, halves of surrogate pairs, mark-up, ten thousand letters: one message arrives."""
        self._receipt(self._send(notifier, hostile(kind=kind)))
        assert len(stand_in.received()) == 1

    def test_it_works_in_any_event_loop(self, notifier: Notifier, stand_in: StandIn) -> None:
        """Several at once, and again in another loop."""

        async def many() -> list[Receipt]:
            return await asyncio.gather(
                *(notifier.send(sample(key=f"k{n}"), timeout=self.timeout) for n in range(3)),
            )

        assert len(asyncio.run(many())) == 3
        self._send(notifier, sample(key="k3"))
        assert len(stand_in.received()) == 4

    def test_secrets_stay_secret(self, notifier: Notifier) -> None:
        """Neither repr nor str nor JSON of a notifier shows them, nor does an error about its configuration."""
        self._keeps_secrets(f"{notifier!r} {notifier} {notifier.model_dump_json()} {notifier.check()}")
        given = {name: getattr(notifier, name) for name in type(notifier).model_fields}
        plain = {name: getattr(value, "get_secret_value", lambda value=value: value)() for name, value in given.items()}
        with pytest.raises(ValueError, match="nonsense") as caught:
            type(notifier).model_validate({**plain, "nonsense": 1})
        self._keeps_secrets(str(caught.value))

    def test_what_it_is_called(self, notifier: Notifier) -> None:
        """It has a kind, a short name for configurations, and says what each field is for."""
        assert type(notifier).kind == type(notifier).kind.lower()
        assert type(notifier).kind
        for name, field in type(notifier).model_fields.items():
            assert field.description, name
