"""Plug-ins are harmless (invariant I11): whatever one does, runs are as they would be without it."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.plugins.distributions import Collection, Place

from flightlog import flow
from flightlog.engine.runtime import Engine, using
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.vocabulary import payload
from flightlog.plugins.companions import Companions
from flightlog.plugins.host import Host
from flightlog.plugins.isolation import Isolated
from flightlog.plugins.manifests import of_file
from flightlog.settings import Settings

RUN = """
from flightlog import flow, get_run_logger, task

@task(retries=1)
def double(n):
    if n == 2 and not seen:
        seen.append(n)
        raise ValueError("once")
    return n * 2

@flow
def doubles():
    get_run_logger().info("begun")
    return [double(n) for n in range(4)] + double.map(range(3)).result()

@flow
def fails():
    double(1)
    raise RuntimeError("as it should")

seen = []
print(doubles(), fails(return_state=True).name)
"""
OBSERVE = """
@hookimpl
def on_events(events):
    act(events)

@hookimpl
def on_log_events(events):
    act(events)

@hookimpl
def on_task_run_state(change):
    act([change.event])

@hookimpl
def register_event_types():
    act([])

@hookimpl
def register_services():
    class Service:
        def start(self, surroundings):
            act([])

        def stop(self, seconds):
            act([])

    return {"service": Service}
"""
HOOKS = ("on_events", "on_log_events", "on_task_run_state", "register_event_types", "register_services")
MISCHIEF = {
    "raises": "raise ValueError('no')",
    "exits": "import sys; sys.exit(7)",
    "interrupts": "raise KeyboardInterrupt",
    "ends-its-thread": "import _thread; _thread.exit()",
    "raises-what-cannot-be-told": "raise type('Odd', (Exception,), {'__str__': lambda self: exit()})",
    "hangs": "import threading; threading.Event().wait()",
    "is-slow": "import time; time.sleep(0.2)",
    "leaves-threads": "import threading; threading.Thread(target=threading.Event().wait).start()",
    "changes-events": "for event in events: event.data.clear(); event.position = 10**9\n    events.clear()",
    "floods": "print('x' * 100_000); import logging; [logging.getLogger().error('x' * 1000) for _ in range(100)]",
    "returns-nonsense": "return object()",
    "closes-things": "import os, sys; sys.stdout = sys.stderr = None",
}


def outcome(place: Place) -> list[Any]:
    """Return what the log says of the runs, but for ids and times."""
    done = place.flightlog("events", "ls", "--jsonl", "--limit", "1000", FLIGHTLOG_PLUGINS_MODE="safe")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        [event["type"], event["data"].get("task"), event["data"].get("state"), event["data"].get("message")]
        for event in events
        if not event["type"].startswith("plugin.")
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the log says of runs with no plug-in beside them."""
    site, home, work = (tmp_path_factory.mktemp(name) for name in ("site", "home", "work"))
    place = Place(site, home, work)
    assert place.python(RUN).stdout == "[0, 2, 4, 6, 0, 2, 4] Failed\n"
    return outcome(place)


@pytest.mark.parametrize("kind", MISCHIEF)
def test_I11_runs_are_as_they_would_be_without_it(place: Place, kind: str, undisturbed: list[Any]) -> None:
    """What flows return and print, how the process ends and what is on record of runs does not change."""
    code = f"def act(events):\n    {MISCHIEF[kind]}\n" + OBSERVE
    if kind == "returns-nonsense":
        code = code.replace("    act([])\n", "    return act([])\n")
    place.install(Collection(kind, code, HOOKS)).env["FLIGHTLOG_PLUGINS_TIMEOUT_SECONDS"] = "1"
    done = place.python(RUN)
    assert done.returncode == 0, done.stderr
    if kind != "closes-things":
        assert "[0, 2, 4, 6, 0, 2, 4] Failed" in done.stdout
    assert "Exception in thread" not in done.stderr
    assert sorted(map(str, outcome(place))) == sorted(map(str, undisturbed))


