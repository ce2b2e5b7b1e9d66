"""States: types, names, predicates, how they are shown, and their results."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flightlog import State, states
from flightlog.errors import CancelledRun, CrashedRun, FailedRun, PausedRun, UnfinishedRun
from flightlog.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    StateType,
    Suspended,
)

FINAL = {"COMPLETED", "CANCELLED", "FAILED", "CRASHED"}


def test_E80_the_types() -> None:
    """There are nine types of states."""
    names = "SCHEDULED PENDING RUNNING COMPLETED FAILED CANCELLED CRASHED PAUSED CANCELLING"
    assert {type_.value for type_ in StateType} == set(names.split())


@pytest.mark.parametrize("type_", list(StateType))
def test_E80_final_types(type_: StateType) -> None:
    """COMPLETED, CANCELLED, FAILED and CRASHED are final, the others are not."""
    assert State(type_).is_final() == (type_.value in FINAL)


@pytest.mark.parametrize("type_", list(StateType))
def test_E83_each_predicate_is_true_of_its_type_alone(type_: StateType) -> None:
    """`is_completed()` and the like look at the type."""
    state: State[Any] = State(type_, name="Whatever")
    for other in StateType:
        assert getattr(state, f"is_{other.value.lower()}")() == (other is type_)


def test_E83_timed_out_is_failed() -> None:
    """A state named TimedOut of type FAILED is failed."""
    assert State(StateType.FAILED, name="TimedOut").is_failed()


@pytest.mark.parametrize(
    ("make", "type_", "name"),
    [
        (Scheduled, "SCHEDULED", "Scheduled"),
        (AwaitingRetry, "SCHEDULED", "AwaitingRetry"),
        (Pending, "PENDING", "Pending"),
        (Running, "RUNNING", "Running"),
        (Retrying, "RUNNING", "Retrying"),
        (Completed, "COMPLETED", "Completed"),
        (Failed, "FAILED", "Failed"),
        (Crashed, "CRASHED", "Crashed"),
        (Cancelled, "CANCELLED", "Cancelled"),
        (Cancelling, "CANCELLING", "Cancelling"),
        (Paused, "PAUSED", "Paused"),
    ],
)
def test_E81_constructors_have_types_and_names(make: Any, type_: str, name: str) -> None:
    """Each constructor makes a state of its type with its name."""
    state = make()
    assert (state.type, state.name) == (type_, name)


def test_E81_the_constructor_of_late_states() -> None:
    """`Late` is SCHEDULED and takes a time."""
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    state = vars(states)["Late"](scheduled_time=moment)
    assert (state.type, state.name, state.state_details.scheduled_time) == ("SCHEDULED", "Late", moment)


def test_E81_any_name_is_allowed() -> None:
    """A name of one's own does not change the type."""
    state = Completed(name="Skipped")
    assert (state.name, state.type) == ("Skipped", "COMPLETED")


@pytest.mark.parametrize("type_", list(StateType))
def test_E82_the_default_name_is_the_type_capitalised(type_: StateType) -> None:
    """Without a name a state is named by its type."""
    assert State(type_).name == type_.value.capitalize()


def test_E82_a_state_has_a_timestamp_in_utc() -> None:
    """The timestamp is aware, in UTC, and now by default."""
    before = datetime.now(UTC)
    state = Completed()
    assert state.timestamp.utcoffset() == timedelta(0)
    assert before - timedelta(seconds=1) <= state.timestamp <= datetime.now(UTC) + timedelta(seconds=1)


def test_E82_a_state_has_an_id_of_its_own() -> None:
    """Each state has an id."""
    first: Any = Completed()
    second: Any = Completed()
    assert first.id != second.id


def test_E82_a_scheduled_state_without_a_time_gets_now() -> None:
    """SCHEDULED needs a time."""
    due = Scheduled().state_details.scheduled_time
    assert due is not None
    assert due.utcoffset() == timedelta(0)


def test_E82_a_scheduled_state_made_by_its_type_gets_now() -> None:
    """`State(SCHEDULED)` has a time as `Scheduled()` has."""
    assert State(StateType.SCHEDULED).state_details.scheduled_time is not None


def test_E82_a_state_made_by_hand_belongs_to_no_run() -> None:
    """The details have no ids unless the engine made the state."""
    details = Completed().state_details
    assert (details.flow_run_id, details.task_run_id, details.child_flow_run_id) == (None, None, None)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (Completed(), "Completed()"),
        (Completed(message="All states completed."), "Completed('All states completed.')"),
        (Completed(name="Cached"), "Cached(type=COMPLETED)"),
        (State(StateType.FAILED, name="TimedOut", message="x"), "TimedOut('x', type=FAILED)"),
        (Failed(message="it's"), 'Failed("it\'s")'),
        (AwaitingRetry(), "AwaitingRetry(type=SCHEDULED)"),
    ],
)
def test_E84_str_shows_name_message_and_type_where_they_say_something(state: Any, text: str) -> None:
    """`str(state)` is the name, the message if any, and the type if it differs from the name."""
    assert str(state) == text


