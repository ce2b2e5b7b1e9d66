"""Input that is sent to a flow run while it is going, from other runs or from anywhere else."""

from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

from flightlog.engine.context import CURRENT, check, get_run_context
from flightlog.engine.privacy import check_open
from flightlog.engine.runtime import Engine, current_engine
from flightlog.errors import RunNotFound
from flightlog.events.model import Event, NewEvent
from flightlog.events.types import INPUT_SENT, input_stream
from flightlog.ids import id_text, parse_id
from flightlog.later import running_loop
from flightlog.masking import MASKER

_POLL = 0.02


def _name_of(kind: Any) -> str:
    """Return what tells the types of inputs apart."""
    return getattr(kind, "__name__", None) or str(kind)


@dataclass(frozen=True, slots=True)
class ReceivedInput:
    """An input that has come, with what is known of it.

    Attributes:
        value: the input.
        key: what tells it from others.
        sender: the flow run that sent it, or None.
    """

    value: Any
    key: str
    sender: str | None

    def respond(self, run_input: Any) -> "_Sent":
        """Send something back to the flow run that this came from.

        Raises:
            RuntimeError: it came from no flow run.
        """
        if self.sender is None:
            raise RuntimeError("Cannot respond to an input that no flow run has sent.")
        return send_input(run_input, self.sender)


class _Sent:
    """What sending returns: nothing; async code may await it, as in Prefect 2."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


def send_input(run_input: Any, flow_run_id: str, *, engine: Engine | None = None) -> _Sent:
    """Send an input to a flow run, which takes it with `receive_input`.

    Args:
        run_input: the input: a model, or any value that pydantic knows.
        flow_run_id: the flow run's id.
        engine: the engine; this process's by default.

    Raises:
        RunNotFound: that is no id of a flow run.
        PersonalValues: it is sent by a run that has personal values.
    """
    context = CURRENT.get()
    check_open(context, INPUT_SENT)
    engine = engine or (current_engine() if context is None else context.flow_context.engine)
    try:
        text = id_text(parse_id(str(flow_run_id)))
    except ValueError:
        raise RunNotFound(f"{flow_run_id!r} is no id of a flow run.") from None
    data = TypeAdapter(type(run_input)).dump_json(run_input).decode()
    told: dict[str, Any] = {"type": _name_of(type(run_input)), "data": MASKER.mask(data)}
    if context is not None:
        told["sender"] = context.flow_context.flow_run.key
    event = NewEvent(engine.ids.new(), INPUT_SENT, told, engine.clock.now())
    engine.log.append(input_stream(text), [event])
    return _Sent()


class receive_input:  # noqa: N801 - it is called like a function
    """Iterate over the inputs of a type that are sent to a flow run, as they come; with ``async for`` in async code.

    Args:
        input_type: the type: a model, or any type that pydantic knows. Inputs of other types are left alone.
        timeout: how many seconds to wait for each; None for ever. Then the iteration ends.
        poll_interval: how long it may take until one is noticed, in seconds.
        raise_timeout_error: whether to raise `TimeoutError` when the time is over.
        exclude_keys: keys of inputs that are not wanted.
        with_metadata: whether to give `ReceivedInput` objects rather than the values.
        flow_run_id: the flow run; the one that this code is in by default.
    """

    def __init__(
        self,
        input_type: Any,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        *,
        raise_timeout_error: bool = False,
        exclude_keys: Iterable[str] = (),
        with_metadata: bool = False,
        flow_run_id: str | None = None,
    ) -> None:
        context = CURRENT.get()
        self._engine = current_engine() if context is None else context.flow_context.engine
        run = flow_run_id or get_run_context().flow_context.flow_run.id
        self._stream = input_stream(str(run))
        self._adapter: TypeAdapter[Any] = TypeAdapter(input_type)
        self._type = _name_of(input_type)
        self._timeout = timeout
        self._poll = min(poll_interval, _POLL)
        self._raises = raise_timeout_error
        self._seen = set(exclude_keys)
        self._with_metadata = with_metadata
        self._after = 0

    def _next(self) -> list[Any]:
        """Return the next input, if there is one."""
        for event in self._engine.log.read(self._stream, self._after):
            self._after = event.version
            key = id_text(event.id)
            if event.type == INPUT_SENT and event.data["type"] == self._type and key not in self._seen:
                self._seen.add(key)
                return [self._read(event, key)]
        return []

    def _read(self, event: Event, key: str) -> Any:
        value = self._adapter.validate_json(event.data["data"])
        if not self._with_metadata:
            return value
        sender = event.data.get("sender")
        return ReceivedInput(value, key, None if sender is None else id_text(sender))

    def _late(self, since: int) -> bool:
        context = CURRENT.get()
        if context is not None:
            check(context)
        late = self._timeout is not None and self._engine.clock.now() - since >= self._timeout * 1e6
        if late and self._raises:
            raise self._too_late()
        return late

    def _too_late(self) -> TimeoutError:
        return TimeoutError(f"No input of type {self._type!r} came within {self._timeout:g} seconds.")

    def next(self) -> Any:
        """Return the next input; in async code, what is to be awaited for it.

        Raises:
            TimeoutError: none came in time.
        """
        if running_loop() is not None:
            return self._next_later()
        for value in self:
            return value
        raise self._too_late()

    async def _next_later(self) -> Any:
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise self._too_late() from None

    def __iter__(self) -> Iterator[Any]:
        while True:
            since = self._engine.clock.now()
            while not (found := self._next()):
                if self._late(since):
                    return
                self._engine.clock.sleep(self._poll)
            yield found[0]

    def __next__(self) -> Any:
        return next(iter(self))

    async def __anext__(self) -> Any:
        async with aclosing(self.__aiter__()) as coming:
            return await anext(coming)

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        while True:
            since = self._engine.clock.now()
            while not (found := self._next()):
                if self._late(since):
                    return
                await self._engine.clock.sleep_async(self._poll)
            yield found[0]


class RunInputMessages(BaseModel):
    """What models of run inputs can do besides: be sent, and be received."""

    def send_to(self, flow_run_id: str) -> _Sent:
        """Send this input to a flow run. See `send_input`."""
        return send_input(self, flow_run_id)

    @classmethod
    def receive(cls, timeout: float | None = 3600, poll_interval: float = 10, **options: Any) -> receive_input:
        """Iterate over inputs of this type. See `receive_input`."""
        return receive_input(cls, timeout, poll_interval, **options)


__all__ = ["ReceivedInput", "RunInputMessages", "receive_input", "send_input"]
