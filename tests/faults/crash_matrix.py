"""Kills a flow with -9 before, at and after each of its commits, resumes it, and counts what ran again.

``python -m tests.faults.crash_matrix [URL]`` prints the table, for an SQLite file or the log at a URL.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flightlog import flow, task, unmapped
from flightlog.cache_policies import INPUTS, RUN_ID
from flightlog.concurrency import set_limit
from flightlog.engine import results
from flightlog.engine.context import TaskRunContext
from flightlog.engine.history import read_history
from flightlog.engine.resuming import resume_run
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.events.opening import open_log
from flightlog.ids import id_text, parse_id

MOMENTS = ("before", "at", "after")
"""When the process is killed: before a commit begins, when all is written but not committed, when it is done."""
_MOST_COMMITS = 200


def _witness(text: str) -> None:
    """Write a line where it survives the end of the process at any moment."""
    descriptor = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def _started() -> int:
    """Bear witness that a task's body runs; return which attempt it is."""
    context = TaskRunContext.get()
    assert context is not None
    _witness(context.task_run.id)
    return context.task_run.run_count


@task
def plain(n: int) -> int:
    """Be an ordinary task."""
    _started()
    return n * 10


@task
def mapped(n: int, factor: int) -> list[int]:
    """Be one of many."""
    _started()
    return [n * factor] * 3


@task(retries=2)
def shaky(n: int) -> int:
    """Fail at the first attempt."""
    if _started() == 1:
        raise ValueError("the first attempt fails")
    return n + 1


@task
async def waiting(n: int) -> int:
    """Be one of several that wait at the same time."""
    _started()
    await asyncio.sleep(0)
    return n * n


@task(cache_policy=(INPUTS + RUN_ID).configure(isolation_level="SERIALIZABLE"))
def cached(n: int) -> int:
    """Be computed once for each argument."""
    _started()
    return n * 7


@task(tags=["scarce"])
def limited(n: int) -> int:
    """Need the one slot of a limit, which a killed process takes with it."""
    _started()
    return -n


@flow
def child(n: int) -> int:
    """Be a subflow with tasks of its own."""
    return plain(n) + shaky(n)


@flow
def whole(n: int) -> dict[str, Any]:
    """Use every kind of task."""
    first = [plain(i) for i in range(n)]
    many = [future.result() for future in mapped.map(first, unmapped(2))]
    rest = shaky.submit(first[-1])
    return {
        "first": first,
        "many": many,
        "child": child(n),
        "gathered": gathering(3),
        "rest": rest.result(),
        "cached": [cached(n), cached(n)],
        "limited": [future.result() for future in limited.map([1, n])],
    }


@flow
def gathering(n: int) -> int:
    """Call async tasks from sync code."""
    futures: list[Any] = [waiting.submit(i) for i in range(n)]
    return sum(future.result() for future in futures)


EXPECTED: dict[str, Any] = {"first": [0, 10], "many": [[0] * 3, [20] * 3], "child": 23, "gathered": 5, "rest": 11}
EXPECTED |= {"cached": [14, 14], "limited": [-1, -2]}


@dataclass(frozen=True, slots=True)
class Case:
    """What came of one kill.

    Attributes:
        moment: when it was.
        commit: at which commit.
        completed: calls whose end was committed.
        started: calls whose body had begun.
        again: calls whose body began before the kill and once more after it.
        wrongly: those of them whose end had been committed.
        result: whether the resumed run returned what an uncrashed one does.
    """

    moment: str
    commit: int
    completed: int
    started: int
    again: int
    wrongly: int
    result: bool


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(moment: str, number: int) -> None:
    """Have this process killed at a moment of its n-th commit."""
    store = current_engine().log.store
    write, commits = store.write, [0]

    def armed(units: Any, *, wait: bool) -> bool:
        commits[0] += 1
        if commits[0] != number:
            return write(units, wait=wait)
        if moment == "before":
            _kill()
        if moment == "at":
            _kill_at_commit(store)
        done = write(units, wait=wait)
        if done:
            _kill()
        commits[0] -= 1
        return done

    store.write = armed  # type: ignore[method-assign]


