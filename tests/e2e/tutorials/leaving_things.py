"""A tutorial's later pages in async code, where Prefect 2 awaits what it calls: artifacts, variables, blocks, hooks."""

import asyncio

from flightlog import flow, runtime, task, variables
from flightlog.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from flightlog.blocks.system import Secret
from flightlog.concurrency.asyncio import concurrency, rate_limit
from flightlog.context import get_run_context
from flightlog.events import emit_event
from flightlog.futures import as_completed, wait
from flightlog.utilities.annotations import allow_failure, unmapped
from flightlog.variables import Variable


@task
async def numbers(count):
    """Count."""
    return list(range(count))


@task(retries=1, retry_delay_seconds=0)
async def power(base, exponent):
    """Compute, unless it is three."""
    if base == 3:
        raise ValueError("three is too many")
    return base**exponent


@task
async def report(values):
    """Leave things to look at."""
    await create_markdown_artifact(key="values", markdown=f"# {values}", description="what came out")
    await create_table_artifact(key="table", table=[{"value": value} for value in values if isinstance(value, int)])
    await create_link_artifact(key="more", link="https://example.org", link_text="more")
    return [type(value).__name__ for value in values]


@flow
async def leaving():
    """Do all of it."""
    await Variable.set("exponent", 2, overwrite=True)
    exponent = await Variable.get("exponent")
    async with concurrency("database", occupy=1):
        await rate_limit("api")
    futures = await power.map(await numbers.submit(4), exponent=unmapped(exponent.value))
    done, not_done = await wait(futures)
    kinds = await report([allow_failure(future) for future in futures])
    came = sorted([await future.result() async for future in as_completed(futures[:3])])
    emit_event(event="values.made", resource={"prefect.resource.id": "tutorial"}, payload={"count": len(came)})
    secret = await Secret.load("word")
    name = get_run_context().flow_run.name
    return [
        kinds,
        came,
        len(done),
        len(not_done),
        secret.get(),
        variables.get("exponent"),
        name == runtime.flow_run.name,
    ]


if __name__ == "__main__":
    Secret(value="hush").save("word", overwrite=True)
    state = asyncio.run(leaving(return_state=True))
    print(state.result())