def test_E84_repr_shows_message_type_and_result() -> None:
    """`repr(state)` has the message, the type and the result."""
    text = repr(Completed(message="good", data=5))
    assert text == "Completed(message='good', type=COMPLETED, result=5)"


def test_E85_constructors_take_keywords() -> None:
    """Constructors take message, name and data."""
    state = Completed(message="m", name="N", data=[1])
    assert (state.message, state.name, state.data) == ("m", "N", [1])


@pytest.mark.parametrize("make", [Scheduled, AwaitingRetry])
def test_E85_scheduled_constructors_take_a_time(make: Any) -> None:
    """`Scheduled` and `AwaitingRetry` take the time at which they are due."""
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert make(scheduled_time=moment).state_details.scheduled_time == moment


@pytest.mark.parametrize("fold", [0, 1])
def test_E82_times_of_states_are_in_utc_whatever_zone_they_are_given_in(fold: int) -> None:
    """In the hour that comes twice, too; a time without a zone is local."""
    night = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    for due in (Scheduled(night).state_details.scheduled_time, AwaitingRetry(night).state_details.scheduled_time):
        assert due is not None
        assert due.isoformat() == f"2024-10-27T0{fold}:30:00+00:00"
    until = Suspended(pause_expiration_time=night).state_details.pause_timeout
    assert until is not None
    assert until.isoformat() == f"2024-10-27T0{fold}:30:00+00:00"
    here = datetime(2024, 1, 1)  # noqa: DTZ001
    assert Scheduled(here).state_details.scheduled_time == here.astimezone(UTC)


def test_E85_pauses_take_one_of_two_times_and_a_key() -> None:
    """`Paused` waits for some seconds or until a moment, in its process or, as `Suspended` does, in none."""
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    details = Paused(pause_expiration_time=moment, pause_key="mine").state_details
    assert (details.pause_timeout, details.pause_key, details.pause_reschedule) == (moment, "mine", False)
    assert Paused(reschedule=True).state_details.pause_reschedule
    suspended = Suspended(timeout_seconds=60)
    assert (suspended.type, suspended.name, suspended.state_details.pause_reschedule) == ("PAUSED", "Suspended", True)
    until = suspended.state_details.pause_timeout
    assert until is not None
    left = until - datetime.now(UTC)
    assert timedelta(0) < left <= timedelta(seconds=60)
    for make in (Paused, Suspended):
        with pytest.raises(ValueError, match="not both"):
            make(timeout_seconds=1, pause_expiration_time=moment)


def test_E86_the_result_of_a_completed_state_is_its_data() -> None:
    """`result()` gives the data, None included."""
    assert Completed(data=[1]).result() == [1]
    assert Completed(data=None).result() is None


@pytest.mark.parametrize("make", [Failed, Crashed, Cancelled])
def test_E86_a_state_that_did_not_end_well_raises_its_exception(make: Any) -> None:
    """`result()` raises the very exception, or gives it with `raise_on_failure=False`."""
    error = ValueError("mine")
    state = make(data=error)
    with pytest.raises(ValueError, match="mine") as caught:
        state.result()
    assert caught.value is error
    assert state.result(raise_on_failure=False) is error


def test_E86_a_failed_state_raises_the_first_failure_inside() -> None:
    """The data of a failed state may be states; the first failure is looked for in depth."""
    inner = Failed(data=[Completed(data=1), Failed(data=ValueError("first")), Failed(data=TypeError("second"))])
    with pytest.raises(ValueError, match="first"):
        Failed(data=[Completed(data=0), inner]).result()
    with pytest.raises(ValueError, match="first"):
        Failed(data=Failed(data=ValueError("first"))).result()


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (Failed(message="why"), FailedRun, "why"),
        (Failed(data="told"), FailedRun, "told"),
        (Crashed(message="why"), CrashedRun, "why"),
        (Crashed(data="told"), CrashedRun, "told"),
        (Cancelled(message="why"), CancelledRun, "why"),
        (Cancelled(data="told"), CancelledRun, "told"),
        (Running(), UnfinishedRun, "."),
        (Pending(), UnfinishedRun, "."),
        (Scheduled(), UnfinishedRun, "."),
        (Paused(), PausedRun, "."),
    ],
)
def test_E87_states_without_an_exception_raise_what_they_are(state: Any, error: type[Exception], text: str) -> None:
    """A state without value and exception raises the error for its type, with its text."""
    with pytest.raises(error, match=text):
        state.result()


def test_E87_raise_on_failure_false_never_raises_for_final_states() -> None:
    """A failed state without an exception gives the error object instead of raising it."""
    result = Failed(message="why").result(raise_on_failure=False)
    assert isinstance(result, FailedRun)
    assert "why" in str(result)


def test_E87_a_state_is_picklable() -> None:
    """A state survives pickling, with its data."""
    import pickle

    state = pickle.loads(pickle.dumps(Failed(message="m", data=ValueError("x"))))
    assert (state.name, state.type, state.message) == ("Failed", "FAILED", "m")
    assert isinstance(state.data, ValueError)
