"""A plug-in of a process: what it says of itself, and how it fares."""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from flightlog.plugins.isolation import Isolated
from flightlog.plugins.manifests import Manifest

Status = Literal["ready", "loaded", "not wanted", "skipped", "switched off", "closed"]
_REMEMBERED: Final = 100


@dataclass(slots=True, eq=False)
class Plugin:
    """A plug-in and how it fares in this process.

    Attributes:
        manifest: what it says of itself.
        status: what it is to the host.
        reason: why it is not used, if it is not.
        calls: how often each hook was called.
        failures: how often each hook failed.
        seconds: how long each hook took in all.
        in_a_row: how many calls have failed since one succeeded.
        problems: what went wrong lately, oldest first.
        functions: its hooks, once it is loaded.
        offers: what it has returned for the hooks that ask.
        thread: where it is called.
        lock: held while it is imported, and asked for what it offers.
    """

    manifest: Manifest
    status: Status = "ready"
    reason: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    in_a_row: int = 0
    problems: "deque[Problem]" = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    functions: dict[str, tuple[Callable[..., Any], Sequence[str]]] = field(default_factory=dict)
    offers: dict[str, Any] = field(default_factory=dict)
    thread: Isolated = field(init=False)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.thread = Isolated(self.name)

    @property
    def name(self) -> str:
        """Its name."""
        return self.manifest.name

    @property
    def is_usable(self) -> bool:
        """Whether it can be called."""
        return self.status in ("ready", "loaded")

    def owns(self, name: str) -> bool:
        """Tell whether a name of something that it brings begins with its own: ``acme.loaded``, ``acme_tables``."""
        own, name = self.name.replace("-", "_"), name.replace("-", "_")
        return name == own or name.startswith((f"{own}_", f"{own}."))

    def alone(self) -> AbstractContextManager[Any]:
        """Keep others from importing and asking it; not from itself, which would wait for who waits for it."""
        return nullcontext() if self.thread.is_here else self.lock


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong with a plug-in.

    Attributes:
        plugin: the plug-in.
        kind: ``skipped``, ``failed``, ``lagged`` or ``switched_off``.
        text: what went wrong.
        hook: the hook that was called; empty for none.
        took: how long the call took, in seconds.
    """

    plugin: Plugin
    kind: Literal["skipped", "failed", "lagged", "switched_off"]
    text: str
    hook: str = ""
    took: float = 0.0
