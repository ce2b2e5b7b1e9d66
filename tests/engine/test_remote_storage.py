"""Results in an S3 bucket: a real S3 interface on this machine, reached by fsspec as any other."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from tests.engine.conftest import History

from flightlog import flow, resume_run, task
from flightlog.errors import CallsDiffer, CorruptResult, MissingResult
from flightlog.filesystems import RemoteFileSystem


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Start an S3 server with one bucket; return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not _answers(port) and time.monotonic() < end:
            assert process.poll() is None, "the S3 server has ended"
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port}"
        _system(url).mkdir("results")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _settings(url: str) -> dict[str, Any]:
    return {"key": "testing-key", "secret": "testing-secret", "client_kwargs": {"endpoint_url": url}}


def _system(url: str) -> Any:
    return import_module("fsspec").filesystem("s3", skip_instance_cache=True, **_settings(url))


@pytest.fixture
def storage(endpoint: str) -> RemoteFileSystem:
    """Return a storage in the bucket."""
    return RemoteFileSystem("s3://results/flightlog", _settings(endpoint))


def test_E117_results_are_kept_in_a_bucket(storage: RemoteFileSystem, endpoint: str, history: History) -> None:
    """The event has address, size and digest, and no credentials; values come back when a run is resumed."""
    calls, broken = [], [True]

    @task(result_storage=storage, result_serializer="json", result_storage_key="named/{parameters[n]}.json")
    def t(n: int) -> dict[str, int]:
        calls.append(n)
        return {"n": n}

    @flow
    def f() -> int:
        found = [t(1), t(2)]
        if broken:
            raise ValueError("not yet")
        return sum(one["n"] for one in found)

    f(return_state=True)
    broken.clear()
    assert resume_run(history.flow_runs("f")[0], flow=f) == 3
    assert calls == [1, 2]
    assert _system(endpoint).cat_file("s3://results/flightlog/named/2.json") == b'{"n": 2}'
    references = [data["result"] for data in history.data("task_run.completed")]
    assert [(one["storage"], one["path"]) for one in references] == [
        ("s3://results/flightlog", "named/1.json"),
        ("s3://results/flightlog", "named/2.json"),
    ]
    assert "testing-secret" not in repr(history.data("task_run.completed"))


def test_E117_an_object_that_is_gone_or_altered(storage: RemoteFileSystem, endpoint: str, history: History) -> None:
    """MissingResult and CorruptResult, where the value is asked for; resuming stops there."""

    @task(result_storage=storage, cache_result_in_memory=False)
    def t(n: int) -> list[int]:
        return [n] * 3

    @flow
    def f() -> None:
        state = t(7, return_state=True)
        assert state.result() == [7, 7, 7]
        reference = history.data("task_run.completed")[-1]["result"]
        place = f"{reference['storage']}/{reference['path']}"
        system = _system(endpoint)
        system.pipe_file(place, b"altered")
        with pytest.raises(CorruptResult, match="SHA-256"):
            state.result()
        system.rm(place)
        with pytest.raises(MissingResult, match="is gone"):
            state.result()
        raise ValueError("leave")

    f(return_state=True)
    with pytest.raises(CallsDiffer, match="is gone"):
        resume_run(history.flow_runs("f")[0], flow=f)


def test_E121_a_bucket_that_there_is_not_does_not_fail_the_run(
    endpoint: str, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on with its value in memory; a warning and the event say that it was not recorded."""
    nowhere = RemoteFileSystem("s3://no-such-bucket/x", _settings(endpoint))

    @task(result_storage=nowhere)
    def t() -> list[int]:
        return [1]

    @flow
    def f() -> Any:
        return t()

    assert f() == [1]
    assert "was not recorded" in capsys.readouterr().err
    assert "s3://no-such-bucket" in history.data("task_run.completed")[0]["result"]["not_recorded"]
