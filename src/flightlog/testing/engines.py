"""An engine for tests: no files, no server, no waiting."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flightlog.clock import Clock
from flightlog.engine.runtime import Engine, using
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.ids import Ids
from flightlog.settings import Settings


@contextmanager
def memory_engine(clock: Clock | None = None, ids: Ids | None = None) -> Iterator[Engine]:
    """Run flows on a fresh log in memory while this is open.

    Args:
        clock: time; a `VirtualClock` makes retries and delays take none.
        ids: identity and chance.

    Yields:
        The engine; ``engine.log.read_all()`` tells what happened.
    """
    log = Log(MemoryStore(clock))
    settings = Settings(home=Path(), log_url="memory://")
    try:
        with using(Engine(log, bytes(32), settings, clock=clock, ids=ids)) as engine:
            yield engine
    finally:
        log.close()
