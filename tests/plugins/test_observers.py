"""Observers: what they are told, in which order, and that a durable one misses nothing."""

import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.plugins.distributions import Collection, Place

from flightlog import flow, task
from flightlog.engine.runtime import Engine, using
from flightlog.events.log import Log
from flightlog.events.model import Append, Event
from flightlog.events.opening import open_log
from flightlog.events.store import Committed
from flightlog.events.stores.memory import MemoryStore
from flightlog.plugins.host import Host
from flightlog.plugins.manifests import of_file
from flightlog.plugins.observers import Feed, Follower, NotTaken, Tail
from flightlog.plugins.plugin import Plugin
from flightlog.plugins.states import States
from flightlog.settings import Settings
from flightlog.testing.log_contract import new_event

COPIER = Collection(
    "copier",
    """
    import json, os

    @hookimpl
    def on_log_events(events):
        with open("copy", "a") as file:
            for event in events:
                print(json.dumps([event.position, event.type, os.getpid()]), file=file, flush=True)
        if os.path.exists("refuse"):
            raise ValueError("not now")
    """,
    ("on_log_events",),
)
RUN = """
import sys
from flightlog import flow, task

@task
def double(n):
    return n * 2

@flow
def doubles(count):
    return [double(n) for n in range(count)]

doubles(int(sys.argv[1]))
"""
PLAIN = "from flightlog.plugins import hookimpl\n"


def copied(place: Place) -> list[int]:
    """Return the positions that were copied, in the order in which they came."""
    return [json.loads(line)[0] for line in (place.work / "copy").read_text().splitlines()]


def positions(place: Place) -> list[int]:
    """Return the positions of the log's events, but for those that are about the plug-in."""
    with open_log(f"sqlite:///{place.home}/flightlog.db", create=False) as log:
        return [event.position for event in log.read_all() if not event.type.startswith("plugin.")]


# --- durable --------------------------------------------------------------------------------------


def test_a_durable_observer_gets_every_event_in_order(place: Place) -> None:
    """From the first one that is recorded after it was first seen, over several processes."""
    assert place.python(RUN, "3").returncode == 0
    before = positions(place)
    place.install(COPIER)
    for _ in range(2):
        assert place.python(RUN, "3").returncode == 0
    assert copied(place) == positions(place)[len(before) :]


def test_what_it_refuses_comes_again(place: Place) -> None:
    """It raises, and then it recovers: no event is missed, none is skipped, and the failure is on record."""
    place.install(COPIER)
    (place.work / "refuse").touch()
    assert place.python(RUN, "3").returncode == 0
    refused = copied(place)
    assert refused
    done = place.flightlog("plugins", "run")
    assert done.returncode == 1
    assert "copier failed: ValueError: not now. It gets the same events again next time." in done.stderr
    (place.work / "refuse").unlink()
    (place.work / "copy").unlink()
    done = place.flightlog("plugins", "run")
    assert done.returncode == 0
    assert copied(place) == positions(place)
    (what,) = {p["what"] for p in json.loads(place.flightlog("plugins", "show", "copier", "--json").stdout)["problems"]}
    assert what == "failed"


