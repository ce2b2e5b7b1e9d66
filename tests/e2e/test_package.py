"""What is shipped is whole: the wheel, and the first example from it in an empty environment."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a clean checkout of what is committed, and of what is not yet."""
    checkout = tmp_path_factory.mktemp("checkout")
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:
        source, target = ROOT / name, checkout / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            else:
                target.write_bytes(source.read_bytes())
    out = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out), ".",
        cwd=checkout,
    )  # fmt: skip
    return next(out.glob("*.whl"))


def test_the_wheel_has_every_module_and_file(wheel: Path) -> None:
    """The wheel holds all of the package, and nothing else."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", "src/flightlog", cwd=ROOT).splitlines()
    expected = {name.removeprefix("src/") for name in listed}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert names == expected
    assert "flightlog/py.typed" in names
    assert licences


@pytest.mark.timeout(300)
def test_the_first_example_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Installed into an empty environment, the README's first example runs and prints what the README says."""
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel), cwd=tmp_path)
    readme = (ROOT / "README.md").read_text()
    code, output = re.findall(r"```python\n(.*?)```.*?```text\n(.*?)```", readme, re.DOTALL)[0]
    (tmp_path / "hello.py").write_text(code)
    shown = run(python, "hello.py", cwd=tmp_path)
    assert _plain(shown) == _plain(output)
    listed = run(str(environment / "bin" / "flightlog"), "runs", "ls", cwd=tmp_path)
    assert listed.startswith("✓ Completed\t")


def _plain(text: str) -> list[str]:
    """Return lines without times, and with run names told from each other only by their place."""
    text = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", text)
    names: dict[str, str] = {}
    for name in re.findall(r"Created flow run '([a-z]+-[a-z]+)'", text):
        names.setdefault(name, f"RUN{len(names)}")
    for name, stand_in in names.items():
        text = text.replace(name, stand_in)
    return sorted(line.rstrip() for line in text.splitlines() if line.strip())
