"""Waiting for what a call rests on, and putting values in place of futures and states."""

from collections.abc import Iterable, Mapping
from typing import Any

from flightlog.engine.arguments import Found, Upstream, are_plain, listed, look, replace
from flightlog.engine.bridge import Waits
from flightlog.engine.futures import BaseFuture
from flightlog.engine.states import State
from flightlog.errors import UpstreamTaskError


async def settled_state(waits: Waits, source: "BaseFuture[Any] | State[Any]") -> State[Any]:
    """Return a future's state once its run has ended; a state as it is."""
    if isinstance(source, State):
        return source
    return await waits.settled(source._outcome, source.help_out)


async def resolved(waits: Waits, parameters: dict[str, Any], wait_for: Iterable[Any] | None) -> dict[str, Any]:
    """Return the parameters with futures and states in them replaced by their values, in copies.

    Raises:
        UpstreamTaskError: a run among them, or in `wait_for`, did not complete.
    """
    if wait_for is None and are_plain(parameters.values()):
        return parameters
    parameters, found = _looked(parameters)
    marked = found.marked
    if wait_for is not None:
        look(list(wait_for), found)
    for upstream in found.upstream:
        await _check(waits, upstream)
    if not marked:
        return parameters
    return {name: replace(value, value_of) for name, value in parameters.items()}


def _looked(parameters: dict[str, Any]) -> tuple[dict[str, Any], Found]:
    """Return some arguments, with lists for iterators, and what is among them."""
    found = _found(parameters)
    if not found.iterators:
        return parameters, found
    lists: dict[int, Any] = {}
    parameters = {name: listed(value, lists) for name, value in parameters.items()}
    return parameters, _found(parameters)


def _found(parameters: Mapping[str, Any]) -> Found:
    found = Found()
    for value in parameters.values():
        look(value, found)
    return found


async def _check(waits: Waits, upstream: Upstream) -> None:
    state = await settled_state(waits, upstream.source)
    if state.is_completed() or (upstream.may_fail and state.is_failed()):
        return
    run = state.state_details.task_run_id or state.state_details.flow_run_id or "unknown"
    raise UpstreamTaskError(f"Upstream task run '{run}' did not reach a 'COMPLETED' state.")


def value_of(source: Any) -> Any:
    """Return the value of an ended future or of a state; the exception if it failed; a state without any as it is."""
    state = source._outcome.value() if isinstance(source, BaseFuture) else source
    return state.result(raise_on_failure=False) if state.is_final() else state


def open_sources(
    parameters: dict[str, Any], wait_for: Iterable[Any] | None
) -> tuple[dict[str, Any], list[BaseFuture[Any]]]:
    """Return some arguments, with lists for iterators, and the futures among them that have not ended."""
    if wait_for is None and are_plain(parameters.values()):
        return parameters, []
    parameters, found = _looked(parameters)
    return parameters, [source for source in _futures(found, wait_for) if not source.done()]


def sources(parameters: dict[str, Any], wait_for: Iterable[Any] | None) -> list[BaseFuture[Any]]:
    """Return the futures among some arguments."""
    if wait_for is None and are_plain(parameters.values()):
        return []
    return _futures(_looked(parameters)[1], wait_for)


def _futures(found: Found, wait_for: Iterable[Any] | None) -> list[BaseFuture[Any]]:
    if wait_for is not None:
        look(list(wait_for), found)
    return [upstream.source for upstream in found.upstream if isinstance(upstream.source, BaseFuture)]
