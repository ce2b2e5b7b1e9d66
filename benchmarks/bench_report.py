"""From rows to what a person reads: the table, the targets, the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench_cases import Row
from bench_sides import Side

_MIB = 1024 * 1024
_QUOTED_RAY = 0.0009
_QUOTED_PREFECT_2 = 0.240


@dataclass(frozen=True)
class Machine:
    """Where and when the numbers come from."""

    processor: str
    cores: int
    system: str
    load: str
    day: str
    minutes: float
    rounds: int
    partial: bool


# --- numbers ------------------------------------------------------------------------------------------


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "s":
        if value >= 1:
            return f"{value:.2f} s"
        return f"{value * 1e3:.3g} ms" if value >= 0.001 else f"{value * 1e6:.3g} µs"
    if unit == "bytes":
        return f"{value / _MIB:.1f} MiB" if value >= _MIB else f"{value:,.0f} B"
    return f"{value:,.0f}/s" if unit == "/s" else f"{value:,.0f}"


def _ratio(row: Row, worse: str, better: str) -> float | None:
    """Return how many times better one side is than another, whichever direction is better."""
    high, low = row.median(worse), row.median(better)
    if high is None or low is None or not high or not low or row.unit == "count":
        return None
    return low / high if row.unit == "/s" else high / low


def _times(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}x" if value < 9.95 else f"{value:,.0f}x"


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    medians = [_shown(row.median(name), row.unit) for name in names]
    ratios = [_ratio(row, other, "flightlog") for other in ("prefect", "dbos")]
    return [row.title, *medians, *map(_times, ratios), _times(_ratio(row, "flightlog", "raw"))]


def _table(rows: Sequence[Row], sides: Sequence[Side]) -> list[list[str]]:
    heads = [side.title for side in sides]
    ratios = ["Prefect / Flightlog", "DBOS / Flightlog", "Flightlog / raw"]
    names = [side.name for side in sides]
    return [["median of the run", *heads, *ratios], *[_cells(row, names) for row in rows]]


def _spread(rows: Sequence[Row], sides: Sequence[Side]) -> list[list[str]]:
    table = [["least to most (samples)", *[side.title for side in sides]]]
    for row in rows:
        cells = [row.title]
        for side in sides:
            found = row.samples.get(side.name, [])
            low, high = (_shown(pick(found), row.unit) if found else "-" for pick in (min, max))
            cells.append(f"{low} to {high} ({len(found)})" if found else "-")
        table.append(cells)
    return table


# --- targets ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What the project wants of a row.

    Attributes:
        row: the row's key.
        what: in words.
        limit: the bound that must be held, if there is one.
        aim: the bound that is hoped for, if there is another.
        against: the side whose median is divided by Flightlog's; None to take Flightlog's own.
        quoted: a number from elsewhere in the place of a side's median.
        least: whether the number must be at least the bound, not at most.
    """

    row: str
    what: str
    limit: float | None
    aim: float | None = None
    against: str | None = None
    quoted: float | None = None
    least: bool = True


TARGETS = (
    Target("sequential", "sequential task: times faster than Prefect", 25, 60, "prefect"),
    Target("sequential", "sequential task: times faster than DBOS", 8, 20, "dbos"),
    Target("sequential", "sequential task: times the raw commit", None, 5, "raw", least=False),
    Target("submitted", "submitted task: times faster than Prefect", 25, 60, "prefect"),
    Target("submitted", "submitted task: times faster than Ray's 0.9 ms (quoted)", 1, None, quoted=_QUOTED_RAY),
    Target("gathered", "gathered task: times faster than Prefect", 25, 60, "prefect"),
    Target("gathered", "gathered task: times faster than Ray's 0.9 ms (quoted)", 1, None, quoted=_QUOTED_RAY),
    Target("subflow", "subflow: times faster than DBOS", 8, None, "dbos"),
    Target("subflow", "subflow: times faster than Prefect 2.20's 240 ms (quoted)", 100, None, quoted=_QUOTED_PREFECT_2),
    Target("import", "`import flightlog`: times faster than `import prefect`", 8, None, "prefect"),
    Target("import", "`import flightlog`: times faster than `import dbos`", 4, None, "dbos"),
    Target("import-names", "import of `flow` and `task`: times faster than Prefect's", 8, None, "prefect"),
    Target("import-names", "import of `flow` and `task`: times faster than DBOS'", 4, None, "dbos"),
    Target("cold", "cold process: times faster than Prefect's default", 15, None, "prefect"),
    Target("cold", "cold process: times faster than DBOS", 3, None, "dbos"),
    Target("bytes", "bytes per task run in the log", 1200, 1000, least=False),
    Target("append-1000", "events appended in batches, a second", 50_000),
    Target("catch-up", "events that projections take in a second", 20_000),
    Target("resume", "resume over 10,000 finished calls, in ms", 500, least=False),
    Target("list", "the latest 200 of 1,000,000 runs, p95 in ms", 50, least=False),
    Target("page", "one run's page, p95 in ms", 50, least=False),
    Target("history", "the history of 24 hours, p95 in ms", 50, least=False),
    Target("rebuild-p95", "the latest 200 runs while 1,000,000 events are rebuilt, p95 in ms", 50, least=False),
    Target("seal", "1,000,000 events sealed, in ms", 5_000, least=False),
    Target("verify", "events verified in a second, seals included", 150_000),
    Target("archive", "events archived in a second", 50_000),
    Target("restore", "events restored in a second", 50_000),
    Target("archived-percent", "what archived events take afterwards, in percent", 25, least=False),
    Target("bundle", "the bundle of a run with 1,000 tasks, in bytes", 1_000_000, least=False),
    Target("bundle-verified", "that bundle verified, in ms", 1_000, least=False),
    Target("observed-percent", "sequential task with a plug-in that observes all, in percent", 105, least=False),
    Target("notified", "from a failure to its message on the wire, in ms", 100, least=False),
    Target("folded", "matching events folded by rules in a second", 10_000),
    Target("bytes-all", "bytes per task run, log and projections", 2000, None, least=False),
)
_PLAIN = frozenset(
    {
        "append-1000",
        "catch-up",
        "resume",
        "list",
        "page",
        "history",
        "rebuild-p95",
        "seal",
        "verify",
        "archive",
        "restore",
        "archived-percent",
        "bundle",
        "bundle-verified",
        "observed-percent",
        "notified",
        "folded",
    }
)
_FLAT = 1.10
_FLAT_MEANS = (
    "That memory is flat is read as: no more than a tenth above what it was\nafter the warm-up, which is the first "
    "tenth of the tasks."
)


