"""`DaskTaskRunner`: submitted tasks run in the workers of a Dask cluster."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Self

from flightlog.clusters import RelayedTaskRunner, Transport
from flightlog_dask.transport import DaskTransport

_CLUSTER_CLASS = "distributed.LocalCluster"


class DaskTaskRunner(RelayedTaskRunner):
    """Runs submitted tasks in the workers of a Dask cluster: of a temporary one for each flow run by default.

    A script needs ``if __name__ == "__main__":`` around what it runs.

    Args:
        cluster: a cluster that is there already; it is used, and left as it is.
        address: the address of the scheduler of one.
        cluster_class: what makes the temporary cluster, or its full name; `distributed.LocalCluster` by default.
        cluster_kwargs: its arguments.
        adapt_kwargs: arguments for the cluster's ``adapt``; without them it keeps its size.
        client_kwargs: arguments for the `distributed.Client` that the flow run uses.

    Raises:
        ValueError: these do not go together.
    """

    def __init__(
        self,
        cluster: Any = None,
        address: str | None = None,
        cluster_class: Any = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        adapt_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check(cluster, address, (cluster_class, cluster_kwargs), adapt_kwargs)
        for name, given in (("cluster_kwargs", cluster_kwargs), ("client_kwargs", client_kwargs)):
            if "asynchronous" in (given or {}):
                raise ValueError(f"`{name}` cannot set `asynchronous`: the task runner does.")
        self.cluster = cluster
        self.address = address
        self.cluster_class = cluster_class
        self.cluster_kwargs = dict(cluster_kwargs or {})
        self.adapt_kwargs = dict(adapt_kwargs or {})
        self.client_kwargs = dict(client_kwargs or {})
        self._client: Any = None
        self._own_cluster: Any = None

    @property
    def client(self) -> Any:
        """The `distributed.Client` of the flow run that is under way; None outside of one."""
        return self._client

    def duplicate(self) -> Self:
        """Return a runner like this one that has not been started."""
        return type(self)(
            self.cluster, self.address, self.cluster_class, self.cluster_kwargs, self.adapt_kwargs, self.client_kwargs
        )

    def _connect(self) -> Transport:
        distributed: Any = import_module("distributed")
        where = self._there() or self._new()
        self._client = distributed.Client(where, **{"set_as_default": False, **self.client_kwargs})
        if self._client.dashboard_link:
            self.logger.info("The Dask dashboard is available at %s", self._client.dashboard_link)
        adaptive = self._own_cluster is None or bool(self.adapt_kwargs)
        return DaskTransport(self._client, grows=adaptive)

    def _there(self) -> Any:
        """Return the cluster, or the address of one, that is there already; None if there is none."""
        if self.cluster is not None:
            self.logger.info("Connecting to existing Dask cluster %s", self.cluster)
            if self.adapt_kwargs:
                self.cluster.adapt(**self.adapt_kwargs)
            return self.cluster
        if self.address is not None:
            self.logger.info("Connecting to an existing Dask cluster at %s", self.address)
        return self.address

    def _new(self) -> Any:
        """Return a new cluster."""
        made_by = _found(self.cluster_class or _CLUSTER_CLASS)
        name = f"{made_by.__module__}.{getattr(made_by, '__qualname__', made_by)}"
        self.logger.info("Creating a new Dask cluster with `%s`", name)
        self._own_cluster = made_by(**self.cluster_kwargs)
        if self.adapt_kwargs:
            self._own_cluster.adapt(**self.adapt_kwargs)
        return self._own_cluster

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        cluster, self._own_cluster = self._own_cluster, None
        try:
            if client is not None:
                client.close()
        finally:
            if cluster is not None:
                cluster.close()

    def __reduce__(self) -> Any:
        """Travel with a flow that a task calls; a cluster that is given, as its address."""
        address = self.address if self.cluster is None else self.cluster.scheduler_address
        new = (self.cluster_class, self.cluster_kwargs, self.adapt_kwargs)
        return type(self), (None, address, *(new if address is None else (None, None, None)), self.client_kwargs)

    def __repr__(self) -> str:
        where = self.cluster if self.cluster is not None else self.address
        return f"DaskTaskRunner({'' if where is None else repr(where)})"


def _check(cluster: Any, address: str | None, new: tuple[Any, Any], adapt_kwargs: Any) -> None:
    """Refuse arguments that do not go together."""
    if address is not None and (cluster is not None or any(new) or adapt_kwargs):
        raise ValueError(
            "Cannot specify `address` and `cluster`, `cluster_class`, `cluster_kwargs` or `adapt_kwargs`: "
            "the cluster at an address is there already."
        )
    if cluster is not None and any(new):
        raise ValueError("Cannot specify `cluster` and `cluster_class` or `cluster_kwargs`: it is there already.")


def _found(made_by: Any) -> Any:
    """Return what makes a cluster, by its full name or as it is."""
    if not isinstance(made_by, str):
        return made_by
    module, _, name = made_by.rpartition(".")
    return getattr(import_module(module), name)
