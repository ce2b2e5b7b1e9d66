"""``flightlog runs to-test``: a recorded run as a test."""

import re
from pathlib import Path

import click

from flightlog.cli.main import FAILED, OK
from flightlog.cli.printing import color_option, complain, note, say
from flightlog.cli.reading import projected, writing


@click.command("to-test", short_help="Make a test of a run, that fails as it failed.")
@click.argument("run", default="@last-failed")
@click.option(
    "--output", "-o", help="The file; test_FLOW_ID.py here by default, - for standard output.", metavar="FILE"
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@color_option
def to_test(run: str, output: str | None, force: bool) -> int:
    """Make a test for pytest of a run: calls that completed return what they returned then, all others run.

    So it needs neither the log nor the network of the calls that completed; it fails as the run failed, and passes once
    the reason is mended. Of a run that completed, it tests that the same comes out.

    \b
    Examples:
      flightlog runs to-test
      flightlog runs to-test brave-heron -o tests/test_no_rows.py
    """
    from flightlog.engine.replay_files import replay_file
    from flightlog.ids import parse_id
    from flightlog.projections.queries import find_flow_run

    with projected() as projector:
        found = find_flow_run(projector, run)
    name = re.sub(r"\W+", "_", found.flow).strip("_").lower() or "flow"
    path = Path(output or f"test_{name}_{found.id[:8]}.py")
    if output != "-" and path.exists() and not force:
        complain(f"{path} is there already. Name another file with -o, or say --force.")
        return FAILED
    with writing() as engine:
        made = replay_file(engine, parse_id(found.id), Path.cwd() if output == "-" else path.absolute().parent)
    if output == "-":
        say(made.text.rstrip("\n"))
    else:
        try:
            path.write_text(made.text, encoding="utf-8")
        except OSError as error:
            complain(f"{path} cannot be written: {error.strerror}.")
            return FAILED
        note(f"Written: {path}. Run it: pytest {path}")
    for remark in made.remarks:
        note(remark)
    return OK
