"""A tutorial's page on states: failures that are caught, passed on, allowed, and returned by hand."""

from flightlog import allow_failure, flow, task
from flightlog.states import Completed, Failed


@task
def always_fails() -> None:
    """Fail."""
    raise ValueError("I fail successfully")


@task
def always_succeeds() -> str:
    """Succeed."""
    return "foo"


@task
def cleans_up(error: object) -> str:
    """Come after a failure."""
    return f"cleaned up after {type(error).__name__}"


@flow
def returns_a_future() -> object:
    """Fail with what it returns."""
    return always_fails.submit()


@flow
def returns_a_value() -> str:
    """Succeed, though a task failed."""
    always_fails.submit()
    return "a value"


@flow
def returns_states(fail: bool) -> object:
    """Say itself how it went."""
    state = always_fails(return_state=True)
    if state.is_failed() and fail:
        return Failed(message="How did this happen!?")
    return Completed(message="I am happy with this result")


@flow
def allows() -> str:
    """Go on after a failure."""
    return cleans_up(allow_failure(always_fails.submit()))


@flow
def parent() -> list[str]:
    """Ask subflows for their states."""
    states = [child(return_state=True) for child in (returns_a_future, returns_a_value)]
    states += [returns_states(True, return_state=True), returns_states(False, return_state=True)]
    return [str(state) for state in states] + [allows(), always_succeeds()]


if __name__ == "__main__":
    for line in parent():
        print(line)
