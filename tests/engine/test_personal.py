"""Personal values: whose a call is, what of it is encrypted, and what is left once the key is gone."""

import asyncio
import base64
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, field_validator

from flightlog import emit_event, flow, get_run_logger, task
from flightlog.artifacts import create_markdown_artifact
from flightlog.engine.bridge import stop_background_loop
from flightlog.engine.resuming import fork_run, resume_run
from flightlog.engine.runtime import close_engine, current_engine
from flightlog.errors import CannotResume, ParameterBindError, ParameterTypeError, PersonalValues
from flightlog.events.codec import blob_digests
from flightlog.events.erasing import erase
from flightlog.events.questions import question_text, shell_command
from flightlog.events.subjects import ERASED, HIDDEN, groups_in
from flightlog.events.vocabulary import payload
from flightlog.flow_runs import pause_flow_run, resume_flow_run
from flightlog.futures import Future
from flightlog.input import RunInput, send_input
from flightlog.privacy import Personal
from flightlog.task_runners import ProcessPoolTaskRunner
from flightlog.variables import Variable

ANN, BOB = "ann.personal@example.org", "bob.personal@example.org"
Email = Annotated[str, Personal()]
ran: list[str] = []
broken = [True]


@pytest.fixture(autouse=True)
def engine(own_home: Path) -> Iterator[None]:
    """Give each test a world and a log of its own, in a file, so that what is scanned is what is on the disk.

    What was written fits the vocabulary.
    """
    ran.clear()
    broken[0] = True
    yield
    log = current_engine().log
    log.flush()
    assert all(payload(event) is not None for event in log.read_all())
    close_engine()
    stop_background_loop()


def traces(*texts: str) -> list[str]:
    """Return which files of the log hold some text, in which form."""
    engine = current_engine()
    engine.log.flush()
    home = engine.settings.home
    found = []
    for path in (path for path in home.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for text in texts:
            plain = text.encode()
            forms = {
                "plain": plain,
                "utf-16": text.encode("utf-16-le"),
                "reversed": plain[::-1],
                "hex": plain.hex().encode(),
            }
            for shift in range(3):  # in the middle of something longer, base64 has three forms
                encoded = base64.b64encode(b"x" * shift + plain)
                forms[f"base64 {shift}"] = encoded[4 if shift else 0 : -4]
            found += [f"{text} in {path.name}: {form}" for form, raw in forms.items() if raw in content]
    return found


def subjects_of(event_type: str) -> list[int]:
    """Return how many subjects each event of a type belongs to."""
    vault = current_engine().vault
    current_engine().log.flush()
    return [
        len(frozenset[bytes]().union(*(vault.members(group) for group in groups_in(event.data))))
        for event in current_engine().log.read_all(types=[event_type])
    ]


def forget(name: str) -> int:
    """Erase a subject, and return how many events held something of it."""
    engine = current_engine()
    engine.log.flush()
    return len(erase(engine.log, engine.vault, engine.vault.subject(name), "test").events)


@task
def load(email: Email) -> dict[str, str]:
    """Return what is known of somebody."""
    ran.append("load")
    get_run_logger().info("Loading %s.", email)
    return {"email": email, "name": f"Dear {email}"}


@task
def letter(profile: dict[str, str]) -> str:
    """Make something of it that no longer is the value."""
    ran.append("letter")
    return profile["name"].upper()


@task
def send(text: str) -> None:
    """Fail with a value, while the world is broken."""
    ran.append("send")
    if broken[0]:
        raise ConnectionError(f"nobody takes {text}")


@flow
def order(email: Email, number: int = 7) -> str:
    """Make something of a value in two steps, and send it."""
    text = letter.submit(load.submit(email)).result()
    send(text)
    return text


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


class Customer(BaseModel):
    id: str
    email: Annotated[str, Personal(of="id")]


@dataclass
class Contact:
    phone: Annotated[str, Personal()]


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        (Customer(id="c-17-personal", email=ANN), "c-17-personal"),
        ([{"a": Customer(id="c-17-personal", email=ANN)}], "c-17-personal"),
        (Contact(ANN), ANN),
    ],
)
def test_marks_on_fields(value: Any, subject: str) -> None:
    """Fields of models and dataclasses are found in arguments, at any depth, whatever the annotation says."""

    @task
    def take(value: Any) -> Any:
        return value

    @flow
    def give(value: Any) -> Any:
        return take(value)

    assert give(value) == value
    assert traces(ANN) == []
    assert forget(subject) > 0


def test_marks_in_annotations_of_other_shapes() -> None:
    """A list of personal values belongs to each of them, and `of` names another parameter; None belongs to nobody."""

    @task
    def many(emails: list[Email], note: Email | None = None) -> int:
        return len(emails)

    @task
    def address(street: Annotated[str, Personal(of="customer")], customer: int) -> str:
        return street

    @flow
    def shapes() -> None:
        many([ANN, BOB])
        address("1 Personal Street", 4711)

    shapes()
    assert traces(ANN, BOB, "1 Personal Street") == []
    assert subjects_of("task_run.completed") == [2, 1 + 2]
    assert forget("4711") > 0


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


