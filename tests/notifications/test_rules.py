"""Rules at work in virtual time: from failing flows to incidents and messages."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.notifications.rule_world import World, working

from flightlog import flow, task
from flightlog.errors import LogWriteError
from flightlog.events.model import NewEvent
from flightlog.events.types import SILENCE_ADDED, silence_stream
from flightlog.ids import RandomIds
from flightlog.notifications.backtest import decided
from flightlog.notifications.channels import ChannelError
from flightlog.notifications.configuring import Configurator
from flightlog.notifications.decisions import IncidentChanged
from flightlog.notifications.delivery import MOST_ATTEMPTS
from flightlog.notifications.expressions import check_expression
from flightlog.notifications.following import Follower
from flightlog.notifications.ledger import entries, incidents
from flightlog.notifications.notifier import DeliveryError
from flightlog.notifications.rules import Channel


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
    """Later each time; after some attempts the channel is an incident itself, which the others are told of."""
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


def test_decisions_that_cannot_be_written_are_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk just when decisions are put on record loses none of them."""
    world.configure({"name": "failures"})
    world.work()
    etl(False, return_state=True)
    append = world.engine.log.append_all

    def refuse(_: Any) -> Any:
        raise LogWriteError("The disk is full.")

    monkeypatch.setattr(world.engine.log, "append_all", refuse)
    with pytest.raises(LogWriteError):
        world.follower.step()
    monkeypatch.setattr(world.engine.log, "append_all", append)
    world.work()
    assert world.kinds() == ["opened"]


def test_a_task_that_failed_for_good_is_told_whatever_becomes_of_its_flow(world: World) -> None:
    """The flow lives with it and completes; one that a later attempt of the flow mends is not told."""
    world.configure({"name": "tasks", "match": {"task": "*"}})
    tries: list[int] = []

    @task
    def breaks() -> None:
        raise ValueError

    @task
    def breaks_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError

    @flow
    def lives_with_it() -> int:
        breaks(return_state=True)
        return 1

    @flow(retries=1)
    def tries_again() -> None:
        breaks_once()

    lives_with_it()
    tries_again()
    world.work()
    assert [one.group for one in incidents(world.engine.log)] == ["flow=lives-with-it"]
    assert world.kinds()[0] == "opened"


def test_what_recovers_is_told_once(world: World) -> None:
    """The rule tells of the recovery alone."""
    world.configure({"name": "back", "threshold": {"recovered": True}})
    for good in (True, False, False, True, True):
        etl(good, return_state=True)
    world.work()
    assert world.kinds() == ["resolved"]


def test_it_is_told_again_while_it_goes_on(world: World) -> None:
    """Once in each span, also where others are told meanwhile."""
    escalate = [{"after": "30m", "channels": ["ops"]}]
    world.configure({"name": "failures", "repeat_every": "1h", "escalate": escalate})
    etl(False, return_state=True)
    world.work()
    for _ in range(8):
        world.clock.advance(1800)
        world.work()
    assert world.kinds() == ["opened"] + ["escalated"] * 5  # after half an hour, and after each of four


def test_an_escalation_that_falls_into_a_silence_comes_after_it(world: World) -> None:
    """It is put off, and not lost."""
    world.configure({"name": "failures", "escalate": [{"after": "10m", "channels": ["mail"]}]})
    etl(False, return_state=True)
    facts = {"silence": "s", "until": world.clock.now() + 3_600_000_000}
    event = NewEvent(RandomIds().new(), SILENCE_ADDED, facts, world.clock.now())
    world.engine.log.append(silence_stream("s"), [event])
    world.work()
    world.clock.advance(1200)
    world.work()
    assert world.kinds("mail") == []
    world.clock.advance(3600)
    world.work()
    assert world.kinds("mail") == ["escalated"]


