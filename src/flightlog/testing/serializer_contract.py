"""What every serializer must do: inherit from `SerializerContract`, give it one and values, and run it with pytest."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import pytest

from flightlog.engine.flows import Flow
from flightlog.engine.serializers import Serializer, serializer_of
from flightlog.engine.tasks import Task
from flightlog.testing.engines import memory_engine


class _Closed:
    """Something that nobody can write down."""

    def __reduce__(self) -> Any:
        raise TypeError("it cannot be written down")

    def __repr__(self) -> str:
        return "<closed>"


class SerializerContract(ABC):
    """The contract of a serializer, as tests. Override `serializer`, a fixture that returns one.

    Attributes:
        values: values that come back equal to what they were.
        refused: a value that it cannot take.
    """

    values: Sequence[Any] = (0, -1.5, "text", "", [1, [2, 3]], {"k": "v"})
    refused: Any = _Closed()

    @pytest.fixture
    @abstractmethod
    def serializer(self) -> Any:
        """Return a serializer."""

    def test_values_come_back(self, serializer: Serializer) -> None:
        """As equal ones of the same type, and from bytes."""
        for value in self.values:
            content = serializer.dumps(value)
            assert isinstance(content, bytes)
            again = serializer.loads(content)
            assert again == value
            assert type(again) is type(value)

    def test_writing_changes_no_value(self, serializer: Serializer) -> None:
        """Writing a value twice gives what can be read twice."""
        for value in self.values:
            before = repr(value)
            first, second = serializer.dumps(value), serializer.dumps(value)
            assert repr(value) == before
            assert serializer.loads(first) == serializer.loads(second)

    def test_its_spec_makes_an_equal_one(self, serializer: Serializer) -> None:
        """The spec is put on record, begins with the serializer's type, and is all that a later process has."""
        assert serializer.type
        assert serializer.spec.partition("/")[0] == serializer.type
        again = serializer_of(serializer.spec)
        assert again == serializer
        assert type(again) is type(serializer)
        for value in self.values:
            assert again.loads(serializer.dumps(value)) == value

    def test_what_it_cannot_take_is_refused(self, serializer: Serializer) -> None:
        """With an exception, and never with bytes that mean something else."""
        with pytest.raises(Exception):  # noqa: B017, PT011 - any
            serializer.dumps(self.refused)

    def test_values_of_runs_are_written_with_it(self, serializer: Serializer) -> None:
        """They come back in the flow, and from the log."""
        for value in self.values:
            written = _giving(value, serializer)
            with memory_engine() as engine:
                assert Flow(lambda written=written: written(), name="contract")() == value
                (event,) = engine.log.read_all(types=["task_run.completed"])
                reference = event.data["result"]
                if "value" not in reference:
                    assert reference["serializer"] == serializer.spec
                    assert serializer.loads(engine.log.blob(reference["digest"])) == value

    def test_a_run_whose_value_is_refused_completes(self, serializer: Serializer) -> None:
        """The value is not recorded, and the event says why."""
        refused = _giving(self.refused, serializer)
        with memory_engine() as engine:
            assert Flow(lambda: refused() is self.refused, name="contract")() is True
            (event,) = engine.log.read_all(types=["task_run.completed"])
            assert event.data["result"]["not_recorded"]


def _giving(value: Any, serializer: Serializer) -> Task[..., Any]:
    """Return a task that returns a value."""

    def give() -> Any:
        return value

    return Task(give, name="give", result_serializer=serializer, persist_result=True)