@pytest.mark.parametrize(
    ("kind", "recorded", "told"),
    [
        ("raises", ["failed", "switched off"], "ValueError: no"),
        ("exits", ["failed", "switched off"], "SystemExit: 7"),
        ("hangs", ["failed", "switched off"], "it did not come back within 1 seconds"),
        ("raises-what-cannot-be-told", ["failed", "switched off"], "Odd"),
        ("returns-nonsense", ["failed"], "it returned a object, and no sequence"),
    ],
)
def test_I11_what_went_wrong_is_on_record(place: Place, kind: str, recorded: list[str], told: str) -> None:
    """Once a minute for each hook, with the number of failures; a person can see it with `plugins show`."""
    code = f"def act(events):\n    {MISCHIEF[kind]}\n" + OBSERVE
    if kind == "returns-nonsense":
        code = code.replace("    act([])\n", "    return act([])\n")
    place.install(Collection(kind, code, HOOKS)).env["FLIGHTLOG_PLUGINS_TIMEOUT_SECONDS"] = "1"
    place.python(RUN)
    problems = json.loads(place.flightlog("plugins", "show", kind, "--json").stdout)["problems"]
    assert sorted({problem["what"] for problem in problems}) == recorded
    assert any(told in problem["problem"] for problem in problems)
    assert len({(p["what"], p["hook"]) for p in problems}) == len(problems)
    assert all(problem["failures"] >= 1 for problem in problems)


def test_I11_a_plug_in_that_hangs_delays_the_exit_by_a_bounded_time(place: Place) -> None:
    """Calls may take very long, and this one never ends: the process ends all the same, with the run's own code."""
    code = "import threading\ndef act(events):\n    threading.Event().wait()\n" + OBSERVE
    place.install(Collection("hangs-for-ever", code, HOOKS)).env["FLIGHTLOG_PLUGINS_TIMEOUT_SECONDS"] = "1000000"
    assert place.python(RUN).returncode == 0  # within the minute that the harness gives it
    ending = RUN + "from flightlog.engine.runtime import close_engine\nclose_engine()\nprint('closed')"
    assert place.python(ending).stdout.endswith("closed\n")


def test_I11_the_first_flow_run_waits_for_no_plug_in(place: Place) -> None:
    """A service or an event type that takes its time holds nobody up."""
    place.install(
        Collection("slow-to-start", "import threading\nthreading.Event().wait()", ("register_services", "on_events"))
    )
    program = "import os\nfrom flightlog import flow\nprint(flow(lambda: 1, name='one')(), flush=True)\nos._exit(0)"
    assert place.python(program, FLIGHTLOG_PLUGINS_TIMEOUT_SECONDS="1000000").stdout == "1\n"


def test_I11_threads_of_a_plug_in_keep_no_process_from_ending(place: Place) -> None:
    """A thread that it starts is a daemon, unless it says otherwise; then doctor says so."""
    wait = "threading.Thread(target=threading.Event().wait"
    quiet = f"import threading\n@hookimpl\ndef on_events(events):\n    {wait}).start()"
    place.install(Collection("threaded", quiet, ("on_events",)))
    assert place.python(RUN).returncode == 0
    code = f"""
    import threading
    @hookimpl
    def register_settings():
        {wait}, args=(2,), name='mine', daemon=False).start()
        return []
    """
    place.install(Collection("stubborn", code, ("register_settings",)))
    done = place.flightlog("plugins", "doctor")
    assert "stubborn: it has started the thread 'mine', which is no daemon: processes would not end" in done.stdout


