"""Count the stars of repositories, all at once."""

import asyncio
import os
import sys

import httpx

from flightlog import flow, task

API = os.environ.get("GITHUB_API", "https://api.github.com")


@task(retries=3)
async def get_stars(repo: str) -> int:
    """Return how many stars a repository has, and say so."""
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{API}/repos/{repo}", timeout=10)
    response.raise_for_status()
    count: int = response.json()["stargazers_count"]
    print(f"{repo} has {count} stars!")
    return count


@flow(name="github-stars")
async def github_stars(repos: list[str]) -> None:
    """Count the stars of every repository."""
    futures = [await get_stars.submit(repo) for repo in repos]
    await asyncio.gather(*[future.result() for future in futures])


if __name__ == "__main__":
    asyncio.run(github_stars(sys.argv[1:] or ["python/cpython", "pallets/click"]))
