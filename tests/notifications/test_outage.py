"""A channel that is down: nothing is lost, nothing comes twice unmarked, and others are told of it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest
from tests.notifications.rule_world import Notifier, World, working

from flightlog import flow
from flightlog.events.model import NewEvent
from flightlog.events.types import NOTIFICATION_RETRIED, notification_stream
from flightlog.ids import RandomIds
from flightlog.notifications.backtest import decided, outcome_of
from flightlog.notifications.ledger import Entry, entries, incidents
from flightlog.notifications.notifier import DeliveryError, Message, Receipt

HOUR = 3600.0


@pytest.fixture
def world() -> Iterator[World]:
    """Return a log in virtual time with rules at work."""
    with working() as made:
        yield made


@flow
def etl(good: bool) -> None:
    """Fail, or not."""
    if not good:
        raise ValueError("no rows")


class Failing(Notifier):
    """Is down as long as it is told; of some messages nobody can know if it has taken them."""

    def __init__(self, is_down: Callable[[], bool], unknown_each: int) -> None:
        super().__init__()
        self.attempts = 0
        self.unknown: set[str] = set()
        self._is_down = is_down
        self._unknown_each = unknown_each

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Take a message, or not, or leave it in the dark."""
        self.attempts += 1
        if not self._is_down():
            return await super().send(message, timeout=timeout)
        if self.attempts % self._unknown_each == 0:
            self.unknown.add(message.key)
            self.sent.append(message)
            raise DeliveryError("No answer.", is_unknown=True)
        raise DeliveryError("503", code="503")


def live_through(world: World, unknown_each: int) -> Failing:
    """Have 1,000 runs fail in an hour in which the channel is down, with one that completes now and then."""
    end = world.clock.now() + round(HOUR * 1e6)
    channel = world.notifiers["ops"] = Failing(lambda: world.clock.now() < end, unknown_each)
    for number in range(1, 1001):
        etl(False, return_state=True)
        world.clock.advance(HOUR / 1000)
        if number % 100 == 0:
            etl(True)
        if number % 10 == 0:
            world.work()
    for _ in range(9):
        world.clock.advance(HOUR / 2)
        world.work()
    return channel


def by_incident(channel: Notifier) -> list[list[str]]:
    """Return the kinds of what a channel was sent, of each incident, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for message in channel.sent:
        found[message.incident].append(message.kind)
    return list(found.values())


def by_channel(world: World, channel: str) -> list[Entry]:
    """Return what became of the messages of a channel."""
    return [entry for entry in entries(world.engine.log) if entry.channel == channel]


def test_an_hour_without_the_channel(world: World) -> None:
    """Each incident's beginning and end arrive, in order, once; the others were told of the channel meanwhile."""
    world.configure({"name": "failures"})
    channel = live_through(world, unknown_each=10**9)
    assert by_incident(channel) == [["opened", "resolved"]] * 10
    assert len({message.key for message in channel.sent}) == 20
    assert not any(message.repeat for message in channel.sent)
    assert [incident.count for incident in incidents(world.engine.log) if incident.rule == "failures"] == [100] * 10
    assert {entry.status for entry in entries(world.engine.log)} == {"delivered"}
    assert [(message.rule, message.kind) for message in world.notifiers["mail"].sent] == [
        ("channel down", "opened"),
        ("channel down", "resolved"),
    ]


def test_what_comes_and_goes_is_told_of_as_the_rule_says(world: World) -> None:
    """Four changes, of which the last says that it comes and goes, and nothing more until it has kept still."""
    world.configure({"name": "failures", "flapping": {"changes": 4, "within": "30m"}})
    channel = live_through(world, unknown_each=10**9)
    assert sorted(by_incident(channel)) == [["opened", "resolved"], ["opened", "updated"]]
    (notice,) = (message for message in channel.sent if message.kind == "updated")
    assert "It comes and goes" in dict(notice.facts)["Note"]
    etl(False, return_state=True)
    world.work()
    assert world.kinds()[4:] == ["opened"]  # it has kept still since: this is told again
    now = world.clock.now()
    tested = outcome_of(decided(world.engine.log, now=now), {"failures"})
    assert (tested.events, tested.messages) == (1001, {"ops": 5})


def test_a_copy_is_marked_where_nobody_can_know(world: World) -> None:
    """What was left in the dark comes again and says so; nothing else comes twice."""
    world.configure({"name": "failures"})
    channel = live_through(world, unknown_each=4)
    assert channel.unknown
    copies = Counter(message.key for message in channel.sent)
    assert {key for key, count in copies.items() if count > 1} == channel.unknown
    assert len(copies) == 20
    seen: set[str] = set()
    for message in channel.sent:
        assert message.repeat == (message.key in seen)
        seen.add(message.key)


def test_what_was_given_up_can_be_sent_again(world: World) -> None:
    """A channel that refuses for good is told of at once; what it refused goes out once somebody asks for it."""
    world.configure({"name": "failures", "group_by": ["run"]})
    world.notifiers["ops"].problem = DeliveryError("no_service", is_final=True, code="404")
    for _ in range(3):
        etl(False, return_state=True)
    world.work()
    assert [entry.status for entry in by_channel(world, "ops")] == ["dead"] * 3
    assert [message.rule for message in world.notifiers["mail"].sent] == ["channel down"]
    world.clock.advance(24 * HOUR)
    world.work()
    assert world.kinds() == []  # nobody tries by himself what was refused for good
    world.notifiers["ops"].problem = None
    for entry in by_channel(world, "ops"):
        told = NewEvent(RandomIds().new(), NOTIFICATION_RETRIED, {"notification": entry.key}, world.clock.now())
        world.engine.log.append(notification_stream(entry.key), [told])
    world.work()
    assert world.kinds() == ["opened"] * 3
    assert [entry.status for entry in by_channel(world, "ops")] == ["delivered"] * 3
    assert [message.kind for message in world.notifiers["mail"].sent] == ["opened", "resolved"]


def test_two_channels_that_are_down_tell_of_each_other_once(world: World) -> None:
    """There is no storm of messages that nobody can get."""
    world.configure({"name": "failures"})
    for notifier in world.notifiers.values():
        notifier.problem = DeliveryError("no", is_final=True)
    etl(False, return_state=True)
    world.work()
    assert [(one.rule, one.channel, one.status) for one in entries(world.engine.log)] == [
        ("failures", "ops", "dead"),
        ("channel down", "mail", "dead"),
        ("channel down", "ops", "dead"),
    ]
