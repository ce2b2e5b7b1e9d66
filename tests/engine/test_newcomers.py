"""What programs that were written for Prefect ask for besides, and what mistakes at first are told."""

import asyncio
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.engine.conftest import History

from flightlog import flow, resume_flow_run, suspend_flow_run, tags, task
from flightlog.artifacts import Artifact, create_markdown_artifact
from flightlog.blocks.system import Secret
from flightlog.client.schemas.objects import FlowRun, State, TaskRun
from flightlog.engine.runtime import Engine
from flightlog.errors import MissingContextError
from flightlog.filesystems import LocalFileSystem
from flightlog.flows import load_flow_from_entrypoint
from flightlog.logging.loggers import flow_run_logger, task_run_logger
from flightlog.serializers import CompressedJSONSerializer, CompressedPickleSerializer
from flightlog.transactions import get_transaction, transaction
from flightlog.utilities.hashing import hash_objects
from flightlog.variables import Variable
from flightlog.variables import get as value_of


@task
def double(n: int) -> int:
    """Return twice as much."""
    return 2 * n


@flow
def doubling(n: int = 1) -> int:
    """Return twice as much."""
    return double(n)


@flow
async def doubling_later(n: int = 1) -> int:
    """Return twice as much."""
    return double(n)


def test_E87_the_result_of_a_state_is_fetched() -> None:
    """`fetch=True` gives the value in sync code and an awaitable in async code, and so does `aresult`."""
    assert doubling(return_state=True).result(fetch=True) == 2

    async def ask() -> list[int]:
        state = await doubling_later(return_state=True)
        return [await state.result(fetch=True), await state.aresult(), state.result(), state.result(fetch=False)]

    assert asyncio.run(ask()) == [2] * 4


def test_E87_a_failure_is_fetched_too() -> None:
    """What a failed run raised is raised at the `await`."""

    @flow
    async def fails() -> None:
        raise ValueError("no")

    async def ask() -> None:
        await (await fails(return_state=True)).result(fetch=True)

    with pytest.raises(ValueError, match="no"):
        asyncio.run(ask())


def test_E19_run_gives_the_state() -> None:
    """`flow._run()` is a call that returns the state."""
    assert doubling._run(4).result() == 8


def test_E150_E153_E154_what_async_code_awaits() -> None:
    """Variables, artifacts, blocks and answers can be awaited; they are the same as without."""

    @flow
    def asks() -> int:
        return suspend_flow_run(wait_for_input=int)  # type: ignore[no-any-return]

    @flow
    async def f() -> list[Any]:
        await Variable.set("answer", 42)
        await create_markdown_artifact("text", key="note")
        found = await Variable.get("answer")
        artifact = Artifact.get("note")
        assert artifact is not None
        assert (await artifact).data == "text"
        Secret(value=SecretStr("hush")).save("word")
        return [found.value, value_of("answer"), value_of("none", 7), (await Secret.load("word")).get()]

    assert asyncio.run(f()) == [42, 42, 7, "hush"]
    run = asks(return_state=True).state_details.flow_run_id
    assert run is not None

    async def answer() -> Any:
        return await resume_flow_run(run, 5)

    assert asyncio.run(answer()) == "suspended"


def test_E150_E153_E154_E156_what_is_not_there_can_be_awaited_too(tmp_path: Path) -> None:
    """A call with `await` before it gives the same as without, also where that is None, a boolean, text or bytes."""

    variables: Any = Variable
    artifacts: Any = Artifact
    folder: Any = LocalFileSystem(tmp_path)
    drawn: Any = doubling
    secret: Any = Secret(value=SecretStr("hush"))
    secrets: Any = Secret

    @flow
    async def f() -> list[Any]:
        names = ("missing",)
        await Variable.set("there", 1)
        awaited = [
            await variables.get("missing"),
            await variables.get(*names, default="d"),
            [await variables.get(name, 5) for name in names],
            await variables.unset("there"),
            await variables.unset("there"),
            await value_of("missing", {}),
            await artifacts.get("missing"),
        ]
        await Variable.set("there", 1)
        at_once = [
            variables.get("missing"),
            variables.get(*names, default="d"),
            [variables.get(name, 5) for name in names],
            variables.unset("there"),
            variables.unset("there"),
            value_of("missing", {}),
            artifacts.get("missing"),
        ]
        assert awaited == at_once == [None, "d", [5], True, False, {}, None]
        return awaited

    async def uses() -> list[Any]:
        saved = await secret.save("word")
        deleted = await secrets.delete("word")
        written = await folder.write_path("a", b"1")
        read = await folder.read_path("a")
        graph = await drawn.visualize()
        return [type(saved).__name__, deleted, written, read, folder.read_path("a"), graph.nodes[0].name]

    asyncio.run(f())
    assert asyncio.run(uses()) == ["UUID", None, None, b"1", b"1", "double-0"]


