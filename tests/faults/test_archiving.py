"""Archiving and restoring, killed with -9 at every step, on full disks, while others write: nothing lost or doubled."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.events.test_archives import STREAMS, content, fill
from tests.faults.test_places import small_disk  # noqa: F401 - a fixture

from flightlog.errors import LogWriteError
from flightlog.events.archiving import Archiver
from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.opening import open_log
from flightlog.events.sealing import seal
from flightlog.events.types import ARCHIVES_STREAM
from flightlog.testing.log_contract import new_event

EVENTS = 10
_MOST_STEPS = 200


def url_of(path: Path) -> str:
    """Return the URL of a log in a file."""
    return f"sqlite:///{path}"


def forked(work: Callable[[], object]) -> int:
    """Do something in a process of its own; return how that ended."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def killed_at(number: int) -> Callable[[str], None]:
    """Return what kills this process when the n-th step is done."""
    done = [0]

    def step(_: str) -> None:
        done[0] += 1
        if done[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def archive_all(path: Path, step: Callable[[str], object] = lambda _: None) -> None:
    """Archive all streams, in several segments."""
    with open_log(url_of(path)) as log, Archiver(log, events=EVENTS, step=step) as archiver:
        list(archiver.archive(STREAMS, "state"))


def restore_all(path: Path, step: Callable[[str], object] = lambda _: None) -> None:
    """Put everything back."""
    with open_log(url_of(path)) as log, Archiver(log, step=step) as archiver:
        for archive in log.store.archives():
            archiver.restore(archive.number)


def make(path: Path) -> tuple[list[tuple[Any, ...]], dict[bytes, bytes]]:
    """Make a log with some streams; return its rows and its blobs."""
    with open_log(url_of(path)) as log:
        fill(log, streams=3, events=5)
        return content(log), blobs_in(log)


def blobs_in(log: Log) -> dict[bytes, bytes]:
    """Return the blobs that events rest on."""
    results = [event.data["result"] for event in log.read_all(types=["thing.happened"]) if "result" in event.data]
    return log.blobs([result["digest"] for result in results])


def check_whole(path: Path, rows: list[tuple[Any, ...]], blobs: dict[bytes, bytes]) -> None:
    """Make sure that the log is what it was: each event in one place, and sound."""
    with open_log(url_of(path)) as log:
        assert content(log) == rows
        assert blobs_in(log) == blobs
        assert verify(log.store).problems == []
        archived = sum(archive.events for archive in log.store.archives())
        assert len(log.store.stored(0, 10_000)) + archived == log.head().position


def files(path: Path) -> list[str]:
    """Return the names of the files that archiving has left."""
    return sorted(file.name for file in path.with_name(path.name + ".archives").iterdir())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("work", [archive_all, restore_all])
def test_killed_at_every_step_nothing_is_lost_and_nothing_doubled(
    tmp_path: Path, work: Callable[[Path, Callable[[str], object]], None]
) -> None:
    """After each kill the log is whole and sound; the next one goes on, and clears away what was left."""
    kills = 0
    for number in range(1, _MOST_STEPS):
        path = tmp_path / str(number) / "log.db"
        rows, blobs = make(path)
        if work is restore_all:
            archive_all(path)
        status = forked(lambda: work(path, killed_at(number)))  # noqa: B023 - called at once
        if not os.WIFSIGNALED(status):
            assert status == 0
            break
        kills += 1
        check_whole(path, rows, blobs)
        work(path, lambda _: None)
        check_whole(path, rows, blobs)
        with open_log(url_of(path)) as log:
            known = sorted(archive.segment for archive in log.store.archives())
            assert bool(known) == (work is archive_all)
            assert files(path) == sorted([*known, "archiving.lock"])
    assert kills == (24 if work is archive_all else 15)  # eight steps for each of three segments; five to put one back


@pytest.mark.timeout(120)
def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    """Not at its steps but at whatever statement of a commit: each one is all or nothing."""
    path = tmp_path / "log.db"
    rows, blobs = make(path)

    def work(number: int) -> None:
        with open_log(url_of(path)) as log, Archiver(log, events=EVENTS) as archiver:
            store: Any = log.store
            with store._reader().connect() as connection:
                count = [0]

                def trace(_: str) -> None:
                    count[0] += 1
                    if count[0] == number:
                        os.kill(os.getpid(), signal.SIGKILL)

                connection.connection.driver_connection.set_trace_callback(trace)
            list(archiver.archive(STREAMS, "state"))

    kills = 0
    for number in range(1, 150, 4):
        kills += os.WIFSIGNALED(forked(lambda: work(number)))  # noqa: B023 - called at once
        check_whole(path, rows, blobs)
        restore_all(path)
    assert kills > 10
    check_whole(path, rows, blobs)


def limited(path: Path, size: int) -> int:
    """Archive in a process that may make no file longer than that; return how it ended."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        with open_log(url_of(path)) as log, Archiver(log) as archiver:
            try:
                list(archiver.archive(STREAMS, "state"))
            except LogWriteError as error:
                os._exit(3 if "A segment cannot be written" in str(error) else 4)

    return os.waitstatus_to_exitcode(forked(work))


@pytest.mark.parametrize(("size", "code"), [(100_000, 3), (400_000, 4)])
def test_a_segment_or_commit_that_does_not_fit_takes_nothing_out(tmp_path: Path, size: int, code: int) -> None:
    """Whether the segment has no room or the database has none: a clear error, and the log is as it was."""
    path = tmp_path / "log.db"
    with open_log(url_of(path)) as log:
        log.append(STREAMS[0], [new_event(n=n, text=os.urandom(700), more="x" * 1500) for n in range(300)])
        seal(log)
        rows = content(log)
    assert limited(path, size) == code
    assert files(path) == ["archiving.lock"] or code == 4
    check_whole(path, rows, {})
    archive_all(path)
    check_whole(path, rows, {})


def test_on_a_full_disk_archiving_says_so_and_goes_on_when_there_is_space(small_disk: Path) -> None:  # noqa: F811
    """A disk without space for a segment: nothing leaves; with space again, it goes on."""
    path = small_disk / "log.db"
    with open_log(url_of(path)) as log:
        log.append(STREAMS[0], [new_event(n=number, text=os.urandom(2000)) for number in range(120)])
        seal(log)
        rows = content(log)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        with pytest.raises(LogWriteError, match=r"No space left on device\. Nothing was taken out"):
            archive_in(log)
        assert content(log) == rows
        ballast.unlink()
        archive_in(log)
    check_whole(path, rows, {})


def archive_in(log: Log) -> None:
    """Archive all streams of an open log."""
    with Archiver(log) as archiver:
        list(archiver.archive(STREAMS, "state"))


_WRITER = """
import sys
from flightlog.events.opening import open_log
from flightlog.testing.log_contract import new_event
with open_log(sys.argv[1]) as log:
    for number in range(150):
        assert log.append(sys.argv[2], [new_event(n=number)]) == [number + 1]
"""


@pytest.mark.timeout(120)
def test_others_write_and_read_meanwhile(tmp_path: Path) -> None:
    """Processes append and a reader follows while streams leave and come back: each event is seen once, in order."""
    path = tmp_path / "log.db"
    rows, _ = make(path)
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, url_of(path), f"busy/{number}"]) for number in range(2)]
    seen: list[tuple[list[int], list[int]]] = []
    done = threading.Event()
    with open_log(url_of(path)) as log, open_log(url_of(path)) as other:

        def read() -> None:
            while not done.is_set():
                positions = [event.position for event in other.read_all(limit=len(rows))]
                seen.append((positions, [event.version for event in other.read(STREAMS[0])]))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            with Archiver(log, events=EVENTS) as archiver:
                for _ in range(5):
                    moved = list(archiver.archive(STREAMS, "state"))
                    for archive in moved:
                        archiver.restore(archive.number)
        finally:
            done.set()
            reader.join()
        assert [writer.wait() for writer in writers] == [0, 0]
        whole = (list(range(1, len(rows) + 1)), list(range(1, 11)))
        assert seen == [whole] * len(seen) != []
        assert verify(log.store).problems == []
        assert len(list(log.read(ARCHIVES_STREAM))) == 5 * 2 * len(moved) > 10
        assert [event.position for event in log.read_all()] == list(range(1, log.head().position + 1))
