"""Tags: labels that runs are found by."""

from collections.abc import Iterator
from contextlib import contextmanager

from flightlog.engine.context import TAGS
from flightlog.engine.options import checked_tags


@contextmanager
def tags(*names: str) -> Iterator[set[str]]:
    """Give tags to all flow runs and task runs that are called while this is open; nested ones add up.

    Args:
        names: the tags.

    Yields:
        set[str]: the tags that hold now.

    Raises:
        TypeError: a tag is no string.
        ValueError: a tag is too long, or cannot be printed.
    """
    checked = checked_tags(names)
    token = TAGS.set(TAGS.get() | checked)
    try:
        yield set(TAGS.get())
    finally:
        TAGS.reset(token)
