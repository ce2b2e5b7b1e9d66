"""Runs that are killed at any moment go on as if nothing had happened (invariants I1, I2 and I7)."""

from pathlib import Path

import pytest
from tests.faults.crash_matrix import MOMENTS, Case, matrix


def _check(cases: list[Case]) -> None:
    for case in cases:
        assert case.result, case
        assert case.wrongly == 0, case
        assert case.again <= case.started - case.completed, case
    assert {case.moment for case in cases} == set(MOMENTS)
    assert sum(case.completed for case in cases) > len(cases)  # there was something to lose
    assert sum(case.again for case in cases) > 0


@pytest.mark.timeout(300)
def test_a_killed_run_is_resumed_on_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before, at and after every commit: the result is right, and no call with a committed end ran again."""
    _forget(monkeypatch)
    _check(matrix(f"sqlite:///{tmp_path}/flightlog.db", tmp_path))


@pytest.mark.timeout(300)
def test_a_killed_run_is_resumed_on_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    """The same on PostgreSQL."""
    _forget(monkeypatch)
    _check(matrix(postgres_url, tmp_path))


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what the matrix puts into the environment taken back."""
    for name in ("FLIGHTLOG_LOG_URL", "FLIGHTLOG_HOME", "WITNESS"):
        monkeypatch.setenv(name, "")
