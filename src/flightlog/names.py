"""Names that people type: the one that they may have meant."""

from collections.abc import Iterable


def did_you_mean(wanted: str, known: Iterable[str], *, before: str = "", else_say: str | None = None) -> str:
    """Return a question that names the nearest known name, with a blank in front.

    Args:
        wanted: what was typed.
        known: the names that there are.
        before: what is to be typed in front of it.
        else_say: what to say if none is near; the names that there are by default, ten at the most.
    """
    from difflib import get_close_matches

    names = list(dict.fromkeys(known))
    near = get_close_matches(wanted, names, 1) or get_close_matches(wanted.replace("_", "-").lower(), names, 1)
    if near:
        return f" Did you mean {before}{near[0]}?" if before else f" Did you mean {near[0]!r}?"
    return f" There are: {', '.join(names[:10])}." if else_say is None else else_say
