"""Putting facts of the user's own on record: from a run, from a worker process, or from anywhere else."""

from collections.abc import Mapping
from typing import Any

from flightlog.engine.context import CURRENT, TaskRunContext
from flightlog.engine.privacy import check_open
from flightlog.engine.runtime import current_engine
from flightlog.events.model import Append, NewEvent


def put_on_record(
    stream: str, type_: str, data: Mapping[str, Any], *, occurred_at: int | None = None, follows: bytes | None = None
) -> None:
    """Append an event; in a run, with the run's next commit, elsewhere at once.

    Args:
        stream: the stream's name.
        type_: the event's type.
        data: its payload; the run that it was made in is added.
        occurred_at: when, in microseconds since 1970; now by default.
        follows: the id of the event that caused it.
    """
    context = CURRENT.get()
    if context is None:
        engine = current_engine()
        event = NewEvent(engine.ids.new(), type_, data, occurred_at or engine.clock.now(), follows)
        engine.log.append(stream, [event])
        return
    check_open(context, type_)
    flow = context.flow_context
    told = {**data, "flow_run_id": flow.flow_run.key}
    if isinstance(context, TaskRunContext):
        told["task_run_id"] = context.task_run.key
    if flow.relay is not None:
        flow.relay.record(stream, type_, told, occurred_at, follows)
        return
    engine = flow.engine
    event = NewEvent(engine.ids.new(), type_, told, occurred_at or engine.clock.now(), follows)
    engine.log.enqueue([Append(stream, [event])])
