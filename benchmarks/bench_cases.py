"""The cases: what is measured, on which sides, and how a round of it is run."""

import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench_children import ChildError, answer, run
from bench_prefect import PrefectServer
from bench_sides import Mode, Side

_SECONDS = 240.0
_LONG_SECONDS = 900.0
_RECORDING_SECONDS = 900.0
_STALLED_SECONDS = 60.0
_RECORDER = "flightlog_recorder.py"
_PLUGINS = "flightlog_plugins.py"
_EVIDENCE = "flightlog_evidence.py"


@dataclass(frozen=True)
class Sizes:
    """How much of everything a run does.

    Attributes:
        few: items of the shorter sequences.
        many: items of the longer ones.
        subflows: subflows on the fast sides.
        slow_subflows: subflows of Prefect, which takes seconds for each.
        stored: tasks whose bytes are counted.
        grown: tasks of the flow whose memory is watched.
        killed: tasks before the process is killed.
        resumed: finished calls of the run that is resumed, and tasks that projections catch up with.
        listed: flow runs among which queries find their own.
        rebuilt: events whose projections are made anew while others read.
    """

    few: int = 200
    many: int = 1_000
    subflows: int = 100
    slow_subflows: int = 3
    stored: int = 5_000
    grown: int = 100_000
    killed: int = 100
    resumed: int = 10_000
    listed: int = 1_000_000
    rebuilt: int = 1_000_000


QUICK = Sizes(
    few=50,
    many=200,
    subflows=20,
    slow_subflows=1,
    stored=500,
    grown=10_000,
    killed=50,
    resumed=500,
    listed=20_000,
    rebuilt=100_000,
)


@dataclass
class Row:
    """One line of the table.

    Attributes:
        key: its name in the targets.
        title: what it says.
        unit: ``s`` or ``bytes`` (less is better), ``/s`` (more is better), ``count``.
        samples: per side, one number per round.
        notes: per side, why there is none.
    """

    key: str
    title: str
    unit: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, side: str, samples: Iterable[float]) -> None:
        """Keep what a side measured."""
        self.samples.setdefault(side, []).extend(samples)

    def median(self, side: str) -> float | None:
        """Return a side's median, or None if it has no sample or failed on the way."""
        found = self.samples.get(side)
        return statistics.median(found) if found and side not in self.notes else None


_EVERYONE = ("flightlog", "prefect", "dbos", "raw")


