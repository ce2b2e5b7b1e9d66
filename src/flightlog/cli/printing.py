"""How things are printed: tables for people, tab-separated when piped, JSON for programs."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flightlog.events.narration import ICONS, NO_ICON
from flightlog.events.subjects import hidden
from flightlog.names import did_you_mean

if TYPE_CHECKING:
    from flightlog.events.subjects import Vault

F = TypeVar("F", bound=Callable[..., Any])

_NARROWEST = 9  # an id's first eight digits tell it from the others
_WHOLE = frozenset({"STATE", "CREATED", "WHEN", "POSITION", "TOOK", "TASKS", "TYPE"})

_COLORS = {
    "COMPLETED": "green",
    "FAILED": "red",
    "CRASHED": "magenta",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "RUNNING": "blue",
    "SCHEDULED": "yellow",
    "PAUSED": "yellow",
    "PENDING": "bright_black",
}


_vault: "Vault | None" = None


def reveal_with(vault: "Vault") -> None:
    """Show from here on what is encrypted as personal data of somebody, as far as the keys are there."""
    global _vault  # noqa: PLW0603 - one command, one log
    _vault = vault


def revealed(text: str) -> str:
    """Return a text as it is shown: with what is encrypted in it, as far as the keys are there."""
    return hidden(text) if _vault is None else _vault.revealed(text, clean)


def _revealed_in(document: Any) -> Any:
    return document if _vault is None else _vault.revealed_in(document)


def nearest(wanted: str | None, known: Sequence[str], option: str) -> str:
    """Return what somebody may have meant by the value of an option that fits nothing; empty if that is no question."""
    if wanted is None or wanted in known:
        return ""
    return did_you_mean(wanted, known, before=f"{option} ", else_say=f" There is no {option} {wanted}.")


def complain(text: str) -> None:
    """Print one line about what is wrong, beside the data."""
    click.echo(f"{click.style('Error:', fg='red')} {revealed(text)}", err=True)


def not_found(what: str, name: str, known: Sequence[str]) -> int:
    """Say that there is nothing of that name, and which name may have been meant; return the exit code for that.

    Args:
        what: what it would have been, such as ``variable``.
        name: what was typed.
        known: the names that there are.
    """
    from flightlog.cli.main import NOT_FOUND

    hint = did_you_mean(name, known, else_say=None if known else " There are none yet.")
    complain(f"There is no {what} {name!r}.{hint}")
    return NOT_FOUND


def json_option(function: F) -> F:
    """Add ``--json`` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def as_of_option(function: F) -> F:
    """Add ``--as-of`` to a command."""
    return click.option(
        "--as-of", metavar="MOMENT", help="As it was then: a position in the log, or a time (2026-01-31T06:00)."
    )(function)


def color_option(function: F) -> F:
    """Add ``--color`` to a command; the context keeps the answer."""

    def choose(ctx: click.Context, _: click.Parameter, value: str) -> None:
        ctx.color = _wants_color(value)

    return click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        expose_value=False,
        callback=choose,
        help="Colours: `auto` on a terminal only. Also NO_COLOR and FORCE_COLOR.",
    )(function)


def _wants_color(value: str) -> bool:
    if value != "auto":
        return value == "always"
    # https://no-color.org and https://force-color.org: any value but an empty one counts.
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def is_terminal() -> bool:
    """Tell whether a person looks at standard output: a terminal, and not a CI's."""
    return sys.stdout.isatty() and not os.environ.get("CI")


def say(text: str = "", **style: Any) -> None:
    """Print a line of data."""
    context = click.get_current_context(silent=True)
    text = _writable(revealed(text))
    click.echo(click.style(text, **style) if style else text, color=None if context is None else context.color)


def _writable(text: str) -> str:
    """Return text that every terminal's encoding can take: half a surrogate pair as its escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def clean(text: str) -> str:
    """Return text without control characters, which could steer a terminal; they become visible escapes."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def progress(what: str) -> Callable[[int], None] | None:
    """Return what shows on a terminal how far something that takes longer than a second has come; None elsewhere.

    Args:
        what: what is done; the number that it has come to follows.
    """
    if not sys.stderr.isatty():
        return None
    begun = time.monotonic()

    def show(count: int) -> None:
        if time.monotonic() - begun > 1:
            click.echo(f"\r\x1b[K{what} {count:,}", err=True, nl=False)

    return show


def end_progress() -> None:
    """Take away what `progress` has shown."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)


def note(text: str) -> None:
    """Print a line about what goes on, beside the data."""
    click.echo(revealed(text), err=True)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    click.echo(_writable(json.dumps(_revealed_in(document), ensure_ascii=False, indent=2, default=str)))


def print_json_line(document: Any, *, as_recorded: bool = False) -> None:
    """Print one line of JSON.

    Args:
        document: what to print.
        as_recorded: whether what is encrypted stays so.
    """
    document = document if as_recorded else _revealed_in(document)
    click.echo(_writable(json.dumps(document, ensure_ascii=False, default=str)))


def state_label(state_type: str, state_name: str) -> str:
    """Return a state as icon and word."""
    return f"{ICONS.get(state_type, NO_ICON)} {state_name}"


def state_color(state_type: str) -> str:
    """Return the colour that goes with a state type."""
    return _COLORS.get(state_type, "white")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], colors: Sequence[str | None] = ()) -> None:
    """Print rows: aligned with headers on a terminal, its widest columns cut to fit; tab-separated when piped.

    Args:
        headers: the columns' names.
        rows: the cells.
        colors: per row, the colour of its first cell.
    """
    rows = [[clean(revealed(cell)).replace("\t", " ").replace("\n", " ") for cell in row] for row in rows]
    if not is_terminal():
        for row in rows:
            say("\t".join(row))
        return
    from rich.cells import cell_len

    widths = [max(cell_len(str(row[i])) for row in [headers, *rows]) for i in range(len(headers))]
    _cut_to_fit(widths, [i for i, header in enumerate(headers) if header not in _WHOLE])
    say("  ".join(_cell(header, width) for header, width in zip(headers, widths, strict=True)).rstrip(), bold=True)
    for number, row in enumerate(rows):
        cells = [_cell(cell, width) for cell, width in zip(row, widths, strict=True)]
        if number < len(colors) and colors[number]:
            cells[0] = click.style(cells[0], fg=colors[number])
        say("  ".join(cells).rstrip())


def _cut_to_fit(widths: list[int], cut: list[int]) -> None:
    """Make the widest of some columns narrower until all fit the terminal, or nothing is left to cut."""
    room = shutil.get_terminal_size().columns - 2 * (len(widths) - 1)
    while sum(widths) > room and cut and max(widths[i] for i in cut) > _NARROWEST:
        widths[max(cut, key=widths.__getitem__)] -= 1


def _cell(text: str, width: int) -> str:
    """Return a text as wide as its column; what is cut off is told by an ellipsis."""
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def readable(value: object) -> object:
    """Return a value of a row with ids and digests, which are bytes, as text."""
    if isinstance(value, bytes):
        from flightlog.ids import id_text

        return id_text(value) if len(value) == 16 else value.hex()
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    return value
