"""Programs that the fault tests run in processes of their own.

Children are forked from one process that has imported everything, so that two hundred of them take seconds.
Called as ``python nursery.py PROGRAM ARGUMENTS...``; the last line printed is a JSON document.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flightlog import flow, get_run_logger, task
from flightlog.engine.bridge import stop_background_loop
from flightlog.engine.context import TaskRunContext
from flightlog.engine.runtime import current_engine
from flightlog.events.integrity import verify
from flightlog.events.opening import open_log
from flightlog.testing import memory_engine
from flightlog.testing.log_contract import new_event


def witness(text: str) -> None:
    """Write a line where it survives the end of the process at any moment."""
    descriptor = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def started() -> None:
    """Bear witness that a task's body runs."""
    context = TaskRunContext.get()
    assert context is not None
    witness(f"started {context.task_run.id} {context.task_run.run_count}")


@task
def plain(n: int) -> list[int]:
    """Run, and return something that goes into a blob."""
    started()
    return list(range(n))


@task(retries=1)
def shaky(n: int) -> int:
    """Fail at the first attempt."""
    started()
    context = TaskRunContext.get()
    assert context is not None
    if context.task_run.run_count == 1:
        raise ValueError("x" * 1000 * n)
    return n


@task
async def waiting(n: int) -> int:
    """Run in an event loop."""
    started()
    await asyncio.sleep(0)
    return n


@flow
def child(n: int) -> int:
    """Be a subflow."""
    witness(f"flow {n}")
    plain(n % 50)
    return n


@flow
def mixed(seed: int, rounds: int = 10_000) -> None:
    """Do some of everything, for as long as it is let."""
    logger = get_run_logger()
    engine = current_engine()
    for n in range(seed, seed + rounds):
        plain(n % 50)
        futures = [plain.submit(k) for k in range(3)] + [waiting.submit(k) for k in range(3)]
        shaky(n % 80)
        child(n)
        logger.info("round %s", n)
        for future in futures:
            future.result()
        event = new_event(n=n)
        engine.log.append(f"acknowledged/{seed}", [event])
        witness(f"acknowledged {event.id.hex()}")


def crash(home: str, seed_: str, times_: str) -> None:
    """Kill children at random moments and look at what they left; print what is wrong."""
    seed, times = int(seed_), int(times_)
    chance = random.Random(seed)
    os.environ["FLIGHTLOG_HOME"] = home
    os.environ["WITNESS"] = f"{home}/witness"
    Path(home).mkdir(parents=True, exist_ok=True)
    Path(os.environ["WITNESS"]).touch()
    wrong: list[str] = []
    _warm_up(home)
    for number in range(times):
        process = _forked(lambda number=number: mixed(seed * 1_000_000 + number * 10_000))  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.12))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        if number % 10 == 9 or number == times - 1:
            wrong += [f"after kill {number}: {problem}" for problem in _problems(home)]
    lines = Path(os.environ["WITNESS"]).read_text().splitlines()
    counts = {kind: sum(line.startswith(kind) for line in lines) for kind in ("started", "acknowledged", "flow")}
    print(json.dumps({"wrong": wrong, "kills": times, **counts}))


def _warm_up(home: str) -> None:
    """Import and compile all that a child would, on a log of its own."""
    with open_log(f"sqlite:///{home}/warm.db") as log, memory_engine() as engine:
        log.append("a", [new_event()])
        list(log.read_all(types=["thing.happened"]))  # by way of SQLAlchemy, as the services of a child read
        mixed(0, rounds=1)
        engine.log.flush()
    stop_background_loop()
    Path(os.environ["WITNESS"]).write_text("")


def _problems(home: str) -> list[str]:
    """Compare the log with what witnesses say."""
    with open_log(f"sqlite:///{home}/flightlog.db", create=False) as log:
        problems = [str(problem) for problem in verify(log.store).problems]
        ids, running, flows = set(), set(), 0
        for event in log.read_all():
            ids.add(event.id.hex())
            if event.type == "task_run.running":
                running.add((event.data["task_run_id"].hex(), event.data.get("attempt", 1)))
            flows += event.type == "flow_run.running"
    for line in Path(os.environ["WITNESS"]).read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "acknowledged" and rest not in ids:
            problems.append(f"the acknowledged event {rest} is lost")
        elif word == "started":
            run, attempt = rest.split()
            if (run.replace("-", ""), int(attempt)) not in running:
                problems.append(f"attempt {attempt} of {run} ran, but its start is not on record")
    return problems


@flow
def busy(number: int) -> int:
    """Run a few tasks."""
    return sum(len(plain(n)) for n in range(8)) + number


def many(home: str, processes: str) -> None:
    """Run flows in many processes on one file at once; print how they ended."""
    os.environ["FLIGHTLOG_HOME"] = home
    os.environ["WITNESS"] = f"{home}-witness"
    children = [_forked(lambda n=n: _busy_for_long(n)) for n in range(int(processes))]  # type: ignore[misc]
    errors = Path(os.environ["WITNESS"] + "-errors")
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    with open_log(f"sqlite:///{home}/flightlog.db", create=False) as log:
        types = [event.type for event in log.read_all()]
        problems = [str(problem) for problem in verify(log.store).problems]
    print(
        json.dumps(
            {
                "codes": sorted(set(codes)),
                "flows": types.count("flow_run.completed"),
                "tasks": types.count("task_run.completed"),
                "problems": problems,
                "errors": errors.read_text()[-3000:] if errors.exists() else "",
            }
        )
    )


def _busy_for_long(number: int) -> None:
    for _ in range(3):
        busy(number)


def _forked(work: Callable[[], Any]) -> int:
    """Run a function in a forked child; return its process id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        sys.stderr = Path(os.devnull).open("w") if "QUIET" in os.environ else sys.stderr  # noqa: SIM115
        work()
        current_engine().log.close()
        code = 0
    except BaseException:
        with Path(os.environ["WITNESS"] + "-errors").open("a") as errors:
            traceback.print_exc(file=errors)
    os._exit(code)


if __name__ == "__main__":
    os.environ["QUIET"] = "1"
    programs: dict[str, Callable[..., None]] = {"crash": crash, "many": many}
    programs[sys.argv[1]](*sys.argv[2:])
