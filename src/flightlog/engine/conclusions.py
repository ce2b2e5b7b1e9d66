"""What the value that a flow's function returns makes of its run."""

from typing import Any

from flightlog.engine.arguments import Found, look, replace
from flightlog.engine.bridge import Waits
from flightlog.engine.context import CURRENT, FlowRunContext
from flightlog.engine.futures import BaseFuture
from flightlog.engine.iterators import listed_value
from flightlog.engine.keeping import kept, privately
from flightlog.engine.outcomes import Outcome
from flightlog.engine.states import State, StateType, Tally
from flightlog.engine.upstream import settled_state, value_of
from flightlog.errors import CallsDiffer, LogError, TakenOver


def spelled_out(context: FlowRunContext, outcome: Outcome) -> Outcome:
    """Return how an attempt ended, with lists for iterators in its value; what they do is still done in the flow.

    Args:
        context: the attempt.
        outcome: how its function ended.
    """
    if outcome.error is not None:
        return outcome
    token = CURRENT.set(context)
    try:
        value = listed_value(outcome.value)
    except (TakenOver, CallsDiffer, LogError):
        raise
    except BaseException as error:  # noqa: BLE001 - an iterator is the user's own code
        return Outcome(error=error)
    finally:
        CURRENT.reset(token)
    return outcome if value is outcome.value else Outcome(value)


async def conclude(
    waits: Waits, context: FlowRunContext, found: tuple[State[Any], dict[str, Any]] | None, value: Any
) -> tuple[State[Any], dict[str, Any], Any]:
    """Return the state that an attempt leads to, what the log is told of it, and the blobs that go with it.

    Args:
        waits: how to wait.
        context: the attempt.
        found: its state and what the log is told of it, if its function did not return.
        value: what its function returned.
    """
    if found is not None:
        return *found, {}
    state = await _final_state(waits, context.tally, value)
    if state.type is StateType.COMPLETED:
        keeping = privately(context.flow.keeping(context.keeping), context.flow_run)
        facts, blobs = await kept(waits, context.engine, state, keeping)
        if context.flow.isgenerator and waits.partial:
            facts["partial"] = True
        return state, facts, blobs
    return state, {"cause": "user_error"} if state.type is StateType.FAILED else {}, {}


async def _final_state(waits: Waits, tally: Tally, value: Any) -> State[Any]:
    """Return the final state of a flow whose function returned `value`.

    A state made by hand is used as it is. None, a future or run's state, and a list, tuple or set of nothing
    else, aggregate the states of the runs in question. Anything else is Completed. The value is what the
    function returned, with futures and states in it replaced by their values.
    """
    if isinstance(value, State) and value.state_details.flow_run_id is None:
        return State(value.type, value.name, value.message, value.data, states=value.states)
    if value is None:
        return tally.aggregate() if tally else State(StateType.COMPLETED)
    look(value, found := Found())
    states = [await settled_state(waits, upstream.source) for upstream in found.upstream]
    result = replace(value, value_of) if found.marked else value
    if not _all_runs(value):
        return State(StateType.COMPLETED, None, None, result)
    inner = Tally()
    for number, state in enumerate(states):
        inner.add(state, number)
    aggregate = inner.aggregate()
    aggregate.data = result if aggregate.is_completed() else None
    return aggregate


def _all_runs(value: Any) -> bool:
    if type(value) in (list, tuple, set):
        return bool(value) and all(isinstance(item, (BaseFuture, State)) for item in value)
    return isinstance(value, (BaseFuture, State))


__all__ = ["conclude", "spelled_out"]
