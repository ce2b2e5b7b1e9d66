"""A Dask client for the code of flows and tasks: for Dask's own collections, on the flow run's cluster."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from distributed import Client, get_worker

from flightlog.context import FlowRunContext
from flightlog.errors import MissingContextError


@contextmanager
def get_dask_client(timeout: float | str | None = None, **client_kwargs: Any) -> Iterator[Client]:
    """Yield a client that is connected to the cluster of the present flow run, and is the default one meanwhile.

    Args:
        timeout: how long to wait for the connection, in seconds.
        **client_kwargs: further arguments for `distributed.Client`.

    Raises:
        MissingContextError: this is no code of a flow run with a `DaskTaskRunner`, nor of a task in its cluster.
    """
    with Client(**_arguments(timeout, client_kwargs)) as client:
        yield client


@asynccontextmanager
async def get_async_dask_client(timeout: float | str | None = None, **client_kwargs: Any) -> AsyncIterator[Client]:
    """Yield a client for coroutines; see `get_dask_client`."""
    async with Client(asynchronous=True, **_arguments(timeout, client_kwargs)) as client:
        yield client


def _arguments(timeout: float | str | None, given: dict[str, Any]) -> dict[str, Any]:
    known = {} if timeout is None else {"timeout": timeout}
    return {"address": _address(), **known, **given}


def _address() -> str:
    """Return the address of the present flow run's scheduler."""
    flow_run = FlowRunContext.get()
    client = getattr(None if flow_run is None else flow_run.task_runner, "client", None)
    if client is not None:
        address: str = client.scheduler.address
        return address
    try:
        found: str = get_worker().scheduler.address
    except ValueError:
        raise MissingContextError(
            "There is no Dask cluster here: get_dask_client() works in a flow whose task runner is DaskTaskRunner(), "
            "and in tasks that it has submitted."
        ) from None
    return found
