"""Survey the Python packages on this machine: what ``make demo`` runs.

Real input: the metadata of every installed distribution. Several dependent tasks, mapped ones, and a retry
that really happens: the survey's cache is read before it is there, and the next attempt finds it.
"""

import email.message
import json
import re
import tempfile
from collections import Counter
from email.parser import HeaderParser
from importlib.metadata import distributions
from pathlib import Path

from flightlog import flow, get_run_logger, task, unmapped

Metadata = dict[str, str | list[str]]


@task
def find_packages() -> list[str]:
    """Return where the metadata of every installed distribution is."""
    found = (getattr(distribution, "_path", None) for distribution in distributions())
    return sorted(str(path) for path in found if path is not None and (Path(path) / "METADATA").is_file())


@task
def read_metadata(folder: str) -> Metadata:
    """Return what a distribution says of itself."""
    text = (Path(folder) / "METADATA").read_text(encoding="utf-8", errors="replace")
    headers: email.message.Message = HeaderParser().parsestr(text)
    return {
        "name": str(headers["Name"]),
        "version": str(headers["Version"]),
        "license": str(headers["License-Expression"] or headers["License"] or "not said").splitlines()[0][:40],
        "requires": [
            line.split(";")[0].strip() for line in headers.get_all("Requires-Dist", []) if "extra" not in line
        ],
    }


@task
def measure(folder: str, file_types: tuple[str, ...]) -> int:
    """Return how many bytes a distribution's files of some types take."""
    record = Path(folder) / "RECORD"
    if not record.is_file():
        return 0
    total = 0
    for line in record.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, size = (line.rsplit(",", 2) + ["", ""])[:3]
        if name.endswith(file_types) and size.isdigit():
            total += int(size)
    return total


@task(retries=3, retry_delay_seconds=0.1)
def read_cache(path: Path) -> int:
    """Return how many surveys were made before; make the cache if it is not there, and let the retry find it."""
    if not path.exists():
        path.write_text(json.dumps({"surveys": 0}))
        raise FileNotFoundError(f"{path.name} was not there; the next attempt will find it")
    surveys: int = json.loads(path.read_text())["surveys"]
    return surveys


@task
def summarise(packages: list[Metadata], sizes: list[int]) -> dict[str, object]:
    """Return what is worth telling of all packages."""
    needed = Counter(
        re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")
        for package in packages
        for requirement in package["requires"]
    )
    largest = sorted(zip(sizes, (str(package["name"]) for package in packages), strict=True), reverse=True)
    return {
        "packages": len(packages),
        "bytes": sum(sizes),
        "largest": largest[:5],
        "most needed": needed.most_common(5),
        "licenses": Counter(str(package["license"]) for package in packages).most_common(5),
    }


@task(log_prints=True)
def report(summary: dict[str, object], surveys_before: int) -> str:
    """Write the report."""
    lines = [f"{summary['packages']} packages, {int(str(summary['bytes'])) / 1e6:.1f} MB of Python", ""]
    for title in ("largest", "most needed", "licenses"):
        lines.append(f"{title}:")
        for first, second in summary[title]:  # type: ignore[attr-defined]
            label, value = (second, f"{first / 1e6:.1f} MB") if title == "largest" else (first, second)
            lines.append(f"  {label:<42} {value}")
    print(f"survey {surveys_before + 1} of this folder is ready")
    return "\n".join(lines)


@flow(name="package-survey")
def package_survey(cache_folder: Path) -> str:
    """Survey the packages on this machine and return a report."""
    logger = get_run_logger()
    surveys = read_cache.submit(cache_folder / "surveys.json")
    folders = find_packages()
    logger.info("found %s packages", len(folders))
    metadata = read_metadata.map(folders)
    sizes = measure.map(folders, unmapped((".py", ".pyi")))
    summary = summarise.submit(metadata, sizes)
    return report(summary, surveys)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print()
        print(package_survey(Path(folder)))
