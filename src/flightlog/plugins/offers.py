"""The values that hooks take and return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from flightlog.clock import Clock
from flightlog.ids import Ids
from flightlog.settings import Settings

if TYPE_CHECKING:
    from pydantic import BaseModel

    from flightlog.events.log import Log
    from flightlog.events.model import Event
    from flightlog.events.upcasting import Upcaster


@dataclass(frozen=True, slots=True)
class StateChange:
    """A run entered a state.

    Attributes:
        kind: ``flow_run`` or ``task_run``.
        id: the run's id.
        name: its name.
        subject: the name of its flow or task.
        flow_run_id: the flow run that it is, or belongs to.
        state_type: such as ``FAILED``.
        state_name: such as ``TimedOut``.
        message: what the state says of itself; None for nothing.
        tags: its tags.
        at: when, in microseconds since 1970 (UTC).
        event: the event that says so.
    """

    kind: Literal["flow_run", "task_run"]
    id: str
    name: str
    subject: str
    flow_run_id: str
    state_type: str
    state_name: str
    message: str | None
    tags: tuple[str, ...]
    at: int
    event: "Event"


@dataclass(frozen=True, slots=True)
class EventType:
    """A type of events of a plug-in's own.

    Attributes:
        name: a subject that begins with the plug-in's name, a dot and a past participle: ``acme_table.loaded``.
        schema: the version of its payload's shape that is written now.
        model: the shape of its payload.
        upcasters: by schema version, what takes a payload of that version to the next one. Pure.
    """

    name: str
    schema: int
    model: "type[BaseModel]"
    upcasters: "Mapping[int, Upcaster]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PluginSetting:
    """A setting of a plug-in's own.

    Attributes:
        name: capital letters, digits and underscores; ``FLIGHTLOG_PLUGIN_<plug-in>_`` comes in front.
        default: its value as text where nobody sets it.
        help: what it is for, one sentence.
        read: makes the value of text; raises ValueError where that cannot be.
    """

    name: str
    default: str
    help: str
    read: Callable[[str], Any] = str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a service works with.

    Attributes:
        log: the log.
        key: the log's key, 32 bytes.
        settings: the settings.
        clock: time.
        ids: identity and chance.
        mask: replaces known secrets in text that is about to be recorded.
    """

    log: "Log"
    key: bytes
    settings: Settings
    clock: Clock
    ids: Ids
    mask: Callable[[str], str] = str


class Service(Protocol):
    """Something that runs beside flows in their process. It begins and ends in the plug-in's thread; no flow waits."""

    def start(self, surroundings: Surroundings) -> None:
        """Begin, and return: the work goes on in a thread of the service's own, which is a daemon.

        Args:
            surroundings: what to work with.
        """
        ...

    def stop(self, seconds: float) -> None:
        """Do what is left, for so many seconds at the most, and end.

        Args:
            seconds: how long it may take.
        """
        ...