def test_mistakes_are_told_without_values() -> None:
    """Marks that name nothing, values without an owner, and arguments that do not fit, are refused in one sentence."""
    with pytest.raises(TypeError, match="has no parameter of that name"):

        @task
        def wrong(street: Annotated[str, Personal(of="custommer")], customer: str) -> None: ...

    @flow
    def orphan(street: Annotated[str, Personal(of="customer")], customer: str | None = None) -> None: ...

    with pytest.raises(ParameterTypeError, match="'customer', which says whose it is, is empty"):
        orphan("1 Personal Street")
    assert traces("1 Personal Street") == []

    @flow
    def main() -> None:
        load(ANN, 1)

    with pytest.raises(ParameterBindError) as refused:
        main()
    assert ANN not in str(refused.value)


def test_parameters_that_do_not_fit_are_not_told() -> None:
    """What a validator of the user's says of a personal value stays out of the log."""

    class Strict(BaseModel):
        email: Email

        @field_validator("email")
        @classmethod
        def fits(cls, email: str) -> str:
            raise ValueError(f"{email} is not allowed")

    @flow
    def strict(who: Strict) -> None: ...

    with pytest.raises(ParameterTypeError, match="is not allowed"):
        strict({"email": ANN})
    assert traces(ANN) == []


def test_futures_and_passed_on_models() -> None:
    """A future of a personal run passed beside others makes the call belong, though nothing is marked there."""

    @task
    def join(parts: list[Any]) -> str:
        return "+".join(part["name"] for part in parts)

    @flow
    def main() -> str:
        first: Future[Any] = load.submit(ANN)
        return join([first, {"name": "nobody"}])

    assert main() == f"Dear {ANN}+nobody"
    assert traces(ANN) == []


class Question(RunInput):
    """What is asked of somebody."""

    text: str
    address: str = ""


def test_questions_of_a_paused_run_and_their_answers() -> None:
    """What a run with personal values asks, and what somebody answers, is encrypted, and can be read while it is."""

    @flow
    def asking(email: Email) -> str:
        asked = Question.with_initial_data(f"Of {email}?", address=email)
        answer = pause_flow_run(wait_for_input=asked, timeout=30, poll_interval=0.1)
        return f"{answer.text} to {answer.address}"

    def answer() -> None:
        engine = current_engine()
        while not (paused := list(engine.log.read_all(types=["flow_run.paused"]))):
            time.sleep(0.02)
        run = paused[0].stream.removeprefix("flow-run/")
        shown.append(shell_command(run, paused[0].data["input_schema"]))
        shown.append(question_text(run, paused[0].data, suspended=False))
        resume_flow_run(run, run_input={"text": f"ask {ANN}"})

    shown: list[str] = []
    current_engine()
    helper = threading.Thread(target=answer, daemon=True)
    helper.start()
    assert asking(BOB) == f"ask {ANN} to {BOB}"
    helper.join(10)
    assert traces(ANN, BOB) == []
    assert shown[0].endswith("--input '...'")
    assert BOB not in shown[1]
    assert BOB in current_engine().vault.revealed(shown[1])


def test_text_that_only_looks_encrypted_is_encrypted() -> None:
    """An exception cannot get around the encryption by beginning like something encrypted."""

    @task
    def fail(email: Email) -> None:
        raise ValueError(f"<personal:{email}>")

    @flow
    def main() -> None:
        fail(ANN)

    main(return_state=True)
    assert traces(ANN) == []


def test_a_generator_hands_its_owner_on_with_its_pieces() -> None:
    """Whoever takes pieces of a generator belongs to whom they belong to, before it has ended."""

    @task
    def pieces(email: Email) -> Iterator[str]:
        yield f"{email} one"
        yield f"{email} two"

    @flow(log_prints=True)
    def main() -> str:
        for piece in pieces(ANN):
            print(piece)
            return piece
        return ""

    assert main() == f"{ANN} one"
    assert traces(ANN) == []


def test_a_key_that_is_missing_is_not_taken_for_an_erasure() -> None:
    """Without its key, and with no erasure on record, a value is said to lack its key."""
    state = order(ANN, return_state=True)
    engine = current_engine()
    [key] = engine.settings.home.glob("*.subject-keys/*")
    key.rename(key.with_suffix(".aside"))
    [failed] = engine.log.read_all(types=["flow_run.failed"])
    assert engine.vault.revealed(failed.data["message"]) == HIDDEN
    with pytest.raises(CannotResume, match="the key of somebody whose personal data it holds is not in"):
        resume_run(str(state.state_details.flow_run_id), flow=order)
    key.with_suffix(".aside").rename(key)
    assert ANN.upper() in engine.vault.revealed(failed.data["message"])


