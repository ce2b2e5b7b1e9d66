"""A tutorial's page on people in the loop: a deployment that waits for somebody's word, and undoes what fails."""

import sys

from flightlog import flow, suspend_flow_run, task
from flightlog.artifacts import create_markdown_artifact, create_table_artifact
from flightlog.input import RunInput
from flightlog.transactions import transaction
from flightlog.variables import Variable


class Decision(RunInput):
    """What somebody has to say."""

    approved: bool
    reason: str = "none given"


@task
def build(version: str) -> str:
    """Build something."""
    print(f"built {version}", file=sys.stderr)
    return f"image:{version}"


@task
def deploy(image: str) -> None:
    """Put it in place."""
    print(f"deployed {image}")


@deploy.on_rollback
def undeploy(transaction) -> None:
    """Take it away again."""
    print(f"took {transaction.get('image')} away")


@task
def check(healthy: bool) -> None:
    """See whether it works."""
    if not healthy:
        raise RuntimeError("it does not answer")


@flow
def release(version: str, healthy: bool = True) -> str:
    """Build, ask, deploy, check."""
    image = build(version)
    decision = suspend_flow_run(wait_for_input=Decision.with_initial_data(f"Shall {image} go out?"))
    create_markdown_artifact(f"# {version}\n\n{decision.reason}", key="release-notes")
    if not decision.approved:
        return "not released"
    with transaction() as together:
        together.set("image", image)
        deploy(image)
        check(healthy)
    Variable.set("released", version, overwrite=True)
    create_table_artifact([{"version": version, "image": image}], key="releases")
    return "released"
