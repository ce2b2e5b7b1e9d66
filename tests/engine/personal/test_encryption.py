"""Personal values: what of a call is encrypted, and what is left once the key is gone."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.personal.conftest import ANN, BOB, Email, broken, forget, load, order, ran, subjects_of, traces

from flightlog import emit_event, flow, task
from flightlog.artifacts import create_markdown_artifact
from flightlog.engine.resuming import fork_run, resume_run
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.errors import CannotResume, PersonalValues
from flightlog.events.subjects import ERASED
from flightlog.input import send_input
from flightlog.task_runners import ProcessPoolTaskRunner
from flightlog.variables import Variable


def test_nothing_personal_is_written() -> None:
    """Parameters, results, exceptions and log lines of a call and of what is made of it are nowhere in plain text."""
    with pytest.raises(ConnectionError):
        order(ANN)
    assert traces(ANN, ANN.upper()) == []
    created = next(current_engine().log.read_all(types=["flow_run.created"])).data
    assert created["parameters"] == '{"email": "<personal>", "number": 7}'


def test_a_scan_would_find_what_is_not_marked() -> None:
    """The same flow without marks leaves what the scan looks for, so the scan can tell."""

    @flow
    def open_order(email: str) -> str:
        return email

    open_order(ANN)
    assert any("plain" in found for found in traces(ANN))


def test_a_run_goes_on_while_the_key_is_there() -> None:
    """Resuming reads what was encrypted: what completed does not run again."""
    state = order(ANN, return_state=True)
    assert state.is_failed()
    close_engine()
    broken[0] = False
    assert resume_run(str(state.state_details.flow_run_id), flow=order) == f"DEAR {ANN.upper()}"
    assert ran == ["load", "letter", "send", "send"]
    assert traces(ANN, ANN.upper()) == []


def test_what_is_left_after_an_erasure() -> None:
    """Once the key is gone, texts read as erased, no run goes on, and the log verifies."""
    state = order(ANN, return_state=True)
    engine = current_engine()
    [failed] = [event.data for event in engine.log.read_all(types=["flow_run.failed"])]
    assert engine.vault.revealed(failed["error"]["message"]) == f"nobody takes DEAR {ANN.upper()}"
    assert forget(ANN) > 10
    assert engine.vault.revealed(failed["error"]["message"]) == ERASED
    with pytest.raises(
        CannotResume, match=r"cannot be loaded: it belonged to somebody whose personal data was erased\."
    ):
        resume_run(str(state.state_details.flow_run_id), flow=order)
    with pytest.raises(CannotResume, match="erased"):
        fork_run(str(state.state_details.flow_run_id), flow=order)
    assert not list(engine.settings.home.rglob("*.subject-keys/*"))
    assert next(engine.log.read_all(types=["subject.erased"])).data["events"] > 10


def test_a_subject_that_comes_again_gets_another_key() -> None:
    """After an erasure new values of the same subject can be had, and the old ones cannot."""
    order(ANN, return_state=True)
    forget(ANN)
    order(ANN, return_state=True)
    vault = current_engine().vault
    current_engine().log.flush()
    texts = [
        vault.revealed(event.data["message"]) for event in current_engine().log.read_all(types=["flow_run.failed"])
    ]
    assert texts[0] == ERASED
    assert ANN.upper() in texts[1]


def test_whoever_is_erased_takes_what_belongs_to_several_along() -> None:
    """A value that was made of two subjects' is gone with either of them; what belongs to one only stays."""

    @task
    def both(one: dict[str, str], other: dict[str, str]) -> str:
        raise ValueError(f"{one['email']} and {other['email']}")

    @flow
    def pair() -> None:
        both.submit(load.submit(ANN), load.submit(BOB), return_state=True)

    pair(return_state=True)
    assert traces(ANN, BOB) == []
    engine = current_engine()
    forget(BOB)
    [failed] = engine.log.read_all(types=["task_run.failed"])
    assert engine.vault.revealed(failed.data["message"]) == ERASED
    lines = [line[4] for event in engine.log.read_all(types=["log.lines"]) for line in event.data["lines"]]
    assert sorted(map(engine.vault.revealed, lines)) == [ERASED, f"Loading {ANN}."]


def test_who_belongs_to_whom() -> None:
    """Calls that are given nothing personal belong to nobody, also beside those that are."""

    @task
    def count(_: int) -> None:
        return None

    @task
    def note(email: Email) -> None:
        return None

    @flow
    def batch() -> None:
        count(1)
        for email in (ANN, BOB):
            note(email)  # returns None, so the flow learns nothing
        count(2)

    batch()
    assert subjects_of("task_run.completed") == [0, 1, 1, 0]
    assert subjects_of("flow_run.completed") == [0]


def test_names_of_runs_hold_no_personal_values() -> None:
    """What a template would name is left out; a function that gives names is not asked."""

    @task(task_run_name="greet-{email}-{count}")
    def greet(email: Email, count: int) -> None: ...

    @task(task_run_name=lambda parameters: f"of-{parameters['profile']['email']}")
    def later(profile: Any) -> None: ...

    @flow(flow_run_name="for-{email}-{day}")
    def named(email: Email, day: int) -> None: ...

    @flow
    def main() -> None:
        greet(ANN, 3)
        named(ANN, 5)
        later(load(ANN))

    main()
    assert traces(ANN) == []
    names = [event.data["name"] for event in current_engine().log.read_all(types=["task_run.created"])]
    assert names[0] == "greet-<personal>-3"
    runs = [event.data["name"] for event in current_engine().log.read_all(types=["flow_run.created"])]
    assert runs[1] == "for-<personal>-5"


