"""Values that are large, or that cannot be written down: documented behaviour, and nothing is lost."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flightlog import flow, get_run_logger, task
from flightlog.engine.runtime import current_engine
from flightlog.events.codec import MAX_RECORD
from flightlog.events.integrity import verify
from flightlog.events.model import Event
from flightlog.events.opening import open_log

MEGABYTE = 1_000_000


def events(type_: str) -> list[Event]:
    """Return the events of a type, after checking that the log is sound and every record is short."""
    log = current_engine().log
    log.flush()
    assert verify(log.store).problems == []
    assert all(len(event.record) <= MAX_RECORD for event in log.read_all())
    return list(log.read_all(types=[type_]))


def test_I8_a_large_result_is_a_blob() -> None:
    """Ten megabytes of result go into a blob of the same file; the event says digest and size."""

    @task
    def large() -> bytes:
        return b"x" * 10 * MEGABYTE

    @flow
    def makes_large() -> int:
        return len(large())

    assert makes_large() == 10 * MEGABYTE
    (event,) = events("task_run.completed")
    result = event.data["result"]
    assert result["size"] > 10 * MEGABYTE
    assert len(current_engine().log.blob(result["digest"])) == result["size"]


def test_I8_a_large_exception_text_is_kept_whole() -> None:
    """Ten megabytes of exception text are kept; the state's own message is short, and the final state fits."""

    @task
    def loud() -> None:
        raise ValueError("y" * 10 * MEGABYTE)

    @flow
    def raises_loud() -> None:
        loud()

    with pytest.raises(ValueError, match="yyy"):
        raises_loud()
    for type_ in ("task_run.failed", "flow_run.failed"):
        (event,) = events(type_)
        assert len(event.data["error"]["message"]) == 10 * MEGABYTE
        assert len(event.data["message"]) < 2000


def test_I8_large_parameters_and_many_inputs_fit() -> None:
    """Large parameters, very many dependencies, long names and log lines all fit, whole."""

    @task
    def one(n: int) -> list[int]:
        return [n]

    @task
    def take(values: list[Any]) -> int:
        return len(values)

    @flow(flow_run_name="n" * 100_000)
    def many(text: str) -> int:
        get_run_logger().info("z" * MEGABYTE)
        return take(one.map(range(3000)))

    assert many("p" * 2 * MEGABYTE) == 3000
    (created,) = events("flow_run.created")
    assert len(created.data["parameters"]) > 2 * MEGABYTE
    inputs = [event.data["inputs"]["values"] for event in events("task_run.created") if "inputs" in event.data]
    assert [len(runs) for runs in inputs] == [3000]
    lines = [line for event in events("log.lines") for line in event.data["lines"]]
    assert [len(line[4]) for line in lines] == [MEGABYTE]


def test_what_cannot_be_pickled_is_noted_and_passed_on() -> None:
    """A value that cannot be pickled goes through a flow all the same; the log says that it is not recorded."""
    lock = threading.Lock()

    @task
    def give() -> Any:
        return lock

    @task
    def take(value: Any) -> bool:
        return value is lock

    @flow
    def passes(given: Any) -> bool:
        return take(give()) and given is lock

    assert passes(lock) is True
    first, second = events("task_run.completed")
    assert "cannot pickle" in first.data["result"]["not_recorded"]
    assert second.data["result"] == {"value": True}
    (created,) = events("flow_run.created")
    assert created.data["not_recorded"] == ["given"]
    assert created.data["parameters"] == '{"given": "<lock>"}'


class Hostile:
    """Raises whatever is done to it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __reduce__(self) -> Any:
        raise RuntimeError("no reduce")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")


def test_hostile_values_go_through() -> None:
    """Values that raise in every special method are passed on; digests and results are noted as missing."""
    value = Hostile()

    @task
    def same(given: Any) -> Any:
        return given

    @flow
    def passes(given: Any) -> bool:
        return same([same(given)])[0] is value

    assert passes(value) is True
    assert all("digest" not in event.data for event in events("task_run.running"))


EVERY_CHARACTER = """
from flightlog import flow, get_run_logger, task

@task
def say(text):
    get_run_logger().info(text)
    return text

@flow
def says(text):
    return say(text)

text = "\\x00\\ud800 \\xfcn\\xef\\U0001f680 % {}"
assert says(text) == text
"""


def test_every_character_can_be_recorded(own_home: Path) -> None:
    """Lone surrogates, NUL and whatever else a string may hold are recorded, and shown by the command line."""
    done = subprocess.run([sys.executable, "-c", EVERY_CHARACTER], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Logging error" not in done.stderr
    with open_log(f"sqlite:///{own_home}/flightlog.db", create=False) as log:
        (line,) = log.read_all(types=["log.lines"])
        assert line.data["lines"][0][4] == "\x00\ud800 \xfcn\xef\U0001f680 % {}"
    for arguments in (["runs", "logs", "@last"], ["runs", "show", "@last", "--json"], ["events", "ls", "--jsonl"]):
        command = [sys.executable, "-m", "flightlog", *arguments]
        shown = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert shown.returncode == 0, shown.stderr


def test_persist_result_false_leaves_values_out() -> None:
    """With ``persist_result=False`` a value is not recorded, and the log says why."""

    @task(persist_result=False)
    def private() -> str:
        return "mine"

    @flow(persist_result=False)
    def keeps() -> str:
        return private()

    assert keeps() == "mine"
    for type_ in ("task_run.completed", "flow_run.completed"):
        (event,) = events(type_)
        assert event.data["result"] == {"not_recorded": "persist_result=False"}


def test_only_pickles_with_the_logs_mark_are_loaded() -> None:
    """A recorded value is loaded only if it bears the mark of the log's key."""
    from flightlog.engine import results
    from flightlog.errors import LogCorrupt

    reference, blobs = results.record(b"k" * 32, {"a": [1]})
    content = blobs[reference["digest"]]
    assert results.load(b"k" * 32, content) == {"a": [1]}
    with pytest.raises(LogCorrupt):
        results.load(b"j" * 32, content)
    with pytest.raises(LogCorrupt):
        results.load(b"k" * 32, content[:-1] + b"!")
