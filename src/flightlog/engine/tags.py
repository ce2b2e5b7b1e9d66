"""Tags: labels that runs are found by."""

from collections.abc import Iterator
from contextlib import contextmanager

from flightlog.engine.context import TAGS


@contextmanager
def tags(*names: str) -> Iterator[set[str]]:
    """Give tags to all flow runs and task runs that are called while this is open; nested ones add up.

    Args:
        names: the tags.

    Yields:
        set[str]: the tags that hold now.

    Raises:
        TypeError: a tag is no string.
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"Tags are strings; {name!r} is none.")
    token = TAGS.set(TAGS.get() | frozenset(names))
    try:
        yield set(TAGS.get())
    finally:
        TAGS.reset(token)
