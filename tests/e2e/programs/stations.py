"""A flow in worker processes that fails in the middle, and goes on when it is resumed."""

import enum
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from flightlog import flow, task
from flightlog.task_runners import ProcessPoolTaskRunner

HOME = Path(os.environ["FLIGHTLOG_HOME"])


class Unit(enum.Enum):
    CELSIUS = "C"


@dataclass
class Reading:
    station: int
    degrees: float
    unit: Unit = Unit.CELSIUS


class Report(BaseModel):
    mean: float
    readings: list[Reading]


@task
def measure(station: int) -> Reading:
    with (HOME / "measured").open("a") as file:
        file.write(f"{station}\n")
    return Reading(station, 10.0 * station)


@task
def report(readings: list[Reading]) -> Report:
    if not (HOME / "repaired").exists():
        raise OSError("the printer is broken")
    assert all(isinstance(reading, Reading) and reading.unit is Unit.CELSIUS for reading in readings)
    return Report(mean=sum(reading.degrees for reading in readings) / len(readings), readings=readings)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def main() -> str:
    made = report.submit(measure.map([1, 2, 3])).result()
    assert isinstance(made, Report)
    assert all(isinstance(reading, Reading) for reading in made.readings)
    return f"the mean is {made.mean}"