HANGING = Collection(
    "copier",
    COPIER.code
    + """
        if os.path.exists("hang"):
            open("hung", "w").close()
            import threading
            threading.Event().wait()
    """,
    COPIER.contributes,
)
KILLED_AT_ONCE = RUN + "import os\nos.kill(os.getpid(), 9)\n"
KILLED_IN_A_CALL = (
    RUN + "import os, time\nwhile not os.path.exists('hung'): time.sleep(0.01)\nos.kill(os.getpid(), 9)\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("program", [KILLED_AT_ONCE, KILLED_IN_A_CALL], ids=["at once", "in a call"])
def test_after_kill_9_nothing_is_missed(place: Place, program: str) -> None:
    """The process is killed before the first call, or in the middle of one; the next one hands over the same events."""
    place.install(HANGING)
    (place.work / "hang").touch()
    assert place.python(program, "20").returncode == -signal.SIGKILL
    (place.work / "hang").unlink()
    recorded, deadline = positions(place), time.monotonic() + 60
    while "another process is at it" in place.flightlog("plugins", "run").stderr:  # its lease runs out
        assert time.monotonic() < deadline
        time.sleep(0.5)
    seen = copied(place)
    assert sorted(set(seen)) == recorded
    last = seen[len(seen) - len(recorded) :]
    assert last == sorted(last), "in order, whatever came before the kill"


def test_two_processes_share_one_cursor(place: Place) -> None:
    """Both run flows at once; every event is handed over once, by one of them."""
    place.install(COPIER)
    processes = [place.start(RUN, "60") for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    for process in processes:
        process.communicate()
    place.flightlog("plugins", "run")
    assert sorted(copied(place)) == positions(place)
    assert max(Counter(copied(place)).values()) == 1


def test_one_that_appends_events_itself_comes_to_an_end(place: Place) -> None:
    """Each event that it gets leads to another one: what is committed when the process ends is handed over, no more."""
    code = """
    from flightlog import emit_event

    @hookimpl
    def on_log_events(events):
        with open("copy", "a") as file:
            for event in events:
                print(event.position, file=file)
                emit_event("echo.heard", {"flightlog.resource.id": "echo"})
    """
    place.install(Collection("echo", code, ("on_log_events",)))
    assert place.python(RUN, "3").returncode == 0
    done = place.flightlog("plugins", "run")
    assert done.returncode == 0


def test_a_log_on_postgresql_is_followed_too(place: Place, postgres_url: str) -> None:
    """There positions are given after the commit; nothing is missed, and in-process observers see all as well."""
    code = COPIER.code + (
        "\n    @hookimpl\n    def on_events(events):\n        with open('seen', 'a') as file:\n"
        "            for event in events:\n                print(event.id.hex(), file=file)\n"
    )
    place.install(Collection("copier", code, ("on_events", "on_log_events")))
    place.env["FLIGHTLOG_LOG_URL"] = postgres_url
    for _ in range(2):
        assert place.python(RUN, "5").returncode == 0
    with open_log(postgres_url, create=False) as log:
        recorded = [(event.position, event.id.hex()) for event in log.read_all()]
    assert copied(place) == [position for position, _ in recorded]
    assert (place.work / "seen").read_text().split() == [identity for _, identity in recorded]


# --- in a process with its own host ---------------------------------------------------------------


@task
def t() -> int:
    """Do nothing."""
    return 1


@flow
def calls_a_task() -> int:
    """Call it."""
    return t()


def plugin_of(tmp_path: Path, code: str) -> tuple[Host, Plugin]:
    """Return a host with a plug-in of one file."""
    path = tmp_path / f"plug_{abs(hash(code))}.py"
    path.write_text(PLAIN + code)
    host = Host(Settings(home=Path(), log_url="memory://"), [of_file(path)])
    return host, host.plugins[0]


def module_of(host: Host) -> Any:
    """Return the plug-in's module."""
    host.asked(host.plugins[0], "register_settings")
    return sys.modules[host.plugins[0].manifest.module]


KEEP = "kept = []\n@hookimpl\ndef {hook}({argument}):\n    kept.append({argument})\n"


def test_a_new_follower_makes_its_cursor_at_once(tmp_path: Path) -> None:
    """So what is recorded from there on is handed over, even if this process never gets to it."""
    host, plugin = plugin_of(tmp_path, KEEP.format(hook="on_log_events", argument="events"))
    with Log(MemoryStore()) as log:
        log.append("a", [new_event()])
        Follower(host, plugin, log, log.head().position)._subscription.close()
        log.append("a", [new_event("b.done"), new_event("c.done")])
        assert Follower(host, plugin, log, log.head().position).drain() == 2
        assert [event.type for events in module_of(host).kept for event in events] == ["b.done", "c.done"]
    host.close()


def test_a_follower_stands_by_while_another_works(tmp_path: Path) -> None:
    """It says so instead of a number."""
    host, plugin = plugin_of(tmp_path, KEEP.format(hook="on_log_events", argument="events"))
    with Log(MemoryStore()) as log:
        first, second = Follower(host, plugin, log, 0), Follower(host, plugin, log, 0)
        assert second.drain() is None
        assert first.drain() == 0
        assert second.drain() == 0
    host.close()


def test_a_follower_goes_on_after_failures(tmp_path: Path) -> None:
    """In the same process, after a pause; once it succeeds it is as if nothing had been."""
    code = """
calls = []
@hookimpl
def on_log_events(events):
    calls.append([event.type for event in events])
    if len(calls) == 1:
        raise ValueError("not now")
"""
    host, plugin = plugin_of(tmp_path, code)
    with Log(MemoryStore()) as log:
        follower, ending = Follower(host, plugin, log, 0), threading.Event()
        log.append("a", [new_event("a.done")])
        thread = threading.Thread(target=follower.run, args=(ending,))
        thread.start()
        module, deadline = module_of(host), time.monotonic() + 30
        while len(module.calls) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        ending.set()
        thread.join()
        assert module.calls == [["a.done"]] * 2
        assert plugin.in_a_row == 0
    host.close()


def test_it_is_not_told_of_itself(tmp_path: Path) -> None:
    """What is on record of its own failures is not handed to it: it would fail for ever."""
    host, plugin = plugin_of(tmp_path, "@hookimpl\ndef on_log_events(events):\n    raise ValueError")
    with Log(MemoryStore()) as log:
        log.append(f"plugin/{plugin.name}", [new_event("plugin.failed")])
        assert Follower(host, plugin, log, 0).drain() == 1
        log.append("plugin/another", [new_event("plugin.failed")])
        with pytest.raises(NotTaken):
            Follower(host, plugin, log, 0).drain()
    host.close()


def batch(*types: str) -> Committed:
    """Return events as a store tells of them."""
    log = Log(MemoryStore())
    got: list[Committed] = []
    log.store.tap = got.append
    log.append_all([Append("a", [new_event(type_) for type_ in types])])
    log.close()
    return got[0]


def test_a_feed_that_is_full_leaves_out_and_counts() -> None:
    """What waits is bounded; what is left out is the newest, and it is counted."""
    feed = Feed(longest=3)
    for _ in range(3):
        feed.put(batch("a.done", "b.done"))
    assert feed.left_out == 2
    assert [one.types for one in feed.take()] == [["a.done", "b.done"]] * 2
    assert feed.take() == []
    feed.put(batch("c.done"))
    assert [one.types for one in feed.take()] == [["c.done"]]
    feed.close()
    feed.put(batch("d.done"))
    assert feed.take() == []
    assert feed.left_out == 2


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    """An observer that does not keep up is on record as slow, with how many events it has not got."""
    host, plugin = plugin_of(tmp_path, KEEP.format(hook="on_events", argument="events"))
    with Log(MemoryStore()) as log:
        feed, ending = Feed(longest=1), threading.Event()
        for _ in range(3):
            feed.put(batch("a.done", "b.done"))
        ending.set()
        Tail(host, plugin, log, feed).run(ending)
    assert [(problem.kind, problem.text) for problem in plugin.problems] == [("lagged", "4 events were left out")]
    assert [len(events) for events in module_of(host).kept] == [2]
    assert feed.closed
    host.close()


def test_what_on_events_does_to_events_does_not_reach_other_hooks(tmp_path: Path) -> None:
    """Each hook gets events of its own."""
    code = """
names = []
@hookimpl
def on_events(events):
    for event in events:
        event.data.clear()
    events.clear()

@hookimpl
def on_task_run_state(change):
    names.append((change.subject, change.state_name, change.event.data["task_run_id"] != b""))
"""
    host, _ = plugin_of(tmp_path, code)
    engine = Engine(Log(MemoryStore()), bytes(32), host.settings, host=lambda: host)
    with using(engine):
        calls_a_task()
    assert engine.companions is not None
    engine.companions.stop()
    assert module_of(host).names == [("t", name, True) for name in ("Pending", "Running", "Completed")]
    engine.log.close()
    host.close()


def test_state_changes_carry_what_is_known_of_the_run() -> None:
    """Name, subject, tags, state, message, flow run; also of runs that began before."""
    from flightlog.testing import memory_engine

    @task(tags=["t1"], task_run_name="the-task")
    def fails() -> None:
        raise ValueError("no")

    @flow(flow_run_name="the-run")
    def outer() -> None:
        fails()

    with memory_engine() as engine:
        outer(return_state=True)
        engine.log.flush()
        events = list(engine.log.read_all())
        for seen in (events, [event for event in events if event.type.endswith("failed")]):
            changes = list(States(engine.log).changes(seen))
            task_failed, flow_failed = (change for change in changes if change.state_name == "Failed")
            assert (task_failed.kind, task_failed.name, task_failed.subject) == ("task_run", "the-task", "fails")
            assert (task_failed.tags, task_failed.state_type) == (("t1",), "FAILED")
            assert task_failed.flow_run_id == flow_failed.id
            assert (flow_failed.kind, flow_failed.name, flow_failed.subject) == ("flow_run", "the-run", "outer")
            assert "no" in (flow_failed.message or "")
            assert task_failed.at == task_failed.event.occurred_at


def test_a_run_whose_beginning_is_lost_is_left_out() -> None:
    """In a partial copy of a log nothing is made up."""
    from flightlog.testing import memory_engine

    with memory_engine() as engine:
        calls_a_task()
        engine.log.flush()
        last = [event for event in engine.log.read_all() if event.type == "flow_run.completed"]
    with Log(MemoryStore()) as empty:
        moved = [Event(one.position, one.recorded_at, one.record, empty.blob) for one in last]
        assert list(States(empty).changes(moved)) == []
