"""A log in virtual time with rules at work, and notifiers that are told what to do."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from flightlog.engine.runtime import Engine
from flightlog.ids import RandomIds
from flightlog.notifications.configuring import Configurator
from flightlog.notifications.delivery import Delivery
from flightlog.notifications.following import Follower
from flightlog.notifications.notifier import DeliveryError, Message, Receipt
from flightlog.notifications.rules import Configuration
from flightlog.testing import VirtualClock, memory_engine


class Notifier:
    """Keeps what it is sent; raises what it is told to."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.problem: DeliveryError | None = None

    async def send(self, message: Message, *, timeout: float) -> Receipt:
        """Keep a message."""
        if self.problem is not None:
            raise self.problem
        self.sent.append(message)
        return {"ts": str(len(self.sent))}


class World:
    """A log in virtual time with rules at work."""

    def __init__(self, engine: Engine, clock: VirtualClock) -> None:
        self.engine, self.clock = engine, clock
        self.notifiers = {"ops": Notifier(), "mail": Notifier()}
        self.follower = Follower(engine.log)
        self.delivery = Delivery(
            engine.log, clock, RandomIds(), notifier=lambda channel: self.notifiers[channel.name]  # type: ignore[arg-type, return-value]
        )  # fmt: skip

    def configure(
        self, *rules: dict[str, Any], routes: Sequence[dict[str, Any]] = (), channels: Mapping[str, Any] | None = None
    ) -> None:
        """Have these rules count, with changes to some channels if need be."""
        usual = {"kind": "webhook", "settings": {"url": "env:U"}}
        wanted = {
            "rules": [{"channels": ["ops"], **rule} for rule in rules],
            "channels": [{"name": name, **usual, **(channels or {}).get(name, {})} for name in self.notifiers],
            "routes": routes,
        }
        Configurator(self.engine.log, self.clock, RandomIds()).synchronise(Configuration.model_validate(wanted), "here")

    def work(self) -> None:
        """Fold and send until there is nothing more."""
        self.engine.log.flush()
        while self.follower.step() or self.delivery.step():
            pass

    def kinds(self, channel: str = "ops") -> list[str]:
        """Return what was sent through a channel, by kind."""
        return [message.kind for message in self.notifiers[channel].sent]


@contextmanager
def working() -> Iterator[World]:
    """Open a log in virtual time with rules at work; flows run on it."""
    clock = VirtualClock()
    with memory_engine(clock) as engine:
        made = World(engine, clock)
        with closing(made.follower):
            yield made
