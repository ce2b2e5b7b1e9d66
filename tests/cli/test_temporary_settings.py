"""Settings that count for a while, and how settings are imported."""

import os
from pathlib import Path
from typing import Any

import pytest

from flightlog import flow, settings, task
from flightlog.engine.run_logs import ROOT
from flightlog.engine.runtime import current_engine
from flightlog.errors import SettingsError
from flightlog.settings import (
    FLIGHTLOG_LOG_URL,
    FLIGHTLOG_LOGGING_LEVEL,
    FLIGHTLOG_TASK_DEFAULT_RETRIES,
    PREFECT_LOGGING_LEVEL,
    temporary_settings,
)
from flightlog.testing import FlowTest

RETRIES = FLIGHTLOG_TASK_DEFAULT_RETRIES.name
attempts: list[int] = []


@task
def fails() -> None:
    """Fail, and count."""
    attempts.append(1)
    raise ValueError("no")


@flow
def tries() -> None:
    """Call a task that fails."""
    fails(return_state=True)


def tried() -> int:
    """Return how often the task of a new run was tried."""
    attempts.clear()
    tries(return_state=True)
    return len(attempts)


@pytest.mark.parametrize("is_open", [False, True])
def test_they_count_while_they_are_open(*, is_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a flow has run before or not; the environment and the log are as before afterwards."""
    monkeypatch.setenv("FLIGHTLOG_LOGGING_LEVEL", "WARNING")
    if is_open:
        assert tried() == 1
    with temporary_settings({FLIGHTLOG_TASK_DEFAULT_RETRIES: 2, "FLIGHTLOG_LOGGING_LEVEL": "ERROR"}) as now:
        assert (now.task_default_retries, os.environ[RETRIES], ROOT.level if is_open else 40) == (2, "2", 40)
        assert tried() == 3
        assert (FLIGHTLOG_TASK_DEFAULT_RETRIES.value(), FLIGHTLOG_LOGGING_LEVEL.value(), ROOT.level) == (2, 40, 40)
        with temporary_settings({FLIGHTLOG_TASK_DEFAULT_RETRIES: None}):
            assert tried() == 1
        assert tried() == 3
    assert tried() == 1
    assert (RETRIES in os.environ, os.environ["FLIGHTLOG_LOGGING_LEVEL"], ROOT.level) == (False, "WARNING", 30)
    assert len([e for e in current_engine().log.read_all() if e.type == "flow_run.created"]) == 4 + is_open


def test_flows_run_on_another_log_for_a_while(tmp_path: Path) -> None:
    """Another log is opened, and closed at the end; the one before is as it was."""
    tries(return_state=True)
    before = current_engine()
    with temporary_settings({FLIGHTLOG_LOG_URL: f"sqlite:///{tmp_path}/other.db"}):
        tries(return_state=True)
        tries(return_state=True)
        other = current_engine()
        assert other.log.store.location != before.log.store.location
        assert len([e for e in other.log.read_all() if e.type == "flow_run.created"]) == 2
    assert current_engine() is before
    assert len([e for e in before.log.read_all() if e.type == "flow_run.created"]) == 1


def test_they_count_in_a_harness(flightlog_test: FlowTest) -> None:
    """Its log in memory stays the one that flows run on."""
    with temporary_settings({FLIGHTLOG_TASK_DEFAULT_RETRIES: 1}):
        assert tried() == 2
    assert tried() == 1
    assert flightlog_test.states("fails") == [["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]] + [
        ["Pending", "Running", "Failed"]
    ]


def test_whatever_is_raised_they_end() -> None:
    """An error in the block passes, and leaves nothing behind."""
    with pytest.raises(KeyError), temporary_settings({FLIGHTLOG_TASK_DEFAULT_RETRIES: 1}):
        raise KeyError
    assert RETRIES not in os.environ
    assert tried() == 1


@pytest.mark.parametrize(
    ("updates", "told"),
    [
        ({"FLIGHTLOG_LOGING_LEVEL": "INFO"}, r"^FLIGHTLOG_LOGING_LEVEL, in temporary settings, is no setting\. Did"),
        ({FLIGHTLOG_TASK_DEFAULT_RETRIES: "many"}, r"FLIGHTLOG_TASK_DEFAULT_RETRIES cannot be 'many'"),
        ({"FLIGHTLOG_RESULTS_DEFAULT_SERIALIZER": "morse"}, r"FLIGHTLOG_RESULTS_DEFAULT_SERIALIZER cannot be used"),
        ({"FLIGHTLOG_PLUGINS_MODE": "on"}, r"^FLIGHTLOG_PLUGINS_MODE cannot be changed for a while"),
        ({"FLIGHTLOG_PROFILE": "team"}, r"FLIGHTLOG_PROFILE"),
    ],
)
def test_what_cannot_be_set_is_refused(updates: Any, told: str) -> None:
    """A name that there is not, a value that does not fit, what is read but once: one sentence."""
    tries(return_state=True)
    environment = dict(os.environ)
    with pytest.raises(SettingsError, match=told), temporary_settings(updates):
        pass
    assert dict(os.environ) == environment
    assert tried() == 1


def test_settings_are_imported_by_their_names() -> None:
    """Also by those that Prefect has for them; others are told what is near, or that no server is needed."""
    assert PREFECT_LOGGING_LEVEL is FLIGHTLOG_LOGGING_LEVEL
    assert PREFECT_LOGGING_LEVEL.value() == 20
    for name, told in (
        ("PREFECT_API_URL", r"no 'PREFECT_API_URL'\. No server is needed: .*FLIGHTLOG_LOG_URL"),
        ("PREFECT_LOGGING_LEVELS", r"did you mean.*FLIGHTLOG_LOGGING_LEVEL"),
    ):
        with pytest.raises(ImportError, match=f"(?i){told}"):
            exec(f"from flightlog.settings import {name}", {})
    assert not hasattr(settings, "nonsense")
