"""Histories of runs and rules that hypothesis makes up, and logs in virtual time on which rules are at work."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from hypothesis import strategies as st

from flightlog.events.log import Log
from flightlog.events.model import Event, NewEvent
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.subscriptions import Subscription
from flightlog.events.types import (
    INCIDENT_ACKNOWLEDGED,
    INCIDENT_OPENED,
    NOTIFICATION_RETRIED,
    RULE_REMOVED,
    RULE_SET,
    SILENCE_ADDED,
    SILENCE_ENDED,
    flow_run_stream,
    incident_stream,
    notification_stream,
    rule_stream,
    silence_stream,
)
from flightlog.ids import id_text
from flightlog.notifications.configuring import Configurator
from flightlog.notifications.decisions import Decision
from flightlog.notifications.delivery import Delivery
from flightlog.notifications.folding import Fold
from flightlog.notifications.following import Follower
from flightlog.notifications.ledger import DECISIONS
from flightlog.notifications.notifier import DeliveryError, Message, Receipt
from flightlog.notifications.rules import Channel, Route, Rule
from flightlog.projections.asides import Asides, asides
from flightlog.projections.places import FilePlace
from flightlog.testing import VirtualClock

RUNS = [bytes([1]) * 6 + bytes([n]) * 10 for n in range(1, 7)]
TASKS = [bytes([2]) * 6 + bytes([n]) * 10 for n in range(1, 4)]
FLOWS = ["etl", "report"]
CHANNELS = ["ops", "mail", "chat"]
NAMES = ["one", "two", "three"]
SPANS = ["30s", "5m", "1h"]

spans = st.sampled_from(SPANS)
thresholds = st.one_of(
    *[st.just({})] * 6,
    st.builds(lambda n, span: {"failures": n, "within": span}, st.integers(2, 3), spans),
    st.builds(lambda n: {"consecutive": n}, st.integers(2, 3)),
    st.builds(lambda span: {"not_succeeded_within": span}, spans),
    st.builds(lambda than: {"slower_than": than}, st.sampled_from(["5m", "p50"])),
    st.just({"recovered": True}),
)
matches = st.one_of(
    *[st.just({})] * 5,
    st.just({"flow": "etl"}),
    st.just({"task": "*"}),
    st.just({"state": ["AwaitingRetry", "FAILED"]}),
    st.just({"state": "Completed"}),
    st.just({"tags": ["prod"]}),
    st.just({"event": ["event.emitted", "notification.dead"]}),
    st.just({"event": "data.*"}),
    st.just({"where": "data.attempt >= 2 or 'prod' in tags"}),
)
groups = st.sampled_from(
    [["flow"], ["flow"], ["flow"], ["run"], ["flow", "task"], ["error"], ["tag:te"], ["event"], ["flow", "state"]]
)
flappings = st.builds(lambda n, span: {"changes": n, "within": span}, st.integers(2, 3), spans)
mutes = st.sampled_from(
    [{"from": "00:10", "to": "01:00"}, {"from": "22:00", "to": "00:05", "timezone": "Asia/Kolkata"}]
)
escalations = st.lists(
    st.builds(lambda span, name: {"after": span, "channels": [name]}, spans, st.sampled_from(CHANNELS)), max_size=2
)
optional: dict[str, st.SearchStrategy[Any]] = {
    "hold": st.sampled_from(["retries", "no", *SPANS]),
    "resolve": st.sampled_from(["success", "never", *SPANS]),
    "flapping": flappings,
    "inhibit": st.sampled_from([{"rules": ["one"]}, {"parents": False}, {"rules": ["two"], "parents": False}]),
    "mute": st.lists(mutes, min_size=1, max_size=1),
    "escalate": escalations,
    "repeat_every": spans,
    "update_every": spans,
    "digest": spans,
    "subject": st.just("{{ rule }} {{ count }}"),
}
more = st.sampled_from([*optional, "flapping", "mute", "inhibit"]).flatmap(
    lambda name: st.tuples(st.just(name), optional[name])
)


def _rules(*names: str) -> st.SearchStrategy[Rule]:
    return st.builds(
        lambda name, match, threshold, group_by, told, more: Rule.model_validate(
            {"name": name, "match": match, "threshold": threshold, "group_by": group_by, "channels": told, **dict(more)}
        ),
        st.sampled_from(names), matches, thresholds, groups,
        st.sampled_from([["ops"], ["mail"], ["ops", "chat"], []]), st.lists(more, min_size=1, max_size=4),
    )  # fmt: skip


rates = st.sampled_from([None, None, "1/5m", "2/1h"])
channels = st.builds(
    lambda name, rate, fallback: Channel(
        name=name, kind="webhook", settings={"url": "env:U"}, rate=rate, fallback=fallback
    ),
    st.sampled_from(CHANNELS), rates, st.sampled_from([(), (), ("mail",)]),
)  # fmt: skip

Step = tuple[str, dict[str, Any]]


def _step(name: str, /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.fixed_dictionaries(fields))


ends = st.sampled_from(["completed", "completed", "failed", "failed", "failed", "crashed", "cancelled"])
changes = st.sampled_from(["running", "running", "awaiting_retry", "scheduled", "paused"])
tasks = st.sampled_from(["running", "failed", "failed", "awaiting_retry", "completed"])
errors = st.sampled_from([None, "ValueError", "KeyError"])
_number = st.integers(0, len(RUNS) - 1)
_steps: dict[str, tuple[int, st.SearchStrategy[Step]]] = {
    "create": (3, _step("create", run=_number, flow=st.sampled_from(FLOWS), parent=st.none() | _number,
                        tags=st.sampled_from([[], ["prod"], ["team=core"]]))),
    "change": (4, _step("run", run=_number, suffix=changes, attempt=st.integers(1, 3), error=errors)),
    "end": (6, _step("run", run=_number, suffix=ends, attempt=st.integers(1, 3), error=errors)),
    "whole": (20, _step("whole", flow=st.sampled_from(FLOWS), suffix=ends, error=errors)),
    "task": (3, _step("task", run=_number, task=st.integers(0, len(TASKS) - 1), suffix=tasks, error=errors)),
    "emit": (2, _step("emit", event=st.sampled_from(["data.late", "other"]), run=st.none() | _number)),
    "rule": (1, _step("rule", rule=_rules(*NAMES))),
    "rule gone": (1, _step("rule gone", name=st.sampled_from(NAMES))),
    "channel": (1, _step("channel", channel=channels)),
    "silence": (1, _step("silence", span=st.sampled_from([60, 4000]), flow=st.sampled_from([[], ["etl"]]))),
    "no silence": (1, _step("no silence")),
    "acknowledge": (1, _step("acknowledge", which=st.integers(0, 3))),
    "retry": (1, _step("retry")),
    "wait": (7, _step("wait", seconds=st.sampled_from([0, 1, 20, 40, 299, 300, 1800, 4000]))),
    "work": (7, _step("work", problems=st.lists(st.sampled_from(["later", "unknown", "final"]), max_size=2))),
}  # fmt: skip
"""What may happen, and how often beside the rest."""
_often = [name for name, (weight, _) in _steps.items() for _ in range(weight)]
steps = st.sampled_from(_often).flatmap(lambda name: _steps[name][1])


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Make up what people set, what runs do, when time goes by, and when somebody looks."""
    begin: list[Step] = [("channel", {"channel": draw(channels)}) for _ in range(3)]
    begin += [("rule", {"rule": draw(_rules(name))}) for name in NAMES]
    if draw(st.booleans()):
        begin.append(("routes", {}))
    return [*begin, *draw(st.lists(steps, min_size=20, max_size=60))]


