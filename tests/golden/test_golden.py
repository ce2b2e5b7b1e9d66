"""Golden logs: what earlier versions wrote is read and folded, for ever."""

import base64
import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from flightlog.blocks import Secret
from flightlog.engine.history import History, apply_all
from flightlog.engine.runtime import Engine, using
from flightlog.events import codec
from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.store import GENESIS, IndexedRow
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import flow_run_of
from flightlog.events.vocabulary import payload
from flightlog.filesystems import RemoteFileSystem
from flightlog.plugins.block_store import BlockStore, saved_blocks
from flightlog.projections.logs import LogsProjection
from flightlog.projections.projection import fold
from flightlog.projections.runs import RunsProjection
from flightlog.settings import Settings

LOGS = sorted(Path(__file__).parent.glob("*.jsonl"))


def read(path: Path) -> list[Event]:
    """Return the events of a golden log."""
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    contents = [base64.b64decode(document["blob"]) for document in documents if "blob" in document]
    blobs = {hashlib.sha256(content).digest(): content for content in contents}
    return [
        Event(document["position"], document["recorded_at"], base64.b64decode(document["record"]), blobs.__getitem__)
        for document in documents
        if "record" in document
    ]


def test_there_is_a_golden_log() -> None:
    """The golden logs are there."""
    assert LOGS


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_I9_golden_logs_are_read_for_ever(path: Path) -> None:
    """Every record of an earlier version decodes, is chained, and fits today's vocabulary once it is lifted."""
    events = read(path)
    heads: dict[str, tuple[int, bytes]] = {}
    for event in events:
        version, previous = heads.get(event.stream, (0, GENESIS))
        assert (event.version, event.envelope.previous) == (version + 1, previous)
        heads[event.stream] = (event.version, event.hash)
        assert payload(event) is not None
        assert codec.blob_digests(event.envelope.data) is not None


def test_the_log_of_0_1_folds_to_what_it_folded_to() -> None:
    """The first golden log gives the runs, attempts, dependencies and lines that it gave when it was made."""
    events = read(Path(__file__).parent / "0.1.0.jsonl")
    runs, lines = fold(RunsProjection(), events), fold(LogsProjection(), events)
    assert Counter(table for table, _ in runs) == {
        "flow_runs": 5, "task_runs": 7, "attempts": 11, "dependencies": 1,
    }  # fmt: skip
    flows = [
        (row["name"], row["state_type"], row["state_name"]) for (table, _), row in runs.items() if table == "flow_runs"
    ]
    assert flows[0] == ("golden-3", "COMPLETED", "Completed")
    assert [state for _, state, _ in flows] == ["COMPLETED", "COMPLETED", "FAILED", "CANCELLED", "CRASHED"]
    tasks = [
        (row["task"], row["state_name"], row["run_count"]) for (table, _), row in runs.items() if table == "task_runs"
    ]
    assert ("shaky", "Completed", 2) in tasks
    assert ("never", "NotReady", 0) in tasks
    assert ("child", "Completed", 1) in tasks
    messages = [row["message"] for row in lines.values()]
    assert "loading 3" in messages
    assert "Crash detected! Execution was cancelled by the runtime environment." in messages


def test_the_recovered_log_of_0_1_folds_to_what_it_folded_to() -> None:
    """Runs that were resumed, restarted, forked and taken for dead."""
    events = read(Path(__file__).parent / "0.1.0-recovered.jsonl")
    runs = fold(RunsProjection(), events)
    flows = [
        (row["flow"], row["state_type"], row["run_count"]) for (table, _), row in runs.items() if table == "flow_runs"
    ]
    assert [one for one in flows if one[0] == "goes-on"] == [("goes-on", "COMPLETED", 3), ("goes-on", "COMPLETED", 1)]
    assert [one for one in flows if one[0] == "is-lost"] == [("is-lost", "CRASHED", 1)]
    causes = {row.get("cause") for (table, _), row in runs.items() if table == "attempts"}
    assert causes == {None, "user_error", "lost_worker"}
    assert any(row["state_name"] == "Cached" for (table, _), row in runs.items() if table == "task_runs")
    assert max(event.epoch for event in events) == 3


def test_the_blocks_of_0_1_are_what_they_were() -> None:
    """A saved block is loaded with its key as it was saved, and what it was before can be decrypted too."""
    events = read(Path(__file__).parent / "0.1.0-blocks.jsonl")
    keys = [b"golden-key-of-blocks-number-one.", b"golden-key-of-blocks-number-two."]
    given = tuple(base64.urlsafe_b64encode(key).decode() for key in keys)
    settings = Settings(home=Path(), log_url="memory://", blocks_key=given)
    store = MemoryStore(log_id=events[0].envelope.log_id)
    rows = [IndexedRow(e.position, e.recorded_at, e.record, e.stream, e.version, e.id, e.type) for e in events]
    store.adopt(rows, {})
    with Log(store) as log, using(Engine(log, bytes(32), settings)) as engine:
        assert sorted(saved_blocks(log)) == ["remote-file-system/results", "secret/key"]
        assert Secret.load("key").get() == "golden-secret-2"
        results = RemoteFileSystem.load("results")
        assert (results.basepath, results.url) == ("s3://ann:golden-password@bucket", "s3://bucket")
        assert results.settings.get_secret_value() == {"secret": "golden-dict"}
        first = next(log.read("block/secret/key")).data
        assert BlockStore(engine)._opened(first)["/value"].value == "golden-secret"
    assert "golden-secret" not in repr([event.data for event in events])


def test_the_gone_on_log_of_0_1_folds_to_what_it_folded_to() -> None:
    """A run that went on says in which process, what was run again, and which subflow's run took another's place."""
    events = read(Path(__file__).parent / "0.1.0-gone-on.jsonl")
    stream = events[0].stream
    history = History(flow_run_of(stream) or b"")
    apply_all(history, (event for event in events if event.stream == stream), None)
    assert (history.rules.type, history.rules.attempt, history.epoch) == ("COMPLETED", 3, 3)
    assert (history.running or {})["host"] == "golden"
    (latest,) = (call for call in history.calls.values() if call.replaces is not None)
    assert (latest.task, latest.type, history.calls[latest.replaces or b""].type) == ("part", "COMPLETED", "FAILED")
    assert not any(call.forgotten for call in history.calls.values() if call.completed)
    went_on = [event.data.get("restart") for event in events if event.type == "flow_run.scheduled"]
    assert went_on == [None, 3, 0]
