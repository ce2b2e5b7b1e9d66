"""Count the stars of repositories, one after the other."""

import os
import sys

import httpx

from flightlog import flow, task

API = os.environ.get("GITHUB_API", "https://api.github.com")


@task(retries=3)
def get_stars(repo: str) -> int:
    """Return how many stars a repository has, and say so."""
    response = httpx.get(f"{API}/repos/{repo}", timeout=10)
    response.raise_for_status()
    count: int = response.json()["stargazers_count"]
    print(f"{repo} has {count} stars!")
    return count


@flow(name="github-stars")
def github_stars(repos: list[str]) -> None:
    """Count the stars of every repository."""
    for repo in repos:
        get_stars(repo)


if __name__ == "__main__":
    github_stars(sys.argv[1:] or ["python/cpython", "pallets/click"])
