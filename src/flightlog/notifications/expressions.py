"""Expressions over an event's fields: ``data.attempt >= 2 and 'prod' in tags``. Sandboxed, without side effects."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

NAMES: Final = {
    "type": "the event's type, such as `flow_run.failed`",
    "data": "its payload",
    "flow": "the flow's name; None where there is none",
    "run": "the flow run's name; None where there is none",
    "task": "the task's name; None for a flow run",
    "tags": "the run's tags",
    "state": "the state's name",
    "state_type": "the state's type",
    "parameters": "the flow run's parameters, as they are shown",
    "duration": "how long the run took, in seconds; None if that is not known",
}
"""What an expression can use."""


def check_expression(source: str) -> str:
    """Return an expression if it is one.

    Raises:
        ValueError: it cannot be read, or uses a name that there is not.
    """
    from jinja2 import TemplateError, meta

    from flightlog.names import did_you_mean
    from flightlog.notifications.templates import TemplateProblem, allowed, environment

    try:
        tree = environment().parse("{{ " + source + " }}")
        allowed(tree)
        used = meta.find_undeclared_variables(tree)
        environment().compile_expression(source)
    except (TemplateError, TemplateProblem) as error:
        raise ValueError(f"the expression {source!r} cannot be read: {error}") from None
    for name in sorted(used - NAMES.keys()):
        raise ValueError(f"the expression {source!r} uses {name!r}, which there is not.{did_you_mean(name, NAMES)}")
    return source


@lru_cache(256)
def compiled(source: str) -> Callable[[Mapping[str, Any]], bool]:
    """Return what tells whether an expression holds of some names; one that fails does not."""
    from flightlog.notifications.templates import environment

    expression = environment().compile_expression(source)

    def holds(names: Mapping[str, Any]) -> bool:
        try:
            return bool(expression(**names))
        except Exception:  # noqa: BLE001 - an expression that does not fit an event does not hold of it
            return False

    return holds
