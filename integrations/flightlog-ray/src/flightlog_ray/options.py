"""What Ray is told of the tasks that a flow submits."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

OPTIONS: ContextVar[Mapping[str, Any]] = ContextVar("flightlog_ray_options", default=MappingProxyType({}))
"""The options that hold here."""


@contextmanager
def remote_options(**options: Any) -> Iterator[None]:
    """Submit tasks to Ray with some options while this is open, such as ``num_cpus=4`` or ``num_gpus=1``.

    Args:
        **options: what ``ray.remote`` takes; they are added to those that hold already.

    Raises:
        ValueError: ``num_returns`` is among them, which the task runner sets.
    """
    if "num_returns" in options:
        raise ValueError("remote_options() cannot set `num_returns`: the task runner does.")
    token = OPTIONS.set({**OPTIONS.get(), **options})
    try:
        yield
    finally:
        OPTIONS.reset(token)
