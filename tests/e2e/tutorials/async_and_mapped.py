"""A tutorial's page on concurrency: gathered coroutines, mapped tasks, sync in async, one runner for each flow."""

import asyncio
import json

from flightlog import flow, task, unmapped
from flightlog.futures import as_completed
from flightlog.task_runners import ConcurrentTaskRunner, SequentialTaskRunner


@task
async def say_hello(name: str) -> str:
    """Greet, from a coroutine."""
    await asyncio.sleep(0)
    return f"hello {name}"


@task
def add(x: int, y: int) -> int:
    """Add."""
    return x + y


@task
def total(numbers: list[int]) -> int:
    """Add all."""
    return sum(numbers)


@flow(task_runner=SequentialTaskRunner())
def one_after_the_other() -> int:
    """Submit to a runner that does each task at once."""
    return total(add.map([1, 2, 3], unmapped(10)))


@flow(task_runner=ConcurrentTaskRunner(max_workers=4))
def as_they_come() -> list[int]:
    """Take results in the order in which they end."""
    return sorted(future.result() for future in as_completed(add.map(range(5), unmapped(1))))


@flow
async def main() -> dict:
    """Do all of it."""
    greetings = await asyncio.gather(*[say_hello(name) for name in ("Ann", "Bob")])
    submitted = [await say_hello.submit(name) for name in ("Cat", "Dan")]
    greetings += [await future.result() for future in submitted]
    return {"greetings": greetings, "sum": one_after_the_other(), "each": as_they_come()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main())))
