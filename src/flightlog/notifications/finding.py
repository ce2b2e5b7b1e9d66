"""Where the file is that configures notifications. Every process looks for it, so this imports next to nothing."""

import re
from pathlib import Path
from typing import Final

OWN_FILE: Final = "notifications.toml"
SHARED_FILE: Final = "flightlog.toml"
TABLE: Final = "notifications"
ENCODING: Final = "utf-8-sig"
"""Some editors put a mark in front."""


def find_file(directory: Path, home: Path) -> Path | None:
    """Return the file that configures notifications: in a directory, else in the home folder; None if there is none.

    Args:
        directory: the working directory.
        home: the folder of all files that Flightlog keeps.
    """
    for folder in (directory, home):
        if (own := folder / OWN_FILE).is_file():
            return own
        shared = folder / SHARED_FILE
        if shared.is_file() and _has_table(shared):
            return shared
    return None


def _has_table(file: Path) -> bool:
    try:
        return re.search(rf"^\s*\[+\s*{TABLE}\b", file.read_text(ENCODING), re.MULTILINE) is not None
    except (OSError, UnicodeDecodeError):
        return False