def test_a_log_in_a_server(postgres_url: str, monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    """In PostgreSQL nothing is in plain text either, and the keys are in the home folder."""
    monkeypatch.setenv("FLIGHTLOG_LOG_URL", postgres_url)
    order(ANN, return_state=True)
    engine = current_engine()
    engine.log.flush()
    events = list(engine.log.read_all())
    texts = [repr(event.data) for event in events]
    blobs = [engine.log.blob(digest) for event in events for digest in blob_digests(event.envelope.data)]
    assert len(blobs) >= 4
    assert not any(ANN in text or ANN.upper() in text for text in texts)
    assert not any(ANN.encode() in blob or ANN.upper().encode() in blob for blob in blobs)
    assert len(list((own_home / "keys").glob("*.subject-keys/*.key"))) == 1
    assert forget(ANN) > 10


async def _async_main() -> None:
    @task
    async def fetch(email: Email) -> str:
        await asyncio.sleep(0)
        return f"fetched {email}"

    @task
    def fail(text: str) -> None:
        raise ValueError(f"failed with {text}" * 3000)  # longer than an event may be

    @flow(log_prints=True)
    async def main(emails: list[Email]) -> list[str]:
        found = await asyncio.gather(*(fetch(email) for email in emails))
        mapped = fail.map(found)
        for future in mapped:
            print(str(future.result(raise_on_failure=False)))
        return found

    assert await main([ANN, BOB]) == [f"fetched {ANN}", f"fetched {BOB}"]


def test_async_runs_maps_and_long_texts() -> None:
    """Gathered and mapped calls, and texts that spill into blobs, are encrypted as all others are."""
    asyncio.run(_async_main())
    assert traces(ANN, BOB) == []
    engine = current_engine()
    [failed, _] = engine.log.read_all(types=["task_run.failed"])
    assert len(failed.data["error"]["message"]) > 100_000
    assert "personal@example.org" in engine.vault.revealed(failed.data["error"]["message"])


def test_hooks_methods_and_late_annotations() -> None:
    """What hooks raise is encrypted; methods, and annotations that are text, are looked at as others are."""

    class Desk:
        @task
        def note(self, email: "Email") -> str:
            return f"noted {email}"

    def tell(task: Any, run: Any, state: Any) -> None:
        raise RuntimeError(f"hook: {state.result(raise_on_failure=False)}")

    @flow
    def main() -> None:
        Desk.note.with_options(on_completion=[tell]).__get__(Desk())(ANN)

    main()
    assert traces(ANN) == []
    [ended] = current_engine().log.read_all(types=["hook.ended"])
    assert ANN in current_engine().vault.revealed(ended.data["problem"])
    assert forget(ANN) > 3


def test_annotations_as_text() -> None:
    """Marks are found in text that names what is known where the function is decorated, also inside of other types."""
    Own = Annotated[str, Personal()]  # noqa: N806 - a type

    @task
    def one(email: "Own") -> str:
        return email

    @task
    def some(emails: "list[Own]", word: "Literal['a']" = "a") -> str:
        return emails[0]

    @task
    def inside(emails: list["Own"]) -> str:
        return emails[0]

    @task
    def later(email: "Later") -> str:
        return email

    @task
    def never(email: "Annotated[Nowhere, Personal()]") -> str:  # type: ignore[name-defined]  # noqa: F821
        return str(email)

    @flow
    def main() -> None:
        one(ANN)
        some([ANN])
        inside([ANN])
        later(ANN)

    main()
    assert traces(ANN) == []
    assert subjects_of("task_run.completed") == [1] * 4

    @flow
    def mistaken() -> None:
        never(ANN)

    with pytest.raises(TypeError, match=r"'never'.* cannot be read. Say what is personal with names"):
        mistaken()


Later = Annotated[str, Personal()]


def test_returned_values_are_marked_too() -> None:
    """A task that is given nothing personal and returns it belongs to whom it names; so does whoever gets that."""

    @task
    def fetch(customer: str) -> Customer:
        return Customer(id=customer, email=ANN)

    @task
    def find(customer: str) -> Annotated[str, Personal(of="customer")]:
        get_run_logger().info("Found %s.", BOB)
        return BOB

    @flow(log_prints=True)
    def one(customer: str) -> None:
        print(fetch(customer).email, find(customer))

    @flow
    def everyone() -> None:
        for customer in ("c-1", "c-2"):
            one(customer)

    everyone()
    assert traces(ANN, BOB) == []
    assert subjects_of("flow_run.completed") == [1, 1, 0]
    forget("c-1")
    vault = current_engine().vault
    lines = [line[4] for event in current_engine().log.read_all(types=["log.lines"]) for line in event.data["lines"]]
    assert sorted(map(vault.revealed, lines)) == [ERASED, ERASED, f"Found {BOB}.", f"{ANN} {BOB}"]


def test_a_returned_value_without_an_owner() -> None:
    """A personal value whose owner is not named is not recorded: the run fails with a sentence that says why."""

    @task
    def find(customer: str | None) -> Annotated[str, Personal(of="customer")]:
        return ANN

    @flow
    def main() -> None:
        find(None)

    with pytest.raises(ParameterTypeError, match=r"'return' of 'find' is personal, and 'customer'.* is empty"):
        main()
    assert traces(ANN) == []
