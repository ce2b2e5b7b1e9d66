"""What every projection must do (I6): inherit from `ProjectionContract`, give it one, and run it with pytest."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flightlog.engine.flows import Flow
from flightlog.engine.run_logs import get_run_logger
from flightlog.engine.runtime import Engine, using
from flightlog.engine.tasks import Task, task
from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.moving import blobs_of
from flightlog.events.stores.memory import MemoryStore
from flightlog.projections.projection import Projection, Rows, fold
from flightlog.projections.projector import Projector
from flightlog.settings import Settings


@task(tags=["contract"], retries=1)
def _sometimes(fails: bool) -> int:
    """Log a line; fail, if it is to."""
    get_run_logger().info("it %s", "fails" if fails else "works")
    if fails:
        raise ValueError("it is to fail")
    return 1


def _child(count: int) -> int:
    """Call tasks."""
    return sum(_sometimes(False) for _ in range(count))


def _parent(fails: bool) -> int:
    """Call a flow and tasks."""
    return Flow(_child, name="child")(2) + Task(abs, name="abs").submit(-1).result() + _sometimes(fails)


def sample_log() -> Log:
    """Return a log in memory with runs of all kinds: completed, failed, retried, nested, submitted, with log lines."""
    log = Log(MemoryStore())
    with using(Engine(log, bytes(32), Settings(home=Path(), log_url="memory://"))):
        for fails in (False, True, False):
            Flow(_parent, name="parent")(fails, return_state=True)
    log.flush()
    return log


class ProjectionContract(ABC):
    """The contract of a projection, as tests. Override `projection`, a fixture that returns a new one.

    Override `log` too, if the events that matter to it are not those of runs.

    Attributes:
        may_be_empty: whether it may say nothing of the log.
    """

    may_be_empty = False

    @pytest.fixture
    @abstractmethod
    def projection(self) -> Any:
        """Return a projection."""

    @pytest.fixture
    def log(self) -> Iterator[Log]:
        """Yield a log with events that matter to the projection; runs of all kinds by default."""
        with sample_log() as log:
            yield log

    def test_it_says_what_it_is(self, projection: Projection) -> None:
        """It has a name, a version, and tables with primary keys."""
        assert isinstance(projection.name, str)
        assert projection.version >= 1
        assert projection.tables
        for table in projection.tables:
            assert list(table.primary_key), table.name
        assert projection.types is None or isinstance(projection.types, frozenset)

    def test_it_says_something(self, projection: Projection, log: Log) -> None:
        """Events lead to rows, in tables that it has."""
        rows = fold(projection, log.read_all())
        assert rows or self.may_be_empty
        names = {table.name: {column.name for column in table.columns} for table in projection.tables}
        for (table, _), values in rows.items():
            assert values.keys() <= names[table]

    def test_one_event_at_a_time_equals_the_batch(self, projection: Projection, log: Log) -> None:
        """Folding events one by one gives what folding them all at once gives."""
        events = list(log.read_all())
        rows: Rows = {}
        for event in events:
            fold(projection, [event], rows)
        assert rows == fold(projection, events)

    def test_any_restart_point_gives_the_same(self, projection: Projection, log: Log) -> None:
        """It may stop after any event, and go on later."""
        events = list(log.read_all())
        whole = fold(projection, events)
        for number in range(len(events)):
            assert fold(projection, events[number:], fold(projection, events[:number])) == whole, events[number].type

    def test_it_is_pure(self, projection: Projection, log: Log) -> None:
        """The same events give the same rows again, and are as they were."""
        events = list(log.read_all())
        before = [repr(event.data) for event in events]
        assert fold(projection, events) == fold(projection, events)
        assert [repr(event.data) for event in events] == before

    def test_events_of_other_kinds_do_not_disturb_it(self, projection: Projection, log: Log) -> None:
        """What it does not know, newer schemas too, it passes over."""
        events = list(log.read_all())
        whole = fold(projection, events)
        odd = NewEvent(b"o" * 16, "thing.unheard_of", {"x": 1}, 0, schema=99)
        log.append("elsewhere/1", [odd])
        assert fold(projection, log.read_all()) == whole

    def test_a_rebuild_equals_the_live_tables(self, projection: Projection, log: Log) -> None:
        """Tables that have followed the log step by step are those that are made anew from it."""
        live, anew = Log(MemoryStore(log_id=log.log_id)), Projector(log, None, [projection])
        follower = Projector(live, None, [projection])
        try:
            for row in log.store.indexed(0, log.head().position):
                live.store.adopt([row], blobs_of(log, [row]))
                follower.catch_up()
            assert _content(follower, projection) == _content(anew, projection)
            kept = _content(anew, projection)
            anew.rebuild([projection.name])
            assert _content(anew, projection) == kept
            assert anew.check(projection.name) is None
        finally:
            follower.close()
            anew.close()
            live.close()


def _content(projector: Projector, projection: Projection) -> list[list[tuple[Any, ...]]]:
    """Return the rows of a projection's tables."""
    return [
        [tuple(row) for row in projector.rows(table.select().order_by(*table.primary_key))]
        for table in projection.tables
    ]
