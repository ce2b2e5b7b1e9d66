"""The hooks: what plug-ins are told, and what they are asked for.

A plug-in is a module whose functions bear the names below and are marked with `hookimpl`. A function takes those of
the hook's arguments that it wants, by name. Hooks that begin with ``on_`` tell what happened: nothing that they do
changes a run. Hooks that begin with ``register_`` ask what a plug-in has to offer, by name.

`FIRED` says of each hook when it is called, and in which process and thread; the reference is made from it, and a test
fails when a hook lacks it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pluggy import HookimplMarker, HookspecMarker

from flightlog.events.model import Event
from flightlog.plugins.offers import EventType, PluginSetting, Service, StateChange

if TYPE_CHECKING:
    import click

    from flightlog.projections.projection import Projection

hookspec = HookspecMarker("flightlog")
hookimpl = HookimplMarker("flightlog")
"""Marks a function of a plug-in as an implementation of the hook of the same name."""


@hookspec
def on_events(events: Sequence[Event]) -> None:
    """Events that this process has committed, a batch at a time, in order.

    Args:
        events: the events, oldest first; some 500 at the most. In a log on PostgreSQL, `position` and `recorded_at`
            are 0: they are given after the commit.
    """


@hookspec
def on_log_events(events: Sequence[Event]) -> None:
    """Every committed event from a durable cursor: none is missed, whichever process is there to hand it over.

    At least once and in order; should it raise, or the process die, the same events come again. Of several processes
    one hands them over. It begins with what is recorded after the plug-in was first seen.

    Args:
        events: some of the log's events in the order of their positions, oldest first; 500 at the most.
    """


@hookspec
def on_flow_run_state(change: StateChange) -> None:
    """A flow run entered a state, and that is committed.

    Args:
        change: which run, and which state.
    """


@hookspec
def on_task_run_state(change: StateChange) -> None:
    """A task run entered a state, and that is committed.

    Args:
        change: which run, and which state.
    """


@hookspec
def register_task_runners() -> Mapping[str, Callable[[], Any]]:  # type: ignore[empty-body]
    """Task runners by the name that users give: ``@flow(task_runner="dask")``.

    Returns:
        By name, what makes one without arguments, such as a subclass of `flightlog.task_runners.TaskRunner`.
    """


@hookspec
def register_result_storages() -> Mapping[str, Callable[[str], Any]]:  # type: ignore[empty-body]
    """Places for recorded values, by the scheme of their URLs: ``result_storage="vault://reports"``.

    Returns:
        By scheme, what makes a storage of a URL. It passes `flightlog.testing.StorageContract`.
    """


@hookspec
def register_serializers() -> Mapping[str, Callable[[], Any]]:  # type: ignore[empty-body]
    """Ways to make bytes of values, by the name that users give: ``result_serializer="arrow"``.

    Returns:
        By name, what makes a `flightlog.serializers.Serializer` without arguments.
    """


@hookspec
def register_notifiers() -> Mapping[str, type[Any]]:  # type: ignore[empty-body]
    """Kinds of channels that messages go out through, by the name that configurations give: ``kind = "slack"``.

    Returns:
        By kind, a subclass of `flightlog.notifications.Notifier`. It passes `flightlog.testing.NotifierContract`.
    """


@hookspec
def register_blocks() -> Sequence[type[Any]]:  # type: ignore[empty-body]
    """Types of configuration documents that are saved by name.

    Returns:
        Subclasses of `flightlog.blocks.Block`.
    """


@hookspec
def register_projections() -> "Sequence[Projection]":  # type: ignore[empty-body]
    """Views of the log that are kept beside ours, and caught up, checked and rebuilt with them.

    Returns:
        Projections; the names of their tables begin with the plug-in's. They pass
        `flightlog.testing.ProjectionContract`.
    """


@hookspec
def register_event_types() -> Sequence[EventType]:  # type: ignore[empty-body]
    """Event types of the plug-in's own, with what lifts their older shapes.

    Returns:
        The types; their names begin with the plug-in's.
    """


@hookspec
def register_commands() -> "Mapping[str, click.Command]":  # type: ignore[empty-body]
    """Commands for the command line: ``flightlog NAME``.

    Returns:
        By name, a command or a group. Names that Flightlog has itself stay its own.
    """


@hookspec
def register_settings() -> Sequence[PluginSetting]:  # type: ignore[empty-body]
    """Settings of the plug-in's own: ``FLIGHTLOG_PLUGIN_<plug-in>_<name>``, in the environment or a profile.

    Returns:
        The settings.
    """


@hookspec
def register_services() -> Mapping[str, Callable[[], Service]]:  # type: ignore[empty-body]
    """What is to run beside flows in their process, from the first flow run on until the process lets go of the log.

    Returns:
        By name, what makes a service.
    """


_OWN_THREAD = "in a thread of the plug-in's own, one call at a time."
_WATCHING = f"After the commit, within some 0.1 s, in the process that runs the flow, {_OWN_THREAD}"
_LAST = " When the process ends, what is committed by then is still handed over, for as long as 5 s."
_ASKED = f" Once in a process, {_OWN_THREAD}"

FIRED: Final[dict[str, str]] = {
    "on_events": _WATCHING + _LAST,
    "on_log_events": _WATCHING + _LAST + " What no process has handed over goes out with the next one that runs flows, "
    "or with `flightlog plugins run`.",
    "on_flow_run_state": _WATCHING + _LAST,
    "on_task_run_state": _WATCHING + _LAST,
    "register_task_runners": "When a flow names a runner that Flightlog does not know." + _ASKED,
    "register_result_storages": "When a URL has a scheme that the plug-in's manifest names." + _ASKED,
    "register_serializers": "When a serializer is named that Flightlog does not know." + _ASKED,
    "register_notifiers": "When messages are about to go out, or are set up." + _ASKED,
    "register_blocks": "When a block of a type is asked for that the process does not know." + _ASKED,
    "register_projections": "When projections are read, caught up, checked or rebuilt." + _ASKED,
    "register_event_types": "When the command line or an observer reads a log." + _ASKED,
    "register_commands": "When a command is called that Flightlog does not have." + _ASKED,
    "register_settings": "When the plug-in's settings are read or shown." + _ASKED,
    "register_services": "When the first flow run begins; no run waits for it." + _ASKED,
}
OBSERVERS: Final = ("on_events", "on_flow_run_state", "on_task_run_state")
"""The hooks that are told of events while this process runs flows."""
DURABLE: Final = "on_log_events"
"""The hook that is told of every event of the log."""
SERVICES: Final = "register_services"
"""The hook that brings what runs beside flows."""
HOOKS: Final = tuple(FIRED)
"""The names of all hooks."""
BY_NAME: Final = frozenset(
    f"register_{offered}"
    for offered in ("task_runners", "result_storages", "serializers", "notifiers", "commands", "services")
)
"""The hooks that ask for something by name: they return mappings. The others that ask get sequences."""