def _kill_at_commit(store: Any) -> None:
    """Have this process killed when its transaction is complete but for the COMMIT."""
    if hasattr(store, "_writing"):
        store._writing().set_trace_callback(lambda sql: _kill() if sql.startswith("COMMIT") else None)
        return
    import sqlalchemy

    sqlalchemy.event.listen(store._engine, "commit", lambda _: _kill())


def _forked(work: Callable[[], Any], out: Path | None = None) -> int:
    """Do something in a forked process of its own; return how that ended."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        value = work()
        close_engine()
        if out is not None:
            out.write_text(json.dumps(value))
    except BaseException:
        if out is not None:
            out.write_text(json.dumps({"error": traceback.format_exc()}))
        os._exit(1)
    os._exit(0)


def _committed(url: str, after: int) -> tuple[str | None, set[str]]:
    """Return the outermost flow run that was created after a position, and the calls whose end is committed."""
    run, ended = None, set()
    with open_log(url) as log:
        for event in log.read_all(after):
            if event.type == "flow_run.created" and "parent_flow_run_id" not in event.data:
                run = event.stream.partition("/")[2]
            if event.type == "task_run.completed":
                ended.add(id_text(event.data["task_run_id"]))
    return run, ended


def _head(url: str) -> int:
    with open_log(url) as log:
        return log.head().position


def _outcome(run: str) -> Any:
    """Return what a run returned, if it completed before it was killed; else resume it and return that."""
    engine = current_engine()
    history = read_history(engine.log, parse_id(run))
    if history.rules.type == "COMPLETED" and history.last is not None:
        return results.load(engine.key, engine.log.blob(history.last.data["result"]["digest"]))
    return resume_run(run, flow=whole)


def crash(url: str, folder: Path, moment: str, number: int) -> Case | None:
    """Kill a run at a moment of its n-th commit and resume it; None if it had ended by then."""
    witness = folder / f"witness-{moment}-{number}"
    os.environ["WITNESS"] = str(witness)
    head = _head(url)

    def first() -> None:
        _arm(moment, number)
        whole(2)

    status = _forked(first)
    if not os.WIFSIGNALED(status):
        assert status == 0, "the run was to be killed, or to end well"
        return None
    run, ended = _committed(url, head)
    bodies = Counter(witness.read_text().split()) if witness.exists() else Counter()
    if run is None:
        assert not bodies, "a body ran though nothing is on record"
        return Case(moment, number, 0, 0, 0, 0, True)
    out = folder / "result.json"
    _forked(lambda: _outcome(str(run)), out)
    value = json.loads(out.read_text())
    later = Counter(witness.read_text().split())
    again = {call for call in bodies if later[call] > bodies[call]}
    return Case(
        moment, number, len(ended & set(bodies)), len(bodies), len(again), len(again & ended), value == EXPECTED
    )


def _first_run() -> None:
    """Make the log, its key and a limit."""
    set_limit("tag:scarce", 1)
    whole(2)


def matrix(url: str, folder: Path, moments: tuple[str, ...] = MOMENTS) -> list[Case]:
    """Kill runs at every moment of every commit; return what came of each."""
    close_engine()
    os.environ["FLIGHTLOG_LOG_URL"] = url
    os.environ["FLIGHTLOG_HOME"] = str(folder)
    _forked(_first_run)
    cases = []
    for moment in moments:
        for number in range(1, _MOST_COMMITS):
            found = crash(url, folder, moment, number)
            if found is None:
                break
            cases.append(found)
    return cases


def table(cases: list[Case]) -> str:
    """Return the cases as a table in Markdown, one line for each moment."""
    lines = [
        "| killed | times | results right | calls completed before | calls begun before | ran again | wrongly |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for moment in MOMENTS:
        own = [case for case in cases if case.moment == moment]
        if own:
            sums = [sum(getattr(case, name) for case in own) for name in ("completed", "started", "again", "wrongly")]
            right = sum(case.result for case in own)
            lines.append(f"| {moment} a commit | {len(own)} | {right} | " + " | ".join(map(str, sums)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/flightlog.db"
        sys.stdout.write(table(matrix(url, Path(folder))) + "\n")


if __name__ == "__main__":
    main()

__all__ = ["EXPECTED", "Case", "matrix", "table"]
