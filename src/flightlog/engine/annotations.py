"""Marks that say how an argument is to be treated."""

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Annotation(Generic[T]):
    """An argument with a mark on it."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        """Return the argument itself."""
        return self.value

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.value == other.value

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):  # noqa: N801 - reads as a word in a call
    """Give this argument whole to every child of `map`, though it can be iterated over."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> T:
        return self.value


class allow_failure(Annotation[T]):  # noqa: N801
    """Run even if this upstream run failed; its exception is given in place of its value."""

    __slots__ = ()


class quote(Annotation[T]):  # noqa: N801
    """Give this argument as it is: do not look into it for futures, do not track it."""

    __slots__ = ()
