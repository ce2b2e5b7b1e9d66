"""Ending a flow run whose code goes on in threads, which nothing can stop: all that it has begun is put on record.

What ends a run early (its time limit, an interrupt, a request to cancel) stops its code where it calls the next task,
or waits. Of code that does neither it is put on record that its task runs and subflows have ended, and why. With that
the epoch of their streams is raised: what such code would write later, the log itself refuses.
"""

from typing import TYPE_CHECKING

from flightlog.engine.context import Abandoned
from flightlog.engine.history import History, read_history
from flightlog.engine.recall import recorded_run
from flightlog.engine.runs import FlowRun, Journal, Run
from flightlog.engine.transactions import roll_back_left
from flightlog.engine.transitions import ONCE, Command, End
from flightlog.errors import RunNotFound, TakenOver, VersionConflict

if TYPE_CHECKING:
    from flightlog.engine.bridge import Waits
    from flightlog.engine.flow_calls import Progress
    from flightlog.engine.runtime import Engine
    from flightlog.events.model import NewEvent

NOTICE_SECONDS = 0.5
"""How long what runs in threads and worker processes has to notice that its run has timed out, or crashed."""
_GOES_ON = "Its code may go on; what becomes of it is not recorded."
_NEVER_BEGAN = End(
    "CANCELLED",
    {"message": "The flow run ended before this task run could start.", "cause": "cancelled"},
    retriable=False,
)


async def let_go(waits: "Waits", progress: "Progress", stop: BaseException) -> None:
    """Let go of what an attempt of a flow run has begun and goes on all the same.

    Args:
        waits: how to wait.
        progress: the flow run.
        stop: what its code is stopped by.

    Raises:
        TakenOver: somebody else owns the run now.
        LogError: the log cannot be read or written.
    """
    await waits.elsewhere(lambda: _let_go(progress, stop))


def _let_go(progress: "Progress", stop: BaseException) -> None:
    roll_back_left(progress.context)
    while not _put_to_rest(progress, stop):
        pass  # something ended meanwhile: look again


def _put_to_rest(progress: "Progress", stop: BaseException) -> bool:
    """Put an end on record to the calls that have none, and take nothing from them any more; False if that changed."""
    run, engine = progress.run, progress.context.engine
    engine.log.flush()
    try:
        history = read_history(engine.log, run.key)
    except RunNotFound:
        return True  # its runner could not be started: it has begun nothing
    if history.epoch > run.journal.epoch:
        raise TakenOver(run.journal.stream, run.journal.epoch, history.epoch)
    following = run.journal.following()
    ended = _ends(history, following, stop)
    if ended and not _record(engine, history, following, ended):
        return False
    if ended:
        run.journal.closed, run.journal = True, following
        for inner in engine.inbox.within(run.key):
            inner.run.journal.closed = True
    return True


def _ends(history: History, journal: Journal, stop: BaseException) -> "list[tuple[Run, NewEvent]]":
    """Return the calls of a run that have no end, with the events that say so; of subflows, that is recorded first."""
    end = _end(stop)
    found: list[tuple[Run, NewEvent]] = []
    for call in [*history.unfinished(), *history.unstarted()]:
        if call.child is not None:
            _end_subflow(journal.engine, call.child, stop)
        run = recorded_run(journal, call)
        found.append((run, run.record(end if call.attempt else _NEVER_BEGAN)))
    return found


def _end_subflow(engine: "Engine", key: bytes, stop: BaseException) -> None:
    """Put an end on record to a subflow, and to the calls that it has made."""
    while True:
        try:
            history = read_history(engine.log, key)
        except RunNotFound:
            return  # it never began
        if history.ended:
            return
        journal = Journal(engine, key, history.name, history.epoch + 1)
        run = FlowRun(journal, key, history.name, policy=ONCE, cause=history.cause)
        run.restore(history.rules)
        ended = [*_ends(history, journal, stop), (run, run.record(_end(stop)))]
        if _record(engine, history, journal, ended):
            return


def _end(stop: BaseException) -> Command:
    message = f"{str(stop).rstrip('.')}. {_GOES_ON}"
    if isinstance(stop, Abandoned):
        return End("CRASHED", {"message": message, "cause": stop.cause}, retriable=False)
    return End("CANCELLED", {"message": message, "cause": "cancelled"}, retriable=False)


def _record(engine: "Engine", history: History, journal: Journal, ended: "list[tuple[Run, NewEvent]]") -> bool:
    """Append what ends a run's calls under its next epoch; False if the run has changed meanwhile, or its owner has."""
    append = journal.append([event for _, event in ended])
    append.expected_version = history.version
    try:
        engine.log.append_all([append])
    except (VersionConflict, TakenOver):
        return False
    for run, event in ended:
        run.tell(event)
    return True


__all__ = ["NOTICE_SECONDS", "let_go"]
