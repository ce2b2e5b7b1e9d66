"""Places that cannot hold a log, and logs that are not sound: one clear sentence, and nothing is lost."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightlog import flow, task
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.errors import LogCorrupt, LogKeyError, LogUnavailable, LogWriteError
from flightlog.events.integrity import verify
from flightlog.events.keys import key_path
from flightlog.events.opening import open_log
from flightlog.events.stores.mounts import network_file_system
from flightlog.events.stores.sqlite import SqliteStore
from flightlog.testing.log_contract import new_event


def make_log(path: Path, events: int = 20) -> None:
    """Make a log with some events."""
    with open_log(f"sqlite:///{path}") as log:
        for number in range(events):
            log.append("a", [new_event(n=number, text="x" * 500)])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of two megabytes."""
    if os.geteuid() != 0:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("this test mounts a small disk, which only root may")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    close_engine()
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_clearly_and_loses_nothing(small_disk: Path) -> None:
    """When the disk is full an append fails with what to do, and what was recorded before is intact."""
    path = small_disk / "log.db"
    log = open_log(f"sqlite:///{path}")
    acknowledged = 0
    with pytest.raises(LogWriteError, match=r"disk is full.*Free some space"):
        for number in range(10_000):
            log.append("a", [new_event(n=number, text="x" * 2000)])
            acknowledged += 1
    assert acknowledged > 10
    assert verify(log.store).problems == []
    assert [event.data["n"] for event in log.read("a")] == list(range(acknowledged))
    log.close()