def test_E117_a_saved_storage_is_named_by_its_slug(tmp_path: Path, history: History) -> None:
    """It is loaded when a value goes there; one that is not saved takes nothing, which is said, and makes no folder."""
    LocalFileSystem(tmp_path / "kept").save("results")

    @task(result_storage="local-file-system/results", result_storage_key="{parameters[n]}", result_serializer="json")
    def kept(n: int) -> int:
        return n

    @task(result_storage="local-file-system/nowhere")
    def lost(n: int) -> int:
        return n

    @flow
    def f() -> int:
        return kept(7) + lost(1)

    assert f() == 8
    assert (tmp_path / "kept" / "7").read_text() == "7"
    results = [data["result"] for data in history.data("task_run.completed")]
    assert results[0]["storage"] == LocalFileSystem(tmp_path / "kept").url
    assert "There is no block local-file-system/nowhere" in results[1]["not_recorded"]
    assert not Path("local-file-system").exists()


def test_E43_hooks_see_parameters_and_tags_of_the_run() -> None:
    """A hook's `flow_run` has them, and says what it has when it is asked for something else."""
    seen: list[Any] = []

    def of_flow(_: Any, flow_run: FlowRun, state: "State[Any]") -> None:
        seen.append((flow_run.name, dict(flow_run.parameters), flow_run.tags, state.name))
        with pytest.raises(AttributeError, match=r"^A FlowRun has no 'state'; it has id, name, .*parameters, tags\.$"):
            flow_run.state  # type: ignore[attr-defined]  # noqa: B018

    def of_task(_: Any, task_run: TaskRun, state: "State[Any]") -> None:
        seen.append((task_run.name, task_run.tags, state.name))
        with pytest.raises(AttributeError, match=r"^A TaskRun has no 'task_key'; it has id, .*task_name\.$"):
            task_run.task_key  # type: ignore[attr-defined]  # noqa: B018

    @task(on_completion=[of_task], task_run_name="one")
    def t() -> int:
        return 1

    @flow(on_completion=[of_flow], flow_run_name="all")
    def f(a: int, b: str = "x") -> int:
        return t()

    with tags("t"):
        f(1)
    assert seen == [("one", {"t"}, "Completed"), ("all", {"a": 1, "b": "x"}, {"t"}, "Completed")]


def test_E130_loggers_for_runs_that_one_is_given(history: History) -> None:
    """A hook speaks for the run that it is given, wherever it is called; the log keeps that with the run."""
    runs: list[Any] = []

    def of_task(the_task: Any, task_run: TaskRun, _: Any) -> None:
        runs.append(task_run)
        task_run_logger(task_run, the_task).info("from the task's hook")

    def of_flow(the_flow: Any, flow_run: FlowRun, _: Any) -> None:
        flow_run_logger(flow_run, the_flow, extra="x").warning("from the flow's hook")
        threading.Thread(target=lambda: task_run_logger(runs[0]).info("from a thread")).start()

    @task(on_completion=[of_task])
    def t() -> int:
        return 1

    @flow(on_completion=[of_flow])
    def f() -> int:
        return t()

    f()
    lines = {line[4]: (line[1], line[2], line[3]) for data in history.data("log.lines") for line in data["lines"]}
    key = history.task_runs("t")[0]["task_run_id"]
    assert lines["from the task's hook"] == lines["from a thread"] == (20, "flightlog.task_runs", key)
    assert lines["from the flow's hook"] == (30, "flightlog.flow_runs", None)


SPAWNS = """
import multiprocessing
from flightlog import flow

@flow
def one():
    return 1

def work(): ...

print("called:", one(), flush=True)
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
"""


