"""A tutorial's first pages, with nothing but the import changed: options, retries, caching, logging, states."""

from datetime import UTC, datetime, timedelta

from flightlog import flow, get_run_logger, tags, task
from flightlog.client.schemas.objects import FlowRun
from flightlog.exceptions import FailedRun
from flightlog.flows import Flow
from flightlog.logging import get_run_logger as the_same_logger
from flightlog.runtime import flow_run, task_run
from flightlog.states import Completed, Failed, State, StateType
from flightlog.tasks import exponential_backoff, task_input_hash

attempts = []
computed = []


def notify(flow: Flow, flow_run: FlowRun, state: State) -> None:
    """Say how it went."""
    print(f"{flow.name} with {flow_run.parameters} is {state.name}")


@task(
    name="My Example Task",
    description="An example task for a tutorial.",
    tags=["tutorial", "tag-test"],
    task_run_name="hello-{name}-on-{date:%A}",
)
def my_task(name, date):
    """Say hello."""
    get_run_logger().info("Hello %s", name)
    return task_run.name, sorted(task_run.tags)


@task(retries=3, retry_delay_seconds=exponential_backoff(backoff_factor=0.001), retry_jitter_factor=0.5)
def flaky():
    """Fail twice."""
    attempts.append(task_run.run_count)
    if len(attempts) < 3:
        raise ValueError("not yet")
    return attempts


@task(cache_key_fn=task_input_hash, cache_expiration=timedelta(minutes=1))
def hello_task(name_input):
    """Be computed once."""
    computed.append(name_input)
    return f"hello {name_input}"


def generate_flow_run_name():
    """Name a run."""
    return f"{flow_run.flow_name}-for-{flow_run.parameters['name']}"


@flow(
    name="My Flow", flow_run_name=generate_flow_run_name, log_prints=True, on_completion=[notify], on_failure=[notify]
)
def my_flow(name: str = "world", fail: bool = False):
    """Do all of it."""
    the_same_logger().warning("starting")
    with tags("nightly"):
        print(my_task(name, datetime(2023, 1, 1, tzinfo=UTC)))
    print(flaky(), hello_task("a"), hello_task("a"))
    if fail:
        return Failed(message="How did this happen!?")
    return Completed(message="I am happy with this result", data=42)


if __name__ == "__main__":
    state = my_flow("marvin", return_state=True)
    print(state.type == StateType.COMPLETED, state.name, state.message, state.result(), state.result(fetch=True))
    print(attempts, computed)
    try:
        my_flow(fail=True)
    except FailedRun as error:
        print("failed:", error)