def test_a_flow_on_a_full_disk_raises_and_goes_on_when_there_is_space(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow whose events cannot be recorded raises a clear error; with space again the next run works."""
    monkeypatch.setenv("FLIGHTLOG_HOME", str(small_disk))
    ran = []

    @task
    def noop(n: int) -> None:
        ran.append(n)

    @flow
    def fill(filler: bool) -> None:
        noop(0)
        if filler:
            (small_disk / "filler").write_bytes(bytes(1_300_000))
            for n in range(1, 5000):
                noop(n)

    with pytest.raises(LogWriteError, match="disk is full"):
        fill(True)
    (small_disk / "filler").unlink()
    fill(False)
    log = current_engine().log
    assert verify(log.store).problems == []
    started = list(log.read_all(types=["task_run.running"]))
    assert len(started) >= len(ran), "a body ran whose start is not on record"


def test_a_read_only_disk_can_be_read_but_not_written(small_disk: Path) -> None:
    """A log on a read-only disk is read; a flow on it gets a clear error."""
    path = small_disk / "log.db"
    make_log(path)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with open_log(f"sqlite:///{path}", read_only=True) as log:
        assert len(list(log.read("a"))) == 20
        with pytest.raises(LogWriteError, match="reading only"):
            log.append("a", [new_event()])
    with pytest.raises((LogWriteError, LogUnavailable), match=r"read-only|cannot be opened"):
        log = open_log(f"sqlite:///{path}")
        try:
            log.append("a", [new_event()])
        finally:
            log.close()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_a_read_only_log_is_read_with_its_write_ahead_log(tmp_path: Path) -> None:
    """What is still in the write-ahead log is read too, where nothing can be written beside it."""
    path = tmp_path / "log.db"
    log = open_log(f"sqlite:///{path}")
    log.append("a", [new_event(n=1)])
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", tmp_path / f"copy.db{suffix}")
    log.close()
    assert (tmp_path / "copy.db-wal").stat().st_size > 0
    with open_log(f"sqlite:///{tmp_path / 'copy.db'}", read_only=True) as copy:
        assert [event.data for event in copy.read("a")] == [{"n": 1}]


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    """A folder is refused, and the error says which file to name."""
    with pytest.raises(LogUnavailable, match=r"is a folder. Name a file in it"):
        open_log(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_log(tmp_path: Path) -> None:
    """Another file, or another program's database, is refused and left as it is."""
    text = tmp_path / "notes.txt"
    text.write_text("These are my notes.")
    with pytest.raises(LogUnavailable, match="is not a Flightlog log"):
        open_log(f"sqlite:///{text}")
    assert text.read_text() == "These are my notes."
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(LogUnavailable, match="not a Flightlog log"):
        open_log(f"sqlite:///{other}")
    connection = sqlite3.connect(other)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    connection.close()


def test_a_log_of_a_newer_version(tmp_path: Path) -> None:
    """A log whose format is newer is refused with the way to go."""
    path = tmp_path / "log.db"
    make_log(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(LogUnavailable, match=r"newer version.*format is 99.*pip install --upgrade flightlog"):
        open_log(f"sqlite:///{path}")


def test_a_corrupt_page_is_found_and_named(tmp_path: Path) -> None:
    """A damaged page is a clear error when it is read, and `verify` says so."""
    path = tmp_path / "log.db"
    make_log(path, 200)
    content = bytearray(path.read_bytes())
    for page in range(32, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    store = SqliteStore(path)
    found = verify(store)
    assert not found.sound
    assert store.damage() != []
    with pytest.raises(LogCorrupt, match=r"damaged.*flightlog doctor"):
        store.read_all(0, None, 10_000)
    store.close()


def test_a_truncated_file_is_a_clear_error(tmp_path: Path) -> None:
    """A file that was cut short is never a traceback of ours."""
    path = tmp_path / "log.db"
    make_log(path, 200)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(LogCorrupt, match="damaged"):
        store = SqliteStore(path)
        try:
            store.read_all(0, None, 10_000)
        finally:
            store.close()


def test_an_empty_file_becomes_a_log(tmp_path: Path) -> None:
    """An empty file, as `mktemp` makes it, is taken for a new log."""
    path = tmp_path / "log.db"
    path.touch()
    make_log(path, 1)
    assert path.stat().st_size > 0


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:35 / /mnt/share rw,relatime - nfs4 server:/export rw
41 22 0:36 / /mnt/my\\040disk rw,relatime - cifs //server/share rw
42 40 254:1 / /mnt/share/local rw,relatime - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/share/deep/down/log.db", "nfs4"),
        ("/mnt/my disk/log.db", "cifs"),
        ("/mnt/share/local/log.db", None),
        ("/mnt/shared.db", None),
        ("/data/log.db", None),
    ],
)
def test_network_file_systems_are_told_from_local_ones(path: str, kind: str | None) -> None:
    """The file system of a path is read from the mount table, the nearest mount deciding."""
    assert network_file_system(Path(path), MOUNTS) == kind


def test_the_key_is_beside_the_log_and_for_its_owner_only(tmp_path: Path) -> None:
    """The log's key is a file of mode 0600; so is the log."""

    @flow
    def nothing() -> None:
        pass

    nothing()
    path = current_engine().log.store.location
    key = key_path(Path(path))
    assert key.stat().st_mode & 0o777 == 0o600
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    assert key.read_bytes() not in Path(path).read_bytes()


@pytest.mark.parametrize("content", [None, b"short", b"another key" + bytes(21)])
def test_a_lost_or_wrong_key_is_a_clear_error(own_home: Path, content: bytes | None) -> None:
    """Without its key a log takes no runs, and the error says where the key belongs."""

    @flow
    def nothing() -> None:
        pass

    nothing()
    close_engine()
    key = key_path(own_home / "flightlog.db")
    key.unlink() if content is None else key.write_bytes(content)
    with pytest.raises(LogKeyError, match=r"flightlog\.db\.key"):
        nothing()


def test_an_unknown_url_is_a_clear_error() -> None:
    """A URL of another kind says what is possible."""
    with pytest.raises(LogUnavailable, match="sqlite:///"):
        open_log("mysql://somewhere/log")


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    """A path below a file is refused with the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(LogUnavailable, match="is a file, not a folder"):
        open_log(f"sqlite:///{tmp_path}/file/log.db")


_OTHER = """
import sys
from flightlog.events.opening import open_log
open_log(sys.argv[1]).close()
"""


def test_a_log_that_is_open_twice_in_a_process_keeps_its_locks(tmp_path: Path) -> None:
    """Another process that closes the log does not take it for the last one, and leaves the write-ahead log alone."""
    url = f"sqlite:///{tmp_path}/log.db"
    with open_log(url) as first, open_log(url) as second:
        first.append("a", [new_event(n=1)])
        wal = (tmp_path / "log.db-wal").stat().st_ino
        subprocess.run([sys.executable, "-c", _OTHER, url], check=True)
        assert (tmp_path / "log.db-wal").stat().st_ino == wal
        assert second.append("a", [new_event(n=2)]) == [2]
    with open_log(url) as log:
        assert len(list(log.read("a"))) == 2
