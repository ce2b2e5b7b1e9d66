"""What each field of a rule, a channel and a route does: the same story without it and with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.notifications.rule_world import World

from flightlog import emit_event, flow, tags, task
from flightlog.events.model import NewEvent
from flightlog.events.types import INCIDENT_ACKNOWLEDGED, flow_run_stream, incident_stream
from flightlog.ids import RandomIds, id_text
from flightlog.notifications.durations import microseconds
from flightlog.notifications.ledger import incidents


@dataclass(frozen=True)
class Case:
    """A field, and a story that it changes.

    Attributes:
        name: which field, as ``Rule.hold``.
        story: what happens, a word each; see `_happen`.
        without: what is sent without the field: ``ops opened, mail escalated``.
        set: the field's value in the rule, channel or route, with what it needs: dotted names.
        sent: what is sent with it.
        rule: the rest of the rule.
        channels: the rest of the channels.
        more: other rules.
    """

    name: str
    story: str
    without: str
    set: dict[str, Any]
    sent: str
    rule: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, Any] = field(default_factory=dict)
    routes: tuple[dict[str, Any], ...] = ()
    more: tuple[dict[str, Any], ...] = ()


@flow
def etl(good: bool, number: int = 0) -> None:
    """Fail, or not."""
    if not good:
        raise [ValueError, KeyError][number]("no rows")


@flow
def report() -> None:
    """Fail."""
    raise ValueError("no paper")


@task
def load() -> None:
    """Fail."""
    raise ValueError("no disk")


@flow
def lenient() -> int:
    """Live with a task that fails."""
    load(return_state=True)
    return 1


@flow
def parent() -> None:
    """Fail since a subflow does."""
    report()


def _tagged(world: World) -> None:
    """Have a run with tags fail."""
    with tags("prod", "team=core"):
        etl(False, return_state=True)


_WORDS: dict[str, Callable[[World], Any]] = {
    "ok": lambda _: etl(True, return_state=True),
    "fail": lambda _: etl(False, return_state=True),
    "key": lambda _: etl(False, 1, return_state=True),
    "report": lambda _: report(return_state=True),
    "task": lambda _: lenient(),
    "parent": lambda _: parent(return_state=True),
    "emit": lambda _: emit_event("data.late", {"flightlog.resource.id": "table"}),
    "prod": _tagged,
    "deployed": lambda world: _deployed(world),
}


def _happen(world: World, word: str) -> None:
    """Have something happen."""
    if word in _WORDS:
        _WORDS[word](world)
    elif word.startswith("slow:"):
        _slow(world, word.removeprefix("slow:"))
    elif word == "ack":
        (one,) = incidents(world.engine.log)[-1:]
        told = NewEvent(RandomIds().new(), INCIDENT_ACKNOWLEDGED, {"incident": one.id}, world.clock.now())
        world.engine.log.append(incident_stream(one.id), [told])
    else:
        world.clock.advance(microseconds(word) / 1e6)
    world.work()


def _deployed(world: World) -> None:
    """Have a run that comes from a deployment fail, as it is recorded."""
    ids, now = RandomIds(), world.clock.now()
    created = {"flow": "etl", "name": "of-a-deployment", "deployment": "nightly"}
    error = {"type": "ValueError", "message": "no rows"}
    happened: tuple[tuple[str, dict[str, Any]], ...] = (
        ("flow_run.created", created),
        ("flow_run.running", {}),
        ("flow_run.failed", {"error": error}),
    )
    events = [NewEvent(ids.new(), type_, data, now) for type_, data in happened]
    world.engine.log.append(flow_run_stream(id_text(ids.new())), events)


def _slow(world: World, span: str) -> None:
    """Have a run take some time; somebody looks before its end, too."""

    @flow(name="etl")
    def slow() -> None:
        world.work()
        world.clock.advance(microseconds(span) / 1e6)
        world.work()

    slow()


def lived(world: World, rule: dict[str, Any], case: Case, channels: dict[str, Any], routes: Any) -> str:
    """Live through a case's story with a rule; return what was sent."""
    world.configure({"name": "r", **rule}, *case.more, channels=channels, routes=routes)
    world.work()
    for word in case.story.split():
        _happen(world, word)
    sent = [
        (one.at, channel, order, f"{channel} {one.kind}{'' if one.rule == 'r' else f' {one.rule}'}")
        for channel, notifier in world.notifiers.items()
        for order, one in enumerate(notifier.sent)
    ]
    return ", ".join(told for *_, told in sorted(sent))
