"""What is said of a name that `flightlog` does not have: that it is to come, where it is, or what is near."""

from difflib import get_close_matches
from importlib import import_module
from typing import Final

_DEPLOYMENTS: Final = "it comes with deployments; until then call the flow, or use `flightlog run FILE.py:FLOW`"
TO_COME: Final = {
    **dict.fromkeys(("serve", "aserve", "deploy", "adeploy", "Deployment"), _DEPLOYMENTS),
    "get_client": "it comes with the server; until then the command line tells of runs, with --json for programs",
}
"""Names that users of Prefect know and that are not there yet, and what is said of them."""

_SUBMODULES: Final = (
    "artifacts",
    "blocks",
    "cache_policies",
    "concurrency",
    "concurrency.sync",
    "context",
    "exceptions",
    "filesystems",
    "flow_runs",
    "flows",
    "futures",
    "input",
    "logging",
    "results",
    "runtime",
    "serializers",
    "states",
    "task_runners",
    "tasks",
    "testing",
    "transactions",
    "utilities.annotations",
    "variables",
)


def why_missing(name: str, known: list[str], *, everywhere: bool) -> str:
    """Return one sentence about a name that there is not.

    Args:
        name: the name.
        known: the names that there are.
        everywhere: whether to look into the modules for users, too, which takes some time.
    """
    if name in TO_COME:
        return f"flightlog has no {name!r} yet: {TO_COME[name]}."
    homes = (_homes() if everywhere else {}) | dict.fromkeys(known, "")
    if name in homes:
        return f"flightlog has no {name!r}; it is in flightlog.{homes[name]}."
    near = get_close_matches(name, homes, 1)
    if not near:
        return f"flightlog has no {name!r}, and nothing like it."
    home = homes[near[0]]
    return f"flightlog has no {name!r}; did you mean {near[0]!r}{f' of flightlog.{home}' if home else ''}?"


def _homes() -> dict[str, str]:
    """Return where the names for users are that are not at the front door."""
    return {name: module for module in reversed(_SUBMODULES) for name in import_module(f"flightlog.{module}").__all__}
