"""Flightlog beside Prefect, DBOS and the raw limit, in one run.

How to repeat::

    python benchmarks/run.py                  # everything, three rounds, about twenty minutes
    python benchmarks/run.py --quick          # small numbers, one round: does it still run?
    python benchmarks/run.py --only import    # the cases whose names begin with `import`
    python benchmarks/run.py --rounds 5 --output docs/explanation/benchmarks.md

The orchestrator needs the standard library only. It runs under the interpreter that has Flightlog, makes
an environment for each of the others under ``benchmarks/.envs`` at the first use (one that cannot be made
is skipped with a line that says why), starts Prefect's server on a private port of 127.0.0.1 and stops it
again. All data is in a temporary folder. The sides take turns within a case, so that what else the machine
does hits all of them; the table has the medians.

No test asserts a time: these numbers are for reading.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench_cases import QUICK, Bench, Sizes, run_cases
from bench_report import Machine, page, plain
from bench_sides import all_sides, facts


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Flightlog beside Prefect, DBOS and the raw limit.")
    parser.add_argument("--quick", action="store_true", help="small numbers and one round")
    parser.add_argument("--rounds", type=int, help="how often each side is measured (3; 1 with --quick)")
    parser.add_argument("--only", action="append", default=[], metavar="CASE", help="cases that begin so")
    parser.add_argument("--output", type=Path, help="write the page here, as Markdown")
    return parser.parse_args()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def main() -> None:
    """Run what the command line asks for."""
    arguments = _arguments()
    # So that Prefect's server is ended on the way out of this too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sides, skipped = all_sides()
    for line in skipped:
        print(line, file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="flightlog-bench-"))
    for side in sides:
        side.facts = facts(side, folder / side.name / "facts")
    load, began = _load(), time.monotonic()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    bench = Bench(sides, rounds, QUICK if arguments.quick else Sizes(), folder)
    run_cases(bench, arguments.only)
    machine = Machine(
        processor=_processor(),
        cores=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.release()}",
        load=f"{load} before the run, {_load()} after it (which the run itself raises)",
        day=datetime.now(UTC).date().isoformat(),
        minutes=(time.monotonic() - began) / 60,
        rounds=rounds,
        partial=arguments.quick or bool(arguments.only),
    )
    print(plain(bench.rows, sides, skipped))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(page(bench.rows, sides, skipped, machine), encoding="utf-8")
        print(f"\nwritten: {arguments.output}")


if __name__ == "__main__":
    main()