def test_I11_a_forked_child_is_observed_too(place: Place) -> None:
    """A child has none of its parent's threads: it begins anew, and no lock that was held keeps it waiting."""
    code = """
    import os

    @hookimpl
    def on_flow_run_state(change):
        with open(f"seen-{os.getpid()}", "a") as file:
            print(change.subject, change.state_name, file=file)
    """
    place.install(Collection("forked", code, ("on_flow_run_state",)))
    program = """
        import os, sys
        from flightlog import flow
        from flightlog.engine.runtime import close_engine

        @flow
        def parent():
            return 1

        @flow
        def child():
            return 2

        parent()
        pid = os.fork()
        if not pid:
            code = 0 if child() == 2 else 1
            close_engine()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        parent()
        close_engine()
        print(os.getpid(), pid)
    """
    done = place.python(program)
    assert done.returncode == 0, done.stderr
    parent, child = done.stdout.split()
    assert (place.work / f"seen-{child}").read_text().splitlines()[-1] == "child Completed"
    seen = (place.work / f"seen-{parent}").read_text()
    assert seen.count("parent Completed") == 2
    assert "child" not in seen


# --- calls, one by one ----------------------------------------------------------------------------


def test_a_call_returns_what_the_function_does() -> None:
    """In a thread of the plug-in's own, the same for all its calls."""
    isolated = Isolated("x")
    names = [isolated.call(lambda: threading.current_thread().name, {}, 10).value for _ in range(2)]
    assert names == ["flightlog-plugin-x"] * 2
    assert isolated.call(lambda a, b: a - b, {"a": 3, "b": 1}, 10).value == 2
    isolated.close()
    assert isolated.call(lambda: 1, {}, 10).problem == "the process has let go of its plug-ins"


