"""PostgreSQL in trouble: many writers, killed servers, a cut network. Nothing acknowledged is lost (I2, I5)."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice

import pytest
from tests.postgres import BEFORE_ARCHIVES, Server, free_port, running

from flightlog.errors import LogUnavailable, LogWriteError
from flightlog.events.integrity import verify
from flightlog.events.log import Log
from flightlog.events.model import Append
from flightlog.events.opening import open_log
from flightlog.events.stores import postgres as postgres_module
from flightlog.events.subscriptions import Subscription
from flightlog.testing.log_contract import Slots, acquired, new_event

_LONG = bool(os.environ.get("TEST_FLIGHTLOG_LONG"))


class Writers:
    """Threads that append to streams of their own, each on a connection of its own.

    Attributes:
        acknowledged: how many events each has been told are committed.
        errors: what they met.
    """

    def __init__(self, url: str, count: int, events: int, batch: int = 1) -> None:
        self.acknowledged = [0] * count
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._write, args=(url, number, events, batch)) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, url: str, number: int, events: int, batch: int) -> None:
        try:
            with open_log(url) as log:
                for first in range(0, events, batch):
                    log.append(f"s{number}", [new_event(n=n) for n in range(first, first + batch)])
                    self.acknowledged[number] = first + batch
        except BaseException as error:
            self.errors.append(error)

    def have_done(self, count: int) -> bool:
        """Tell whether each has been told of so many events at least."""
        return min(self.acknowledged) >= count

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join(100)


def check(url: str, writers: Writers) -> None:
    """All that was acknowledged is there, in order and without gaps, and the log verifies."""
    assert writers.errors == []
    with open_log(url) as log:
        found: dict[str, list[int]] = {}
        positions = []
        for event in log.read_all(types=["thing.happened"]):
            positions.append(event.position)
            found.setdefault(event.stream, []).append(event.data["n"])
        assert positions == list(range(1, len(positions) + 1))
        for number, count in enumerate(writers.acknowledged):
            assert found[f"s{number}"] == list(range(len(found[f"s{number}"])))
            assert len(found[f"s{number}"]) >= count
        assert verify(log.store).problems == []


@pytest.mark.timeout(600 if _LONG else 120)
def test_I5_sixteen_writers_and_four_subscribers(postgres_url: str) -> None:
    """Nothing is skipped and nothing comes twice, whatever commits out of order."""
    each, batch = (62_500, 50) if _LONG else (300, 3)
    total = 16 * each
    stop = threading.Event()
    seen: list[list[tuple[int, bytes]]] = [[], [], [], []]

    def read(number: int) -> None:
        with open_log(postgres_url) as log:
            for event in islice(log.subscribe(stop=stop), total):
                seen[number].append((event.position, event.id))

    open_log(postgres_url).close()
    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    writers = Writers(postgres_url, 16, each, batch)
    writers.join()
    for reader in readers:
        reader.join(60)
    stop.set()
    check(postgres_url, writers)
    assert [position for position, _ in seen[0]] == list(range(1, total + 1))
    digests = {hashlib.sha256(repr(one).encode()).digest() for one in seen}
    assert len(digests) == 1


def test_a_position_never_appears_below_one_that_was_seen(postgres: Server) -> None:
    """A transaction that is open while others commit gets positions above theirs."""
    url = postgres.database()
    import psycopg

    with open_log(url) as log, psycopg.connect(url) as slow:
        log.append("a", [new_event(n=0)])
        row = slow.execute("SELECT stream_id, type_id, record FROM flightlog.events").fetchone()
        assert row is not None
        # Inserted before, committed after: its serial is the lower one.
        slow.execute(
            "INSERT INTO flightlog.events (stream_id, version, type_id, event_id, record) VALUES (%s, 99, %s, %s, %s)",
            (row[0], row[1], b"x" * 16, row[2]),
        )
        log.append("b", [new_event(n=1)])
        assert [event.stream for event in log.read_all()] == ["a", "b"]
        seen = log.head().position
        moment = log.head().recorded_at
        slow.commit()
        late = list(log.store.indexed(seen, 10))
        assert [row.position for row in late] == [3]
        assert late[0].recorded_at >= moment


def test_writers_do_not_wait_for_each_other(postgres: Server) -> None:
    """While one writer's transaction is open, others append to their own streams."""
    url = postgres.database()
    with open_log(url) as log, open_log(url) as other:
        log.append("mine", [new_event()])
        with log.store.writing() as connection:
            connection.exec_driver_sql("SELECT * FROM flightlog.streams WHERE name = 'mine' FOR UPDATE")
            done = threading.Event()

            def append() -> None:
                other.append("yours", [new_event()])
                done.set()

            thread = threading.Thread(target=append)
            thread.start()
            assert done.wait(10)
        thread.join()


