"""State changes made of events: what observers of states are told."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from flightlog.events.log import Log
from flightlog.events.model import Event
from flightlog.events.narration import state_of
from flightlog.events.types import FLOW_RUN, STATES, TASK_RUN, TERMINAL, run_id_of
from flightlog.ids import id_text
from flightlog.plugins.offers import StateChange


class _Known(NamedTuple):
    """What is known of a run from the event that created it."""

    name: str
    subject: str
    tags: tuple[str, ...]


@dataclass(slots=True)
class _Runs:
    """A flow run and its task runs, by id; the flow run's own is empty."""

    known: dict[bytes, _Known] = field(default_factory=dict)

    def learn(self, event: Event) -> None:
        data = event.data
        subject = data["flow"] if event.type == "flow_run.created" else data["task"]
        self.known[data.get("task_run_id", b"")] = _Known(data["name"], subject, tuple(data.get("tags") or ()))


class States:
    """Turns events into state changes; knows the runs that are going on.

    Args:
        log: where runs are looked up that began before.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._open: dict[str, _Runs] = {}

    def changes(self, events: Iterable[Event]) -> Iterator[StateChange]:
        """Yield the state changes that events say, in order."""
        for event in events:
            kind, _, suffix = event.type.partition(".")
            if suffix in STATES and kind in (FLOW_RUN, TASK_RUN) and (change := self._change(event, kind, suffix)):
                yield change

    def _change(self, event: Event, kind: Any, suffix: str) -> StateChange | None:
        run, data = run_id_of(event.stream), event.data
        if run is None:
            return None
        runs = self._open.get(event.stream) or self._looked_up(event)
        if suffix == "created":
            runs.learn(event)
        key = data.get("task_run_id", b"")
        known = runs.known.get(key)
        state_type, state_name = state_of(event.type, data)
        if kind == FLOW_RUN and state_type in TERMINAL:
            self._open.pop(event.stream, None)
        if known is None:
            return None  # its beginning is not in this log: a damaged or partial copy
        subject: Literal["flow_run", "task_run"] = "task_run" if key else "flow_run"
        return StateChange(
            subject,
            id_text(key) if key else run,
            known.name,
            known.subject,
            run,
            state_type,
            state_name,
            data.get("message"),
            known.tags,
            event.occurred_at,
            event,
        )

    def _looked_up(self, event: Event) -> _Runs:
        """Return what is known of a flow run that we have not seen begin."""
        runs = self._open[event.stream] = _Runs()
        if event.version > 1:
            for earlier in self._log.read(event.stream):
                if earlier.version >= event.version:
                    break
                if earlier.type.endswith("_run.created"):
                    runs.learn(earlier)
        return runs
