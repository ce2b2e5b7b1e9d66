"""Rules at work in virtual time: from failing flows to incidents and messages."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from flightlog import flow
from flightlog.engine.runtime import Engine
from flightlog.ids import RandomIds
from flightlog.notifications.backtest import decided
from flightlog.notifications.configuring import Configurator
from flightlog.notifications.decisions import IncidentChanged
from flightlog.notifications.delivery import MOST_ATTEMPTS, Delivery
from flightlog.notifications.following import Follower
from flightlog.notifications.ledger import entries, incidents
from flightlog.notifications.notifier import DeliveryError, Message, Receipt
from flightlog.notifications.rules import Channel, Configuration, Rule
from flightlog.testing import VirtualClock, memory_engine


class Notifier:
    """Keeps what it is sent; raises what it is told to."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.problem: DeliveryError | None = None

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Keep a message."""
        if self.problem is not None:
            raise self.problem
        self.sent.append(message)
        return {"ts": str(len(self.sent))}


class World:
    """A log in virtual time with rules at work."""

    def __init__(self, engine: Engine, clock: VirtualClock) -> None:
        self.engine, self.clock = engine, clock
        self.notifiers = {"ops": Notifier(), "mail": Notifier()}
        self.follower = Follower(engine.log)
        self.delivery = Delivery(
            engine.log, clock, RandomIds(), notifier=lambda channel: self.notifiers[channel.name]  # type: ignore[arg-type, return-value]
        )  # fmt: skip

    def configure(self, *rules: dict[str, Any]) -> None:
        """Have these rules count."""
        made = tuple(Rule.model_validate({"channels": ["ops"], **rule}) for rule in rules)
        channels = tuple(Channel(name=name, kind="webhook", settings={"url": "env:U"}) for name in self.notifiers)
        Configurator(self.engine.log, self.clock, RandomIds()).synchronise(
            Configuration(rules=made, channels=channels), "here"
        )

    def work(self) -> None:
        """Fold and send until there is nothing more."""
        self.engine.log.flush()
        while self.follower.step() or self.delivery.step():
            pass

    def kinds(self, channel: str = "ops") -> list[str]:
        """Return what was sent through a channel, by kind."""
        return [message.kind for message in self.notifiers[channel].sent]


@pytest.fixture
def world() -> Iterator[World]:
    """Return a log in virtual time with rules at work."""
    clock = VirtualClock()
    with memory_engine(clock) as engine:
        made = World(engine, clock)
        with closing(made.follower):
            yield made


@flow
def etl(good: bool) -> None:
    """Fail, or not."""
    if not good:
        raise ValueError("no rows")


def test_an_incident_is_one_message_and_its_end_another(world: World) -> None:
    """Three failures of a flow are one incident; a run that completes ends it."""
    world.configure({"name": "failures"})
    for good in (False, False, False, True):
        etl(good, return_state=True)
    world.work()
    assert world.kinds() == ["opened", "resolved"]
    (incident,) = incidents(world.engine.log)
    assert incident.count == 3
    assert incident.resolved_at is not None


def test_a_failure_that_retries_mend_is_not_told(world: World) -> None:
    """It is held back until they are used up, and that is on record."""
    world.configure({"name": "any", "match": {"state": ["AwaitingRetry", "Failed"]}})
    tries: list[int] = []

    @flow(retries=2)
    def second_time() -> None:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError

    second_time()
    world.work()
    assert world.kinds() == []
    reasons = [event.data["why"] for event in world.engine.log.read_all(types=["notification.withheld"])]
    assert reasons == ["held", "recovered"]


def test_so_many_in_a_row(world: World) -> None:
    """The third failure in a row is one too many; one that completes between begins the count anew."""
    world.configure({"name": "often", "threshold": {"consecutive": 3}})
    for good in (False, False, True, False, False):
        etl(good, return_state=True)
    world.work()
    assert world.kinds() == []
    etl(False, return_state=True)
    world.work()
    assert world.kinds() == ["opened"]


def test_nothing_has_completed_for_a_while(world: World) -> None:
    """The clock alone leads to an incident, at the time when it was due, however late somebody looks."""
    etl(True)
    world.configure({"name": "missing", "threshold": {"not_succeeded_within": "1h"}})
    etl(True)
    world.work()
    due = world.clock.now() + 3_600_000_000
    world.clock.advance(3 * 3600)
    world.work()
    (incident,) = incidents(world.engine.log)
    assert abs(incident.opened_at - due) < 1_000_000
    assert world.kinds() == ["opened"]


def test_nobody_acknowledges(world: World) -> None:
    """After its time the next ones are told, once."""
    world.configure({"name": "failures", "escalate": [{"after": "15m", "channels": ["mail"]}]})
    etl(False, return_state=True)
    world.work()
    assert world.kinds("mail") == []
    world.clock.advance(15 * 60)
    world.work()
    world.clock.advance(3600)
    world.work()
    assert world.kinds("mail") == ["escalated"]


def test_a_back_test_finds_exactly_the_live_incidents(world: World) -> None:
    """The same decisions, at the same times, from the log alone; putting them on record again changes nothing."""
    world.configure({"name": "failures"}, {"name": "often", "threshold": {"failures": 2, "within": "10m"}})
    for number, good in enumerate((False, False, True, False, True, False, False)):
        etl(good, return_state=True)
        world.clock.advance(60.0 * number)
        world.work()
    live = [
        (event.type, event.data["incident"], event.data["at"])
        for event in world.engine.log.read_all(types=["incident.opened", "incident.updated", "incident.resolved"])
    ]
    again = [
        (f"incident.{one.what}", one.incident, one.at)
        for one in decided(world.engine.log)
        if isinstance(one, IncidentChanged)
    ]
    assert live == again
    assert len(live) > 5


def test_what_a_channel_does_not_take_is_tried_again_and_given_up(world: World) -> None:
    """Twelve times, later each time; then the channel is an incident itself, which the others are told of."""
    world.configure({"name": "failures"})
    world.notifiers["ops"].problem = DeliveryError("503", code="503")
    etl(False, return_state=True)
    world.work()
    for _ in range(MOST_ATTEMPTS):
        world.clock.advance(1000)
        world.work()
    dead, told = entries(world.engine.log)
    assert (dead.status, dead.attempts) == ("dead", MOST_ATTEMPTS)
    assert (told.rule, told.channel, told.status) == ("channel down", "mail", "delivered")
    assert len(world.notifiers["mail"].sent) == 1


def test_an_outcome_that_is_not_known_is_repeated_and_marked(world: World) -> None:
    """The message goes out again, with the same key, and says so."""
    world.configure({"name": "failures"})
    world.notifiers["ops"].problem = DeliveryError("time-out", is_unknown=True)
    etl(False, return_state=True)
    world.work()
    world.notifiers["ops"].problem = None
    world.clock.advance(60)
    world.work()
    (message,) = world.notifiers["ops"].sent
    assert message.repeat


def test_whoever_decides_again_puts_nothing_on_record_twice(world: World) -> None:
    """A follower that died before it could move its cursor decides the same again: the log takes it once."""
    world.configure({"name": "failures"})
    etl(False, return_state=True)
    world.engine.log.flush()
    first = Follower(world.engine.log)
    while first.step():
        pass
    cursor = first._cursor
    assert cursor is not None
    count = world.engine.log.head().position
    fold = first._rules
    assert fold is not None
    first._record(fold, list(decided(world.engine.log)))
    assert world.engine.log.head().position == count
    first.close()