class CountedIds:
    """Ids and chance that are the same each time."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._seed, self._count = seed, 0

    def new(self) -> bytes:
        """Return the next id."""
        self._count += 1
        return bytes([self._seed, *b"law"]) + (7 << 76 | 2 << 62 | self._count).to_bytes(12, "big")

    def slug(self) -> str:
        """Return the next name."""
        return f"run-{self._count}"

    def chance(self) -> float:
        """Return the next number."""
        return self._chance.random()


class Notifier:
    """Takes what it is sent, or does not."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.problems: list[str] = []

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Take a message, unless there is a problem next."""
        problem = self.problems.pop(0) if self.problems else ""
        if problem in ("", "unknown"):
            self.sent.append(message)
        if problem:
            raise DeliveryError(problem, is_final=problem == "final", is_unknown=problem == "unknown")
        return {"ts": str(len(self.sent))}


@dataclass
class Habits:
    """How the followers of a world go to work.

    Attributes:
        followers: how many there are; they take turns as far as they can.
        dies: tells before each work if whoever worked last dies first, leaving nothing but the log and what is aside.
        spoils: tells before each work if what is put aside is deleted.
        breaks: tells, once decisions are on record, if whoever made them dies before it can note how far it has come.
        keeps: whether anything is put aside.
    """

    followers: int = 1
    dies: Callable[[], bool] = lambda: False
    spoils: Callable[[], bool] = lambda: False
    breaks: Callable[[], bool] = lambda: False
    keeps: bool = True


class Died(BaseException):
    """A process was killed."""


class Mortal(Follower):
    """Dies when its habits say so."""

    habits: Habits

    def _record(self, fold: Fold, decisions: list[Decision]) -> None:
        super()._record(fold, decisions)
        if decisions and self.habits.breaks():
            raise Died


class World:
    """A log in virtual time with rules at work."""

    def __init__(self, habits: Habits | None = None) -> None:
        self.habits = habits or Habits()
        self.clock = VirtualClock()
        self.log = Log(MemoryStore(self.clock, bytes(16)))
        self.ids = CountedIds(1)
        self.notifier = Notifier()
        self.delivery = Delivery(
            self.log, self.clock, CountedIds(2), notifier=lambda _: self.notifier  # type: ignore[arg-type, return-value]
        )  # fmt: skip
        self._place = FilePlace(None)
        self._asides = Asides(self.log, self._place) if self.habits.keeps else None
        self.followers = [self._follower() for _ in range(self.habits.followers)]
        self._turn = 0
        self._made = 0

    def _follower(self) -> Follower:
        made = Mortal(self.log, asides=self._asides)
        made.habits = self.habits
        return made

    # --- what happens -------------------------------------------------------------------------------

    def live(self, history: list[Step]) -> Self:
        """Let all of a history happen, and look at the end."""
        for name, fields in history:
            getattr(self, f"_{name.replace(' ', '_')}")(**fields)
        self.habits.breaks = lambda: False
        self._work([])
        self._wait(9000)
        self._work([])
        return self

    def _append(self, stream: str, type_: str, data: dict[str, Any]) -> None:
        kept = {key: value for key, value in data.items() if value is not None}
        self.log.append(stream, [NewEvent(self.ids.new(), type_, kept, self.clock.now())])

    def _wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _is_there(self, run: int) -> bool:
        return next(self.log.read(flow_run_stream(id_text(RUNS[run]))), None) is not None

    def _create(self, run: int, flow: str, parent: int | None, tags: list[str]) -> None:
        if self._is_there(run):
            return
        parent_id = None if parent is None or not self._is_there(parent) else RUNS[parent]
        data = {"flow": flow, "name": f"{flow}-{run}", "tags": tags or None, "parent_flow_run_id": parent_id}
        self._append(flow_run_stream(id_text(RUNS[run])), "flow_run.created", data)

    def _run(self, run: int, suffix: str, attempt: int, error: str | None) -> None:
        self._create(run, FLOWS[run % 2], None, [])  # if it is not there
        data: dict[str, Any] = {"error": None if error is None else {"type": error, "message": "broken"}}
        if suffix == "running":
            data = {"attempt": attempt}
        elif suffix == "awaiting_retry":
            data["scheduled"] = self.clock.now()
        elif suffix in ("scheduled", "paused"):
            data = {}
        else:
            data["attempt"] = attempt
        self._append(flow_run_stream(id_text(RUNS[run])), f"flow_run.{suffix}", data)

    def _whole(self, flow: str, suffix: str, error: str | None) -> None:
        """Have a run begin and end."""
        self._made += 1
        stream = flow_run_stream(id_text(bytes([9]) * 6 + self._made.to_bytes(10, "big")))
        self._append(stream, "flow_run.created", {"flow": flow, "name": f"{flow}-whole-{self._made}"})
        self._append(stream, "flow_run.running", {})
        self.clock.advance(0.5)
        self._append(stream, f"flow_run.{suffix}", {"error": error and {"type": error, "message": "broken"}})

    def _task(self, run: int, task: int, suffix: str, error: str | None) -> None:
        self._create(run, FLOWS[run % 2], None, [])  # if it is not there
        stream, identifier = flow_run_stream(id_text(RUNS[run])), TASKS[task]
        known = (e.data.get("task_run_id") for e in self.log.read(stream) if e.type == "task_run.created")
        if identifier not in known:
            created = {"task_run_id": identifier, "task": f"t{task}", "key": "k", "name": f"t{task}-0"}
            self._append(stream, "task_run.created", created)
        data: dict[str, Any] = {"task_run_id": identifier}
        if suffix != "running":
            data["error"] = error and {"type": error, "message": "broken"}
        if suffix == "awaiting_retry":
            data["scheduled"] = self.clock.now()
        self._append(stream, f"task_run.{suffix}", data)

    def _emit(self, event: str, run: int | None) -> None:
        if run is not None:
            self._create(run, FLOWS[run % 2], None, [])  # if it is not there
        data = {"event": event, "resource": {"flightlog.resource.id": "x"}, "payload": '{"a": 1}',
                "flow_run_id": None if run is None else RUNS[run]}  # fmt: skip
        self._append(f"emitted/{event}", "event.emitted", data)

    # --- what people do -----------------------------------------------------------------------------

    def _rule(self, rule: Rule) -> None:
        data = {"name": rule.name, "rule": rule.model_dump_json(by_alias=True, exclude_defaults=True)}
        self._append(rule_stream(rule.name), RULE_SET, data)

    def _rule_gone(self, name: str) -> None:
        self._append(rule_stream(name), RULE_REMOVED, {"name": name})

    def _channel(self, channel: Channel) -> None:
        Configurator(self.log, self.clock, self.ids).set_channel(channel)

    def _routes(self) -> None:
        routes = (
            Route.model_validate({"flow": "etl", "channels": ["ops"], "continue": True}),
            Route(channels=("mail",)),
        )
        self.log.append_all([Configurator(self.log, self.clock, self.ids)._routes(routes, None)])

    def _silence(self, span: float, flow: list[str]) -> None:
        self._made += 1
        name = f"s{self._made}"
        data = {"silence": name, "until": self.clock.now() + round(span * 1e6), "flow": flow}
        self._append(silence_stream(name), SILENCE_ADDED, data)

    def _no_silence(self) -> None:
        for event in list(self.log.read_all(types=[SILENCE_ADDED])):
            self._append(event.stream, SILENCE_ENDED, {"silence": event.data["silence"]})

    def _acknowledge(self, which: int) -> None:
        opened = [event.data["incident"] for event in self.log.read_all(types=[INCIDENT_OPENED])]
        if which < len(opened):
            self._append(incident_stream(opened[which]), INCIDENT_ACKNOWLEDGED, {"incident": opened[which]})

    def _retry(self) -> None:
        for stream, state in self.log.states("outbox").items():
            if state["dead"]:
                self._append(stream, NOTIFICATION_RETRIED, {"notification": state["notification"]})
                assert stream == notification_stream(state["notification"])

    # --- work ---------------------------------------------------------------------------------------

    def _work(self, problems: list[str]) -> None:
        if self.habits.spoils() and self._asides is not None:
            self._place.prepare()
            with self._place.engine.begin() as connection:
                asides.metadata.drop_all(connection, [asides])
        if self.habits.dies():
            for number, follower in enumerate(self.followers):
                Subscription.close(follower)  # its lease is over; nothing else of it is left
                self.followers[number] = self._follower()
        self._turn += 1
        self.notifier.problems = list(problems)
        with suppress(Died):
            while self._fold() or self.delivery.step():
                pass

    def _fold(self) -> int:
        """Have one follower take a step: whose turn it is, unless another one has the cursor."""
        for number in range(len(self.followers)):
            done = self.followers[(self._turn + number) % len(self.followers)].step()
            if done is not None:
                return done
        raise AssertionError("nobody folds the rules")

    # --- what came of it ----------------------------------------------------------------------------

    def decisions(self) -> list[Event]:
        """Return the decisions that are on record."""
        return list(self.log.read_all(types=DECISIONS))

    def on_record(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return all that is on record, as far as it does not say which process did it."""
        told = []
        for event in self.log.read_all():
            data = {key: value for key, value in event.data.items() if key != "process"}
            told.append((event.stream, event.type, data))
        return told

    def sent(self) -> list[tuple[str, str, bool]]:
        """Return what was sent."""
        return [(message.key, message.kind, message.repeat) for message in self.notifier.sent]

    def close(self) -> None:
        """Give back all that is open."""
        for follower in self.followers:
            follower.close()
        self._place.close()
        self.log.close()


@contextmanager
def lived(history: list[Step], habits: Habits | None = None) -> Iterator[World]:
    """Return a world in which a history has happened."""
    world = World(habits)
    try:
        yield world.live(history)
    finally:
        world.close()
