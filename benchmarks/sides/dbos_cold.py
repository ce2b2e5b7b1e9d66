"""A whole process with one workflow and one step: DBOS.

It ends without `DBOS.destroy`, which would wait a second for idle threads; what it did is recorded by then.
"""

import os

from dbos import DBOS  # type: ignore[import-not-found]


def _noop() -> int:
    return 1


noop = DBOS.step()(_noop)


def _main() -> int:
    result: int = noop()
    return result


main = DBOS.workflow()(_main)

if __name__ == "__main__":
    url = f"sqlite:///{os.environ['DBOS_BENCH_FILE']}"
    DBOS(config={"name": "bench", "system_database_url": url})
    DBOS.launch()
    main()