def test_retries_and_subflows() -> None:
    """Attempts that are tried again, and subflows, are encrypted as well; a retry of a flow gets its values back."""

    @task(retries=1)
    def shaky(text: str) -> str:
        ran.append("shaky")
        if ran.count("shaky") == 1:
            raise ValueError(f"not yet, {text}")
        return text

    @flow(log_prints=True)
    def inner(text: str) -> str:
        print("inner", text)
        return shaky(text)

    @flow(retries=1)
    def outer(email: Email) -> str:
        found = inner(email + "!")
        ran.append("outer")
        if ran.count("outer") == 1:
            raise RuntimeError(f"once more for {found}")
        return found

    assert outer(ANN) == f"{ANN}!"
    assert ran == ["shaky", "shaky", "outer", "outer"]
    assert traces(ANN) == []
    assert len(list(current_engine().log.read_all(types=["task_run.awaiting_retry"]))) == 1


def test_cached_values_stay_personal() -> None:
    """A cached value is read while the key is there, in other runs too, and is made anew after an erasure."""

    @task(cache_key_fn=lambda _, arguments: f"key of {arguments['email']}", cache_expiration=timedelta(hours=1))
    def cached(email: Email) -> str:
        ran.append("cached")
        return f"value of {email}"

    @flow
    def use(email: Email) -> str:
        return cached(email)

    assert use(ANN) == use(ANN) == f"value of {ANN}"
    assert ran == ["cached"]
    assert traces(ANN) == []
    close_engine()
    assert use(ANN) == f"value of {ANN}"
    forget(ANN)
    assert use(ANN) == f"value of {ANN}"
    assert ran == ["cached", "cached"]


def test_results_in_a_storage_are_encrypted(tmp_path: Path) -> None:
    """Files of results hold no plain text, under any serializer; one that a template would name is refused."""

    @task(result_storage=tmp_path / "results", result_serializer="json")
    def stored(email: Email) -> list[Any]:
        return [email, True]

    @task(result_storage=tmp_path / "results", result_storage_key="of-{parameters[email]}")
    def named(email: Email) -> str:
        return email

    @flow
    def main(email: Email) -> Any:
        if broken[0]:
            stored(email)
            raise ValueError
        return stored(email)

    state: Any = main(ANN, return_state=True)
    files = [path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(files) == 1
    assert ANN.encode() not in files[0]
    broken[0] = False
    assert resume_run(str(state.state_details.flow_run_id), flow=main) == [ANN, True]

    @flow
    def other() -> Any:
        return named(ANN, return_state=True)

    _: Any = other(return_state=True)
    [failed] = current_engine().log.read_all(types=["task_run.failed"])
    message = current_engine().vault.revealed(failed.data["message"])
    assert "would write personal values into the name of a file" in message
    assert traces(ANN) == []


@pytest.mark.parametrize(
    "leave",
    [
        lambda text: emit_event("personal", {"flightlog.resource.id": text}),
        lambda text: create_markdown_artifact(text),
        lambda text: Variable.set("person", text),
        lambda text: send_input(text, flow_run_id="01a21356-689d-77fe-a1e1-4e846b369a6a"),
    ],
)
def test_what_cannot_be_erased_is_refused(leave: Callable[[str], Any]) -> None:
    """Events, artifacts, variables and messages of runs with personal values are refused in one sentence."""

    @task
    def tell(email: Email) -> None:
        leave(email)

    @flow
    def main() -> None:
        tell(ANN)

    with pytest.raises(PersonalValues, match="could not be erased"):
        main()
    assert traces(ANN) == []


@task
def in_worker(email: Email) -> str:
    """Print and return a value, or fail with it."""
    print("in a worker", email)
    if email == BOB:
        raise ValueError(f"not {email}")
    return email


def test_workers() -> None:
    """What tasks in worker processes print, return and raise is encrypted too."""

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1), log_prints=True)
    def main() -> None:
        for email in (ANN, BOB):
            in_worker.submit(email).wait()

    main(return_state=True)
    assert traces(ANN, BOB) == []
    lines = [line[4] for event in current_engine().log.read_all(types=["log.lines"]) for line in event.data["lines"]]
    assert [current_engine().vault.revealed(line) for line in lines] == [f"in a worker {ANN}", f"in a worker {BOB}"]


@task
def tell_from_worker(email: Email) -> None:
    """Try to record what could not be erased."""
    emit_event("personal", {"flightlog.resource.id": email})


def test_workers_are_refused_what_cannot_be_erased() -> None:
    """A custom event of a task in a worker process is refused as well."""

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def main() -> None:
        tell_from_worker.submit(ANN).result()

    with pytest.raises(PersonalValues, match="could not be erased"):
        main()
    assert traces(ANN) == []
