"""What Flightlog's plug-in host finds."""

from typing import Any

from flightlog.plugins import hookimpl


@hookimpl
def register_task_runners() -> dict[str, Any]:
    """Let flows name the runner: ``@flow(task_runner="dask")``."""
    from flightlog_dask.task_runners import DaskTaskRunner

    return {"dask": DaskTaskRunner}