def _measured(target: Target, row: Row) -> float | None:
    own = row.median("flightlog")
    if own is None or not own:
        return None
    if target.quoted is not None:
        return target.quoted / own
    if target.against is None:
        return own * 1000 if row.unit == "s" else own
    ratio = _ratio(row, target.against, "flightlog")
    return 1 / ratio if ratio and target.against == "raw" else ratio


def _verdict(target: Target, value: float | None) -> str:
    if value is None:
        return "not measured"
    held, hoped = (
        bound is not None and (value >= bound if target.least else value <= bound)
        for bound in (target.limit, target.aim)
    )
    if target.limit is None:
        return "the aim is reached" if hoped else "**falls short** of the aim"
    if not held:
        return "**falls short**"
    if target.aim is None:
        return "reached"
    return "reached, and the aim" if hoped else "reached; the aim is not"


def _bound(target: Target, value: float | None) -> str:
    if value is None:
        return "-"
    unit = " B" if target.row.startswith("bytes") else "" if target.row in _PLAIN else "x"
    return f"{'at least' if target.least else 'at most'} {value:,.0f}{unit}"


def targets(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table of targets, computed from the medians of the rows."""
    by_key = {row.key: row for row in rows}
    table = [["target", "wanted", "aim", "measured", "verdict"]]
    for target in TARGETS:
        row = by_key.get(target.row)
        value = None if row is None else _measured(target, row)
        shown = _shown(value, "bytes") if target.row.startswith("bytes") else _times(value)
        if target.row in _PLAIN and value is not None:
            shown = f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
        bounds = [_bound(target, target.limit), _bound(target, target.aim)]
        table.append([target.what, *bounds, shown, _verdict(target, value)])
    return [*table, _flatness(by_key)]


def _flatness(rows: dict[str, Row]) -> list[str]:
    early, late = (rows[key].median("flightlog") if key in rows else None for key in ("rss-start", "rss-end"))
    what = ["memory after all tasks of a long flow / after a tenth of them", f"at most {_FLAT:.2f}x", "-"]
    if not early or late is None:
        return [*what, "-", "not measured"]
    return [*what, f"{late / early:.2f}x", "reached" if late / early <= _FLAT else "**falls short**"]


# --- pages --------------------------------------------------------------------------------------------

_COMPARED = """\
# Benchmarks

How much time and space the engine itself takes, beside [Prefect](https://docs.prefect.io), [DBOS](https://docs.dbos.dev)
and the raw limit: the same no-op work, on one machine, in one run, the sides taking turns. This page is written
by `benchmarks/run.py`; no test asserts a time.

- **Flightlog**: the embedded log in one SQLite file, as it comes.
- **{prefect}**: with its server running as a process of its own on SQLite, as it comes, but for its dashboard and
  its telemetry, which are off.
- **{dbos}**: with its system database in SQLite, as it comes. A task is a step; a submitted task and a subflow are
  child workflows, which is how DBOS does either.
- **raw limit**: the standard library alone. Sequential: one 250-byte row per commit, SQLite in WAL mode; submitted:
  a thread pool of 64, which keeps nothing; gathered: `asyncio.gather`, which keeps nothing; import and cold process:
  `python -c pass`.

A library that is quoted and not run here stands in no column: Ray's 0.9 ms for a task and Prefect 2.20's 240 ms for a
subflow are others' measurements, on other machines.
"""

_DURABILITY = """\
## What each side has on disk

Speed without a word on durability says nothing: this is what the numbers pay for.

| side | when a task returns | after the process is killed | after the power is lost |
|---|---|---|---|
| Flightlog, default (`commit`) | its start was committed before its body ran (WAL, `synchronous=NORMAL`); its end \
goes with the next commit, or within some hundredths of a second | every committed start is there; the ends that \
were still waiting are not | the last commits may be lost, the file stays whole |
| Flightlog, `fsync` | the same, and each commit is synced (`FULL`) | the same | every commit is there |
| Prefect, default | its state was sent to the server as an event, which the server stores afterwards (WAL, \
`synchronous=NORMAL`) | what was not yet sent is lost | the last commits may be lost, the file stays whole |
| Prefect, `fsync` row | the same; the server is patched to `FULL`, for which Prefect has no setting | the same | \
what the server has committed is there; the client has not waited for it |
| DBOS, default | its output is committed and synced (rollback journal, `synchronous=FULL`) | it is there | it \
is there |
| DBOS, `fsync` row | its output is committed and synced (WAL, `FULL`: fewer syncs per commit than its default) | it \
is there | it is there |
| DBOS, process-loss row | its output is committed (WAL, `NORMAL`) | it is there | the last commits may be lost |
| raw, default | one committed row (WAL, `NORMAL`; `FULL` in the `fsync` row); thread pool and gather keep nothing | \
it is there | the last commits may be lost; with `FULL` it is there |

In the first rows each side runs as it comes, so DBOS is paying for a power loss that Flightlog and Prefect do not
cover there. The two rows of equal durability take that away: there each side has the same journal and the same
`synchronous`. Even so Prefect's client never waits for its server's disk, and Flightlog commits the start of a task
where DBOS commits its output: both are one commit per task. The rows "on record after SIGKILL" are measured, not
claimed: a flow calls that many tasks, each returns, and the process is killed at once; then the database is read.
A number below that of the tasks is work that had returned and is not on record as completed: with Flightlog it is on
record as started.
"""

_REPEAT = """\
## How to repeat

From a checkout, in an environment that has Flightlog installed:

```
make bench
python benchmarks/run.py --rounds 3 --output docs/explanation/benchmarks.md
python benchmarks/run.py --quick
python benchmarks/run.py --only sequential --rounds 5
```

The environments of the others are made at the first use, under `benchmarks/.envs`. A side that cannot be installed
is skipped, and its column is missing. Every process talks to 127.0.0.1 only, but for that installation.
"""


def _plain_table(table: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = []
    for line in table:
        first, *rest = line
        cells = [first.ljust(widths[0]), *[c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)]]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _markdown_table(table: list[list[str]]) -> str:
    head, *lines = table
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ruler, *lines])


def _remarks(rows: Sequence[Row], sides: Sequence[Side], skipped: Sequence[str]) -> list[str]:
    titles = {side.name: side.title for side in sides}
    lines = list(skipped)
    lines += [f"{side.title}'s environment: {note}" for side in sides for note in side.notes]
    lines += [f"{row.title}: no number for {titles[name]}: {why}" for row in rows for name, why in row.notes.items()]
    return lines


def plain(rows: Sequence[Row], sides: Sequence[Side], skipped: Sequence[str]) -> str:
    """Return the report for a terminal."""
    parts = [_plain_table(_table(rows, sides)), _plain_table(targets(rows)), *_remarks(rows, sides, skipped)]
    return "\n\n".join(parts).replace("**", "")


def _facts(sides: Sequence[Side], machine: Machine) -> str:
    lines = [
        f"- {machine.day}, {machine.minutes:.0f} minutes, {machine.rounds} rounds",
        f"- {machine.cores} cores ({machine.processor}), {machine.system}",
        f"- load average {machine.load}",
    ]
    for side in sides:
        versions = ", ".join(f"{name} {version}" for name, version in side.facts.items())
        lines.append(f"- {side.title}: {versions or 'unknown'}")
    return "\n".join(lines)


def page(rows: Sequence[Row], sides: Sequence[Side], skipped: Sequence[str], machine: Machine) -> str:
    """Return the page of the documentation."""
    titles = {side.name: side.title for side in sides}
    compared = _COMPARED.format(prefect=titles.get("prefect", "Prefect"), dbos=titles.get("dbos", "DBOS"))
    remarks = "\n".join(f"- {line}" for line in _remarks(rows, sides, skipped))
    warning = "**A partial or quick run: these numbers are for trying the benchmark out.**\n\n" * machine.partial
    parts = [
        compared,
        _DURABILITY,
        f"## The table\n\n{warning}The ratios are of medians; above 1 is good for Flightlog in the first two and the "
        "distance\nfrom the limit in the third. A `-` is a number that there is not.\n\n"
        + _markdown_table(_table(rows, sides)),
        "## The targets\n\nFrom the medians above. " + _FLAT_MEANS + "\n\n" + _markdown_table(targets(rows)),
        f"## Remarks on this run\n\n{remarks}" if remarks else "",
        "## How far the samples lie apart\n\n" + _markdown_table(_spread(rows, sides)),
        _REPEAT,
        "## The machine and the versions\n\n" + _facts(sides, machine),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"
