"""A whole process with one flow and one task: Flightlog."""

from flightlog import flow, task


@task
def noop() -> int:
    """Return something."""
    return 1


@flow
def main() -> int:
    """Call the task."""
    return noop()


if __name__ == "__main__":
    main()
