"""What the engine writes is what the vocabulary says, and old events are lifted."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flightlog import flow, get_run_logger, task
from flightlog.events import upcasting
from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import SCHEMAS
from flightlog.events.vocabulary import MODELS, json_schemas, payload
from flightlog.states import Cancelled, Completed, Paused
from flightlog.testing import VirtualClock, memory_engine


@task
def value(n: int) -> Any:
    """Return something for a blob."""
    return {"n": n}


@task(retries=2, retry_delay_seconds=3)
def failing() -> None:
    """Fail, always."""
    raise ValueError("boom")


@task(timeout_seconds=0.01)
async def slow() -> None:
    """Take longer than allowed."""
    await asyncio.sleep(30)


@task
async def quick(given: Any) -> Any:
    """Return what was given."""
    return given


@task
def unrecordable() -> Any:
    """Return what cannot be pickled."""
    return lambda: None


@task
def exits() -> None:
    """Leave."""
    raise SystemExit(3)


@flow
def child(n: int) -> int:
    """Be a subflow."""
    return value(n)["n"] + 1  # type: ignore[no-any-return]


@flow(retries=1, log_prints=True)
def everything(n: int, when: str = "now") -> Any:
    """Do some of everything that leaves an event."""
    get_run_logger().warning("a line")
    print("a print")
    first = value.submit(n)
    second = value.submit(first, wait_for=[first])
    failed = failing(return_state=True)
    third = value(failed, return_state=True)
    late = slow(return_state=True)
    asynchronous = quick.submit([first])
    unrecordable()
    child(3)
    value.map([1, 2, 3])
    return [second, failed, third, late, asynchronous]


@flow
def ends_as(state: Any) -> Any:
    """End in the given state."""
    return state


def written() -> list[Any]:
    """Return the events that flows of every kind leave."""
    with memory_engine(VirtualClock()) as engine:
        _ = everything(1, return_state=True)
        _ = everything("no number", return_state=True)
        for state in (Completed(name="Skipped", message="why not"), Cancelled(), Paused()):
            _ = ends_as(state, return_state=True)
        with pytest.raises(SystemExit):
            flow(lambda: exits())()
        engine.log.flush()
        return list(engine.log.read_all())


def test_whatever_the_engine_writes_validates() -> None:
    """Payloads are built without pydantic, for speed; each one fits its model, strictly."""
    events = written()
    for event in events:
        model = payload(event)
        assert model is not None, event
        given = set(event.data)
        assert given <= set(type(model).model_fields), event
    seen = {event.type for event in events}
    assert {"task_run.not_ready", "task_run.awaiting_retry", "flow_run.awaiting_retry", "log.lines"} <= seen
    assert {"flow_run.failed", "flow_run.cancelled", "flow_run.paused", "task_run.crashed"} <= seen


def test_every_type_has_a_model_and_a_schema_version() -> None:
    """Types, models and schema versions go together."""
    assert set(MODELS) == set(SCHEMAS)


def test_the_json_schemas_are_json() -> None:
    """Every payload's JSON Schema can be exported."""
    schemas = json.loads(json.dumps(json_schemas()))
    assert schemas["task_run.created"]["properties"]["task"]["type"] == "string"


def test_every_event_says_what_caused_it() -> None:
    """The chain of causes leads from every event of a run back to where its outermost flow was created."""
    events = written()
    by_id = {event.id: event for event in events}
    for event in events:
        while event.follows is not None:
            event = by_id[event.follows]
        assert event.type in ("flow_run.created", "log.lines")


