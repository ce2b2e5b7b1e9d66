"""`RayTaskRunner`: submitted tasks run in the workers of a Ray cluster."""

import os
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Self

from flightlog.clusters import RelayedTaskRunner, Transport


class RayTaskRunner(RelayedTaskRunner):
    """Runs submitted tasks in the workers of a Ray cluster: of a temporary one for each flow run by default.

    If this process is connected to a cluster already, that is used, and left as it is.

    Args:
        address: a cluster that is there: ``auto``, ``<host>:<port>``, or ``ray://<host>:<port>``.
        init_kwargs: further arguments for `ray.init`.

    Raises:
        ValueError: `init_kwargs` has an address too.
    """

    def __init__(self, address: str | None = None, init_kwargs: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if "address" in (init_kwargs or {}):
            raise ValueError("`init_kwargs` cannot set `address`: give it to RayTaskRunner itself.")
        self.address = address
        self.init_kwargs = dict(init_kwargs or {})
        self._connected = False

    def duplicate(self) -> Self:
        """Return a runner like this one that has not been started."""
        return type(self)(self.address, self.init_kwargs)

    def _connect(self) -> Transport:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported unless somebody wants it to be
        _CONNECTION.enter(self)
        self._connected = True
        from flightlog_ray.transport import RayTransport

        return RayTransport()

    def _disconnect(self) -> None:
        if self._connected:
            self._connected = False
            _CONNECTION.leave()

    def __repr__(self) -> str:
        return f"RayTaskRunner({'' if self.address is None else repr(self.address)})"


class _Connection:
    """This process's connection to a cluster, which all flow runs share: Ray has one for each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._is_ours = False

    def enter(self, runner: RayTaskRunner) -> None:
        """Connect, if that has not been done."""
        ray: Any = import_module("ray")
        with self._lock:
            if ray.is_initialized():
                runner.logger.info("Using the Ray cluster that this process is connected to")
            else:
                self._open(ray, runner)
                self._is_ours = True
            self._users += 1

    def _open(self, ray: Any, runner: RayTaskRunner) -> None:
        if runner.address is None:
            runner.logger.info("Creating a local Ray instance")
        else:
            runner.logger.info("Connecting to an existing Ray instance at %s", runner.address)
        # Without an address Ray would look for a cluster; `local` makes one.
        context = ray.init(runner.address or "local", **runner.init_kwargs)
        if url := getattr(context, "dashboard_url", None):
            runner.logger.info("The Ray UI is available at %s", url)

    def leave(self) -> None:
        """Disconnect, if nobody else needs it and it was made here."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._is_ours:
                self._is_ours = False
                import_module("ray").shutdown()


_CONNECTION = _Connection()
