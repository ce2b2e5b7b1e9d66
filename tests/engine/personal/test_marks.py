"""Personal values: how they are marked, in all the ways in which code hands them on."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, SecretStr, field_validator
from tests.engine.personal.conftest import ANN, BOB, Email, forget, load, order, subjects_of, traces

from flightlog import flow, get_run_logger, task
from flightlog.engine.resuming import resume_run
from flightlog.engine.runtime import current_engine
from flightlog.errors import CannotResume, ParameterBindError, ParameterTypeError
from flightlog.events.codec import blob_digests
from flightlog.events.questions import question_text, shell_command
from flightlog.events.subjects import ERASED, HIDDEN
from flightlog.flow_runs import pause_flow_run, resume_flow_run
from flightlog.futures import Future
from flightlog.input import RunInput
from flightlog.privacy import Personal
from flightlog.states import Completed


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

    @task
    def by_state(customer: str) -> Any:
        return Completed(data=Customer(id=customer, email=ANN), message=f"found {ANN}")

    @flow(log_prints=True)
    def one(customer: str) -> None:
        by_state(customer)
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


def test_an_owner_that_is_still_to_come() -> None:
    """Whose a value is may come from a task that has not ended: until it is known, the value is in no name either."""
    go = threading.Event()

    @task
    def customer() -> str:
        go.wait(30)
        return "c-17-personal"

    @task(task_run_name="at-{street}")
    def address(street: Annotated[str, Personal(of="owner")], owner: str) -> str:
        return street

    @flow
    def main() -> str:
        future = address.submit("1 Personal Street", customer.submit())
        go.set()
        return future.result()

    assert main() == "1 Personal Street"
    assert traces("1 Personal Street") == []
    assert forget("c-17-personal") > 0


def test_secrets_may_be_personal() -> None:
    """A secret names its subject by what it holds, not by the stars that it shows."""

    @task
    def take(token: Annotated[SecretStr, Personal()]) -> str:
        return token.get_secret_value()

    @flow
    def main() -> str:
        return take(SecretStr("t0ken-of-somebody"))

    assert main() == "t0ken-of-somebody"
    assert traces("t0ken-of-somebody") == []
    assert forget("**********") == 0
    assert forget("t0ken-of-somebody") > 0
