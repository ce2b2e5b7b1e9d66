"""A tutorial's first pipeline: ask an API with retries, cache the answers, log a summary."""

import json
import os
from datetime import timedelta
from urllib.request import urlopen

from flightlog import flow, get_run_logger, task
from flightlog.tasks import task_input_hash


@task(retries=3, retry_delay_seconds=0.01, cache_key_fn=task_input_hash, cache_expiration=timedelta(hours=1))
def get_url(path: str) -> dict:
    """Ask the API; it fails now and then."""
    with urlopen(os.environ["API"] + path) as answer:
        return json.load(answer)


def count(repository: dict) -> int:
    """Be ordinary code, which needs no decorator."""
    return repository["stars"]


@task
def get_open_issues(repository: str, pages: int) -> int:
    """Add pages up."""
    return sum(get_url(f"/{repository}/issues?page={page}")["issues"] for page in range(pages))


@flow(log_prints=True, flow_run_name="statistics of {repository}")
def repository_statistics(repository: str = "owner/project") -> dict:
    """Collect what is known of a repository."""
    found = get_url(f"/{repository}")
    issues = get_open_issues.submit(repository, 3)
    again = get_url(f"/{repository}")
    print(f"Stars: {count(found)}")
    get_run_logger().info("The second answer came from the cache: %s", found == again)
    return {"stars": count(found), "issues": issues.result()}


if __name__ == "__main__":
    print(json.dumps(repository_statistics("owner/project")))