def test_calls_come_one_at_a_time() -> None:
    """From however many threads."""
    isolated, inside, most = Isolated("x"), [0], [0]

    def enter() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.001)
        inside[0] -= 1

    threads = [threading.Thread(target=isolated.call, args=(enter, {}, 10)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    isolated.close()


def test_a_plug_in_may_ask_for_itself() -> None:
    """A call out of a call is made at once: it would wait for itself for ever."""
    isolated = Isolated("x")
    assert isolated.call(lambda: isolated.call(lambda: 5, {}, 1).value, {}, 10).value == 5
    isolated.close()


def test_after_a_call_that_hangs_there_are_no_more() -> None:
    """Its thread is given up; closing does not wait for it."""
    isolated, release = Isolated("x"), threading.Event()
    called = isolated.call(release.wait, {}, 0.01)
    assert (called.hung, called.problem) == (True, "it did not come back within 0.01 seconds")
    assert isolated.call(lambda: 1, {}, 10).problem == "an earlier call of it has not come back"
    isolated.close()
    release.set()
    for thread in threading.enumerate():
        if thread.name == "flightlog-plugin-x":
            thread.join(10)


def test_closing_does_not_wait_for_a_call_that_is_under_way() -> None:
    """The thread ends when the call comes back."""
    isolated, begun, release = Isolated("x"), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait()

    caller = threading.Thread(target=isolated.call, args=(work, {}, 60))
    caller.start()
    begun.wait()
    isolated.close()
    release.set()
    caller.join()
    assert isolated._thread is not None
    isolated._thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_was_killed_is_replaced() -> None:
    """A plug-in that ends its own thread between two calls is called in a new one."""
    import ctypes

    isolated = Isolated("x")
    first = isolated.call(threading.current_thread, {}, 10).value
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(first.ident), ctypes.py_object(SystemExit))
    isolated._jobs.put(_Nothing())  # type: ignore[arg-type]
    first.join()
    second = isolated.call(threading.current_thread, {}, 10).value
    assert second is not first
    isolated.close()


class _Nothing:
    """A job that does nothing: it wakes the thread, which then sees that it is to end."""

    done = threading.Event()

    def do(self) -> None:
        """Do nothing."""


# --- in a process with its own host ---------------------------------------------------------------


def engine_with(tmp_path: Path, code: str, **settings: Any) -> tuple[Engine, Host]:
    """Return an engine on a log in memory with a plug-in of one file beside it."""
    path = tmp_path / f"plug_{abs(hash(code))}.py"
    path.write_text("from flightlog.plugins import hookimpl\n" + code)
    chosen = Settings(home=Path(), log_url="memory://", **settings)
    host = Host(chosen, [of_file(path)])
    return Engine(Log(MemoryStore()), bytes(32), chosen, host=lambda: host), host


def closed(engine: Engine, host: Host) -> list[Any]:
    """Let all end, and return what is on record of plug-ins."""
    assert engine.companions is not None
    engine.companions.stop()
    host.close()
    engine.log.flush()
    found = [event for event in engine.log.read_all() if event.type.startswith("plugin.")]
    for event in found:
        assert payload(event) is not None
    engine.log.close()
    return [(event.type, event.data["problem"]) for event in found]


@flow
def one() -> int:
    """Do nothing."""
    return 1


def run_some(engine: Engine, count: int = 1) -> None:
    """Run flows."""
    with using(engine):
        for _ in range(count):
            assert one() == 1


def test_failures_in_a_row_switch_it_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After five, with one line; a success in between begins anew."""
    code = """
calls = []
@hookimpl
def on_flow_run_state(change):
    calls.append(change)
    if len(calls) != 4:
        raise ValueError(len(calls))
"""
    engine, host = engine_with(tmp_path, code)
    run_some(engine, 5)
    recorded = closed(engine, host)
    (plugin,) = host.plugins
    assert plugin.status == "switched off"
    assert plugin.calls["on_flow_run_state"] == 9
    assert plugin.failures["on_flow_run_state"] == 8
    assert [type_ for type_, _ in recorded] == ["plugin.failed", "plugin.switched_off"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "switched off" in line]
    assert f"The plug-in {plugin.name!r} is switched off for this process: on_flow_run_state: 5 calls in a row" in line
    assert line.endswith("failed, the last one with ValueError: 9.")


def test_what_is_slow_is_on_record(tmp_path: Path) -> None:
    """A call that takes longer than a second."""
    code = "import time\n@hookimpl\ndef on_events(events):\n    time.sleep(1.05)"
    engine, host = engine_with(tmp_path, code)
    run_some(engine)
    ((type_, problem),) = closed(engine, host)
    assert type_ == "plugin.lagged"
    assert problem.startswith("it took 1.")


def test_threads_that_begin_at_once_share_one_set_of_companions(tmp_path: Path) -> None:
    """Two threads may begin their first flow run at the same moment."""
    code = "seen = []\n@hookimpl\ndef on_events(events):\n    seen.extend(event.id for event in events)"
    engine, host = engine_with(tmp_path, code)
    together, provide = threading.Barrier(2), engine._host
    assert provide is not None

    def late() -> Host:
        together.wait()
        return host

    engine._host = late
    threads = [threading.Thread(target=run_some, args=(engine,)) for _ in range(2)]
    with using(engine):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        module = _module(host)
        assert closed(engine, host) == []
    assert len(module.seen) == len(set(module.seen)) > 0


def _module(host: Host) -> Any:
    import sys

    host.asked(host.plugins[0], "register_settings")
    return sys.modules[host.plugins[0].manifest.module]


def test_a_hook_may_read_its_settings_and_ask_the_host(tmp_path: Path) -> None:
    """It is called in its own thread while others wait for it, and waits for nobody itself."""
    code = """
from flightlog.plugins import PluginSetting
from flightlog.plugins.host import current_host

found = []

@hookimpl
def register_settings():
    return [PluginSetting("LEVEL", "3", "How much.", int)]

@hookimpl
def register_serializers():
    found.append(host().settings_of(host().plugins[0].name)["LEVEL"])
    return {}

@hookimpl
def on_events(events):
    found.append(host().settings_of(host().plugins[0].name)["LEVEL"])

host = None
"""
    engine, host = engine_with(tmp_path, code, plugins_timeout_seconds=5.0)
    _module(host).host = lambda: host
    assert host.find("register_serializers", "x") is None
    run_some(engine)
    module = _module(host)
    assert closed(engine, host) == []
    assert set(module.found) == {3}
    assert len(module.found) >= 2


def test_settings_at_import_are_refused_at_once(tmp_path: Path) -> None:
    """A plug-in that reads its settings while it is imported is told when it can."""
    code = """
import threading
from pathlib import Path
from flightlog.plugins.host import _HOSTS

for host in list(_HOSTS):
    if any(p.manifest.file == Path(__file__) for p in host.plugins):
        host.settings_of(host.plugins[0].name)

@hookimpl
def on_events(events):
    pass
"""
    engine, host = engine_with(tmp_path, code)
    assert host.asked(host.plugins[0], "register_settings") is None
    assert "are there once it is imported: read them in a hook" in host.plugins[0].reason
    host.close()
    engine.log.close()


@pytest.mark.parametrize(
    "service",
    [
        "raise ValueError('no')",
        "return object()",
        "return type('S', (), {'start': lambda self, s: 1 / 0, 'stop': lambda self, seconds: None})()",
        "return type('S', (), {'start': lambda self, s: None, 'stop': lambda self, seconds: exit(3)})()",
    ],
)
def test_I11_a_service_that_fails_fails_no_run(tmp_path: Path, service: str) -> None:
    """When it is made, begins or ends; and it is on record."""
    code = f"def make():\n    {service}\n@hookimpl\ndef register_services():\n    return {{'s': make}}"
    engine, host = engine_with(tmp_path, code)
    run_some(engine)
    ((type_, _),) = closed(engine, host)
    assert type_ == "plugin.failed"


def test_a_service_gets_the_time_that_is_left(tmp_path: Path) -> None:
    """It is told how long the end may take; one that takes longer is left to itself."""
    code = """
import threading
told, release = [], threading.Event()

class Service:
    def start(self, surroundings):
        told.append(surroundings.log)

    def stop(self, seconds):
        told.append(seconds)

@hookimpl
def register_services():
    return {"s": Service}
"""
    engine, host = engine_with(tmp_path, code)
    run_some(engine)
    module = _module(host)
    log = engine.log
    assert closed(engine, host) == []
    assert module.told[0] is log
    assert 0 < module.told[1] <= 5.0


def test_a_plug_in_that_is_closed_is_not_called(tmp_path: Path) -> None:
    """After the process has let go of its plug-ins, nothing is counted or recorded any more."""
    engine, host = engine_with(tmp_path, "@hookimpl\ndef on_events(events):\n    raise ValueError")
    host.close()
    (plugin,) = host.plugins
    assert host.call(plugin, "on_events", {"events": []}).problem == "the process has let go of its plug-ins"
    assert not plugin.failures
    engine.log.close()


def test_after_a_stop_companions_begin_anew(tmp_path: Path) -> None:
    """A process may let go of what runs beside its flows, and run more of them."""
    code = "seen = []\n@hookimpl\ndef on_flow_run_state(change):\n    seen.append(change.state_name)"
    engine, host = engine_with(tmp_path, code)
    for _ in range(2):
        run_some(engine)
        assert isinstance(engine.companions, Companions)
        engine.companions.stop()
    module = _module(host)
    assert module.seen == ["Pending", "Running", "Completed"] * 2 or module.seen.count("Completed") == 2
    assert engine.log.store.tap is None
    closed(engine, host)


def test_without_plug_ins_nothing_runs_beside_flows(tmp_path: Path) -> None:
    """No thread, no tap, nothing at exit."""
    chosen = Settings(home=Path(), log_url="memory://")
    host = Host(chosen, [])
    before = set(threading.enumerate())  # what earlier tests left to itself may still be sleeping
    engine = Engine(Log(MemoryStore()), bytes(32), chosen, host=lambda: host)
    run_some(engine)
    tap, begun = engine.log.store.tap, {thread.name for thread in threading.enumerate() if thread not in before}
    assert closed(engine, host) == []
    assert tap is None
    assert begun == {"flightlog-flush"}