def test_a_digest_keeps_the_mute_time(world: World) -> None:
    """What was gathered goes out when it is over, in one message."""
    # The clock begins at midnight; the digest would be due in the mute time.
    world.configure({"name": "failures", "digest": "1h", "mute": [{"from": "00:30", "to": "06:00"}]})
    etl(False, return_state=True)
    world.work()
    world.clock.advance(2 * 3600)
    world.work()
    assert world.kinds() == []
    world.clock.advance(5 * 3600)
    world.work()
    assert world.kinds() == ["digest"]


def test_the_clock_says_nothing_for_a_rule_that_is_switched_off(world: World) -> None:
    """What it waited for no longer counts."""
    rule = {"name": "missing", "threshold": {"not_succeeded_within": "1h"}}
    world.configure(rule)
    etl(True)
    world.work()
    world.configure({**rule, "enabled": False})
    world.clock.advance(7200)
    world.work()
    assert incidents(world.engine.log) == []


def test_runs_of_one_name_are_two_incidents(world: World) -> None:
    """Where each run is one."""
    world.configure({"name": "runs", "group_by": ["run"]})

    @flow(flow_run_name="nightly")
    def named() -> None:
        raise ValueError

    named(return_state=True)
    named(return_state=True)
    world.work()
    assert world.kinds() == ["opened", "opened"]


def test_nothing_overtakes_within_an_incident(world: World) -> None:
    """Its end waits for its beginning, which is to be tried again."""
    world.configure({"name": "failures"})
    world.notifiers["ops"].problem = DeliveryError("busy")
    etl(False, return_state=True)
    world.work()
    world.notifiers["ops"].problem = None
    etl(True)
    world.work()
    assert world.kinds() == []
    world.clock.advance(60)
    world.work()
    assert world.kinds() == ["opened", "resolved"]


def test_a_message_that_processes_die_with_is_given_up(world: World) -> None:
    """Claims that ran out count as attempts."""
    world.configure({"name": "failures"})
    etl(False, return_state=True)
    world.engine.log.flush()
    while world.follower.step():
        pass
    for _ in range(MOST_ATTEMPTS):
        (waiting,) = world.delivery._waiting()
        assert world.delivery._claim(waiting) is not None  # and there the process dies
        world.clock.advance(60)
    world.work()
    assert entries(world.engine.log)[0].status == "dead"


@pytest.mark.parametrize("source", ["data.update(x=1)", "'x'.center(10 ** 9)", "10 ** 10 ** 10 > 1", "staet == 1"])
def test_an_expression_can_do_no_harm(source: str) -> None:
    """What calls something, could fill the memory, or is misspelt, is refused when the rule is made."""
    with pytest.raises(ValueError, match="expression"):
        check_expression(source)


def test_an_expression_that_grows_does_not_hold(world: World) -> None:
    """No text is made of another one by multiplying it."""
    world.configure({"name": "big", "match": {"where": "'a' * 1000000000000 == 'b' or state == 'Failed'"}})
    etl(False, return_state=True)
    world.work()
    assert world.kinds() == []


def test_an_expression_looks_into_fields(world: World) -> None:
    """Of the event, its run, and the flow's parameters."""
    world.configure(
        {"name": "exact", "match": {"where": "data.attempt == 1 and flow == 'etl' and not parameters.good"}}
    )
    etl(False, return_state=True)
    world.work()
    assert world.kinds() == ["opened"]


@pytest.mark.parametrize(
    ("kind", "settings"), [("slack-webhook", {"url": "https://hooks.example.org/T/B/x"}), ("pager", {"key": "abc"})]
)
def test_no_secret_comes_into_the_log(world: World, kind: str, settings: dict[str, str]) -> None:
    """One that stands in the settings is refused, and so are those of a kind of which nobody knows what is secret."""
    with pytest.raises(ChannelError):
        Configurator(world.engine.log, world.clock, RandomIds()).set_channel(
            Channel(name="ops", kind=kind, settings=settings)
        )
    assert world.engine.log.head().position == 0