class Bench:
    """Runs cases and keeps their rows.

    Args:
        sides: who takes part.
        rounds: how often each timed case is run on each side, in turns.
        sizes: how much each does.
        folder: for all data; every side and case has its own folder in it.
    """

    def __init__(self, sides: list[Side], rounds: int, sizes: Sizes, folder: Path) -> None:
        self.sides = {side.name: side for side in sides}
        self.rounds = rounds
        self.sizes = sizes
        self.rows: list[Row] = []
        self._folder = folder
        self._server = PrefectServer(self.sides["prefect"]) if "prefect" in self.sides else None

    def close(self) -> None:
        """End the server and remove the data."""
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- the pieces -------------------------------------------------------------------------------

    def row(self, key: str, title: str, unit: str) -> Row:
        """Begin a line of the table."""
        row = Row(key, title, unit)
        self.rows.append(row)
        return row

    def _home(self, side: Side, name: str) -> Path:
        # Prefect's server is shared by the cases of a mode, since it takes long to start.
        return self._folder / side.name / name

    def _env(self, side: Side, case: str, mode: Mode = "default", home: Path | None = None) -> dict[str, str]:
        if side.name != "prefect":
            return side.env(home or self._home(side, case), mode)
        assert self._server is not None
        home = home or self._home(side, "server" if mode != "fsync" else "server-fsync")
        level: Mode = "fsync" if mode == "fsync" else "default"
        return side.env(home, mode) | {"PREFECT_API_URL": self._server.serve(home, level)}

    def _settle(self, side: Side) -> None:
        if side.name == "prefect" and self._server is not None:
            self._server.settle()

    def _in_turns(self, row: Row, names: Iterable[str], measure: Callable[[Side], Iterable[float]]) -> None:
        """Let the sides measure one after the other, each round in another order."""
        present = [self.sides[name] for name in names if name in self.sides]
        for number in range(self.rounds):
            shift = number % len(present)
            for side in present[shift:] + present[:shift]:
                if side.name in row.notes:
                    continue
                print(f"  {row.title}: {side.title}, round {number + 1}", file=sys.stderr)
                try:
                    row.add(side.name, measure(side))
                except ChildError as error:
                    row.notes[side.name] = str(error)
                self._settle(side)

    def _inside(self, side: Side, case: str, n: int, mode: Mode, key: str) -> list[float]:
        command: list[str | Path] = [side.python, side.script, case, str(n)]
        samples = answer(run(command, self._env(side, key, mode), _SECONDS))["samples"]
        return [float(sample) for sample in samples]

    # --- the cases --------------------------------------------------------------------------------

    def timed(
        self, key: str, title: str, case: str, n: int, mode: Mode = "default", names: tuple[str, ...] = _EVERYONE
    ) -> None:
        """Time items inside a flow."""
        row = self.row(key, title, "s")
        slow = {"prefect": self.sizes.slow_subflows} if case == "subflows" else {}
        self._in_turns(row, names, lambda side: self._inside(side, case, slow.get(side.name, n), mode, key))

    def append(self, batch: int) -> None:
        """Count the events that the log takes in a second."""
        row = self.row(f"append-{batch}", f"events appended, {batch} per commit", "/s")
        self._in_turns(row, ("flightlog", "raw"), lambda side: self._inside(side, "append", batch, "default", row.key))

    def imports(self, number: int, key: str, title: str) -> None:
        """Time `python -c 'import X'`."""
        row = self.row(key, title, "s")

        def measure(side: Side) -> list[float]:
            command: list[str | Path] = [side.python, "-c", side.imports[number]]
            env = side.env(self._home(side, "import"))
            run(command, env, _SECONDS)  # compiles what is not compiled yet
            return _wall(command, env, 3)

        self._in_turns(row, ("flightlog", "prefect", "dbos", "raw"), measure)

    def cold(self, key: str, title: str, *, server: bool) -> None:
        """Time a whole process with one flow and one task, its database made before."""
        row = self.row(key, title, "s")
        if not server and self._server is not None:
            self._server.stop()

        def measure(side: Side) -> list[float]:
            raw: list[str | Path] = ["-c", "pass"]
            command = [side.python, *(raw if side.name == "raw" else [side.cold_script])]
            env = self._env(side, key) if server else side.env(self._home(side, key))
            if not row.samples.get(side.name):
                run(command, env, _SECONDS)
            return _wall(command, env, 1 if side.name == "prefect" and not server else 3)

        self._in_turns(row, ("flightlog", "prefect", "dbos", "raw"), measure)

    def stored(self, n: int) -> None:
        """Count the bytes on disk that a task run costs."""
        row = self.row("bytes", f"database bytes per task run, n={n:,}: log or database", "bytes")
        whole = self.row("bytes-all", "the same, log and projections together", "bytes")
        for side in self._present("flightlog", "prefect", "dbos"):
            print(f"  {row.title}: {side.title}", file=sys.stderr)
            home = self._home(side, "bytes")
            try:
                empty = self._filled(side, home, 0)
                full = self._filled(side, home, n)
            except ChildError as error:
                row.notes[side.name] = whole.notes[side.name] = str(error)
                continue
            row.add(side.name, [(full[0] - empty[0]) / n])
            if side.name != "flightlog":
                whole.add(side.name, [(full[0] - empty[0]) / n])
            elif full[1] is not None:
                whole.add(side.name, [(full[0] + full[1] - empty[0] - (empty[1] or 0)) / n])
            else:
                whole.notes[side.name] = "there are no projections yet"

    def _filled(self, side: Side, home: Path, n: int) -> tuple[int, int | None]:
        """Run a flow of n tasks; return the sizes of the database and of the projections, if there are any."""
        env = self._env(side, "bytes", home=home)
        before = self._recorded(side, home) if side.name == "prefect" else 0
        answer(run([side.python, side.script, "fill", str(n)], env, _LONG_SECONDS))
        if side.name == "prefect":
            found = self._await_recorded(side, home, before + n)
            if found < before + n:
                raise ChildError(f"its server had recorded {found - before:,} of {n:,} task runs when the wait ended")
            assert self._server is not None
            self._server.stop()
        if side.name == "flightlog":
            run([side.python, "-m", "flightlog", "runs", "ls"], env, _SECONDS)
        database = side.database(home)
        size = _checkpointed(database)
        if size is None:
            raise ChildError("left no database")
        return size, _checkpointed(database.with_name(database.name + ".projections"))

    def grown(self, n: int) -> None:
        """Watch the memory of a long flow."""
        rows = [
            self.row(f"rss-{part}", f"memory (RSS) in a flow of {n:,} tasks, after {count:,}", "bytes")
            for part, count in (("start", n // 10), ("middle", n // 2), ("end", n))
        ]
        for side in self._present("flightlog"):
            print(f"  {rows[-1].title}: {side.title}", file=sys.stderr)
            try:
                env = self._env(side, "rss")
                samples = answer(run([side.python, side.script, "grow", str(n)], env, _LONG_SECONDS))["samples"]
            except ChildError as error:
                for row in rows:
                    row.notes[side.name] = str(error)
                continue
            for row, sample in zip(rows, samples, strict=True):
                row.add(side.name, [float(sample)])

    def own(self, script_name: str, case: str, n: int, rows: Sequence[tuple[str, str, str]]) -> None:
        """Measure what only Flightlog has: one row for each number that the case gives."""
        made = [self.row(*row) for row in rows]
        for side in self._present("flightlog"):
            for number in range(1 if case in ("queries", "rebuild") else self.rounds):
                print(f"  {made[0].title}: {side.title}, round {number + 1}", file=sys.stderr)
                home = self._home(side, f"{case}-{number}")
                script = side.script.with_name(script_name)
                try:
                    env = self._env(side, case, home=home) | {"FLIGHTLOG_LOGGING_LEVEL": "ERROR"}
                    samples = answer(run([side.python, script, case, str(n)], env, _LONG_SECONDS))["samples"]
                except ChildError as error:
                    for row in made:
                        row.notes[side.name] = str(error)
                    continue
                for row, sample in zip(made, samples, strict=True):
                    row.add(side.name, [float(sample)])

    def killed(self, case: str, key: str, title: str, names: tuple[str, ...]) -> None:
        """Kill a process right after n tasks have returned, and count what is on record as completed.

        This is what a reader can hold against the words about durability.
        """
        row = self.row(key, title, "count")
        n = self.sizes.killed

        def measure(side: Side) -> list[float]:
            home = self._home(side, f"{key}-{len(row.samples.get(side.name, []))}")
            shared = self._home(side, "server") if side.name == "prefect" else home
            env = self._env(side, key, home=shared)
            before = self._recorded(side, shared) if side.name == "prefect" else 0
            finished = run([side.python, side.script, case, str(n)], env, _SECONDS)
            if finished.code != -9:
                raise ChildError(f"was to be killed, but ended with exit code {finished.code}")
            self._settle(side)
            return [self._recorded(side, shared, submitted=case != "killed") - before]

        self._in_turns(row, names, measure)

    def _recorded(self, side: Side, home: Path, *, submitted: bool = False) -> int:
        """Return how many tasks a side's database holds as completed."""
        if side.name == "flightlog":
            env = side.env(home)
            return int(answer(run([side.python, side.script, "recorded", "0"], env, _SECONDS))["completed"])
        steps = "SELECT count(*) FROM operation_outputs WHERE function_name LIKE '%noop'"
        children = "SELECT count(*) FROM workflow_status WHERE name LIKE '%child' AND status = 'SUCCESS'"
        query = {
            "prefect": "SELECT count(*) FROM task_run WHERE state_type = 'COMPLETED'",
            "dbos": children if submitted else steps,
            "raw": "SELECT count(*) FROM rows",
        }[side.name]
        try:
            with closing(sqlite3.connect(side.database(home), timeout=30)) as connection:
                return int(connection.execute(query).fetchone()[0])
        except sqlite3.Error as error:
            raise ChildError(f"its database cannot be read ({error})") from None

    def _await_recorded(self, side: Side, home: Path, wanted: int) -> int:
        """Wait for the task runs that Prefect's server still has in hand; return how many there are.

        It gives up once none has come for a minute: a server that is slow is waited for, lost ones are not.
        """
        begun = changed = time.monotonic()
        found = self._recorded(side, home)
        while found < wanted and time.monotonic() < min(changed + _STALLED_SECONDS, begun + _RECORDING_SECONDS):
            time.sleep(1.0)
            before, found = found, self._recorded(side, home)
            if found > before:
                changed = time.monotonic()
        self._settle(side)
        return found

    def _present(self, *names: str) -> list[Side]:
        return [self.sides[name] for name in names if name in self.sides]


def _wall(command: list[str | Path], env: dict[str, str], times: int) -> list[float]:
    samples = []
    for _ in range(times):
        finished = run(command, env, _SECONDS)
        if finished.code != 0:
            raise ChildError(f"ended with exit code {finished.code}")
        samples.append(finished.seconds)
    return samples


def _checkpointed(database: Path) -> int | None:
    """Move what is in the write-ahead log into the file; return the file's size, or None without a file."""
    if not database.exists():
        return None
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return database.stat().st_size


def _catalogue(bench: Bench) -> dict[str, Callable[[], None]]:
    sizes = bench.sizes
    few, many, killed = f"{sizes.few:,}", f"{sizes.many:,}", f"{sizes.killed:,}"
    fsync = f"equal durability, power loss: sequential, n={few}, one fsync per commit on every side"
    commit = f"equal durability, process loss: sequential, n={few}, WAL + NORMAL on every side"
    on_record = "on record as completed after SIGKILL"
    return {
        "sequential-few": lambda: bench.timed(
            "sequential-few", f"sequential no-op task, n={few}", "sequential", sizes.few
        ),
        "sequential": lambda: bench.timed("sequential", f"sequential no-op task, n={many}", "sequential", sizes.many),
        "submitted": lambda: bench.timed("submitted", f"submitted no-op task, n={many}", "submitted", sizes.many),
        "gathered": lambda: bench.timed("gathered", f"async gathered no-op task, n={many}", "gathered", sizes.many),
        "subflow": lambda: bench.timed(
            "subflow",
            f"subflow, n={sizes.subflows} (Prefect: {sizes.slow_subflows})",
            "subflows",
            sizes.subflows,
            names=_EVERYONE[:3],
        ),
        "processes": lambda: bench.timed(
            "processes",
            f"no-op task submitted to 2 worker processes, n={few}",
            "processes",
            sizes.few,
            names=("flightlog", "prefect", "raw"),
        ),
        "cached": lambda: bench.timed(
            "cached",
            f"task whose value is in the cache, n={many}",
            "cached",
            sizes.many,
            names=("flightlog", "prefect"),
        ),
        "fsync": lambda: bench.timed("fsync", fsync, "sequential", sizes.few, "fsync"),
        "commit": lambda: bench.timed("commit", commit, "sequential", sizes.few, "commit"),
        "killed": lambda: bench.killed(
            "killed", "killed", f"{killed} sequential tasks returned: {on_record}", _EVERYONE
        ),
        "killed-submitted": lambda: bench.killed(
            "killed_submitted", "killed-submitted", f"{killed} submitted tasks returned: {on_record}", _EVERYONE[:3]
        ),
        "import": lambda: bench.imports(0, "import", "`import` of the package"),
        "import-names": lambda: bench.imports(1, "import-names", "import of what a flow file needs"),
        **{f"append-{batch}": partial(bench.append, batch) for batch in (1, 100, 1000)},
        "bytes": lambda: bench.stored(sizes.stored),
        "cold": lambda: bench.cold("cold", "cold process: one flow, one task", server=False),
        "cold-server": lambda: bench.cold("cold-server", "the same, Prefect's server running already", server=True),
        "rss": lambda: bench.grown(sizes.grown),
        "resume": lambda: bench.own(
            _RECORDER, "resume", sizes.resumed, [("resume", f"resume over {sizes.resumed:,} finished calls", "s")]
        ),
        "catch-up": lambda: bench.own(
            _RECORDER, "catch_up", sizes.resumed, [("catch-up", "projections catch up: events", "/s")]
        ),
        "queries": lambda: bench.own(
            _RECORDER,
            "queries",
            sizes.listed,
            [
                ("list", f"the latest 200 of {sizes.listed:,} runs, p95", "s"),
                ("page", "the task runs of one of them, p95", "s"),
                ("history", "how 50 flows went in 24 hours, by hour, p95", "s"),
            ],
        ),
        "rebuild": lambda: bench.own(
            _RECORDER,
            "rebuild",
            sizes.rebuilt,
            [
                ("rebuild", f"all projections of {sizes.rebuilt:,} events made anew: events", "/s"),
                ("rebuild-p95", "the latest 200 runs, asked meanwhile, p95", "s"),
                ("rebuild-most", "the same, at most", "s"),
            ],
        ),
        "sealed": lambda: bench.own(
            _EVIDENCE,
            "sealed",
            sizes.rebuilt,
            [
                ("seal", f"{sizes.rebuilt:,} events sealed at once, signed", "s"),
                ("verify", "the same log verified, seals included: events", "/s"),
            ],
        ),
        "archived": lambda: bench.own(
            _EVIDENCE,
            "archived",
            sizes.grown,
            [
                ("archive", f"{sizes.grown:,} events archived: events", "/s"),
                ("restore", "the same restored: events", "/s"),
                ("archived-percent", "database and segments afterwards, in percent of the database before", "count"),
            ],
        ),
        "bundle": lambda: bench.own(
            _EVIDENCE,
            "bundle",
            sizes.many,
            [
                ("bundle", f"the bundle of a run with {many} tasks", "bytes"),
                ("bundle-verified", "the same, verified by the program inside, start of Python included", "s"),
            ],
        ),
        "observed": lambda: bench.own(
            _PLUGINS,
            "observed",
            sizes.many,
            [
                ("unobserved", f"sequential no-op task, n={many}, in turns with the next row", "s"),
                ("observed", "the same with a plug-in that observes every event", "s"),
                ("observed-percent", "the second in percent of the first", "count"),
            ],
        ),
        "notified": lambda: bench.own(
            _PLUGINS,
            "notified",
            sizes.killed,
            [
                ("notified", "from a flow run's failure to its message on the wire, median", "s"),
                ("notified-p95", "the same, p95", "s"),
            ],
        ),
        "folded": lambda: bench.own(
            _PLUGINS, "folded", sizes.resumed, [("folded", "matching events folded by three rules", "/s")]
        ),
    }


def run_cases(bench: Bench, only: list[str]) -> None:
    """Run the cases whose names begin with one of the given words; all if there are none."""
    catalogue = _catalogue(bench)
    unknown = [word for word in only if not any(name.startswith(word) for name in catalogue)]
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}. There are: {', '.join(catalogue)}")
    try:
        for name, case in catalogue.items():
            if not only or any(name.startswith(word) for word in only):
                case()
    finally:
        bench.close()
