"""A plug-in that implements every hook: each is here as small as it can be and still be of use.

The reference of hooks shows these functions, and `tests/plugins/test_hooks.py` runs each. As a plug-in of one file it
would lie in ``./flightlog_plugins``; `flightlog plugins new` writes one that can be installed.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Table, Text

from flightlog.blocks import Block
from flightlog.events.model import Event
from flightlog.notifications.notifier import Message, Notifier, Receipt
from flightlog.plugins import EventType, PluginSetting, Service, StateChange, Surroundings, hookimpl, settings_of
from flightlog.projections.projection import Look, Projection, Put
from flightlog.serializers import Serializer
from flightlog.task_runners import ConcurrentTaskRunner, TaskRunner

__version__ = "1.0"

# --- on_events
COUNTS: Counter[str] = Counter()


@hookimpl
def on_events(events: Sequence[Event]) -> None:
    """Count what happens, by type of event."""
    COUNTS.update(event.type for event in events)


# --- on_log_events
@hookimpl
def on_log_events(events: Sequence[Event]) -> None:
    """Write every event of the log into a file of one's own; one that comes twice is known by its position."""
    with Path(settings_of("every-hook")["COPY_TO"]).open("a") as file:
        for event in events:
            file.write(json.dumps([event.position, event.type]) + "\n")


# --- on_flow_run_state
ENDED: list[str] = []


@hookimpl
def on_flow_run_state(change: StateChange) -> None:
    """Keep how flow runs ended."""
    if change.state_type in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        ENDED.append(f"{change.subject} {change.state_name}")


# --- on_task_run_state
RETRIED: list[str] = []


@hookimpl
def on_task_run_state(change: StateChange) -> None:
    """Keep which tasks were tried again."""
    if change.state_name == "AwaitingRetry":
        RETRIED.append(change.subject)


# --- register_task_runners
@hookimpl
def register_task_runners() -> Mapping[str, Callable[[], TaskRunner]]:
    """Offer a runner with a single thread: ``@flow(task_runner="one-at-a-time")``."""
    return {"one-at-a-time": lambda: ConcurrentTaskRunner(max_workers=1)}


# --- register_result_storages
class Shelf:
    """A place for values in memory; what is on it is gone with the process."""

    shelves: ClassVar[dict[str, dict[str, bytes]]] = {}

    def __init__(self, url: str) -> None:
        self.url = url
        self._values = self.shelves.setdefault(url, {})

    def write_path(self, path: str, content: bytes) -> None:
        """Put some content on the shelf."""
        self._values[path] = content

    def read_path(self, path: str) -> bytes:
        """Return what is on the shelf."""
        if path not in self._values:
            raise FileNotFoundError(path)
        return self._values[path]


@hookimpl
def register_result_storages() -> Mapping[str, Callable[[str], Shelf]]:
    """Offer shelves: ``@flow(result_storage="shelf://upper")``."""
    return {"shelf": Shelf}


# --- register_serializers
class LiteralSerializer(Serializer):
    """Values as Python literals, which people can read."""

    type = "literal"

    def dumps(self, value: Any) -> bytes:
        """Return a literal; a value that has none is refused."""
        import ast

        text = repr(value)
        if ast.literal_eval(text) != value:
            raise TypeError(f"{type(value).__name__} has no literal")
        return text.encode()

    def loads(self, content: bytes) -> Any:
        """Return the value of a literal."""
        import ast

        return ast.literal_eval(content.decode())


@hookimpl
def register_serializers() -> Mapping[str, type[Serializer]]:
    """Offer the serializer: ``@flow(result_serializer="literal")``."""
    return {"literal": LiteralSerializer}


# --- register_notifiers
class FileNotifier(Notifier):
    """Sends messages into a file."""

    kind = "file"
    path: Path

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Append the message's subject to the file."""
        with self.path.open("a") as file:
            file.write(message.subject + "\n")
        return {"line": message.key}


@hookimpl
def register_notifiers() -> Mapping[str, type[Notifier]]:
    """Offer the channel: ``kind = "file"``."""
    return {"file": FileNotifier}


# --- register_blocks
class Warehouse(Block):
    """Where a warehouse is; saved by name."""

    host: str
    port: int = 5432


@hookimpl
def register_blocks() -> Sequence[type[Block]]:
    """Offer the type: ``Warehouse.load("north")``."""
    return [Warehouse]


# --- register_projections
class FailuresProjection:
    """How often each flow has failed."""

    name = "every_hook_failures"
    version = 1
    types: frozenset[str] | None = frozenset({"flow_run.created", "flow_run.failed"})
    tables: Sequence[Table] = (
        Table("every_hook_runs", MetaData(), Column("stream", Text, primary_key=True), Column("flow", Text)),
        Table("every_hook_failures", MetaData(), Column("flow", Text, primary_key=True), Column("failures", Integer)),
    )

    def apply(self, event: Event, look: Look, /) -> list[Put]:
        """Remember of what flow a run is; count its failure."""
        if event.type == "flow_run.created":
            return [Put("every_hook_runs", (event.stream,), {"flow": event.data["flow"]})]
        run = look("every_hook_runs", (event.stream,))
        if run is None:
            return []
        row = look("every_hook_failures", (run["flow"],))
        return [Put("every_hook_failures", (run["flow"],), {"failures": (row["failures"] if row else 0) + 1})]


@hookimpl
def register_projections() -> Sequence[Projection]:
    """Offer the projection."""
    return [FailuresProjection()]


# --- register_event_types
class Loaded(BaseModel):
    """A table was loaded."""

    table: str
    rows: int


def _rows_instead_of_count(data: dict[str, Any]) -> dict[str, Any]:
    """Lift the first schema, which said `count`."""
    return {"table": data["table"], "rows": data["count"]}


@hookimpl
def register_event_types() -> Sequence[EventType]:
    """Offer the type, and what lifts its first schema."""
    return [EventType("every_hook.loaded", 2, Loaded, {1: _rows_instead_of_count})]


# --- register_commands
@click.command()
@click.argument("name", default="you")
def greet(name: str) -> None:
    """Greet somebody."""
    click.echo(f"Hello, {name}.")


@hookimpl
def register_commands() -> Mapping[str, click.Command]:
    """Offer the command: ``flightlog greet``."""
    return {"greet": greet}


# --- register_settings
@hookimpl
def register_settings() -> Sequence[PluginSetting]:
    """Offer ``FLIGHTLOG_PLUGIN_EVERY_HOOK_COPY_TO`` and ``..._LEVEL``; `settings_of` reads them."""
    return [
        PluginSetting("COPY_TO", os.devnull, "The file that events are copied to."),
        PluginSetting("LEVEL", "3", "How much is told, from 0 to 9.", int),
    ]


# --- register_services
class Bell:
    """Rings once in a while, in a thread of its own, for as long as the process runs flows."""

    rings: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, surroundings: Surroundings) -> None:
        """Begin to ring."""
        self._thread = threading.Thread(target=self._ring, args=(surroundings.log.store.location,), daemon=True)
        self._thread.start()

    def _ring(self, log: str) -> None:
        self.rings[log] += 1
        while not self._ended.wait(60):
            self.rings[log] += 1

    def stop(self, seconds: float) -> None:
        """End."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(seconds)


@hookimpl
def register_services() -> Mapping[str, Callable[[], Service]]:
    """Offer the bell."""
    return {"bell": Bell}
