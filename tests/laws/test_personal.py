"""A law of personal values: however calls are nested, nothing that was made of one is recorded in plain text."""

from itertools import count
from pathlib import Path
from typing import Annotated, Any

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from flightlog import flow, get_run_logger, task
from flightlog.engine.runtime import Engine, current_engine, using
from flightlog.events.codec import blob_digests
from flightlog.events.erasing import erase
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.privacy import Personal
from flightlog.settings import load

SIGN = "ssecrett"
Plan = list[Any]
_names: "count[int]" = count()
_given: list[str] = []

STEPS = st.sampled_from(["take", "submit", "pass", "print", "raise", "keep quiet"])
PLANS = st.recursive(
    st.lists(STEPS, max_size=4),
    lambda inner: st.lists(STEPS | st.tuples(st.sampled_from(["flow", "task"]), inner), max_size=5),
    max_leaves=12,
)


@task
def take(email: Annotated[str, Personal()]) -> dict[str, str]:
    """Return something that is made of a personal value."""
    return {"of": f"made of {email}"}


@task
def change(value: Any) -> str:
    """Return something that no longer is what was given."""
    return repr(value).upper()


@task(retries=1)
def within(plan: Plan, held: Any) -> list[Any]:
    """Take some steps inside of a task."""
    return perform(plan, [held])


@flow(log_prints=True)
def below(plan: Plan, held: Any) -> list[Any]:
    """Take some steps inside of a subflow."""
    return perform(plan, [held])


@flow(log_prints=True)
def above(plan: Plan) -> list[Any]:
    """Take some steps in a flow that nobody has given anything personal."""
    return perform(plan, [])


def new_name() -> str:
    """Return a personal value that was not there before."""
    name = f"{SIGN}{next(_names)}"
    _given.append(name)
    return name


def perform(plan: Plan, held: list[Any]) -> list[Any]:
    """Take the steps of a plan, with what is known from the steps before."""
    for step in plan:
        match step:
            case "take":
                held.append(take(new_name()))
            case "submit":
                held.append(change.submit(take.submit(new_name())).result())
            case "pass":
                held.append(change(held[-1:]))
            case "print":
                print("known:", held)
            case "raise":
                get_run_logger().info("It will be %s.", held)
                raise ValueError(f"with {held}")
            case (kind, inner):
                state: Any = (below if kind == "flow" else within)(inner, held[-1:], return_state=True)
                held.append(state.result(raise_on_failure=False))
    return held


def plain(data: Any) -> bool:
    """Tell whether something shows a personal value, in whichever case."""
    text = data.decode("latin-1") if isinstance(data, bytes) else repr(data)
    return SIGN in text.lower()


@seed(20)
@settings(max_examples=40, deadline=None, database=None)
@given(plan=PLANS)
def test_nothing_personal_is_in_plain_text(tmp_path_factory: Any, plan: Plan) -> None:
    """Before an erasure nothing is readable without keys, and after it nothing at all."""
    _given.clear()
    folder: Path = tmp_path_factory.mktemp("home")
    settings = load({"FLIGHTLOG_HOME": str(folder), "FLIGHTLOG_LOGGING_LEVEL": "INFO"})
    engine = Engine(Log(MemoryStore()), b"k" * 32, settings)
    try:
        with using(engine):
            above(plan, return_state=True)
            log = current_engine().log
            log.flush()
            events = list(log.read_all())
            assert not [event.type for event in events if plain(event.envelope.data)]
            assert not any(plain(log.blob(digest)) for event in events for digest in blob_digests(event.envelope.data))
            for name in _given:
                erase(log, engine.vault, engine.vault.subject(name), "test")
            assert not [event.type for event in events if plain(engine.vault.revealed_in(event.data))]
    finally:
        engine.log.close()