def test_events_cannot_be_changed_or_deleted(postgres: Server) -> None:
    """I3: the database refuses it, for rows and for whole tables."""
    url = postgres.database()
    import psycopg

    with open_log(url) as log:
        log.append("a", [new_event()])
        log.head()
    statements = ["UPDATE flightlog.events SET version = 2", "DELETE FROM flightlog.events",
                  "TRUNCATE flightlog.events", "DELETE FROM flightlog.positions",
                  "UPDATE flightlog.positions SET position = 5", "UPDATE flightlog.blobs SET content = ''",
                  "TRUNCATE flightlog.positions"]  # fmt: skip
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO flightlog.blobs (digest, content) VALUES ('a', 'b')")
        for statement in statements:
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                connection.execute(statement.encode())


def test_a_writers_role_may_only_insert(postgres: Server) -> None:
    """With what `flightlog log role` prints a role runs the log, and has no right to change or delete an event."""
    url = postgres.database()
    import psycopg

    from flightlog.events.stores.postgres_tables import grants

    database = url.rpartition("/")[2]
    role = f"writer_{database}"
    with open_log(url) as log:
        log.append("a", [new_event()])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        for statement in grants(role):
            connection.execute(statement.encode())
    own = postgres.url(database, role)
    with open_log(own) as log:
        assert log.append("a", [new_event()]) == [2]
        assert log.append("b", [new_event(text="x" * 100_000)]) == [1]
        log.store.beat("me", 1)
        log.store.beat("me", None)
        log.keep([Slots()])
        log.append("limit/a", [acquired("ann")])
        assert log.states("test-slots").keys() == {"limit/a"}
        assert [event.stream for event in log.read_all()] == ["a", "a", "b", "limit/a"]
    with psycopg.connect(own, autocommit=True) as connection:
        for statement in ("UPDATE flightlog.events SET version = 2", "DELETE FROM flightlog.events"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_I9_a_log_of_the_first_layout_is_brought_up_to_date(postgres: Server) -> None:
    """The tables that came later are added by a role that may; one that may not is told what to do."""
    import psycopg

    url = postgres.database()
    database = url.rpartition("/")[2]
    with open_log(url) as log:
        log.append("a", [new_event()])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(BEFORE_ARCHIVES)
        connection.execute(b"DROP TABLE flightlog.inline_projections, flightlog.inline_states")
        connection.execute(b"UPDATE flightlog.facts SET value = '1' WHERE name = 'format'")
        connection.execute(f"CREATE ROLE writer_{database} LOGIN".encode())
        for statement in (b"GRANT USAGE ON SCHEMA flightlog TO ", b"GRANT SELECT ON flightlog.facts TO "):
            connection.execute(statement + f"writer_{database}".encode())
    with pytest.raises(LogUnavailable, match=r"may not make them\. Run `flightlog doctor`"):
        open_log(postgres.url(database, f"writer_{database}"))
    for _ in range(2):
        with open_log(url) as log:
            log.keep([Slots()])
            log.append("limit/a", [acquired("ann")])
            assert log.states("test-slots") == log.folded(Slots())


def test_an_event_loop_does_not_wait_for_another_writer(postgres: Server) -> None:
    """While somebody else holds a stream's head, or the server is away, `try_commit` says so at once."""
    import psycopg

    url = postgres.database()
    with open_log(url) as log, psycopg.connect(url) as other:
        log.append("a", [new_event()])
        other.execute(b"SELECT * FROM flightlog.streams WHERE name = 'a' FOR UPDATE")
        unit = log.enqueue([Append("a", [new_event()])])
        assert log.try_commit(unit) is False
        other.rollback()
        assert log.try_commit(unit) is True
        assert unit.versions == [[2]]


@pytest.mark.timeout(120)
def test_a_killed_back_end_loses_nothing() -> None:
    """kill -9 of a server process restarts all sessions; the writers wait and go on."""
    with running() as server:
        url = server.database()
        writers = Writers(url, 4, 400)
        for _ in range(2):
            _until(lambda: min(writers.acknowledged) > 30)
            backends = server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'flightlog'")
            os.kill(int(str(backends[0][0])), 9)
            time.sleep(0.5)
        writers.join()
        check(url, writers)


@pytest.mark.timeout(180)
def test_a_killed_server_loses_nothing() -> None:
    """kill -9 of the postmaster, then a restart: what was acknowledged is there, the writers wait and go on."""
    with running("fsync=on", "synchronous_commit=on") as server:
        url = server.database()
        writers = Writers(url, 3, 150)
        _until(lambda: min(writers.acknowledged) > 20)
        server.kill()
        time.sleep(0.3)
        server.start()
        writers.join()
        check(url, writers)


class Wire:
    """A proxy on 127.0.0.1 that can be cut.

    Args:
        port: where it leads to.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = free_port()
        self._cut = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._cut.is_set():
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((client, server))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._cut.is_set():
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Cut all connections and let no new ones through."""
        self._cut.set()
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._cut.clear()

    def close(self) -> None:
        """End it."""
        self.cut()
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                end.close()


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    """A wire for as long as this is open."""
    made = Wire(port)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.timeout(120)
def test_a_cut_network_loses_nothing(postgres: Server) -> None:
    """The engine waits for the network to come back, and appends nothing twice."""
    database = postgres.database().rpartition("/")[2]
    with wire(postgres.port) as proxy:
        url = f"postgresql://app@127.0.0.1:{proxy.port}/{database}"
        writers = Writers(url, 3, 200)
        for _ in range(2):
            before = min(writers.acknowledged)
            _until(partial(writers.have_done, before + 21))
            proxy.cut()
            time.sleep(0.4)
            proxy.mend()
        writers.join()
    check(postgres.url(database), writers)


def test_a_server_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the writer is told what happened, and what is in line stays there."""
    monkeypatch.setattr(postgres_module, "OUTAGE_SECONDS", 0.5)
    with running() as server:
        log: Log = open_log(server.database())
        log.append("a", [new_event()])
        server.kill()
        with pytest.raises(LogWriteError, match=r"did not answer for .* s"):
            log.append("a", [new_event()])
        server.start()
        assert log.append("a", [new_event()]) == [2]
        log.close()


@pytest.mark.timeout(120)
def test_a_subscription_outlives_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server is away a subscription waits, says so, and then goes on where it was."""
    monkeypatch.setattr(postgres_module, "OUTAGE_SECONDS", 0.3)
    with running() as server:
        url = server.database()
        seen: list[int] = []
        stop = threading.Event()
        with open_log(url) as log:
            log.append("a", [new_event(n=1)])
            subscription = Subscription(log, "mail", lambda events: seen.extend(e.data["n"] for e in events))
            thread = threading.Thread(target=subscription.run, args=(stop,))
            thread.start()
            _until(lambda: seen == [1] and subscription.position)  # until its cursor has moved, it would come again
            server.kill()
            _until(lambda: subscription.outage is not None)
            assert "did not answer" in str(subscription.outage)
            server.start()
            log.append("a", [new_event(n=2)])
            _until(lambda: seen == [1, 2])
            stop.set()
            thread.join()
        assert (seen, subscription.outage) == ([1, 2], None)


def _until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)