def test_I9_old_events_are_lifted_when_they_are_read() -> None:
    """An upcaster turns an old shape into today's; what is stored stays as it is."""

    @upcasting.upcaster("test.lifted", 1)
    def first(data: dict[str, Any]) -> dict[str, Any]:
        return {"names": [data["name"]]}

    @upcasting.upcaster("test.lifted", 2)
    def second(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "count": len(data["names"])}

    with pytest.raises(ValueError, match="already"):
        upcasting.upcaster("test.lifted", 1)(first)
    with Log(MemoryStore()) as log:
        for number, schema in enumerate((1, 2, 3)):
            data: dict[str, Any] = {"name": "x"} if schema == 1 else {"names": ["x"]}
            log.append("a", [NewEvent(bytes([number]) * 16, "test.lifted", data, 1, schema=schema)])
        read = list(log.read("a"))
    assert [event.data for event in read] == [{"names": ["x"], "count": 1}] * 2 + [{"names": ["x"]}]
    assert read[0].envelope.schema == 1
    for schema in (1, 2):
        del upcasting._UPCASTERS["test.lifted", schema]


def test_I10_no_secret_is_in_the_log(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secret parameters and known credentials are in no file, whether given, logged, printed, raised or in a URL."""
    from pydantic import SecretStr

    from flightlog.engine.runtime import close_engine
    from flightlog.projections.projector import Projector, projections_path

    monkeypatch.setenv("MY_API_TOKEN", "token-4711-abcdef")

    @task
    def use(secret: SecretStr) -> None:
        get_run_logger().info("the secret is %s", secret.get_secret_value())
        print(f"with {secret.get_secret_value()}")
        raise ValueError(f"{secret.get_secret_value()} and token-4711-abcdef at https://ann:hunter22@example.org/")

    @flow(log_prints=True)
    def secretive(password: SecretStr, nested: dict[str, Any]) -> None:
        use(password)

    for number in range(3):
        secretive(SecretStr("correct horse battery"), {"inner": SecretStr(f"staple-{number}00")}, return_state=True)
    from flightlog.engine.runtime import current_engine

    log = current_engine().log
    log.flush()
    created = next(event for event in log.read_all(types=["flow_run.created"]))
    assert sorted(created.data["not_recorded"]) == ["nested", "password"]
    projector = Projector(log, projections_path(own_home / "flightlog.db"))
    projector.catch_up()
    projector.close()
    close_engine()
    contents = b"".join(path.read_bytes() for path in own_home.iterdir())
    assert b"********" in contents
    for secret in (b"correct horse", b"token-4711", b"hunter22", b"staple-000"):
        assert secret not in contents, secret


def test_I10_digests_of_inputs_are_keyed() -> None:
    """The same arguments have another digest in another log, so none can be guessed."""
    from flightlog.engine.digests import input_digest

    arguments = {"name": "ann", "age": 42}
    assert input_digest(b"a" * 32, arguments) != input_digest(b"b" * 32, arguments)
    assert input_digest(b"a" * 32, arguments) == input_digest(b"a" * 32, {"name": "ann", "age": 42})


def test_I10_what_is_a_secret_by_its_annotation_is_one(own_home: Path) -> None:
    """Text that was given for a secret parameter, valid or not, to a flow, a model or a task, is in no file."""
    from pydantic import BaseModel, SecretStr

    from flightlog.engine.runtime import close_engine

    class Config(BaseModel):
        password: SecretStr

    @task
    def gives() -> str:
        return "given-as-text-1"

    @task
    def raises(secret: SecretStr) -> None:
        raise KeyError(secret.get_secret_value())

    @flow
    def by_annotation(token: SecretStr, number: int = 1) -> None:
        get_run_logger().info(token.get_secret_value())
        gives()
        raises(token)

    @flow
    def by_model(config: Config) -> None:
        raise ValueError(config.password.get_secret_value())

    @flow
    def to_a_task() -> None:
        raises(SecretStr("quoted-'\"-secret-4"))

    by_annotation("given-as-text-1", return_state=True)
    by_annotation("given-as-text-2", "no number", return_state=True)
    by_model({"password": "given-as-text-3"}, return_state=True)
    to_a_task(return_state=True)
    close_engine()
    contents = b"".join(path.read_bytes() for path in own_home.iterdir())
    for secret in (b"given-as-text", b"quoted-'", b"quoted-\\'"):
        assert secret not in contents, secret
