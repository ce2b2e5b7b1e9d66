"""An engine for tests: no files, no server, no waiting."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from flightlog.clock import Clock
from flightlog.engine.runtime import Engine, using
from flightlog.errors import PluginError
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.ids import Ids
from flightlog.settings import Settings

if TYPE_CHECKING:
    from flightlog.plugins.host import Host


@contextmanager
def memory_engine(
    clock: Clock | None = None, ids: Ids | None = None, *, plugins: Sequence[str | Path] = ()
) -> Iterator[Engine]:
    """Run flows on a fresh log in memory while this is open.

    Args:
        clock: time; a `VirtualClock` makes retries and delays take none.
        ids: identity and chance.
        plugins: the plug-ins that run beside the flows: names of installed ones, or files. None by default.

    Yields:
        The engine; ``engine.log.read_all()`` tells what happened.
    """
    log = Log(MemoryStore(clock))
    settings = Settings(home=Path(), log_url="memory://")
    try:
        with _host_of(plugins, settings) as host:
            engine = Engine(log, bytes(32), settings, clock=clock, ids=ids, host=None if host is None else lambda: host)
            with using(engine), _accompanied(engine):
                yield engine
    finally:
        log.close()


@contextmanager
def _accompanied(engine: Engine) -> Iterator[None]:
    try:
        yield
    finally:
        if engine.companions is not None:
            engine.companions.stop()


def _host_of(plugins: Sequence[str | Path], settings: Settings) -> "AbstractContextManager[Host | None]":
    """Return a host of some plug-ins, which is the process's while it is open."""
    if not plugins:
        return nullcontext()
    from flightlog.plugins import manifests
    from flightlog.plugins.host import Host, using_host

    installed = [one for one in manifests.installed() if one.name in plugins]
    if missing := set(plugins) - {one.name for one in installed} - {one for one in plugins if isinstance(one, Path)}:
        raise PluginError(f"The plug-in {min(map(str, missing))!r} is not installed: pip install -e . first.")
    files = [manifests.of_file(one) for one in plugins if isinstance(one, Path)]
    return using_host(Host(settings, [*installed, *files]))
