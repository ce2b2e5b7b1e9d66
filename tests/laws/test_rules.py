"""The laws of rules, for histories that hypothesis makes up: whoever decides, and when, decides the same."""

from dataclasses import asdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.rule_worlds import Habits, Step, histories, lived

from flightlog.events.log import Log
from flightlog.notifications.backtest import decided
from flightlog.notifications.decisions import Decision
from flightlog.notifications.folding import Fold
from flightlog.notifications.following import Created
from flightlog.notifications.recording import appends_of
from flightlog.notifications.rules import Rule
from flightlog.notifications.state import Memory
from flightlog.projections.inline import make_anew
from flightlog.projections.outbox import Outbox

bounded = settings(max_examples=80, deadline=None, derandomize=True)


def identities(decisions: list[Decision], log: Log) -> list[tuple[str, str, bytes]]:
    """Return what decisions would be on record as."""
    appends = appends_of(decisions, lambda _: Rule(name="any"), log)
    return [(one.stream, one.events[0].type, one.events[0].id) for one in appends]


@given(histories(), st.randoms(use_true_random=False))
@bounded
def test_a_back_test_decides_what_was_decided_live(history: list[Step], chance: Any) -> None:
    """The same decisions in the same order, however late somebody looked and whoever died, each on record once."""
    habits = Habits(dies=lambda: chance.random() < 0.2, breaks=lambda: chance.random() < 0.2)
    with lived(history, habits) as world:
        live = [(event.stream, event.type, event.id) for event in world.decisions()]
        again = list(decided(world.log, now=world.clock.now()))
        assert live == identities(again, world.log)


@given(histories(), st.data())
@bounded
def test_a_fold_that_was_put_aside_goes_on_as_if_it_had_not_been(history: list[Step], data: st.DataObject) -> None:
    """At any point, any number of times."""
    with lived(history) as world:
        whole, parts = Fold(Created(world.log)), Fold(Created(world.log))
        for event in world.log.read_all():
            if whole.types is not None and event.type not in whole.types:
                continue
            one, other = whole.apply(event), parts.apply(event)
            assert one == other
            if data.draw(st.integers(0, 3)) == 0:
                assert asdict(whole.memory) == asdict(parts.memory)
                parts = Fold(Created(world.log), Memory.unpacked(parts.memory.packed()))
        assert whole.tick(world.clock.now()) == parts.tick(world.clock.now())


def compared(history: list[Step], habits: Habits) -> None:
    """Hold what several or forgetful ones put on record against what one that never dies does."""
    with lived(history) as one, lived(history, habits) as other:
        assert other.on_record() == one.on_record()
        assert other.sent() == one.sent()


@given(histories(), st.integers(2, 3))
@bounded
def test_several_that_take_turns_are_as_one(history: list[Step], followers: int) -> None:
    """Each goes on where the one before it was, also if its own memory is from long ago."""
    compared(history, Habits(followers=followers))


@given(histories(), st.randoms(use_true_random=False))
@bounded
def test_one_that_dies_now_and_then_is_as_one_that_does_not(history: list[Step], chance: Any) -> None:
    """With what it had put aside, without it, and with what was put aside long ago."""
    compared(history, Habits(followers=2, dies=lambda: chance.random() < 0.4, spoils=lambda: chance.random() < 0.3))


@given(histories())
@bounded
def test_without_anything_put_aside_the_log_is_enough(history: list[Step]) -> None:
    """Memories are a shortcut."""
    compared(history, Habits(dies=lambda: True, keeps=False))


@given(histories())
@bounded
def test_the_outbox_made_anew_is_the_one_that_was_kept(history: list[Step]) -> None:
    """Where every message stands follows from the log."""
    with lived(history) as world:
        kept = world.log.states("outbox")
        assert kept == world.log.folded(Outbox())
        make_anew(world.log, Outbox())
        assert world.log.states("outbox") == kept


@given(histories())
@bounded
def test_no_message_is_lost_and_none_sent_twice_unmarked(history: list[Step]) -> None:
    """Each is delivered, given up, or waiting; a second copy says that it is one."""
    with lived(history) as world:
        queued = [event.data["notification"] for event in world.log.read_all(types=["notification.queued"])]
        assert len(queued) == len(set(queued))
        waiting = {state["notification"] for state in world.log.states("outbox").values()}
        sent = world.sent()
        assert set(queued) == waiting | {key for key, _, _ in sent}
        firsts = [key for key, _, repeat in sent if not repeat]
        assert len(firsts) == len(set(firsts))
