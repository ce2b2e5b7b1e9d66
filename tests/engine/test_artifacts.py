"""Artifacts, variables and events of the user's own."""

import asyncio
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.engine.conftest import History

from flightlog import emit_event, flow, task
from flightlog.artifacts import (
    Artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from flightlog.task_runners import ProcessPoolTaskRunner
from flightlog.variables import Variable


def test_E153_each_kind_of_artifact_is_on_record(history: History) -> None:
    """Links become Markdown, tables JSON; the newest with a key counts; outside of runs they belong to none."""
    assert isinstance(create_link_artifact("http://x", "text", key="link"), UUID)
    create_link_artifact("http://y", key="link")
    create_markdown_artifact("# Title", key="md", description="a title")
    create_table_artifact([{"a": 1, "b": math.nan}, {"a": math.inf}], key="table")
    create_table_artifact({"a": [1, 2]}, key="columns")
    create_image_artifact("http://x/y.png", key="image")
    found = {key: Artifact.get(key) for key in ("link", "md", "table", "columns", "image")}
    assert all(found.values())
    contents = {key: one.data for key, one in found.items() if one is not None}
    assert contents["link"] == "[http://y](http://y)"
    assert contents["md"] == "# Title"
    assert json.loads(contents["table"]) == [{"a": 1, "b": None}, {"a": None}]
    assert json.loads(contents["columns"]) == {"a": [1, 2]}
    assert found["md"] is not None
    assert (found["md"].description, found["md"].flow_run_id) == ("a title", None)
    assert Artifact.get("none") is None
    assert len(history.data("artifact.created")) == 6


def test_E153_artifacts_belong_to_the_run_that_left_them(history: History) -> None:
    """With flow run and task run; also from a worker process, and from async code, where they can be awaited."""

    @task
    def leaves(key: str) -> str:
        return str(create_markdown_artifact("text", key=key))

    @task
    async def leaves_async() -> str:
        return str(await create_markdown_artifact("text", key="async"))

    @flow
    def f() -> None:
        leaves("thread")
        submitted: Any = leaves_async.submit()
        submitted.wait()
        create_markdown_artifact("text", key="flow")

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def g() -> Any:
        return leaves.submit("process").result()

    f()
    identifier = g()
    by_key = {data["key"]: data for data in history.data("artifact.created")}
    tasks = [data["task_run_id"] for data in history.data("task_run.created")]
    assert [by_key[key].get("task_run_id") for key in ("thread", "async", "process")] == tasks
    assert "task_run_id" not in by_key["flow"]
    assert "flow_run_id" in by_key["flow"]
    found = Artifact.get("process")
    assert found is not None
    assert str(found.id) == identifier


@pytest.mark.parametrize("key", ["Upper", "under_score", "blank ", "ü"])
def test_E153_keys_are_lower_case_letters_digits_and_hyphens(key: str) -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError, match="key"):
        create_markdown_artifact("x", key=key)


def test_E153_progress_moves() -> None:
    """A progress artifact changes; what is no per cent is refused."""
    identifier = create_progress_artifact(10, key="bar")
    assert update_progress_artifact(identifier, 55.5) == identifier
    found = Artifact.get("bar")
    assert found is not None
    assert (found.data, found.type) == ("55.5", "progress")
    for wrong in (-1, 101, math.nan):
        with pytest.raises(ValueError, match="per cent"):
            create_progress_artifact(wrong)


def test_E154_variables_are_set_once_or_overwritten() -> None:
    """A second value needs `overwrite`; what is not there is the default; any JSON will do."""
    assert Variable.get("limit") is None
    assert Variable.get("limit", 3) == 3
    Variable.set("limit", {"a": [1, None]}, tags=["b", "a"])
    found = Variable.get("limit")
    assert (found.name, found.value, found.tags) == ("limit", {"a": [1, None]}, ["a", "b"])
    with pytest.raises(ValueError, match="overwrite=True"):
        Variable.set("limit", 2)
    Variable.set("limit", "text", overwrite=True)
    assert Variable.get("limit").value == "text"
    assert Variable.unset("limit")
    assert not Variable.unset("limit")
    assert Variable.get("limit") is None


@pytest.mark.parametrize(
    ("name", "value"), [("Upper", 1), ("a-b", 1), ("", 1), ("x" * 256, 1), ("ok", "x" * 5001), ("ok", {1, 2})]
)
def test_E154_names_and_values_have_limits(name: str, value: Any) -> None:
    """Other characters, too long, no JSON: a ValueError."""
    with pytest.raises(ValueError, match="variable"):
        Variable.set(name, value)


def test_E155_events_of_ones_own_are_on_record(history: History) -> None:
    """What happened to what, with whatever else is known, and the run that it was told in."""

    @flow
    def f() -> None:
        first = emit_event("file.arrived", {"flightlog.resource.id": "s3://b/f"}, payload={"size": 3})
        emit_event("file.read", {"prefect.resource.id": "s3://b/f"}, related=[{"role": "reader"}], follows=first)

    f()
    first, second = history.data("event.emitted")
    assert (first["event"], json.loads(first["payload"])) == ("file.arrived", {"size": 3})
    assert second["caused_by"] == first["id"]
    assert second["related"] == [{"role": "reader"}]
    assert first["flow_run_id"] == second["flow_run_id"]
    assert len({event.stream for event in history.events("event.emitted")}) == 1


def test_E155_ids_times_and_what_is_missing() -> None:
    """Own ids and times are kept; causes of long ago do not count; a resource without an id is refused."""
    identifier, then = uuid4(), datetime(2026, 1, 1, tzinfo=UTC)
    old = emit_event("a", {"flightlog.resource.id": "r"}, id=identifier, occurred=then)
    assert (old.id, old.occurred) == (identifier, then)
    assert emit_event("b", {"flightlog.resource.id": "r"}, follows=old).follows is None
    near = emit_event("c", {"flightlog.resource.id": "r"}, occurred=then + timedelta(minutes=4), follows=old)
    assert near.follows == identifier
    with pytest.raises(ValueError, match=r"flightlog\.resource\.id"):
        emit_event("a", {"name": "r"})
    with pytest.raises(ValueError, match="name"):
        emit_event("", {"flightlog.resource.id": "r"})


def test_artifacts_of_async_flows() -> None:
    """In a coroutine, awaited or not."""

    @flow
    async def f() -> int:
        await create_link_artifact("http://x", key="awaited")
        create_link_artifact("http://x", key="not-awaited")
        return 1

    assert asyncio.run(f()) == 1
    assert Artifact.get("awaited")
    assert Artifact.get("not-awaited")