@pytest.mark.timeout(60)
def test_E109_a_process_of_ones_own_that_loads_the_script_runs_no_flow_in_it(tmp_path: Path) -> None:
    """It says that the call belongs under a guard."""
    script = tmp_path / "script.py"
    script.write_text(SPAWNS)
    environment = {**os.environ, "FLIGHTLOG_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment, timeout=50
    )
    assert done.stdout.splitlines() == ["called: 1", "called: None"], done.stderr
    assert 'under `if __name__ == "__main__":`' in done.stderr
    assert done.stderr.count("Created flow run") == 1


def test_E47_an_async_flow_that_is_called_while_its_file_is_loaded(tmp_path: Path) -> None:
    """There `asyncio.run` gets something to run, which does nothing."""
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\nfrom flightlog import flow\n\n@flow\nasync def f():\n    return 1\n\n"
        "assert asyncio.run(f()) is None\n"
    )
    with pytest.warns(UserWarning, match="did not run"):
        found = load_flow_from_entrypoint(f"{script}:f")
    assert asyncio.run(found()) == 1


def test_E51_a_task_that_is_called_in_a_thread_of_ones_own() -> None:
    """The error says that the thread is not in the flow, and what to use."""
    told: list[str] = []

    def work() -> None:
        try:
            double(1)
        except MissingContextError as error:
            told.append(str(error))

    @flow
    def f() -> int:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return 1

    f()
    assert "a thread of your own is not in it: use `double.submit`" in told[0]
    with pytest.raises(
        MissingContextError, match=r"^The task 'double' was called outside a flow\. Call it in a flow, or"
    ):
        double(1)


def test_E100_a_future_is_not_its_value() -> None:
    """Who asks a future for what its value has is told so."""

    @flow
    def f() -> int:
        future = double.submit(1)
        with pytest.raises(AttributeError, match=r"^A Future has no 'bit_length'; the task's value is what `result"):
            future.bit_length()  # type: ignore[attr-defined]
        return future.result()

    assert f() == 2


@pytest.mark.parametrize("kind", [flow, task])
def test_E9_a_name_goes_by_its_keyword(kind: Any) -> None:
    """`@task("name")` says how it is written."""
    name = kind.__name__
    with pytest.raises(TypeError, match=re.escape(f"@{name} decorates a function, not a string: write @{name}(name=")):
        kind("my name")(double.fn)


@pytest.mark.parametrize("seconds", ["soon", [1], object()])
def test_E14_a_time_limit_is_a_number(seconds: Any) -> None:
    """Anything else is refused in one sentence; text that is a number is not."""
    with pytest.raises(TypeError, match=r"^`timeout_seconds` is a number of seconds, not "):
        task(timeout_seconds=seconds)(double.fn)
    assert task(timeout_seconds="1.5")(double.fn).timeout_seconds == 1.5  # type: ignore[call-overload]


def test_E119_compressed_serializers_by_class() -> None:
    """They are what `compressed/json` and `compressed/pickle` name, and take nobody's place."""
    assert CompressedJSONSerializer("bz2").spec == "compressed/bz2/json"
    assert CompressedPickleSerializer().spec == "compressed/lzma/pickle"

    @task(result_serializer=CompressedJSONSerializer(), cache_result_in_memory=False)
    def t() -> dict[str, int]:
        return {"a": 1}

    @flow
    def f() -> dict[str, int]:
        return t()

    assert f() == {"a": 1}


def test_E122_keys_of_hashed_objects(engine: Engine) -> None:
    """`hash_objects` tells values apart in keys of one's own; what cannot be compared has none."""
    assert hash_objects(1, a="x") == hash_objects(1, a="x") != hash_objects(1, a="y")
    assert hash_objects(threading.Lock()) is None
    calls: list[int] = []

    @task(cache_key_fn=lambda _, parameters: hash_objects("mine", **parameters))
    def t(x: int) -> int:
        calls.append(x)
        return x

    @flow
    def f() -> int:
        return t(1) + t(1) + t(2)

    assert f() == 4
    assert calls == [1, 2]


def test_E78_the_transaction_that_code_is_in() -> None:
    """`get_transaction` gives it; None outside."""

    @flow
    def f() -> list[bool]:
        with transaction() as mine:
            return [get_transaction() is mine]

    assert f() == [True]
    assert get_transaction() is None
