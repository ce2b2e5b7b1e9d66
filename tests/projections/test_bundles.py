"""A run in one file: whole, small, verified by Python alone; whatever is changed in it is found and named."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flightlog import flow, task
from flightlog.engine.runtime import Engine, open_engine, using
from flightlog.errors import LogError
from flightlog.events import bundle_verifier as bundles
from flightlog.events.notes import Checkpoint, SigningKey
from flightlog.events.sealing import Seal, latest_seal, seal
from flightlog.plugins.host import close_host
from flightlog.projections.bundles import check, export, reading_bundle
from flightlog.projections.places import FilePlace
from flightlog.projections.projector import Projector
from flightlog.projections.queries import find_flow_run, list_lines, list_task_runs
from flightlog.settings import load

KEY = SigningKey("flightlog/test", bytes(range(32)))


@task
def double(n: int) -> int:
    """Return twice as much."""
    return 2 * n


@task
def failing() -> None:
    """Fail, with something to escape."""
    raise ValueError("<b>boom</b>")


@flow
def child(n: int) -> int:
    """Be a subflow."""
    return double(n)


@flow(log_prints=True)
def parent(text: str, count: int = 3) -> list[int]:
    """Run some tasks, a subflow and a failure."""
    print("a line")
    failing(return_state=True)
    return [*(double(number) for number in range(count)), child(5)]


@flow
def other() -> None:
    """Be in the way."""
    double(7)


@dataclass
class Case:
    """A log with some runs, sealed and signed."""

    engine: Engine
    projector: Projector

    def export(self, run: str = "parent", key: SigningKey | None = KEY) -> tuple[bytes, Seal]:
        """Return the bundle of the latest run of a flow."""
        log = self.engine.log
        log.flush()
        made = seal(log, key) or latest_seal(log)
        assert made is not None
        ids = [e.stream.partition("/")[2] for e in log.read_all(types=["flow_run.created"]) if e.data["flow"] == run]
        return export(self.projector, ids[-1], made, made.note(log.log_id)), made


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    """Yield a log with a run in the middle of others."""
    engine = open_engine(load({"FLIGHTLOG_LOG_URL": f"sqlite:///{tmp_path}/log.db", "FLIGHTLOG_HOME": str(tmp_path)}))
    with using(engine):
        other()
        parent("x" * 70_000)
        other()
    projector = Projector(engine.log, FilePlace(tmp_path / "projections"))
    yield Case(engine, projector)
    projector.close()
    engine.close()
    close_host()


def test_a_bundle_is_whole(case: Case) -> None:
    """Its events, their place in the log and the signature are verified; the proof is short."""
    archive, made = case.export()
    found = bundles.check_archive(archive)
    assert found.problems == []
    assert [re.sub(r"\d+", "N", line.partition(" by ")[0]) for line in found.good] == [
        "N files are those of the manifest",
        "N events in N streams, none left out in between: every chain holds",
        "the events are in the log of N events that the checkpoint stands for",
        "the checkpoint is signed",
    ]
    assert {event.stream.partition("/")[0] for event in found.events} == {"flow-run", "logs"}
    assert len({event.stream for event in found.events}) == 3  # the parent, its lines, the child
    files = {entry.name: entry.content() or b"" for entry in bundles.entries_of(archive)}
    assert json.loads(files["proof.json"])["size"] == made.last
    environment = json.loads(files["environment.json"])
    assert environment[0]["flow"] == "parent"
    assert any(line.startswith("pydantic==") for line in environment[0]["packages"])
    assert len(environment[0]["code_sha256"]) == 64
    assert {"position", "digest", "size", "serializer"} <= json.loads(files["results.json"])[0].keys()


def test_the_same_run_gives_the_same_bytes(case: Case) -> None:
    """There is nothing in a bundle but what is in the log."""
    assert case.export()[0] == case.export()[0]


def test_a_bundle_is_verified_by_python_alone(case: Case, tmp_path: Path) -> None:
    """By the program inside, packed or unpacked, without any package: then it says that it cannot tell who signed."""
    archive, made = case.export()
    file, folder = tmp_path / "run.zip", tmp_path / "unpacked"
    file.write_bytes(archive)
    for entry in bundles.entries_of(archive):
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.content() or b"")
    checkpoint = tmp_path / "checkpoint.txt"
    checkpoint.write_text(made.note(case.engine.log.log_id))

    def run(*arguments: str | Path) -> str:
        command = [sys.executable, "-I", "-S", folder / "verify.py", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for shown in (run(), run(file), run(file, "--checkpoint", checkpoint)):
        assert shown.startswith("parent / ")
        assert "NOTE the signature was NOT verified: that needs `pip install cryptography`" in shown
        assert shown.endswith("The bundle is whole.\n")
    assert "OK   the checkpoint from elsewhere is the same" in shown
    (folder / "results.json").write_text("[]")
    done = subprocess.run([sys.executable, folder / "verify.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "BAD  results.json was changed" in done.stdout


def test_any_changed_byte_is_found_and_named(case: Case) -> None:
    """All bytes of manifest, headers and directory, and a thousand of the rest: the file, or the archive, is named."""
    archive, _ = case.export()
    entries = bundles.entries_of(archive)
    bodies: dict[int, str] = {}
    at = 0
    for entry in entries:
        start = archive.index(entry.packed, at)
        at = start + len(entry.packed)
        if entry.name != bundles.MANIFEST:
            bodies.update(dict.fromkeys(range(start, at), entry.name))
    frame = [index for index in range(len(archive)) if index not in bodies]
    chosen = frame + random.Random(20261125).sample(sorted(bodies), 1000)
    missed = []
    for index in chosen:
        changed = archive[:index] + bytes([archive[index] ^ 1 << index % 8]) + archive[index + 1 :]
        problems = bundles.check_archive(changed).problems
        name = bodies.get(index, "")
        if not problems or not any(name in problem for problem in problems):
            missed.append((index, name, problems))
    assert missed == []


@pytest.mark.parametrize("length", [0, 1, 30, 1000, -1, -22, -100])
def test_a_bundle_that_was_cut_off_or_added_to_is_found(case: Case, length: int) -> None:
    """At whatever place."""
    archive, _ = case.export()
    assert bundles.check_archive(archive[:length]).problems
    assert bundles.check_archive(archive + b"\0" * max(length, 1)).problems
    assert bundles.check_archive(archive + archive).problems


def remade(archive: bytes, **changes: bytes | None) -> bytes:
    """Return a bundle with some files changed and all digests made to fit, as somebody who means it can."""
    files = {entry.name: entry.content() or b"" for entry in bundles.entries_of(archive)}
    manifest = json.loads(files.pop(bundles.MANIFEST))
    for name, content in changes.items():
        files.pop(name, None)
        if content is not None:
            files[name] = content
    entries = [bundles.entry_of(name, content) for name, content in sorted(files.items())]
    manifest["files"] = {
        e.name: {"sha256": bundles.sha256(files[e.name]).hex(), "packed_sha256": bundles.sha256(e.packed).hex()}
        for e in entries
    }
    ends = {event.stream: event.version for event in bundles.read_events(files.get(bundles.EVENTS, b""))}
    manifest["streams"] = ends
    head = bundles.entry_of(bundles.MANIFEST, json.dumps(manifest).encode())
    return bundles.zip_of([head, *entries])


def events_of(archive: bytes) -> list[tuple[int, int, bytes]]:
    """Return the events of a bundle."""
    content = next(e.content() for e in bundles.entries_of(archive) if e.name == bundles.EVENTS)
    return [event[:3] for event in bundles.read_events(content or b"")]


def test_what_is_changed_on_purpose_is_found(case: Case) -> None:
    """With all digests of the bundle made to fit: the tree head, the signature and the events themselves tell."""
    archive, made = case.export()
    assert bundles.check_archive(remade(archive)).problems == []
    rows = events_of(archive)
    position, at, record = rows[5]
    wrong = {
        "events": [*rows[:5], (position, at, record[:-1] + bytes([record[-1] ^ 1])), *rows[6:]],
        "time": [*rows[:5], (position, at - 1, record), *rows[6:]],
        "left out": rows[:5] + rows[6:],
        "last left out": rows[:-1],
        "moved": [*rows[:-1], (rows[-1][0] + 1, *rows[-1][1:])],
        "behind": [*rows[:-1], (made.last + 1, *rows[-1][1:])],
    }
    for name, events in wrong.items():
        changed = remade(archive, **{bundles.EVENTS: bundles.pack_events(events)})
        assert bundles.check_archive(changed).problems, name
    bad_log = Checkpoint("flightlog/another", made.last, made.root).note()
    other_size = Checkpoint(made.checkpoint(case.engine.log.log_id).origin, made.last + 1, made.root).note()
    for name, content in (
        (bundles.RESULTS, b"[]"),
        (bundles.ENVIRONMENT, b"[]"),
        (bundles.PROOF, b'{"size": 5, "parts": []}'),
        (bundles.PROOF, b"{}"),
        (bundles.CHECKPOINT, bad_log.encode()),
        (bundles.CHECKPOINT, other_size.encode()),
        (bundles.CHECKPOINT, made.checkpoint(case.engine.log.log_id).note().encode()),
        (bundles.CHECKPOINT, None),
        (bundles.EVENTS, None),
        (bundles.KEY, b"nonsense"),
        (bundles.KEY, str(SigningKey("flightlog/test", bytes(32)).public).encode()),
    ):
        assert bundles.check_archive(remade(archive, **{name: content})).problems, name


def test_the_key_and_checkpoint_that_one_has_count(case: Case) -> None:
    """A bundle made anew from another log with another key is whole in itself; who compares knows."""
    archive, made = case.export()
    log_id = case.engine.log.log_id
    assert bundles.check_archive(archive, [str(KEY.public)]).problems == []
    wrong = str(SigningKey("flightlog/test", bytes(32)).public)
    assert bundles.check_archive(archive, [wrong]).problems == ["the checkpoint is not signed by a key that counts"]
    forked = Checkpoint(made.checkpoint(log_id).origin, made.last, bytes(32)).note()
    (problem,) = bundles.check_archive(archive, checkpoint=forked).problems
    assert "another tree head" in problem
    assert "not signed" in bundles.check_archive(remade(archive, **{bundles.KEY: None})).notes[0]


def test_a_run_is_read_back_from_a_bundle(case: Case) -> None:
    """As it was, lines and parameters included, without the log."""
    archive, _ = case.export()
    found = check(archive, "run.zip")
    with reading_bundle(found) as projector:
        run = find_flow_run(projector, found.manifest["run"]["id"])
        assert (run.flow, run.state_type) == ("parent", "COMPLETED")
        assert len(run.parameters or "") > 1000
        assert {task.task for task in list_task_runs(projector, run.id)} == {"double", "failing", "child"}
        assert any(line.message == "a line" for _, line in list_lines(projector, run.id))
    with pytest.raises(LogError, match=r"^The bundle run\.zip is not what was exported: "):
        check(archive[:-5], "run.zip")


def test_a_run_that_goes_on_behind_the_seal_is_not_exported(case: Case) -> None:
    """It could not be proved."""
    log = case.engine.log
    first = seal(log)
    assert first is not None
    with using(case.engine):
        parent("later")
    log.flush()
    with pytest.raises(LogError, match="goes on behind the last seal"):
        export(case.projector, "@last", first, first.note(log.log_id))


def test_the_report_loads_nothing_and_escapes(case: Case) -> None:
    """It is one file, and what runs say is text in it."""
    archive, _ = case.export()
    page = next((e.content() or b"").decode() for e in bundles.entries_of(archive) if e.name == bundles.REPORT)
    assert "&lt;b&gt;boom" in page
    assert "<b>boom" not in page
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(", page)
    assert "a line" in page


def test_the_small_reader_reads_what_the_log_writes(case: Case) -> None:
    """The verifier's own msgpack gives for each event what the codec gives."""
    from flightlog.events import codec

    for event in case.engine.log.read_all():
        fields = bundles.unpack(event.record)
        assert fields == list(event.envelope)
        if b"\xc7\x28" not in fields[-1]:
            assert bundles.unpack(fields[-1]) == codec.unpack(fields[-1])
    numbers = [-1, -33, -200, -70_000, -(2**40), 127, 200, 70_000, 2**40, 2**63, 1.5]
    texts = ["ä\ud800", *("x" * length for length in (0, 40, 300, 70_000))]
    more: list[Any] = [None, True, False, *(text.encode("utf-8", "surrogatepass") for text in texts)]
    values = [*numbers, *texts, *more, [[]] * 20, [[]] * 70_000, {str(n): n for n in range(20)}]
    assert bundles.unpack(codec.pack(values)) == values


def test_a_verifier_that_looks_away_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tree, a changed time survives; without a look at the archive itself, a changed header does."""
    archive, made = case.export()
    rows = events_of(archive)
    later = [*rows[:-1], (rows[-1][0], rows[-1][1] + 1, rows[-1][2])]
    changed = remade(archive, **{bundles.EVENTS: bundles.pack_events(later)})
    header = archive[:11] + b"\1" + archive[12:]
    assert bundles.check_archive(changed).problems
    assert bundles.check_archive(header).problems
    with monkeypatch.context() as patched:
        patched.setattr(bundles, "root_of", lambda *_: made.root)
        assert bundles.check_archive(changed).problems == []
    with monkeypatch.context() as patched:
        patched.setattr(bundles, "_differs", lambda *_: [])
        assert bundles.check_archive(header).problems == []
