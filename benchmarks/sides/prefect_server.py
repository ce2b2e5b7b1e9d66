"""`prefect server start`, with SQLite's `synchronous` as BENCH_SYNCHRONOUS says.

Prefect sets NORMAL itself on each new connection and has no setting for it. So its connection hook is
wrapped: all it does still happens, and then the pragma is set again.
"""

import os
import runpy
import sys
from typing import Any

from prefect.server.database.configurations import (  # type: ignore[import-not-found]
    AioSqliteConfiguration,
)

_LEVEL = os.environ["BENCH_SYNCHRONOUS"]
_set_up = AioSqliteConfiguration.setup_sqlite


def _set_up_and_sync(self: Any, connection: Any, record: Any) -> None:
    _set_up(self, connection, record)
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA synchronous = {_LEVEL}")
    cursor.close()


AioSqliteConfiguration.setup_sqlite = _set_up_and_sync
sys.argv[0] = "prefect"
runpy.run_module("prefect", run_name="__main__")
