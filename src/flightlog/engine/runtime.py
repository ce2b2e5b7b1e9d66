"""The engine of this process: its log, key, clock and ids. The one place with global state for them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from flightlog.clock import Clock, SystemClock
from flightlog.engine import run_logs
from flightlog.engine.caching import Fresh
from flightlog.engine.cancelling import Inbox
from flightlog.engine.gates import Gates
from flightlog.engine.heart import Heart
from flightlog.engine.results import PLAINLY, Keeping
from flightlog.engine.runs import Run, TaskRun
from flightlog.engine.sealer import Sealer
from flightlog.engine.serializers import PICKLE, serializer_of
from flightlog.engine.transitions import Policy
from flightlog.errors import LogUnavailable, SettingsError
from flightlog.events.inline import Kept
from flightlog.events.keys import key_file, load_key
from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.narration import INFO, Line, created_line, narrate, state_text
from flightlog.events.opening import open_log
from flightlog.events.store import REPLAY
from flightlog.events.subjects import Vault, keys_folder, outward
from flightlog.events.types import FLOW_RUN
from flightlog.ids import Ids, RandomIds
from flightlog.masking import MASKER
from flightlog.plugins import engine_port
from flightlog.settings import Settings, credentials
from flightlog.settings import load as load_settings

if TYPE_CHECKING:
    from flightlog.engine.bridge import Waits
    from flightlog.engine.calls import CallMemory
    from flightlog.engine.definitions import Definition
    from flightlog.engine.storages import ResultStorage
    from flightlog.plugins.companions import Companions
    from flightlog.plugins.host import Host
    from flightlog.plugins.offers import Surroundings

T = TypeVar("T")
_COMPLETED, _CREATED = "task_run.completed", "task_run.created"
_UNUSUAL = frozenset({"child_flow_run_id", "error", "message", "name"})
_PLACE = frozenset({"home", "log_url", "log_durability", "log_key", "blocks_key"})
"""Settings of a log: with others it is opened anew."""
_PLAIN_END = (Line(INFO, f"Finished in state {state_text('COMPLETED', 'Completed', None)}"),)


class Engine:
    """What runs need of the world.

    Args:
        log: where events go.
        key: the log's key, 32 bytes.
        settings: the settings.
        clock: time.
        ids: identity and chance.
        host: gives the plug-ins that run beside flows; None for none.

    Attributes:
        script: for a test that replays a recorded run, makes what a flow run knows of earlier calls.
    """

    def __init__(
        self,
        log: Log,
        key: bytes,
        settings: Settings,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        host: "Callable[[], Host] | None" = None,
    ) -> None:
        self.log = log
        self.key = key
        self.clock = clock or SystemClock()
        self.ids = ids or RandomIds()
        self.apply(settings)
        self.fresh = Fresh()
        self.vault = Vault(log, keys_folder(log, settings), key, clock=self.clock, ids=self.ids)
        self.gates = Gates()
        self.inbox = Inbox(log)
        self._keeps_inline = False
        self._host = host
        self._accompanying = threading.Lock()
        self.companions: Companions | None = None
        self.script: Callable[[], CallMemory] | None = None
        self.lines = run_logs.LineBuffer(self)
        self.heart = Heart(log)
        self.sealer = Sealer(log, settings, self.clock, self.ids)
        for secret in credentials():
            MASKER.learn(secret)

    def apply(self, settings: Settings) -> None:
        """Have these settings count from here on; where the log is does not change by that.

        Raises:
            SettingsError: there is no such serializer.
        """
        self.keeping = _keeping(settings)
        self.settings = settings
        self.flow_policy = Policy(settings.flow_default_retries, settings.flow_default_retry_delay_seconds)
        self.task_policy = Policy(settings.task_default_retries, settings.task_default_retry_delay_seconds)
        run_logs.configure(log_settings(settings))

    def accompany(self) -> None:
        """Have what runs beside flows begin, unless it has: called with each outermost flow run.

        Raises:
            PluginError: a plug-in cannot be used, in strict mode.
        """
        self.sealer.start()
        if self._host is None:
            return
        if self.companions is None:
            self.companions = self._companions_of(self._host())
        self.companions.start()

    def _companions_of(self, host: "Host") -> "Companions":
        """Return what runs beside flows: the same for all threads that begin their first flow run at once."""
        from flightlog.plugins.companions import Companions

        with self._accompanying:
            if self.companions is not None:
                return self.companions
            made = self.companions = Companions(host, self.surroundings)
            return made

    @property
    def surroundings(self) -> "Surroundings":
        """What plug-ins work with."""
        from flightlog.plugins.offers import Surroundings

        return Surroundings(self.log, self.key, self.settings, self.clock, self.ids, outward)

    def close(self) -> None:
        """Let what runs beside flows end, and the log go.

        Raises:
            LogWriteError: something could not be recorded.
        """
        if self.companions is not None:
            self.companions.stop()
        self.heart.stop()
        self.sealer.stop()
        self.log.close()

    def kept(self, projection: str, stream: str) -> Kept:
        """Return what a stream has come to for an inline projection. See `flightlog.events.log.Log.state`."""
        self._keep_inline()
        return self.log.state(projection, stream)

    async def looked(self, waits: "Waits", look: Callable[[], T]) -> T:
        """Return what a short look at the log gives; where that is on another machine, without blocking a loop."""
        return await waits.elsewhere(look) if self.log.store.is_remote else look()

    def kept_states(self, projection: str) -> dict[str, Any]:
        """Return what all streams have come to for an inline projection, by stream."""
        self._keep_inline()
        return self.log.states(projection)

    def _keep_inline(self) -> None:
        """Have the log keep the inline projections: from the first time on that somebody needs them."""
        if not self._keeps_inline:
            from flightlog.projections.inline import INLINE

            self.log.keep(INLINE)
            self._keeps_inline = True

    def policy_of(self, definition: "Definition[Any, Any]") -> Policy:
        """Return how often failed attempts of a flow's or task's runs are tried again, and when."""
        return definition.policy(self.flow_policy if definition.kind == "flow" else self.task_policy)

    def tell(self, run: Run, event: NewEvent) -> None:
        """Show on the console what an event of a run says."""
        data = event.data
        if run.subjects:
            data = self.vault.revealed_in(data)  # as the lines of the run itself are shown
        lines: Iterable[Line]
        # Nine of ten are one of these two, without asking what else they could be.
        if event.type == _COMPLETED and not data.keys() & _UNUSUAL:
            lines = _PLAIN_END
        elif event.type == _CREATED and "child_flow_run_name" not in data:
            lines = (created_line(data),)
        else:
            lines = narrate(event.type, data, run.kind)
        for line in lines:
            by_flow = line.by_flow or run.kind == FLOW_RUN
            logger = run_logs.FLOW_RUNS if by_flow else run_logs.TASK_RUNS
            if logger.isEnabledFor(line.level):
                speaker = f"Flow run {run.journal.flow_run_name!r}" if by_flow else f"Task run {run.name!r}"
                if run_logs.show_plainly(logger, line.level, speaker, line.text):
                    continue
                names = {"flow_run_name": run.journal.flow_run_name, "flow_run_id": run.flow_run_id}
                if isinstance(run, TaskRun):
                    names |= {"task_run_name": run.name, "task_name": run.task_name}
                run_logs.say(logger, line.level, line.text, names)


def log_settings(settings: Settings) -> run_logs.LogSettings:
    """Return how lines are shown and kept."""
    return run_logs.LogSettings(
        settings.logging_level, settings.logging_colors, settings.logging_format, settings.logging_extra_loggers
    )


def _keeping(settings: Settings) -> Keeping:
    """Return how values are kept where nobody says otherwise.

    Raises:
        SettingsError: there is no such serializer.
    """
    try:
        serializer = serializer_of(settings.results_default_serializer)
    except ValueError as error:
        raise SettingsError(f"The setting FLIGHTLOG_RESULTS_DEFAULT_SERIALIZER cannot be used: {error}") from None
    storage: ResultStorage | None = None
    if settings.results_default_storage is not None:
        from flightlog.engine.storages import storage_of

        storage = storage_of(settings.results_default_storage)
    plainly = settings.results_persist_by_default and storage is None and serializer == PICKLE
    return PLAINLY if plainly else Keeping(settings.results_persist_by_default, serializer, storage)


def open_engine(settings: Settings) -> Engine:
    """Open the log that the settings name, and return an engine on it.

    Raises:
        LogError: the log or its key cannot be had; the message says what to do.
    """
    log = open_log(settings.log_url, durability=settings.log_durability)
    try:
        _check_no_replay(log)
        key = load_key(log, key_file(log, settings), settings.log_key)
    except BaseException:
        log.close()
        raise
    return Engine(log, key, settings, host=_plugins)


def _plugins() -> "Host":
    from flightlog.plugins.host import current_host

    return current_host()


def _check_no_replay(log: Log) -> None:
    if REPLAY in log.store.facts():
        raise LogUnavailable(
            f"The log at {log.store.location} is a replay of another one's past: it can be read, but takes no runs. "
            "Name another place in FLIGHTLOG_LOG_URL."
        )


_lock = threading.Lock()
_engine: Engine | None = None


def current_engine() -> Engine:
    """Return the engine of this process; open it at the first call."""
    global _engine  # noqa: PLW0603 - one engine for the process
    if _engine is None:
        with _lock:
            if _engine is None:
                _engine = open_engine(load_settings())
    return _engine


def close_engine() -> None:
    """Close the engine of this process, if it is open; the next flow run opens it anew, with fresh settings."""
    global _engine
    with _lock:
        engine, _engine = _engine, None
    if engine is not None:
        engine.close()
        if engine.companions is not None:
            from flightlog.plugins.host import close_host

            close_host()


@contextmanager
def using(engine: Engine) -> Iterator[Engine]:
    """Run flows on the given engine while this is open. Not for several threads at once."""
    before = _exchange(engine)
    try:
        yield engine
    finally:
        _exchange(before)


def _exchange(engine: Engine | None) -> Engine | None:
    """Make an engine this process's, and return the one before."""
    global _engine
    with _lock:
        before, _engine = _engine, engine
    return before


@contextmanager
def on_settings(fields: dict[str, Any]) -> Iterator[None]:
    """Have the engine of this process work with some settings otherwise while this is open.

    Args:
        fields: their values, by the attribute of `Settings`; the environment has them too.
    """
    engine = _engine
    if engine is None or fields.keys() & _PLACE:
        with _set_aside():
            yield
    else:
        before = engine.settings
        try:
            engine.apply(replace(before, **fields))
            yield
        finally:
            engine.apply(before)


@contextmanager
def _set_aside() -> Iterator[None]:
    """Have the next flow run open an engine anew; the one that is open now is there again afterwards."""
    before = _exchange(None)
    try:
        yield
    finally:
        if before is None:
            close_engine()
        else:
            opened = _exchange(before)
            if opened is not None:
                opened.close()  # but not the host of plug-ins, which is both engines'
            run_logs.configure(log_settings(before.settings))


engine_port.provide(current_engine)
