"""Flightlog on Dask: ``@flow(task_runner=DaskTaskRunner())``."""

from flightlog_dask.clients import get_async_dask_client, get_dask_client
from flightlog_dask.task_runners import DaskTaskRunner

__version__ = "0.1.0"
__all__ = ["DaskTaskRunner", "get_async_dask_client", "get_dask_client"]
