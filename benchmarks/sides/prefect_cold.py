"""A whole process with one flow and one task: Prefect.

Without PREFECT_API_URL Prefect starts a temporary server of its own, which is how it comes.
"""

from prefect import flow, task  # type: ignore[import-not-found]


def _noop() -> int:
    return 1


noop = task(_noop)


def _main() -> int:
    result: int = noop()
    return result


if __name__ == "__main__":
    flow(_main)()
